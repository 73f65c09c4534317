//! EndTxn (26), versions 0 to 5: a producer commits or aborts its transaction.
//!
//! The decision is on the device before the answer, and before that all that the transaction has written,
//! whatever durability the topics have; the markers follow. From version 5 on (KIP-890) the producer's
//! epoch is raised, and the answer says who it is from now on.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};
use storage::batch::TransactionResult;

use crate::api::transaction_version;
use crate::router::{Reply, RequestContext};
use crate::transaction::machine::{End, Producer};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

/// From this version on, clients know PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;

/// Ends it.
pub async fn handle(ctx: &RequestContext, request: EndTxnRequest) -> Reply<EndTxnResponse> {
    let end = End {
        producer: Producer {
            id: request.producer_id.0,
            epoch: request.producer_epoch,
        },
        result: match request.committed {
            true => TransactionResult::Commit,
            false => TransactionResult::Abort,
        },
        version: transaction_version::of_request(ctx.api_version),
    };
    let transactional_id = request.transactional_id.as_str();
    let ended = ctx.broker.transactions.end(transactional_id, end).await;
    let response = EndTxnResponse::default();
    Reply::Now(match ended {
        Ok(producer) => response
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch),
        Err(error) => {
            let error = transaction_version::for_client(error, ctx.api_version, FENCED_SINCE);
            // Fatal: all that is known of the transaction is that it was aborted.
            let instead = ResponseError::UnknownServerError;
            let error = transaction_version::abortable(error, ctx.api_version, instead);
            response.with_error_code(error.code())
        }
    })
}
