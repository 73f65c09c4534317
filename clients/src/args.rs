//! The command line. What can be refused from the arguments alone is refused here, by clap, with
//! exit code 2.

mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};

pub use values::{Acks, Compression, From, Isolation, written};
use values::{key_value, not_negative, positive, size};

/// Puts load on a Kafka broker and measures it.
///
/// Latencies at a fixed `--rate` count from when each record was due, so that a stall is seen by every
/// record that was due during it. Every run is bounded: by --records, --bytes or --seconds,
/// whichever comes first, and by --timeout-seconds where nothing moves. The exit code is 0 for a
/// run that did all it should, 1 for one that failed, 2 for arguments that make no sense.
#[derive(Clone, Debug, Parser)]
#[command(name = "milena-load", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Produce, and measure the time to the acknowledgement.
    Produce(Produce),
    /// Consume what is there, or what comes.
    Consume(Consume),
    /// Produce and consume the same records, and measure the time in between.
    ///
    /// Each record's key is its number in the run, in decimal. With --output-topic the records are
    /// produced to --topic, and what a model topic or pipeline makes of them is read from there: by
    /// the same keys, each exactly once. Missing and duplicated records fail the run.
    EndToEnd(EndToEnd),
    /// Produce while one or more groups consume the same topic; each group reads every record.
    Mix(Mix),
}

/// `produce`.
#[derive(Clone, Debug, Args)]
#[expect(missing_docs, reason = "the groups have their own")]
pub struct Produce {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub bounds: Bounds,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub producing: Producing,
    #[command(flatten)]
    pub output: Output,
}

/// `consume`.
#[derive(Clone, Debug, Args)]
#[expect(missing_docs, reason = "the groups have their own")]
pub struct Consume {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub bounds: Bounds,
    #[command(flatten)]
    pub consuming: Consuming,
    /// Where to start: with what is there already, or with what comes.
    #[arg(long, value_enum, default_value_t = From::Earliest)]
    pub from: From,
    #[command(flatten)]
    pub output: Output,
}

/// `end-to-end`.
#[derive(Clone, Debug, Args)]
#[expect(missing_docs, reason = "the groups have their own")]
pub struct EndToEnd {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub bounds: Bounds,
    #[command(flatten)]
    pub load: Load,
    /// Read the records from this topic instead of --topic; it must be there.
    #[arg(long, value_name = "TOPIC")]
    pub output_topic: Option<String>,
    /// How long a batch waits for more records, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = not_negative)]
    pub linger_ms: f64,
    /// Without --rate: at most so many records that have not arrived yet.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub in_flight: u32,
    /// Consumers, each a client of its own with its part of the partitions.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub consumers: u16,
    /// Whether to read what transactions that are open or were aborted have written.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Isolation::Committed)]
    pub isolation_level: Isolation,
    #[command(flatten)]
    pub output: Output,
}

/// `mix`.
#[derive(Clone, Debug, Args)]
#[expect(missing_docs, reason = "the groups have their own")]
pub struct Mix {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub bounds: Bounds,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub producing: Producing,
    #[command(flatten)]
    pub consuming: Consuming,
    #[command(flatten)]
    pub output: Output,
}

/// Which broker and topic.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker and topic")]
pub struct Target {
    /// The brokers to connect to first, `host:port` with commas in between.
    #[arg(long, value_name = "ADDRESSES", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// The topic.
    #[arg(long)]
    pub topic: String,
    /// Create the topic with so many partitions and one replica where it is not there; where it is,
    /// it must have so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub partitions: Option<u32>,
    /// A setting of a topic that is created, such as retention.ms=60000. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub topic_config: Vec<(String, String)>,
    /// A setting of librdkafka for every client; it goes before all others. Can be repeated.
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = key_value)]
    pub properties: Vec<(String, String)>,
}

/// When a run ends.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Bounds (whichever comes first; 10 s where none is given)")]
pub struct Bounds {
    /// So many records, over all producers; consuming, in each group.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub records: Option<u64>,
    /// So many bytes of keys and values, such as 1GB or 512MiB; consuming, in each group.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub bytes: Option<u64>,
    /// So many seconds. At a fixed rate all records that are due by then are still sent.
    #[arg(long, value_name = "S", value_parser = positive)]
    pub seconds: Option<f64>,
    /// Give up where no record was acknowledged or consumed for so many seconds; also how long to
    /// wait for a first answer.
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = positive)]
    pub timeout_seconds: f64,
}

