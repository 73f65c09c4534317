//! Record batch v2 (magic 2), as in Kafka's `DefaultRecordBatch`.
//!
//! [`layout`] has the field offsets, [`header`] a typed view over bytes, [`validate`] what is
//! checked before a batch is stored, [`records`] iteration and building, in every codec.

pub mod header;
pub mod layout;
pub mod records;
pub mod validate;

pub use header::{Batch, Compression};
pub use records::{BatchBuilder, Header, Record};
