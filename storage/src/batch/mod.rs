//! Record batch v2 (magic 2), as in Kafka's `DefaultRecordBatch`.
//!
//! [`layout`] has the field offsets, [`header`] a typed view over bytes, [`validate`] what is
//! checked before a batch is stored, [`records`] iteration and building, in every codec.

mod codec;
pub mod header;
pub mod layout;
mod record_view;
pub mod records;
pub mod validate;

pub use header::{
    Batch, Compression, TimestampType, batches, patch_header, patch_header_with_log_append_time,
};
pub use records::{BatchBuilder, Header, Record, decode};
pub use validate::{Limits, validate_client_batch};
