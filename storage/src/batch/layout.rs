//! Field offsets of record batch v2, in bytes from the batch's start. Big-endian.
//! Source: Kafka's `DefaultRecordBatch`.

/// int64.
pub const BASE_OFFSET: usize = 0;
/// int32: bytes after this field.
pub const BATCH_LENGTH: usize = 8;
/// int32. Not covered by the CRC.
pub const PARTITION_LEADER_EPOCH: usize = 12;
/// int8.
pub const MAGIC: usize = 16;
/// uint32: CRC-32C of everything after it.
pub const CRC: usize = 17;
/// int16.
pub const ATTRIBUTES: usize = 21;
/// int32.
pub const LAST_OFFSET_DELTA: usize = 23;
/// int64.
pub const BASE_TIMESTAMP: usize = 27;
/// int64.
pub const MAX_TIMESTAMP: usize = 35;
/// int64.
pub const PRODUCER_ID: usize = 43;
/// int16.
pub const PRODUCER_EPOCH: usize = 51;
/// int32.
pub const BASE_SEQUENCE: usize = 53;
/// int32.
pub const RECORDS_COUNT: usize = 57;
/// Where the records begin: the header's size.
pub const RECORDS: usize = 61;
/// `BATCH_LENGTH` counts from here.
pub const LOG_OVERHEAD: usize = 12;
/// The first byte that the CRC covers.
pub const CRC_COVERS_FROM: usize = ATTRIBUTES;
