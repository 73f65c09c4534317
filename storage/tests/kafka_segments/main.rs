//! What Kafka writes, Milena reads. `kafka-4.3.tar.gz` has two data folders of an Apache Kafka 4.3 that ran on
//! this repository's own load (tests/java/Segments.java), one taken after `kill -9` and one after a clean
//! stop, and beside each what a Kafka consumer and a Kafka admin client found in it: `said`. The log opens
//! them in every way a start can, and has to say the same.
//!
//! - `.ci/kafka_segments --record` makes the archive anew.
//! - `.ci/kafka_segments` does the same with many more records (`MILENA_KAFKA_SEGMENTS` has the path of a
//!   folder like the archive's).

mod archive;
mod folders;
mod indexes;
mod said;
mod segments;
#[path = "../log/transactions/walk.rs"]
mod walk;
