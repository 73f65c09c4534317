//! What a client's batch must satisfy before it is stored.

use crate::error::Result;

/// The limits that a topic sets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// The topic is compacted: every record needs a key.
    pub require_keys: bool,
}

/// Checks that `bytes` are exactly one sound batch.
pub fn validate_client_batch(bytes: &[u8], limits: &Limits) -> Result<()> {
    todo!()
}
