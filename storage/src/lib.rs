//! The log. Knows record batches, files and offsets; no sockets and no Kafka messages.
//!
//! Everything on disk is in Apache Kafka's own formats, byte for byte, so that Kafka's
//! `DumpLogSegments` reads what is written here. The rooms:
//!
//! - [`batch`]: record batch v2 (layout, typed view, validation, iteration, building);
//! - [`segment`]: one `.log` file with its sparse offset and time indexes;
//! - [`partition_log`]: sole writer of one partition, any number of readers;
//! - [`producer_state`]: idempotence, the last five batches of each producer;
//! - [`log_dir`]: the data folder: its lock, its checkpoints, and every partition in it;
//! - [`recovery`], [`checkpoint`]: what a start reads, and what a clean stop leaves;
//! - [`reserved_disk`]: what goes on where the disk is full;
//! - [`retention`]: which segments a log no longer keeps;
//! - [`compaction`]: which records a log no longer keeps, because newer ones have their keys;
//! - [`open_files`]: how many files and maps the logs may hold;
//! - [`disk`], [`clock`]: every system call that writes, and the time.

pub mod batch;
pub mod checkpoint;
pub mod clock;
pub mod compaction;
pub mod config;
pub mod disk;
pub mod error;
pub mod log_dir;
pub mod open_files;
pub mod partition_log;
pub mod producer_state;
pub mod recovery;
pub mod reserved_disk;
pub mod retention;
pub mod segment;

pub use config::LogConfig;
pub use error::{Error, Result};
pub use log_dir::LogDir;
pub use partition_log::PartitionLog;

/// A record's position in its partition: 0 for the first record ever appended.
pub type Offset = i64;
