//! InitProducerId (22), versions 0 to 5: ids for idempotent producers.
//!
//! Without a transactional id every request gets a new id with epoch 0, whatever id and epoch it
//! names (Kafka's `TransactionCoordinator.handleInitProducerId` does the same; KIP-360 lets only
//! transactional producers keep their id). Transactions are not served: a transactional id is
//! refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which both the Java client and librdkafka
//! take as fatal, where other codes would make librdkafka ask again for ever.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::router::{Reply, RequestContext};

/// Versions served. The crate also encodes version 6, which is not stable.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

/// "No producer id" and "no producer epoch" in a request.
const NONE: i64 = -1;

/// Gives a producer an id.
pub async fn handle(
    ctx: &RequestContext,
    request: InitProducerIdRequest,
) -> Reply<InitProducerIdResponse> {
    if let Some(error) = refusal(&request) {
        return Reply::Now(failed(error));
    }
    match ctx.broker.producer_ids.next().await {
        Ok(id) => Reply::Now(
            InitProducerIdResponse::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(0),
        ),
        Err(error) => {
            tracing::error!(%error, "no producer id could be reserved");
            // Both clients try again later, without looking for a coordinator first.
            Reply::Now(failed(ResponseError::CoordinatorLoadInProgress))
        }
    }
}

/// What is wrong with the request itself.
fn refusal(request: &InitProducerIdRequest) -> Option<ResponseError> {
    if request.transactional_id.is_some() {
        return Some(ResponseError::TransactionalIdAuthorizationFailed);
    }
    let id_is_none = request.producer_id.0 == NONE;
    let epoch_is_none = i64::from(request.producer_epoch) == NONE;
    // One without the other is nonsense (Kafka's `KafkaApis.handleInitProducerIdRequest`).
    (id_is_none != epoch_is_none).then_some(ResponseError::InvalidRequest)
}

fn failed(error: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_epoch(-1)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TransactionalId;
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    fn request(producer_id: i64, producer_epoch: i16) -> InitProducerIdRequest {
        InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(producer_epoch)
    }

    #[test]
    fn an_id_and_an_epoch_come_together_or_not_at_all() {
        assert_eq!(refusal(&request(-1, -1)), None);
        assert_eq!(refusal(&request(4000, 3)), None);
        assert_eq!(
            refusal(&request(4000, -1)),
            Some(ResponseError::InvalidRequest)
        );
        assert_eq!(
            refusal(&request(-1, 0)),
            Some(ResponseError::InvalidRequest)
        );
    }

    #[test]
    fn a_transactional_id_is_refused_for_good() {
        let request = request(-1, -1)
            .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("t"))));
        assert_eq!(
            refusal(&request),
            Some(ResponseError::TransactionalIdAuthorizationFailed)
        );
    }
}
