//! Record batch v2 (magic 2), as in Kafka's `DefaultRecordBatch`.
//!
//! A batch is a header of 61 bytes and its records, compressed together or not at all. Its life:
//!
//! 1. a client sends it, and [`validate_client_batch`] reads it without copying or decompressing;
//! 2. [`patch_header`] gives the header with the offset and the leader epoch of its append, which
//!    the CRC does not cover; the log writes that header and the client's own bytes after it;
//!    where the topic asks for another codec, `rewrite.rs` makes another batch of the same records first;
//! 3. fetches return those bytes as they are, found with [`batches`];
//! 4. who wants the records themselves calls [`decode`], or reads them one by one from an [`Opened`]
//!    batch; who makes some uses a [`BatchBuilder`];
//! 5. a transaction's batches are followed by a control batch that ends it: `marker.rs`;
//! 6. compaction takes records out of it, some or all: `retain.rs` makes the batch that stays.
//!
//! [`layout`] has the field offsets, [`header`] a typed view over bytes, [`validate`] what is
//! checked before a batch is stored, [`records`] iteration and building, in every codec. No input
//! panics, and none makes them allocate more than it is worth or the caller allows.

mod codec;
pub mod header;
pub mod layout;
pub(crate) mod marker;
mod record_view;
pub mod records;
pub(crate) mod retain;
pub(crate) mod rewrite;
pub mod validate;

pub use codec::compress;
pub use header::{
    Batch, Compression, TimestampType, batches, patch_header, patch_header_with_log_append_time,
};
pub use marker::{ControlRecord, EndMarker, TransactionResult};
pub use records::{BatchBuilder, EncodedHeaders, Header, Opened, Record, decode};
pub use validate::{Limits, validate_client_batch};
