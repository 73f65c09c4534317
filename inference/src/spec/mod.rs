//! What the user writes under `[[model]]` and `[[model_topic]]`.
//!
//! Only the keys that are served exist; any other is refused as unknown. [`check()`] refuses what the types
//! alone let through. Values keep where they were written, so that an error can name the line.
//!
//! ```toml
//! [[model]]
//! name   = "fraud"
//! source = "models/fraud"          # a folder; relative to the config file's folder
//! device = "cpu"                   # cpu | cuda | auto
//! workers = 1
//! limits = { timeout = "5s", max_memory = "1GiB" }
//! cache  = { max_bytes = "64MiB" }
//!
//! [[model_topic]]
//! name  = "transactions.scored"
//! input = "transactions"           # or a list
//! model = "fraud"                  # or "fraud@1" where the model has versions
//! codec     = { in = "json", out = "json" }                  # json | raw, which is f32le | text (in)
//! start     = "earliest"                                     # earliest | latest
//! guarantee = "exactly_once"
//! output    = { key = "input", headers = "lineage" }         # headers: lineage | none
//! batch     = { max_records = 1024, max_tokens = 256, max_delay = "0ms" }
//! text      = { path = "$.body", max_tokens = 256, on_overflow = "truncate" }   # truncate | error
//! on_error  = { decode = "dlq", infer = "dlq", dlq = "transactions.scored.dlq" }   # skip | dlq | fail
//! ```

mod check;
mod describe;
mod duration;
mod feature;
mod schema;
mod size;

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
pub use toml::Spanned;

pub use check::{Problem, ReadTopic, SpecError, WrittenTopic, check};
pub use duration::text as duration_text;
pub use feature::{
    Aggregate, Cast, DEFAULT_STATE_BYTES, DEFAULT_TTL, EventTimeSpec, FeatureDefault, FeatureSpec,
    Late, LookupSpec, Op, RuleSpec, Scale, StateSpec, TimeFormat, WindowSpec,
};

use crate::engine::{BatchLimits, EngineConfig};
use crate::expression::Template;
use crate::feature::JsonPath;
use crate::model::card::ModelTask;
use crate::model::text::{Overflow, Pooling};
use crate::model::{DeviceChoice, LoadOptions};

/// The version of a model that names none.
pub const ONLY_VERSION: &str = "1";
/// Most records of a batch.
pub const MAX_BATCH_RECORDS: usize = 65_536;
/// Most tokens of a batch.
pub const MAX_BATCH_TOKENS: usize = 1 << 20;
/// Most threads of a model.
pub const MAX_WORKERS: usize = 256;
/// Longest that a model may be given for a batch.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// Longest window, grace and time to live.
pub const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);
/// Most slices of a sliding window, and most records of a window by count.
pub const MAX_SLICES: usize = 1000;
/// Most features of a model topic, and most rules.
pub const MAX_FEATURES: usize = 256;
/// Longest wait for a fuller batch.
pub const MAX_BATCH_DELAY: Duration = Duration::from_secs(60);

/// `[[model]]`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// What model topics call it.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// Its folder, where it has no versions.
    #[serde(default)]
    #[schemars(with = "PathBuf")]
    pub source: Option<Spanned<PathBuf>>,
    /// Must be the card's.
    #[serde(default)]
    pub task: Option<ModelTask>,
    /// Take the place of the card's.
    #[serde(default)]
    pub labels: Option<Vec<String>>,
    /// Of a text model's embeddings, in place of what its folder says.
    #[serde(default)]
    pub pooling: Option<Pooling>,
    /// Whether embeddings are scaled to a length of 1, in place of what the folder says.
    #[serde(default)]
    pub normalize: Option<bool>,
    /// Where it is to run; on the processor by default.
    #[serde(default)]
    pub device: DeviceChoice,
    /// Pins the weights file, where it has no versions.
    #[serde(default)]
    #[schemars(with = "String")]
    pub sha256: Option<Spanned<String>>,
    /// Threads that run it, each a batch at a time; 1 by default.
    #[serde(default)]
    #[schemars(with = "usize")]
    pub workers: Option<Spanned<usize>>,
    /// What it may take.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// Answers that are kept; none by default.
    #[serde(default)]
    pub cache: Option<CacheSpec>,
    /// `[[model.version]]`
    #[serde(default)]
    pub version: Vec<VersionSpec>,
}

