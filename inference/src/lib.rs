//! Models, and the runtime that turns input topics into derived topics. No sockets, no broker types.
//!
//! - [`spec`]: what the user writes under `[[model]]` and `[[model_topic]]`;
//! - [`model`]: one file per architecture, and the model's folder on disk;
//! - [`expression`]: what rules and templates compute from a record, its features and its output;
//! - [`feature`]: a record's fields to the model's row;
//! - [`codec`]: bytes of a record to a row, and logits to bytes;
//! - [`engine`]: the batching queue and the worker threads that own models;
//! - [`task`]: records in, outputs and positions out, committed together;
//! - [`state`]: what is remembered of keys;
//! - [`stream_log`]: the trait that the runtime reads from and commits to.

pub mod codec;
pub mod engine;
pub mod expression;
pub mod feature;
pub mod model;
#[cfg(test)]
mod random;
pub mod spec;
pub mod state;
pub mod stream_log;
pub mod task;
