//! Measurements behind the README's figures. Each is a program of its own that prints a table:
//!
//! - `versus`: Milena beside Apache Kafka and bare loops, all in one run, with a report;
//! - `log`: the log beside bare loops of the same work;
//! - `footprint`: start to first answer, and memory, with 1,000 partitions and 5 GB of log;
//! - `partitions`: starts, stops, memory, files and maps with 10,000 partitions;
//! - `durability`: what it costs to wait for the disk;
//! - `compaction_under_load`: what compaction leaves, takes and costs while producers run;
//! - `encoder`: a text encoder beside ONNX Runtime, PyTorch and stock Candle;
//! - `recompression`: what it costs to store batches in another codec than they come in.

pub mod encoder;
pub mod log;
pub mod process;
pub mod raw;
pub mod statistics;
pub mod versus;