/// What a model may take.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// Time for a batch. One that takes longer is halved; a record that takes longer by itself has failed.
    #[serde(deserialize_with = "duration::timeout")]
    #[schemars(with = "schema::DurationText")]
    pub timeout: Option<Spanned<Duration>>,
    /// Bytes for its weights and the largest batches of all its workers.
    #[serde(deserialize_with = "size::deserialize")]
    #[schemars(with = "schema::SizeText")]
    pub max_memory: Option<Spanned<u64>>,
}

/// Answers that are kept, to give them again to the same records.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// What they may take.
    #[serde(deserialize_with = "size::deserialize")]
    #[schemars(with = "schema::SizeText")]
    pub max_bytes: Option<Spanned<u64>>,
}

/// `[[model.version]]`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionSpec {
    /// What stands after the `@`.
    #[schemars(with = "String")]
    pub id: Spanned<String>,
    /// Its folder.
    #[schemars(with = "PathBuf")]
    pub source: Spanned<PathBuf>,
    /// Pins the weights file.
    #[serde(default)]
    #[schemars(with = "String")]
    pub sha256: Option<Spanned<String>>,
}

/// What is to be loaded for a model topic.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// The model's name.
    pub name: String,
    /// The version's id.
    pub version: String,
    /// The folder.
    pub folder: PathBuf,
    /// For [`crate::model::load`].
    pub options: LoadOptions,
    /// How it runs.
    pub engine: EngineConfig,
    /// What it may take in memory, in bytes.
    pub max_memory: Option<u64>,
}

impl ModelSpec {
    fn engine(&self) -> EngineConfig {
        let max_bytes = self
            .cache
            .as_ref()
            .and_then(|cache| cache.max_bytes.as_ref());
        let defaults = EngineConfig::default();
        EngineConfig {
            workers: self
                .workers
                .as_ref()
                .map_or(defaults.workers, |given| *given.get_ref()),
            timeout: self
                .limits
                .timeout
                .as_ref()
                .map(|timeout| *timeout.get_ref()),
            cache_bytes: max_bytes.map_or(0, |bytes| *bytes.get_ref()),
            ..defaults
        }
    }

    /// The folder and options of a version: of the only one where none is named.
    pub fn resolve(&self, version: Option<&str>, base_dir: &Path) -> Result<ModelSource, String> {
        let name = self.name.get_ref();
        let ids = || {
            let ids: Vec<&str> = self
                .version
                .iter()
                .map(|known| known.id.as_ref().as_str())
                .collect();
            ids.join(", ")
        };
        let (id, source, sha256) = match (version, self.version.as_slice(), &self.source) {
            (None | Some(ONLY_VERSION), [], Some(source)) => (ONLY_VERSION, source, &self.sha256),
            (Some(version), [], _) => {
                return Err(format!(
                    "model {name:?} has no version {version:?}: it has none but {ONLY_VERSION:?}"
                ));
            }
            (None, [], None) => return Err(format!("model {name:?} has no source")),
            (None, [only], _) => (only.id.as_ref().as_str(), &only.source, &only.sha256),
            (None, _, _) => {
                return Err(format!(
                    "model {name:?} has the versions {}: name one, as in \"{name}@{}\"",
                    ids(),
                    self.version
                        .last()
                        .map_or(ONLY_VERSION, |last| last.id.as_ref())
                ));
            }
            (Some(version), versions, _) => {
                let found = versions.iter().find(|known| known.id.as_ref() == version);
                let found = found.ok_or_else(|| {
                    format!(
                        "model {name:?} has no version {version:?}: it has {}",
                        ids()
                    )
                })?;
                (version, &found.source, &found.sha256)
            }
        };
        Ok(ModelSource {
            name: name.clone(),
            version: id.to_owned(),
            folder: base_dir.join(source.get_ref()),
            options: LoadOptions {
                sha256: sha256.as_ref().map(|sha256| sha256.get_ref().clone()),
                task: self.task,
                labels: self.labels.clone(),
                pooling: self.pooling,
                normalize: self.normalize,
                device: self.device,
            },
            engine: self.engine(),
            max_memory: self.limits.max_memory.as_ref().map(|most| *most.get_ref()),
        })
    }
}

