//! Models, and the runtime that turns input topics into derived topics. No sockets, no broker types.
//!
//! - [`spec`]: what the user writes under `[[model]]` and `[[model_topic]]`;
//! - [`model`]: one file per architecture, and the model's folder on disk;
//! - [`engine`]: the batching queue and the worker threads that own models;
//! - [`codec`]: bytes of a record to typed input, and typed output to bytes;
//! - [`task`]: records in, outputs and positions out, committed together;
//! - [`stream_log`]: the trait that the runtime reads from and commits to.

pub mod stream_log;
