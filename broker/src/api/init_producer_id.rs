//! InitProducerId (22), versions 0 to 5: ids for idempotent producers, and the producers of transactional
//! ids.
//!
//! Without a transactional id every request gets a new id with epoch 0, whatever id and epoch it
//! names (Kafka's `TransactionCoordinator.handleInitProducerId` does the same; KIP-360 lets only
//! transactional producers keep their id). With one, the id's producer gets its next epoch, on the device
//! before the answer; whoever had it is fenced, and its open transaction aborted.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::api::transaction_version;
use crate::router::{Reply, RequestContext};
use crate::transaction::machine::{Init, Producer};

/// Versions served. The crate also encodes version 6, which is not stable.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

/// From this version on, clients know PRODUCER_FENCED.
const FENCED_SINCE: i16 = 4;

/// "No producer id" and "no producer epoch" in a request.
const NONE: i64 = -1;

/// Gives a producer an id.
pub async fn handle(
    ctx: &RequestContext,
    request: InitProducerIdRequest,
) -> Reply<InitProducerIdResponse> {
    let response = InitProducerIdResponse::default();
    Reply::Now(match init(ctx, &request).await {
        Ok(producer) => response
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch),
        Err(error) => {
            let error = transaction_version::for_client(error, ctx.api_version, FENCED_SINCE);
            response
                .with_error_code(error.code())
                .with_producer_epoch(-1)
        }
    })
}

async fn init(
    ctx: &RequestContext,
    request: &InitProducerIdRequest,
) -> Result<Producer, ResponseError> {
    let expected = expected(request)?;
    let transactions = &ctx.broker.transactions;
    match &request.transactional_id {
        None => {
            let id = transactions.new_producer_id().await?;
            Ok(Producer { id, epoch: 0 })
        }
        Some(transactional_id) => {
            let timeout_ms = request.transaction_timeout_ms;
            let init = Init {
                timeout_ms,
                expected,
            };
            transactions.init_producer_id(transactional_id, init).await
        }
    }
}

/// Who the producer says it was.
fn expected(request: &InitProducerIdRequest) -> Result<Option<Producer>, ResponseError> {
    let (id, epoch) = (request.producer_id.0, request.producer_epoch);
    match (id == NONE, i64::from(epoch) == NONE) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(Producer { id, epoch })),
        // One without the other is nonsense (Kafka's `KafkaApis.handleInitProducerIdRequest`).
        _ => Err(ResponseError::InvalidRequest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(producer_id: i64, producer_epoch: i16) -> InitProducerIdRequest {
        InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(producer_epoch)
    }

    #[test]
    fn an_id_and_an_epoch_come_together_or_not_at_all() {
        assert_eq!(expected(&request(-1, -1)), Ok(None));
        let producer = Producer { id: 4000, epoch: 3 };
        assert_eq!(expected(&request(4000, 3)), Ok(Some(producer)));
        assert_eq!(
            expected(&request(4000, -1)),
            Err(ResponseError::InvalidRequest)
        );
        assert_eq!(
            expected(&request(-1, 0)),
            Err(ResponseError::InvalidRequest)
        );
    }
}
