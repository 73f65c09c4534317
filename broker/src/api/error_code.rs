//! From the rooms' errors to Kafka's codes, in one exhaustive match each, so that a new error
//! cannot be added without deciding what clients are told.
//!
//! The choice is made by what the common clients do with a code (the Java client and librdkafka):
//! which ones they retry, and which ones they give up on and show.

use kafka_protocol::ResponseError;
use storage::Error;

use crate::catalog::CatalogError;

/// The code for a storage error, on Produce, Fetch and ListOffsets alike.
pub fn of_storage(error: &Error) -> ResponseError {
    match error {
        // Clients send the batch again: bytes are usually damaged on the way.
        Error::CorruptBatch(_) => ResponseError::CorruptMessage,
        // Only Fetch meets it, where Kafka says the same. Java consumers throw and librdkafka gives
        // the application an error, each at every attempt, until somebody seeks behind the damage:
        // KAFKA_STORAGE_ERROR would have both ask again for ever without a word, and
        // OFFSET_OUT_OF_RANGE would have them reset, which skips.
        Error::Damaged { .. } => ResponseError::CorruptMessage,
        // As Kafka answers Produce v3 and newer for magic 0 and 1.
        Error::InvalidRecord(_) | Error::InvalidRecordAt { .. } | Error::UnsupportedMagic(_) => {
            ResponseError::InvalidRecord
        }
        Error::InvalidTimestamp { .. } | Error::TimestampTypeOfBroker => {
            ResponseError::InvalidTimestamp
        }
        Error::BatchTooLarge { .. } => ResponseError::MessageTooLarge,
        Error::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        // Not PRODUCER_FENCED, which only transactional producers understand (KIP-588).
        Error::StaleProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        Error::TransactionIsOpen { .. } => ResponseError::InvalidTxnState,
        Error::StaleCoordinatorEpoch { .. } => ResponseError::TransactionCoordinatorFenced,
        Error::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        // Consumers back off and try again without a word. LEADER_NOT_AVAILABLE would do for
        // librdkafka, but the Java consumer throws on it in a Fetch response.
        Error::NotReadable => ResponseError::OffsetNotAvailable,
        // Clients refresh their metadata, and then learn that the topic is gone.
        Error::Closed => ResponseError::NotLeaderOrFollower,
        Error::ReadOnly(_) | Error::Locked(_) | Error::CorruptFile { .. } | Error::Io { .. } => {
            ResponseError::KafkaStorageError
        }
    }
}

/// The code for a catalog error.
pub fn of_catalog(error: &CatalogError) -> ResponseError {
    match error {
        CatalogError::TopicExists(_) => ResponseError::TopicAlreadyExists,
        CatalogError::UnknownTopic(_) => ResponseError::UnknownTopicOrPartition,
        CatalogError::InvalidName(..) => ResponseError::InvalidTopicException,
        CatalogError::InvalidPartitions(..) | CatalogError::NotAnIncrease { .. } => {
            ResponseError::InvalidPartitions
        }
        CatalogError::Owned { .. } => ResponseError::PolicyViolation,
        CatalogError::NotDynamic(_) | CatalogError::TooLarge(_) => ResponseError::InvalidRequest,
        CatalogError::InvalidConfig { .. } => ResponseError::InvalidConfig,
        // Kafka's admins know it as "the disk failed"; a client may try again.
        CatalogError::FolderInTheWay(_)
        | CatalogError::Missing { .. }
        | CatalogError::Corrupt { .. }
        | CatalogError::Unusable { .. } => ResponseError::KafkaStorageError,
        CatalogError::ProducerIdsExhausted | CatalogError::Encode(_) => {
            ResponseError::UnknownServerError
        }
        // The client asks again, and finds another broker, or this one when it is back.
        CatalogError::Stopping => ResponseError::NotController,
        CatalogError::Storage(error) => of_storage(error),
    }
}
