//! 200 consumers of mixed clients join, leave and are killed while producers run.
//!
//! ```text
//! cargo run --release -p tests --bin soak -- [--seconds 60] [--consumers 200] [--seed 1] [--verbose true]
//! ```
//!
//! Two phases, each on a topic of its own, with every group of [`cast::GROUPS`] reading all of it:
//!
//! 1. *kills*: consumers are killed and held up as well. Every group sees every record at least once.
//! 2. *handovers*: consumers only join and leave. Every group sees every record exactly once: a
//!    position that was committed is where the next owner starts.
//!
//! After each the committed positions are the ends of the partitions. What happens is drawn from the
//! seed; when exactly it happens is the machine's. `--seconds` is how long both phases write, starting
//! the consumers included; draining and leaving come on top. Ends with 1 and says which group, partition
//! and offsets where something is wrong.

mod cast;
mod crowd;
mod ledger;
mod load;
mod member;

mod usage;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tests::Milena;

use cast::{GROUPS, Part};
use crowd::{Consumer, Stage};
use ledger::Ledger;
use load::Load;
use tests::random::Random;
use usage::Usage;

/// No fewer than the cooperative group has members, so that nearly all own something.
const PARTITIONS: i32 = 64;
const TICK: Duration = Duration::from_millis(50);
/// Joins and leaves come in bursts, so that groups settle in between and hand over what is read.
const BURST_EVERY: Duration = Duration::from_secs(3);
/// Also where starting took long.
const LEAST_BURSTS: u32 = 5;
/// Every how-manieth burst kills, where there are kills: a group waits for the dead ones' sessions.
const KILLS_EVERY: u64 = 2;
/// How long the churn waits for every group to read.
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);
/// How long the groups may take to see what was written when the producers have stopped.
const DRAIN_PATIENCE: Duration = Duration::from_secs(90);

struct Options {
    seconds: u64,
    consumers: usize,
    seed: u64,
    /// Prints what is done to whom.
    verbose: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            seconds: 60,
            consumers: 200,
            seed: 1,
            verbose: false,
        };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else {
                return Err(format!("'{}' needs a value", pair[0]));
            };
            let number = || {
                value
                    .parse()
                    .map_err(|_| format!("{name} {value}: not a number"))
            };
            match name.as_str() {
                "--seconds" => options.seconds = number()?,
                "--consumers" => options.consumers = number()? as usize,
                "--seed" => options.seed = number()?,
                "--verbose" => options.verbose = value == "true",
                _ => return Err(format!("no option '{name}'")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((first, rest)) if first == "member" => member::run(rest),
        _ => Options::parse(&arguments).and_then(|options| soak(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options) -> Result<(), String> {
    let parts = cast::parts(options.consumers);
    cast::build(&parts)?;
    let mut topics = String::new();
    for topic in ["kills", "handovers"] {
        topics += &format!("[[topic]]\nname = \"{topic}\"\npartitions = {PARTITIONS}\n");
    }
    let milena = Milena::start(&topics);
    let churn = Duration::from_secs(options.seconds) / 2;
    println!("seed {}", options.seed);
    let mut usage = Usage::default();
    watch(churn * 2 + 4 * DRAIN_PATIENCE, milena.pid());
    for (topic, kills) in [("kills", true), ("handovers", false)] {
        let mut random = Random::new(options.seed);
        let faults = Phase {
            milena: &milena,
            topic,
            kills,
            churn,
            verbose: options.verbose,
        }
        .run(&parts, &mut random, &mut usage);
        if !faults.is_empty() {
            return Err(format!(
                "{topic}, seed {}: {} faults\n{}\nmilena's log:\n{}",
                options.seed,
                faults.len(),
                faults
                    .iter()
                    .take(40)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("\n"),
                tail(&milena.log(), 20),
            ));
        }
    }
    Ok(())
}

/// Ends everything where it takes longer than it can take. The consumers end with this process.
fn watch(limit: Duration, milena: u32) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("not done after {limit:?}");
        // SAFETY: kill(2) has no memory effects; the main thread still owns this child.
        unsafe { libc::kill(milena as libc::pid_t, libc::SIGKILL) };
        std::process::exit(1);
    });
}

