//! Iterating and building the records of a batch, in every codec.

use bytes::Bytes;

use crate::batch::Compression;
use crate::error::Result;

/// A record's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 by the protocol, kept as bytes.
    pub key: Bytes,
    /// May be null.
    pub value: Option<Bytes>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// May be null.
    pub key: Option<Bytes>,
    /// May be null.
    pub value: Option<Bytes>,
    /// In order, duplicates allowed.
    pub headers: Vec<Header>,
}

/// Every record of one batch; never allocates more than `max_decompressed_bytes` for its
/// decompressed form.
pub fn decode(batch: &Bytes, max_decompressed_bytes: usize) -> Result<Vec<Record>> {
    todo!()
}

/// Builds one batch.
#[derive(Debug)]
pub struct BatchBuilder {}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(compression: Compression) -> Self { todo!() }
    /// Stamps a producer.
    pub fn producer(self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self { todo!() }
    /// Adds a record.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) { todo!() }
    /// Records so far.
    pub fn len(&self) -> usize { todo!() }
    /// No records so far.
    pub fn is_empty(&self) -> bool { todo!() }
    /// Size so far, before compression.
    pub fn size_in_bytes(&self) -> usize { todo!() }
    /// The batch: base offset 0, leader epoch -1, CRC set.
    pub fn build(self) -> Bytes { todo!() }
}
