//! `kill -9` at random moments while a model topic with windowed features scores transactions, held to an independent
//! recomputation.
//!
//! Some kills hit the start after another kill, while state is restored; some stops are clean, after which state is taken up
//! from the disk; each start has either room for all state or for so little that most of it is on the disk. Then:
//!
//! - what was read of the outputs after any start is what is there in the end, and nothing is there twice;
//! - there is one output for each transaction, and each of its features is what an uninterrupted run gives, as
//!   `tests/recompute/recompute.py` works it out from the config and the inputs alone;
//! - there is one alert for each output that the rule takes, and no dead letter.

mod dump;
mod load;
mod outputs;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use serde_json::json;

use crate::Milena;
use crate::random::Random;
use load::Load;
use outputs::Outputs;

const INPUT: &str = "transactions";
const SCORED: &str = "transactions.scored";
const ALERTS: &str = "fraud.alerts";
const PARTITIONS: u64 = 4;
const FRAUD: &str = include_str!("fraud.toml");
/// The model: so much of these features.
const WEIGHTS: [(&str, f32); 3] = [("amount", 0.000_1), ("n_5m", 0.5), ("sum_1h", 0.000_1)];
/// What state may take in memory, one of them at each start.
const MAX_BYTES: [&str; 2] = ["512MiB", "1MiB"];
/// Every so many rounds the broker is stopped, not killed.
const STOP_EVERY: u64 = 4;
/// Every so many rounds the start is killed, too: 1 to 1,024 ms after it began, each power of two as likely.
const KILL_START_EVERY: u64 = 3;
/// How long nothing may be scored.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How often the broker is killed or stopped under load.
    pub rounds: u64,
    /// Transactions in all.
    pub transactions: u64,
    /// Whose they are.
    pub customers: u64,
    /// What is drawn is drawn from it.
    pub seed: u64,
    /// A config in place of `fraud.toml`: an example with its model beside it, or one with the same topics and model, without `[broker]` and `[http]`.
    pub config: Option<PathBuf>,
    /// Where config, inputs and outputs are left.
    pub keep: Option<PathBuf>,
    /// Says after every round what has happened so far.
    pub verbose: bool,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Kills under load.
    pub kills: u64,
    /// Kills of a start.
    pub killed_starts: u64,
    /// Clean stops under load.
    pub stops: u64,
    /// Outputs.
    pub scored: u64,
    /// Of which the rule took so many.
    pub alerts: usize,
    /// Rounds that began with state taken up from the disk, where the rest had it restored.
    pub resumed: u64,
    /// Rounds that ended with state on the disk that was not in memory.
    pub spilled: u64,
    /// Until everything was scored.
    pub load: Duration,
    /// What the recomputation took, and said.
    pub recomputed: (Duration, String),
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (took, said) = &self.recomputed;
        write!(
            f,
            "{} kills, {} killed starts, {} stops, {} rounds with state on the disk, {} that began with it: \
             {} outputs and {} alerts in {:.1?}; recomputed in {took:.1?}: {said}",
            self.kills,
            self.killed_starts,
            self.stops,
            self.spilled,
            self.resumed,
            self.scored,
            self.alerts,
            self.load,
        )
    }
}

struct Test<'o> {
    options: &'o Options,
    rule: Rule,
    milena: Milena,
    config: String,
    load: Option<Load>,
    outputs: Outputs,
    random: Random,
    figures: Figures,
}

/// Runs it; when something happens is partly the machine's matter.
pub fn run(options: &Options) -> Result<Figures, String> {
    let temporary = tempfile::tempdir().map_err(|e| e.to_string())?;
    let folder = options.keep.as_deref().unwrap_or(temporary.path());
    let TestConfig {
        text: config,
        rule,
        is_keyed,
    } = TestConfig::read(options.config.as_deref(), folder)?;
    let milena = Milena::prepare("checkpoint_interval_ms = 300", &config);
    let mut test = Test {
        options,
        rule,
        config: milena.config().to_owned(),
        milena,
        load: None,
        outputs: Outputs::default(),
        random: Random::new(options.seed),
        figures: Figures::default(),
    };
    let began = Instant::now();
    test.draw_config();
    test.milena.restart();
    let Options {
        transactions,
        customers,
        seed,
        ..
    } = *options;
    let load = Load::start(&test.milena, transactions, customers, is_keyed, seed);
    test.load = Some(load);
    for round in 1..=options.rounds {
        test.round(round)
            .map_err(|fault| format!("round {round}: {fault}\n{}", test.milena.log()))?;
        if options.verbose {
            println!("{:.1?}: {}", began.elapsed(), test.figures);
        }
    }
    test.finish(folder, began)
        .map_err(|fault| format!("{fault}\n{}", test.milena.log()))?;
    Ok(test.figures)
}

/// A config that says nothing of `[broker]` and `[http]`, and has `MAX_BYTES` where state may take so much.
struct TestConfig {
    text: String,
    rule: Rule,
    /// It brings the records of a customer together; otherwise their keys have to be customers.
    is_keyed: bool,
}

/// What alerts are of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Not looked at.
    Any,
    /// That of `fraud.toml`.
    Linear,
    /// That of the fraud example.
    Score,
}

