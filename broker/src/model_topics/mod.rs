//! The model topics that run in this broker.

/// The running tasks.
#[derive(Debug)]
pub struct Registry {}
