//! Bytes of a record to a row of the model's inputs, and logits to bytes.

mod json;

pub use json::{JsonDecoder, JsonError};
