//! What the transaction APIs share: which `transaction.version` a request goes by (KIP-890), and errors as
//! its version knows them.

use kafka_protocol::ResponseError;

use crate::transaction::machine::Refusal;
use crate::transaction::records::TransactionVersion;

/// Produce adds partitions to transactions from this version on.
const PRODUCE_ADDS_SINCE: i16 = 12;
/// Produce answers TRANSACTION_ABORTABLE from this version on.
const PRODUCE_ABORTABLE_SINCE: i16 = 11;
/// TxnOffsetCommit, and EndTxn, go by transactions version 2 from this version on.
const V2_SINCE: i16 = 5;
/// They answer TRANSACTION_ABORTABLE from this version on.
const ABORTABLE_SINCE: i16 = 4;

/// Of a Produce.
pub(super) fn of_produce(api_version: i16) -> TransactionVersion {
    match api_version >= PRODUCE_ADDS_SINCE {
        true => TransactionVersion::V2,
        false => TransactionVersion::V0,
    }
}

/// Of an EndTxn or a TxnOffsetCommit.
pub(super) fn of_request(api_version: i16) -> TransactionVersion {
    match api_version >= V2_SINCE {
        true => TransactionVersion::V2,
        false => TransactionVersion::V0,
    }
}

/// Of an AddPartitionsToTxn: brokers alone go by version 2.
pub(super) fn of_adding(api_version: i16) -> TransactionVersion {
    of_request(api_version)
}

/// PRODUCER_FENCED is INVALID_PRODUCER_EPOCH for clients of before `since` (KIP-588).
pub(super) fn for_client(error: ResponseError, api_version: i16, since: i16) -> ResponseError {
    match error {
        ResponseError::ProducerFenced if api_version < since => ResponseError::InvalidProducerEpoch,
        error => error,
    }
}

/// Why a batch of a transaction is not written, for Produce; as Kafka's `ReplicaManager` has it.
pub(super) fn for_produce(refusal: Refusal, api_version: i16) -> ResponseError {
    match refusal {
        // Tried again, as both of these.
        Refusal::Concurrent if api_version >= PRODUCE_ADDS_SINCE => {
            ResponseError::ConcurrentTransactions
        }
        Refusal::Concurrent
        | Refusal::NeedsProducerId
        | Refusal::Error(ResponseError::CoordinatorNotAvailable) => {
            ResponseError::NotEnoughReplicas
        }
        Refusal::Error(ResponseError::TransactionAbortable)
            if api_version < PRODUCE_ABORTABLE_SINCE =>
        {
            ResponseError::InvalidTxnState
        }
        Refusal::Error(ResponseError::ProducerFenced) => ResponseError::InvalidProducerEpoch,
        Refusal::Error(error) => error,
    }
}

/// Why offsets are not committed in a transaction, for TxnOffsetCommit.
pub(super) fn for_offsets(refusal: Refusal, api_version: i16) -> ResponseError {
    match refusal {
        // Tried again, as both of these.
        Refusal::Concurrent if api_version >= V2_SINCE => ResponseError::ConcurrentTransactions,
        Refusal::Concurrent | Refusal::NeedsProducerId => ResponseError::CoordinatorLoadInProgress,
        Refusal::Error(ResponseError::ProducerFenced) => ResponseError::InvalidProducerEpoch,
        Refusal::Error(error) => abortable(error, api_version, ResponseError::InvalidTxnState),
    }
}

/// TRANSACTION_ABORTABLE, for EndTxn and TxnOffsetCommit; before it was known, `instead`.
pub(super) fn abortable(
    error: ResponseError,
    api_version: i16,
    instead: ResponseError,
) -> ResponseError {
    match error {
        ResponseError::TransactionAbortable if api_version < ABORTABLE_SINCE => instead,
        error => error,
    }
}
