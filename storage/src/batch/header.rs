//! A typed view over the bytes of one record batch.

use crate::error::Result;

/// How a batch's records are compressed: bits 0 to 2 of its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// 0.
    None,
    /// 1.
    Gzip,
    /// 2.
    Snappy,
    /// 3.
    Lz4,
    /// 4.
    Zstd,
}

/// A view over one whole batch: a header of 61 bytes and the records.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a>(&'a [u8]);

impl<'a> Batch<'a> {
    /// The first batch in `bytes`, which may hold more after it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        todo!()
    }
    /// The first record's offset.
    pub fn base_offset(&self) -> i64 { todo!() }
    /// The last record's offset.
    pub fn last_offset(&self) -> i64 { todo!() }
    /// The largest timestamp, milliseconds since the epoch.
    pub fn max_timestamp(&self) -> i64 { todo!() }
    /// -1 where there is none.
    pub fn producer_id(&self) -> i64 { todo!() }
    /// Records, as the header says.
    pub fn records_count(&self) -> i32 { todo!() }
    /// The whole batch's size.
    pub fn size_in_bytes(&self) -> usize { todo!() }
    /// The codec.
    pub fn compression(&self) -> Result<Compression> { todo!() }
    /// Transaction markers and the like.
    pub fn is_control(&self) -> bool { todo!() }
    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool { todo!() }
}

/// The batches in a buffer of whole batches.
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = Result<Batch<'_>>> {
    std::iter::from_fn(move || -> Option<Result<Batch<'_>>> { let _ = bytes; todo!() })
}