struct Phase<'a> {
    milena: &'a Milena,
    topic: &'static str,
    kills: bool,
    churn: Duration,
    verbose: bool,
}

impl Phase<'_> {
    /// What was wrong.
    fn run(&self, parts: &[Part], random: &mut Random, before: &mut Usage) -> Vec<String> {
        let began = Instant::now();
        let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
        let ledger = Arc::new(Ledger::new(PARTITIONS as usize, &names));
        let stderr = tempfile::tempdir().expect("a folder");
        let stage = Stage {
            bootstrap: self.milena.bootstrap(),
            topic: self.topic.to_owned(),
            ledger: Arc::clone(&ledger),
            patient: !self.kills,
            stderr_dir: stderr.path().to_owned(),
            assignments: Arc::new(AtomicU64::new(0)),
            began,
        };
        let load = Load::start(self.milena, self.topic, PARTITIONS, &ledger);
        let mut consumers: Vec<Consumer> = parts.iter().cloned().map(Consumer::new).collect();
        for consumer in &mut consumers {
            consumer.join(&stage);
        }
        println!(
            "{}: {} consumers after {:.1?}",
            self.topic,
            consumers.len(),
            began.elapsed()
        );
        let actions = self.churn(&mut consumers, &stage, random);
        let written = load.finish();
        ledger.end_of_writing();
        let stopped = Instant::now();
        self.drain(&mut consumers, &stage);
        let drained = stopped.elapsed();
        leave_all(&mut consumers, &stage);
        let mut faults = ledger.audit(!self.kills);
        if ledger.written() != written.records {
            faults.push(format!(
                "{} records were sent and {} acknowledged",
                written.records,
                ledger.written()
            ));
        }
        faults.extend(self.positions(&stage));

        let usage = Usage::of(self.milena);
        println!(
            "{}: {:.0?}; {} records in {PARTITIONS} partitions, produce p99 {:.1?}, slowest {:.1?}",
            self.topic,
            began.elapsed(),
            written.records,
            written.p99,
            written.slowest
        );
        println!(
            "  {actions}, {} assignments, {} rebalances",
            stage.assignments.load(Ordering::Relaxed),
            usage.rebalances - before.rebalances
        );
        for (group, seen, again, pause) in ledger.figures() {
            println!(
                "  {group}: {seen} seen, {again} of them again; at most {pause:.1?} without one"
            );
        }
        println!(
            "  drained {drained:.1?} after the last record; broker: {:.1} s of CPU, {} MB RSS at its peak",
            usage.cpu_s - before.cpu_s,
            usage.peak_rss_mb
        );
        *before = usage;
        faults
    }

    fn churn(&self, consumers: &mut [Consumer], stage: &Stage, random: &mut Random) -> Actions {
        let began = Instant::now();
        while !stage.ledger.all_groups_read() && began.elapsed() < SETTLE_PATIENCE {
            for consumer in &mut *consumers {
                consumer.tend(stage);
            }
            std::thread::sleep(TICK);
        }
        let began = Instant::now();
        let mut actions = Actions::default();
        let mut bursts = 0;
        while stage.began.elapsed() < self.churn || bursts < LEAST_BURSTS {
            if began.elapsed() >= BURST_EVERY * (bursts + 1) {
                bursts += 1;
                self.burst(consumers, stage, random, bursts.into(), &mut actions);
            }
            for consumer in &mut *consumers {
                consumer.tend(stage);
            }
            std::thread::sleep(TICK);
        }
        actions
    }

    fn burst(
        &self,
        consumers: &mut [Consumer],
        stage: &Stage,
        random: &mut Random,
        number: u64,
        actions: &mut Actions,
    ) {
        let kills = self.kills && number.is_multiple_of(KILLS_EVERY);
        for _ in 0..if kills { 12 } else { 4 } + random.below(6) {
            let out: Vec<usize> = (0..consumers.len())
                .filter(|&index| consumers[index].is_out())
                .collect();
            // Somebody who is out as often as anybody.
            let chosen = match random.below(2) {
                0 if !out.is_empty() => out[random.below(out.len() as u64) as usize],
                _ => random.below(consumers.len() as u64) as usize,
            };
            let held_up = Duration::from_millis(1_000 + random.below(8_000));
            let choice = random.below(4);
            let consumer = &mut consumers[chosen];
            let name = consumer.part.name.clone();
            let done = if consumer.is_out() {
                consumer.join(stage);
                actions.joins += 1;
                "joins"
            } else if !consumer.is_in() {
                "is on its way out, or held up"
            } else if kills && choice == 0 && !GROUPS[consumer.part.group].is_static {
                consumer.hold_up(held_up);
                actions.held_up += 1;
                "is held up"
            } else if kills {
                consumer.kill();
                actions.kills += 1;
                "is killed"
            } else {
                consumer.leave();
                actions.leaves += 1;
                "leaves"
            };
            if self.verbose {
                println!("  after {:.1?}: {name} {done}", stage.began.elapsed());
            }
        }
    }

    /// Until every group has seen all there is, or too much time has passed. Static members come
    /// back: their partitions are kept for them.
    fn drain(&self, consumers: &mut [Consumer], stage: &Stage) {
        let began = Instant::now();
        let mut back: Vec<bool> = consumers
            .iter()
            .map(|consumer| !GROUPS[consumer.part.group].is_static)
            .collect();
        while !stage.ledger.behind().is_empty() && began.elapsed() < DRAIN_PATIENCE {
            for (consumer, back) in consumers.iter_mut().zip(&mut back) {
                consumer.tend(stage);
                if consumer.is_out() && !std::mem::replace(back, true) {
                    consumer.join(stage);
                }
            }
            std::thread::sleep(TICK);
        }
    }

    /// What is wrong with the positions that the groups have committed.
    fn positions(&self, stage: &Stage) -> Vec<String> {
        let ends = stage.ledger.ends();
        let mut faults = Vec::new();
        for (group, cast) in GROUPS.iter().enumerate() {
            let id = Consumer::group_id(stage, group);
            let consumer: BaseConsumer = self.milena.client_with(&[("group.id", &id)]);
            let mut partitions = TopicPartitionList::new();
            partitions.add_partition_range(self.topic, 0, PARTITIONS - 1);
            let committed = match consumer.committed_offsets(partitions, tests::PATIENCE) {
                Ok(committed) => committed,
                Err(error) => {
                    faults.push(format!("group {}: its positions: {error}", cast.name));
                    continue;
                }
            };
            for position in committed.elements() {
                let end = ends[position.partition() as usize] as i64;
                // A member that was killed may have been the last to print a record and not have
                // committed it: it counts as seen, and nobody has to read it again before the end.
                let is_wrong = match position.offset() {
                    Offset::Offset(at) if self.kills => at > end,
                    Offset::Offset(at) => at != end,
                    _ => !self.kills && end > 0,
                };
                if is_wrong {
                    faults.push(format!(
                        "group {}, partition {}: its position is {:?} and not {end}",
                        cast.name,
                        position.partition(),
                        position.offset()
                    ));
                }
            }
        }
        faults
    }
}

fn leave_all(consumers: &mut [Consumer], stage: &Stage) {
    for consumer in &mut *consumers {
        consumer.leave();
    }
    while !consumers.iter().all(Consumer::is_out) {
        for consumer in &mut *consumers {
            consumer.tend(stage);
        }
        std::thread::sleep(TICK);
    }
}

#[derive(Default)]
struct Actions {
    joins: u64,
    leaves: u64,
    kills: u64,
    held_up: u64,
}

impl std::fmt::Display for Actions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} joined later, {} left, {} killed, {} held up",
            self.joins, self.leaves, self.kills, self.held_up
        )
    }
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
