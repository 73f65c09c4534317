//! What can go wrong in a run, for the person who started it.

use std::path::PathBuf;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The result of what may fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run did not start, or failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    #[error("{0}")]
    Arguments(&'static str),
    #[error("{option} {value}: {reason}")]
    Value {
        option: &'static str,
        value: String,
        reason: &'static str,
    },
    #[error("payload file {}: {source}", path.display())]
    PayloadFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("payload file {}: has no lines", path.display())]
    PayloadFileEmpty { path: PathBuf },
    #[error("payload file {}: line {line} is not JSON: {source}", path.display())]
    PayloadLine {
        path: PathBuf,
        line: usize,
        source: serde_json::Error,
    },
    #[error("{wanted} consumers in a group are more than the {partitions} partitions of {topic:?}")]
    TooManyConsumers {
        wanted: usize,
        partitions: usize,
        topic: String,
    },
    #[error("topic {topic:?} has {actual} partitions, not {wanted}")]
    OtherPartitions {
        topic: String,
        actual: usize,
        wanted: usize,
    },
    #[error("topic {topic:?} is not there{hint}")]
    NoTopic { topic: String, hint: &'static str },
    #[error("topic {topic:?} can't be created: {reason}")]
    CreateTopic {
        topic: String,
        reason: RDKafkaErrorCode,
    },
    #[error("a client of {bootstrap}: {source}")]
    Client {
        bootstrap: String,
        source: KafkaError,
    },
    #[error("{doing}: {source}")]
    Kafka { doing: String, source: KafkaError },
    #[error("committing transaction {number} of {id:?}: {reason}")]
    Commit {
        number: u64,
        id: String,
        reason: String,
    },
    #[error("{doing}: {source}")]
    System {
        doing: String,
        source: std::io::Error,
    },
    #[error(
        "nothing has moved for {seconds} s ({produced} records produced, {consumed} consumed{heard})"
    )]
    NoProgress {
        seconds: f64,
        produced: u64,
        consumed: u64,
        heard: String,
    },
    #[error("{records} records were not delivered: {reasons}")]
    Undelivered { records: u64, reasons: String },
    #[error("{records} errors of consumers: {reasons}")]
    Unread { records: u64, reasons: String },
    #[error("{missing} records are missing in {topic:?}, {duplicated} came more than once")]
    NotExactlyOnce {
        topic: String,
        missing: u64,
        duplicated: u64,
    },
    #[error("a worker panicked")]
    Worker,
    #[error("file {}: {source}", path.display())]
    Output {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("plot {}: {reason}", path.display())]
    Plot { path: PathBuf, reason: String },
}

impl Error {
    /// The process's exit code: 2 where the arguments are at fault, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_)
            | Self::Value { .. }
            | Self::PayloadFile { .. }
            | Self::PayloadFileEmpty { .. }
            | Self::PayloadLine { .. }
            | Self::TooManyConsumers { .. }
            | Self::OtherPartitions { .. } => 2,
            Self::Client {
                source: KafkaError::ClientConfig(..),
                ..
            } => 2,
            _ => 1,
        }
    }

    /// For `map_err`: what was being done with Kafka.
    pub fn kafka(doing: impl Into<String>) -> impl FnOnce(KafkaError) -> Self {
        let doing = doing.into();
        move |source| Self::Kafka { doing, source }
    }
}
