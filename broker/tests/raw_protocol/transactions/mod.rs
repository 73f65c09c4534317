//! Transactions in frames: every version of their APIs, and the rules that brokers are known to break.

mod producer;
mod rules;
mod versions;

use kafka_protocol::ResponseError;

/// A response's error, if it is one.
fn error(code: i16) -> Option<ResponseError> {
    ResponseError::try_from_code(code)
}
