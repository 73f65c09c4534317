//! Keys that are updated again and again in a compacted topic, while it is compacted.
//!
//! Each producer has keys of its own and updates all of them in turn, in another order every time: the
//! worst for compaction, as nothing is superseded by what is near it. Meanwhile the log's files, the
//! broker's memory and its metrics are looked at. When the producers are done, the log has a bounded
//! time to come down to the newest records; then everything is consumed from the start, and each key's
//! newest record must be there with exactly its bytes, no key that was never written, and every key's
//! updates in their order.

mod records;
mod watch;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::{Milena, PATIENCE};
use records::{Found, Plan};
use watch::{Seen, Watch};

const TOPIC: &str = "updates";
const MIB: u64 = 1 << 20;

/// What is run.
#[derive(Clone, Debug, clap::Parser)]
pub struct Options {
    /// How many keys there are.
    #[arg(long, default_value_t = 1_000_000)]
    pub keys: u32,
    /// How often each is written.
    #[arg(long, default_value_t = 100)]
    pub updates: u32,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 4)]
    pub partitions: u32,
    /// Producers at the same time.
    #[arg(long, default_value_t = 2)]
    pub producers: u32,
    /// The size of a segment.
    #[arg(long, default_value_t = 16 * MIB)]
    pub segment_bytes: u64,
    /// log.cleaner.dedupe.buffer.size
    #[arg(long, default_value_t = 128 * MIB)]
    pub dedupe_bytes: u64,
    /// log.cleaner.threads
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
    /// What the producers compress with.
    #[arg(long, default_value = "none")]
    pub compression: String,
    /// What the producers wait for.
    #[arg(long, default_value = "all")]
    pub acks: String,
    /// Records a second of all producers together; 0: as many as go.
    #[arg(long, default_value_t = 0)]
    pub records_per_second: u32,
    /// Without a pass that ends, or a new segment, for so many seconds there is nothing left to be
    /// compacted.
    #[arg(long, default_value_t = 20)]
    pub quiet: u64,
    /// How long the log may take to come down once the producers are done, seconds.
    #[arg(long, default_value_t = 300)]
    pub patience: u64,
    /// What the broker may have in memory of its own beyond what it had before and what compaction
    /// is given, bytes: requests in flight, index entries, the memory allocator.
    #[arg(long, default_value_t = 96 * MIB)]
    pub other_memory: u64,
    /// Says every second what it sees.
    #[arg(long)]
    pub verbose: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Figures {
    options: Options,
    produced_in: Duration,
    /// When the producers were done, and at the end.
    at_end_of_load: Seen,
    at_end: Seen,
    /// The most of each.
    peak: Seen,
    idle_anonymous: u64,
    bound: u64,
    found: Found,
    converged_in: Duration,
}

/// Runs it. What goes wrong is said with what was expected.
pub fn run(options: &Options) -> Result<Figures, String> {
    let milena = Milena::start(&config(options));
    let plan = Plan::new(options);
    let (_, idle_anonymous) = milena.resident_bytes();
    let watch = Watch::start(&milena, TOPIC, options.verbose);

    let begun = Instant::now();
    thread::scope(|scope| {
        let (milena, plan) = (&milena, &plan);
        let produce = |producer| records::produce(milena, TOPIC, plan, options, producer);
        let producers: Vec<_> = (0..options.producers)
            .map(|producer| scope.spawn(move || produce(producer)))
            .collect();
        producers
            .into_iter()
            .map(|producer| producer.join().expect("a producer panicked"))
            .collect::<Result<Vec<()>, String>>()
    })?;
    let produced_in = begun.elapsed();
    let at_end_of_load = watch.now();

    // Whatever part of it is dirty now.
    alter(&milena, &[("min.cleanable.dirty.ratio", "0.01")], options);
    let begun = Instant::now();
    let patience = Duration::from_secs(options.patience);
    let quiet = Duration::from_secs(options.quiet);
    let converged_in = watch.settled(begun, quiet, patience)?;
    let at_end = watch.now();
    let peak = watch.peak();
    drop(watch);

    let found = records::consume(&milena, TOPIC, &plan)?;
    let figures = Figures {
        options: options.clone(),
        produced_in,
        at_end_of_load,
        at_end,
        peak,
        idle_anonymous,
        bound: idle_anonymous + options.dedupe_bytes + options.other_memory,
        found,
        converged_in,
    };
    figures.check()?;
    Ok(figures)
}