/// What is sent, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Records")]
pub struct Load {
    /// Records a second over all producers, evenly spaced; without it as fast as it goes.
    #[arg(long, value_name = "R", value_parser = positive)]
    pub rate: Option<f64>,
    /// Leave the first seconds out of all figures; they come on top of the bounds.
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = not_negative)]
    pub warmup_seconds: f64,
    /// The size of each value: synthetic JSON that gzip makes about four times smaller, as real JSON.
    #[arg(long, default_value = "1KiB", value_parser = size)]
    pub size: u64,
    /// Values from a file instead: one JSON value a line, again from the start after the last.
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    pub payload: Option<PathBuf>,
    /// The seed of the synthetic values and keys.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// How many acknowledgements a batch waits for.
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub acks: Acks,
    /// How batches are compressed.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub compression: Compression,
    /// Have the broker refuse what a retry would duplicate or reorder; needs --acks all.
    #[arg(long)]
    pub idempotent: bool,
    /// The largest batch, in bytes such as 16KiB.
    #[arg(long, value_name = "SIZE", default_value = "1000000", value_parser = size)]
    pub batch_bytes: u64,
}

/// Who produces.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Producers")]
pub struct Producing {
    /// Producers, each a client of its own with its own connections.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub producers: u16,
    /// Keys "0" to "K-1", each as likely as the others; without it records have no key.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,
    /// How long a batch waits for more records, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5.0, value_parser = not_negative)]
    pub linger_ms: f64,
    /// At most so many unacknowledged records of each producer; without it as many as librdkafka's
    /// queue takes (100,000, or 1 GiB).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight: Option<u32>,
    /// Produce in transactions: what the producers' transactional ids begin with; a number follows.
    #[arg(long, value_name = "PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub transactional_id: Option<String>,
    /// With --transactional-id: commit a transaction this long after it began, in milliseconds
    /// [default: 3000].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub transaction_duration_ms: Option<u32>,
}

/// Who consumes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Consumers")]
pub struct Consuming {
    /// Consumers in each group, each a client of its own; at most one for each partition.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub consumers: u16,
    /// Groups; each reads every record.
    #[arg(long, value_name = "G", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub groups: u16,
    /// What the groups' names begin with; a number follows. Their committed offsets are set to
    /// where the run starts.
    #[arg(long, value_name = "PREFIX", default_value = "milena-load")]
    pub group: String,
    /// Deal the partitions out among the consumers of a group, once and without a rebalance, and commit
    /// nothing.
    #[arg(long)]
    pub assign: bool,
    /// Whether to read what transactions that are open or were aborted have written.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Isolation::Committed)]
    pub isolation_level: Isolation,
}

/// What is shown and written.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Show no progress. It is only shown where stderr is a terminal.
    #[arg(long, short)]
    pub quiet: bool,
    /// Write what was measured to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Draw latency and throughput over time to this file as SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

impl Bounds {
    /// `--seconds`, or 10 where no bound is given.
    pub fn seconds_or_default(&self) -> Option<f64> {
        let unbounded = self.records.is_none() && self.bytes.is_none();
        self.seconds.or(unbounded.then_some(10.0))
    }
}

impl Load {
    /// At a fixed rate, so long may nothing happen and all be well.
    pub fn between(&self) -> Duration {
        let seconds = self.rate.map_or(0.0, |rate| 2.0 / rate);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn ten_seconds_where_nothing_bounds() {
        let seconds = |extra: &[&str]| {
            let line = ["milena-load", "produce", "--topic", "t"];
            let arguments = Arguments::parse_from(line.iter().chain(extra));
            match arguments.command {
                Command::Produce(produce) => produce.bounds.seconds_or_default(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(seconds(&[]), Some(10.0));
        assert_eq!(seconds(&["--records", "5"]), None);
        assert_eq!(seconds(&["--bytes", "5GB"]), None);
        assert_eq!(seconds(&["--bytes", "5GB", "--seconds", "2"]), Some(2.0));
    }
}
