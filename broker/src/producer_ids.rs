//! Ids for idempotent producers: never given twice, across restarts and crashes.

/// Hands out producer ids from durable blocks.
#[derive(Debug)]
pub struct ProducerIds {}