fn config(options: &Options) -> String {
    let Options {
        partitions,
        segment_bytes,
        dedupe_bytes,
        threads,
        ..
    } = options;
    format!(
        "[log]\ncleaner_backoff_ms = 200\ncleaner_dedupe_buffer_size = {dedupe_bytes}\n\
         cleaner_threads = {threads}\nfile_delete_delay_ms = 1000\n\
         [[topic]]\nname = \"{TOPIC}\"\npartitions = {partitions}\n\
         configs = {{ \"cleanup.policy\" = \"compact\", \
         \"internal.segment.bytes\" = {segment_bytes} }}\n"
    )
}

/// The topic's configs are these from now on, beside what it began with.
fn alter(milena: &Milena, configs: &[(&str, &str)], options: &Options) {
    let segment_bytes = options.segment_bytes.to_string();
    let own = [
        ("cleanup.policy", "compact"),
        ("internal.segment.bytes", segment_bytes.as_str()),
    ];
    let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(TOPIC));
    for (name, value) in own.iter().chain(configs) {
        wanted = wanted.set(name, value);
    }
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let altered = runtime.block_on(admin.alter_configs(&[wanted], &options));
    altered.expect("an answer").remove(0).expect("altered");
}

impl Figures {
    /// How many passes there were.
    pub fn passes(&self) -> f64 {
        self.at_end.passes
    }

    /// The bytes of the log at the end that are in no newest segment, and of the newest records alone.
    pub fn cleaned_and_live_bytes(&self) -> (u64, u64) {
        (self.at_end.closed_bytes, self.found.live_bytes)
    }

    fn check(&self) -> Result<(), String> {
        if self.peak.anonymous > self.bound {
            return Err(format!(
                "{} MB of the broker's own memory, bound {} MB",
                self.peak.anonymous / 1_000_000,
                self.bound / 1_000_000
            ));
        }
        if self.at_end.passes < 1.0 || self.at_end.failed > 0.0 {
            let (done, failed) = (self.at_end.passes, self.at_end.failed);
            return Err(format!("{done} passes were done, {failed} failed"));
        }
        // Of the part that is compacted no key is left twice. Batches become small, and each has a
        // header; what it is at worst is said by the figures.
        let most = 4 * self.found.live_bytes + 4 * self.options.segment_bytes;
        if self.at_end.closed_bytes > most {
            return Err(format!(
                "{} bytes are left outside of the newest segments, of {} live ones",
                self.at_end.closed_bytes, self.found.live_bytes
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = f64::from(self.options.keys) * f64::from(self.options.updates);
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let per_second = |seen: &Seen| match seen.seconds {
            seconds if seconds > 0.0 => (seen.read + seen.written) / 1e6 / seconds,
            _ => 0.0,
        };
        let (load, end, peak) = (&self.at_end_of_load, &self.at_end, &self.peak);
        writeln!(f, "| what | figure |\n|---|---|")?;
        let mut row = |what: &str, figure: String| writeln!(f, "| {what} | {figure} |");
        row(
            "records produced, in",
            format!(
                "{records:.0} ({} keys, {} times each), {:.1} s: {:.0} a second",
                self.options.keys,
                self.options.updates,
                self.produced_in.as_secs_f64(),
                records / self.produced_in.as_secs_f64()
            ),
        )?;
        row(
            "passes until then, and in all",
            format!("{:.0}, {:.0}", load.passes, end.passes),
        )?;
        row(
            "compaction read and wrote",
            format!(
                "{:.0} MB and {:.0} MB in {:.1} s: {:.0} MB/s",
                end.read / 1e6,
                end.written / 1e6,
                end.seconds,
                per_second(end)
            ),
        )?;
        row(
            "log when the producers were done, and its peak with files to be deleted",
            format!("{:.0} MB, {:.0} MB", mb(load.log_bytes), mb(peak.all_bytes)),
        )?;
        row(
            "log at the end, of it in newest segments, and the newest records alone",
            format!(
                "{:.1} MB, {:.1} MB, {:.1} MB",
                mb(end.log_bytes),
                mb(end.log_bytes - end.closed_bytes),
                mb(self.found.live_bytes)
            ),
        )?;
        row(
            "which took after the producers were done",
            format!("{:.1} s", self.converged_in.as_secs_f64()),
        )?;
        row(
            "records consumed at the end: every key's newest, and older ones",
            format!(
                "{}, {}",
                self.options.keys,
                self.found.records - u64::from(self.options.keys)
            ),
        )?;
        row(
            "own memory of the broker: before, peak, bound; resident at the peak",
            format!(
                "{:.0} MB, {:.0} MB, {:.0} MB; {:.0} MB",
                mb(self.idle_anonymous),
                mb(peak.anonymous),
                mb(self.bound),
                mb(peak.resident)
            ),
        )
    }
}
