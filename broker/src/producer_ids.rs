//! Ids for idempotent producers: never given twice, across restarts and crashes.
//!
//! The catalog reserves ids in durable blocks of [`BLOCK_SIZE`]; ids are handed out from a block only
//! after its reservation is on the disk. What is left of a block at a stop is never used, so a
//! restart costs at most one block of an id space of 2^63.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::catalog::{Catalog, CatalogError};

/// Ids reserved at a time. Kafka's `ProducerIdsBlock` has the same size.
pub const BLOCK_SIZE: i64 = 1000;

/// Hands out producer ids from durable blocks.
#[derive(Debug)]
pub struct ProducerIds {
    catalog: Arc<Catalog>,
    /// Held over the reservation of the next block: callers that find the block empty wait for
    /// one reservation instead of each making their own.
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    /// Starts with no block; the first id reserves one.
    pub fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            block: Mutex::new(0..0),
        }
    }

    /// An id that was never given before.
    pub async fn next(&self) -> Result<i64, CatalogError> {
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let mut reserved = self.catalog.next_producer_id_block(BLOCK_SIZE).await?;
        let id = reserved.next().ok_or(CatalogError::ProducerIdsExhausted)?;
        *block = reserved;
        Ok(id)
    }
}