impl TestConfig {
    /// Of a file; it is one of the examples where its model is beside it, or else has the same topics and model as
    /// `fraud.toml`, with `MODEL` for the latter. A field of the template is `$f`.
    fn read(path: Option<&Path>, folder: &Path) -> Result<Self, String> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path).map_err(|e| e.to_string())?,
            None => FRAUD.to_owned(),
        };
        let beside = path
            .and_then(Path::parent)
            .map(|parent| parent.join("model"));
        if let Some(model) = beside.filter(|model| model.is_dir()) {
            return Self::of_example(&text, &model);
        }
        let model = folder.join("model");
        write_model(&model)?;
        Ok(Self {
            text: text.replace("MODEL", &model.to_string_lossy()),
            rule: path.map_or(Rule::Linear, |_| Rule::Any),
            is_keyed: true,
        })
    }

    fn of_example(text: &str, model: &Path) -> Result<Self, String> {
        let mut config: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        config.remove("broker");
        // The config is put elsewhere.
        let model = model
            .canonicalize()
            .map_err(|e| format!("{}: {e}", model.display()))?;
        config["model"][0]["source"] = model.to_string_lossy().into_owned().into();
        let topic = &mut config["model_topic"][0];
        topic["state"]["max_bytes"] = "MAX_BYTES".into();
        let is_keyed = topic.get("key").is_some();
        Ok(Self {
            text: toml::to_string(&config).map_err(|e| e.to_string())?,
            rule: Rule::Score,
            is_keyed,
        })
    }
}

fn write_model(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    let input = |(name, _)| json!({ "name": name, "path": format!("$.none.{name}"), "default": 0 });
    let card = json!({
        "model_type": "linear", "task": "regress", "output": 1,
        "inputs": WEIGHTS.map(input).to_vec(),
    });
    let weights = WEIGHTS.map(|(_, weight)| weight);
    let tensors: [(&str, &[usize], &[f32]); 2] = [
        ("layers.0.weight", &[1, WEIGHTS.len()], &weights),
        ("layers.0.bias", &[1], &[0.0]),
    ];
    crate::write_model(folder, &card, &tensors);
    Ok(())
}

impl Test<'_> {
    /// How much memory the next start has for state.
    fn draw_config(&mut self) {
        let drawn = MAX_BYTES[self.random.below(MAX_BYTES.len() as u64) as usize];
        self.milena
            .set_config(self.config.replace("MAX_BYTES", drawn));
    }

    fn round(&mut self, round: u64) -> Result<(), String> {
        let share = self.options.transactions / self.options.rounds;
        let moment = (round - 1) * share + self.random.below(share);
        // There is always more to come than what the kill waits for.
        if let Some(load) = &self.load {
            load.allow((round + 1) * share);
        }
        self.until_scored(moment)?;
        std::thread::sleep(Duration::from_millis(self.random.below(50)));
        let name = format!("milena_model_topic_state_bytes{{topic=\"{SCORED}\",where=\"disk\"}}");
        let spills = self.milena.metric_if_there(&name).unwrap_or(0.0) > 0.0;
        self.figures.spilled += u64::from(spills);
        self.figures.resumed += u64::from(self.milena.log().contains("resumed=true"));
        if round.is_multiple_of(STOP_EVERY) {
            self.figures.stops += 1;
            if !self.milena.stop().success() {
                return Err("no clean stop".to_owned());
            }
        } else {
            self.figures.kills += 1;
            self.milena.kill();
        }
        self.draw_config();
        if round.is_multiple_of(KILL_START_EVERY) {
            self.milena.spawn();
            std::thread::sleep(Duration::from_millis(1 << self.random.below(11)));
            self.milena.kill();
            self.figures.killed_starts += 1;
        }
        self.milena.restart();
        self.outputs.read(&self.milena)
    }

    /// Waits until so many outputs are there.
    fn until_scored(&mut self, count: u64) -> Result<(), String> {
        let consumer: BaseConsumer = self.milena.client_with(&[
            ("group.id", "unused"),
            ("isolation.level", "read_committed"),
        ]);
        let mut last = Instant::now();
        loop {
            let scored: i64 = crate::ends(&consumer, SCORED).values().sum();
            if scored as u64 > self.figures.scored {
                self.figures.scored = scored as u64;
                last = Instant::now();
            }
            if self.figures.scored >= count {
                return Ok(());
            }
            if last.elapsed() > PATIENCE {
                return Err(format!(
                    "{scored} outputs for {PATIENCE:?}; {count} should come"
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn finish(&mut self, folder: &Path, began: Instant) -> Result<(), String> {
        if let Some(mut load) = self.load.take() {
            load.finish()?;
        }
        self.until_scored(self.options.transactions)?;
        self.figures.load = began.elapsed();
        self.outputs.read(&self.milena)?;
        let alerts = dump::write(&self.milena, &self.outputs, folder, self.rule)?;
        if self.rule != Rule::Any {
            self.figures.alerts = dump::check_alerts(&self.milena, alerts)?;
        }
        let letters: i64 = self.milena.ends(&format!("{SCORED}.dlq")).values().sum();
        if letters > 0 {
            return Err(format!("{letters} dead letters"));
        }
        let config = folder.join("milena.toml");
        std::fs::write(&config, self.milena.config()).map_err(|e| e.to_string())?;
        if !self.milena.stop().success() {
            return Err("no clean stop".to_owned());
        }
        let began = Instant::now();
        let said = dump::recompute(&config, folder)?;
        self.figures.recomputed = (began.elapsed(), said);
        Ok(())
    }
}