/// `[[model_topic]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelTopicSpec {
    /// The derived topic.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// The topics that it reads.
    pub input: Inputs,
    /// `name` or `name@version`.
    #[schemars(with = "String")]
    pub model: Spanned<String>,
    /// How records are read and written.
    #[serde(default)]
    pub codec: CodecSpec,
    /// Where it starts when it has no position yet.
    #[serde(default)]
    pub start: Start,
    /// The only one that is served.
    #[serde(default)]
    pub guarantee: Guarantee,
    /// What an output is beside its value.
    #[serde(default)]
    pub output: OutputSpec,
    /// How records are put together.
    #[serde(default)]
    pub batch: BatchSpec,
    /// Where the text is, and how long it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextSpec>,
    /// What becomes of a record that fails.
    #[serde(default)]
    pub on_error: OnErrorSpec,
    /// The field that state is keyed by; the record's key without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<JsonPath>,
    /// What becomes of a record whose window has closed.
    #[serde(default)]
    pub late: Late,
    /// An input partition without records for so long does not hold back the time of the others.
    #[serde(
        default = "default_idle_timeout",
        deserialize_with = "duration::wait",
        serialize_with = "duration::write"
    )]
    #[schemars(with = "schema::DurationText")]
    pub idle_timeout: Duration,
    /// What is remembered of keys.
    #[serde(default)]
    pub state: StateSpec,
    /// `[[model_topic.feature]]`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feature: Vec<FeatureSpec>,
    /// `[[model_topic.rule]]`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<RuleSpec>,
}

fn default_idle_timeout() -> Duration {
    Duration::from_secs(60)
}

impl ModelTopicSpec {
    /// The derived topic.
    pub fn name(&self) -> &str {
        self.name.get_ref()
    }

    /// The topics that it reads, in order.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = &str> {
        self.input.0.iter().map(|input| input.get_ref().as_str())
    }

    /// The model's name, and its version if it is given.
    pub fn model_version(&self) -> (&str, Option<&str>) {
        match self.model.get_ref().split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (self.model.get_ref(), None),
        }
    }

    /// The model that it runs.
    pub fn resolve_model(
        &self,
        models: &[Spanned<ModelSpec>],
        base_dir: &Path,
    ) -> Result<ModelSource, String> {
        let (name, version) = self.model_version();
        let model = models
            .iter()
            .map(AsRef::as_ref)
            .find(|model: &&ModelSpec| model.name.as_ref() == name);
        match model {
            Some(model) => model.resolve(version, base_dir),
            None => Err(format!("there is no model {name:?}")),
        }
    }

    /// For the engine.
    pub fn batch_limits(&self) -> BatchLimits {
        BatchLimits {
            max_records: *self.batch.max_records.get_ref(),
            max_tokens: *self.batch.max_tokens.get_ref(),
            max_delay: self.batch.max_delay,
        }
    }

    /// The dead-letter topic, `None` where nothing is sent to one.
    pub fn dead_letter_topic(&self) -> Option<String> {
        let OnErrorSpec {
            decode,
            features,
            infer,
            ..
        } = self.on_error;
        let used = [decode, infer].contains(&OnError::Dlq)
            || (self.has_plan() && features == OnError::Dlq)
            || (self.is_stateful() && self.late == Late::Dlq);
        used.then(|| match &self.on_error.dlq {
            Some(name) => name.get_ref().clone(),
            None => format!("{}.dlq", self.name()),
        })
    }

    /// The topics that its rules produce to, each once, in the order of the rules.
    pub fn alert_topics(&self) -> Vec<String> {
        let mut topics: Vec<String> = Vec::new();
        for rule in &self.rule {
            if !topics.contains(rule.produce.get_ref()) {
                topics.push(rule.produce.get_ref().clone());
            }
        }
        topics
    }

    /// Whether more is made of a record than the model's row, and of an answer than its value.
    pub fn has_plan(&self) -> bool {
        !self.feature.is_empty() || !self.rule.is_empty() || self.output.template.is_some()
    }

    /// Whether it remembers anything of keys.
    pub fn is_stateful(&self) -> bool {
        self.feature.iter().any(|feature| feature.agg.is_some())
    }

    /// The topic that brings records of a key together, `None` where records' own keys do.
    pub fn repartition_topic(&self) -> Option<String> {
        let needed = self.key.is_some() && self.is_stateful();
        needed.then(|| format!("{}.repartition", self.name()))
    }

    /// The topics that its features look up, each once.
    pub fn tables(&self) -> Vec<String> {
        let mut tables: Vec<String> = Vec::new();
        for lookup in self
            .feature
            .iter()
            .filter_map(|feature| feature.lookup.as_ref())
        {
            if !tables.contains(lookup.table.get_ref()) {
                tables.push(lookup.table.get_ref().clone());
            }
        }
        tables
    }

    /// The topic that its state and positions are kept in.
    pub fn changelog_topic(&self) -> String {
        format!("{}.changelog", self.name())
    }
}

