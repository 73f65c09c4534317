//! The Milena server: Kafka's wire protocol in front of the log, and model topics on it.
//!
//! - [`server`], [`connection`], [`router`]: from a socket to a handler and back, in order;
//! - [`wire_shape`]: lengths that lie, refused before a request is decoded;
//! - [`frame`]: responses that hold fetched records without a copy;
//! - [`api`]: one file per Kafka API, named as Kafka names it;
//! - [`catalog`]: topics, partitions, configs, ids;
//! - [`group`]: consumer groups and their offsets; [`transaction`]: transactions;
//!   [`coordinator_log`]: the topics that both keep their state in;
//! - [`fetch_session`]: what clients fetch, remembered between their requests;
//! - [`model_topics`]: the model topics that run, on the local log;
//! - [`http`], [`logging`]: metrics, health, and the process's own log lines;
//! - [`config`], [`cli`]: what the user writes and runs; [`cleaner_config`]: what of it compaction obeys.

pub mod api;
pub mod broker;
pub mod catalog;
pub mod cleaner_config;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod coordinator_log;
pub mod explain;
pub mod fetch_session;
pub mod frame;
pub mod group;
pub mod http;
pub mod logging;
pub mod memory_budget;
pub mod model_topics;
pub mod open_files;
mod produce_before_v3;
pub mod producer_ids;
pub mod quickstart;
mod request_header;
mod request_metrics;
pub mod router;
pub mod server;
pub mod transaction;
pub mod wire_shape;

pub use broker::Broker;