/// The topics that a model topic reads: one, or a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs(pub Vec<Spanned<String>>);

impl Serialize for Inputs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Spanned::<OneOrMany>::deserialize(deserializer)?;
        let span = written.span();
        Ok(Self(match written.into_inner() {
            OneOrMany::One(name) => vec![Spanned::new(span, name)],
            OneOrMany::Many(names) => names,
        }))
    }
}

/// Not an untagged enum, which would lose where the names stand.
enum OneOrMany {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a topic's name or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(OneOrMany::Many(names))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

/// How records are read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CodecSpec {
    /// Of the inputs.
    pub r#in: Codec,
    /// Of the derived topic.
    pub out: Codec,
}

/// A record's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// A JSON object.
    #[default]
    Json,
    /// Little-endian f32s: the model's row as it is, without the card's transforms; its scores, value or
    /// embedding.
    #[serde(alias = "f32le")]
    Raw,
    /// UTF-8, of an input only.
    Text,
}

/// Where a text model finds its text, and how long that may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TextSpec {
    /// In a JSON record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<JsonPath>,
    /// Most tokens of a text, with those that frame it; as many as the model can look at by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize")]
    pub max_tokens: Option<Spanned<usize>>,
    /// What becomes of a longer one.
    pub on_overflow: Overflow,
}

/// Where a model topic starts when it has no position yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The first record there is.
    #[default]
    Earliest,
    /// The first record that comes; the position is committed before the topic runs.
    Latest,
}

/// How often an input's output appears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Once.
    #[default]
    ExactlyOnce,
}

/// What an output is beside its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutputSpec {
    /// Its key.
    pub key: OutputKey,
    /// Its headers.
    pub headers: OutputHeaders,
    /// Its value, in place of the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
}

/// An output's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputKey {
    /// The input record's.
    #[default]
    Input,
}

/// An output's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputHeaders {
    /// Where it came from, and what made it.
    #[default]
    Lineage,
    /// None.
    None,
}

/// How records are put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSpec {
    /// Most records of a batch.
    #[schemars(with = "usize")]
    pub max_records: Spanned<usize>,
    /// Most tokens of a batch of texts; a longer text is a batch of its own. Without padding a processor's core is as
    /// fast with few tokens as with many, and answers sooner; a GPU wants more.
    #[schemars(with = "usize")]
    pub max_tokens: Spanned<usize>,
    /// How long a batch that is not full may wait for more.
    #[serde(
        deserialize_with = "duration::delay",
        serialize_with = "duration::write"
    )]
    #[schemars(with = "schema::DurationText")]
    pub max_delay: Duration,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self {
            max_records: Spanned::new(0..0, 1024),
            max_tokens: Spanned::new(0..0, 256),
            max_delay: Duration::ZERO,
        }
    }
}

/// What becomes of a record that fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnErrorSpec {
    /// Where it can't be read.
    pub decode: OnError,
    /// Where its features can't be made of it.
    pub features: OnError,
    /// Where the model fails on it.
    pub infer: OnError,
    /// The dead-letter topic; the model topic's name with `.dlq` by default.
    #[schemars(with = "String")]
    pub dlq: Option<Spanned<String>>,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It is left out.
    Skip,
    /// It goes to the dead-letter topic.
    #[default]
    Dlq,
    /// The model topic halts before it.
    Fail,
}
