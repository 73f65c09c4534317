//! What a config comes to, for people: who reads and writes which topics, what features are made of, where state goes, and
//! what is left to defaults.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use bytesize::ByteSize;
use inference::model::card::Card;
use inference::spec::{
    DEFAULT_STATE_BYTES, Late, ModelSource, ModelTopicSpec, OnError, Start, duration_text,
};
use serde_json::Value;

use crate::config::{Cards, Config, ConfigErrors};

/// Of a stage that not every model topic has.
const NO_FEATURES: &str = "what features can't be made of";

/// An explanation; it is shown.
#[derive(Debug)]
pub struct Explanation {
    config: Config,
    cards: Cards,
    /// What the file says, for telling it from defaults.
    written: toml::Table,
}

impl Explanation {
    /// Of a config that is sound; it loads the models.
    pub fn of(file: &Path) -> Result<Self, ConfigErrors> {
        let (config, cards) = Config::check_file(file)?;
        let text = std::fs::read_to_string(file).unwrap_or_default();
        Ok(Self {
            config,
            cards,
            written: text.parse().unwrap_or_default(),
        })
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let specs = || self.config.model_topic.iter().map(AsRef::as_ref);
        self.graph(specs(), f)?;
        self.models(specs(), f)?;
        for (index, spec) in specs().enumerate() {
            self.model_topic(index, spec, f)?;
        }
        self.sections(f)
    }
}

impl Explanation {
    /// An arrow for each way that records go.
    fn graph<'s>(
        &self,
        specs: impl Iterator<Item = &'s ModelTopicSpec>,
        f: &mut Formatter<'_>,
    ) -> fmt::Result {
        writeln!(f, "topics")?;
        for topic in &self.config.topic {
            let partitions = topic
                .partitions
                .unwrap_or(self.config.broker.num_partitions);
            writeln!(f, "  {}, {partitions} partitions", topic.name)?;
        }
        for spec in specs {
            let name = spec.name();
            let from = match spec.repartition_topic() {
                Some(between) => {
                    for input in spec.inputs() {
                        writeln!(f, "  {input} -> {between}")?;
                    }
                    vec![between]
                }
                None => spec.inputs().map(str::to_owned).collect(),
            };
            for from in from {
                writeln!(
                    f,
                    "  {from} -> {name}, through model {}",
                    spec.model.get_ref()
                )?;
            }
            for table in spec.tables() {
                writeln!(f, "  {table} -> {name}, looked up")?;
            }
            for rule in &spec.rule {
                let (when, produce) = (rule.when.as_str(), rule.produce.get_ref());
                writeln!(f, "  {name} -> {produce}, where {when}")?;
            }
            if let Some(dlq) = spec.dead_letter_topic() {
                writeln!(f, "  {name} -> {dlq}, what fails")?;
            }
        }
        Ok(())
    }

    fn models<'s>(
        &self,
        specs: impl Iterator<Item = &'s ModelTopicSpec>,
        f: &mut Formatter<'_>,
    ) -> fmt::Result {
        let mut told: Vec<(String, String)> = Vec::new();
        for source in specs.filter_map(|spec| self.source(spec)) {
            let key = (source.name.clone(), source.version.clone());
            let Some((card, footprint)) = self.cards.get(&key) else {
                continue;
            };
            if told.contains(&key) {
                continue;
            }
            told.push(key);
            writeln!(f, "\nmodel {}, version {}", source.name, source.version)?;
            writeln!(f, "  folder    {}", source.folder.display())?;
            let weights = ByteSize::b(footprint.weights).display().iec();
            let form = match &**card {
                Card::Tabular(card) => format!("rows of {} numbers", card.width()),
                Card::Text(card) => format!("texts of up to {} tokens", card.positions),
            };
            writeln!(
                f,
                "  task      {}, {form}, {weights} of weights",
                card.task()
            )?;
            if !card.labels().is_empty() {
                writeln!(f, "  labels    {}", card.labels().join(", "))?;
            }
            let engine = &source.engine;
            let timeout = engine.timeout.map_or("none".to_owned(), duration_text);
            let memory = source.max_memory.map_or("none".to_owned(), iec);
            writeln!(
                f,
                "  runs      on {} thread(s); limits: timeout {timeout}, memory {memory}; cache of {}",
                engine.workers,
                iec(engine.cache_bytes)
            )?;
        }
        Ok(())
    }

    fn source(&self, spec: &ModelTopicSpec) -> Option<ModelSource> {
        let (models, base_dir) = (&self.config.model, &self.config.base_dir);
        spec.resolve_model(models, base_dir).ok()
    }

    fn model_topic(
        &self,
        index: usize,
        spec: &ModelTopicSpec,
        f: &mut Formatter<'_>,
    ) -> fmt::Result {
        writeln!(f, "\nmodel topic {}", spec.name())?;
        let start = match spec.start {
            Start::Earliest => "the first record there is",
            Start::Latest => "the first record that comes",
        };
        let inputs: Vec<&str> = spec.inputs().collect();
        writeln!(f, "  reads     {}, from {start}", inputs.join(", "))?;
        self.inputs(spec, f)?;
        if spec.is_stateful() {
            self.state(spec, f)?;
        }
        for rule in &spec.rule {
            let (when, produce) = (rule.when.as_str(), rule.produce.get_ref());
            writeln!(f, "  rule      {produce} where {when}")?;
        }
        let errors = &spec.on_error;
        for (stage, then) in [
            ("what can't be read", errors.decode),
            (NO_FEATURES, errors.features),
            ("what the model fails on", errors.infer),
        ] {
            if stage == NO_FEATURES && !spec.has_plan() {
                continue;
            }
            let then = match then {
                OnError::Skip => "is left out".to_owned(),
                OnError::Dlq => {
                    let topic = spec.dead_letter_topic().unwrap_or_default();
                    format!("goes to {topic}")
                }
                OnError::Fail => "halts the model topic".to_owned(),
            };
            writeln!(f, "  error     {stage} {then}")?;
        }
        writeln!(f, "  settings")?;
        let list = self.written.get("model_topic");
        let written = list.and_then(|list| list.as_array()?.get(index));
        let mut settings = Vec::new();
        flatten(
            "",
            &serde_json::to_value(spec).unwrap_or_default(),
            &mut settings,
        );
        for (key, value) in settings {
            let told_above = ["feature", "rule"].contains(&key.as_str());
            if told_above || !has_effect(spec, &key) {
                continue;
            }
            let value = match key.as_str() {
                "state.max_bytes" if value.is_null() => iec(DEFAULT_STATE_BYTES),
                "on_error.dlq" if value.is_null() => {
                    spec.dead_letter_topic().unwrap_or("none".to_owned())
                }
                _ => value.to_string(),
            };
            let is_written = written.is_some_and(|written| is_written(written, &key));
            let mark = if is_written { "" } else { "  (default)" };
            writeln!(f, "    {key} = {value}{mark}")?;
        }
        Ok(())
    }

    /// What the model is given: its inputs, and the features that are none of them.
    fn inputs(&self, spec: &ModelTopicSpec, f: &mut Formatter<'_>) -> fmt::Result {
        let card = self.source(spec).and_then(|source| {
            let card = self.cards.get(&(source.name, source.version));
            card.and_then(|(card, _)| card.tabular())
        });
        let inputs = card.map(|card| card.inputs.as_slice()).unwrap_or_default();
        let from_record = card.is_some() && spec.codec.r#in == inference::spec::Codec::Json;
        for feature in &spec.feature {
            let name = feature.name.get_ref();
            let at = inputs
                .iter()
                .position(|input| input.name.as_ref() == Some(name));
            let used = at.map_or("not the model's".to_owned(), |at| format!("input {at}"));
            let width = match (&feature.one_hot, &feature.hash, feature.cast) {
                (Some(texts), _, _) => format!("{} numbers", texts.get_ref().len()),
                (_, Some(buckets), _) => format!("{} numbers", buckets.get_ref()),
                (_, _, Some(inference::spec::Cast::Text)) => "a text".to_owned(),
                _ => "a number".to_owned(),
            };
            let made = feature.describe(&spec.state);
            writeln!(f, "  feature   {name}, {width}, {used}: {made}")?;
        }
        for (at, input) in inputs.iter().enumerate().filter(|_| from_record) {
            let is_feature = |name| {
                spec.feature
                    .iter()
                    .any(|feature| feature.name.get_ref() == name)
            };
            if let (false, Some(path)) = (input.name.as_ref().is_some_and(is_feature), &input.path)
            {
                writeln!(f, "  field     {path}, input {at}")?;
            }
        }
        Ok(())
    }

    fn state(&self, spec: &ModelTopicSpec, f: &mut Formatter<'_>) -> fmt::Result {
        match (&spec.key, spec.repartition_topic()) {
            (Some(key), Some(between)) => writeln!(
                f,
                "  keyed by  {key}; {between} brings records of a key together, by Java's murmur2"
            )?,
            _ => writeln!(f, "  keyed by  the records' own keys")?,
        }
        let times = self.config.event_times();
        for input in spec.inputs() {
            match times.get(input) {
                Some(time) => {
                    let format = serde_json::to_value(time.format).unwrap_or_default();
                    let (field, format) = (&time.field, format.as_str().unwrap_or_default());
                    writeln!(f, "  time      of {input}: {field}, as {format}")?;
                }
                None => writeln!(f, "  time      of {input}: the record's timestamp")?,
            }
        }
        let late = match spec.late {
            Late::Drop => "does not count in windows that have closed",
            Late::Dlq => "is a dead letter where its windows have closed",
            Late::Update => "counts for as long as the state is kept",
        };
        writeln!(
            f,
            "  time      what comes late {late}; a partition that gives nothing is waited for {}",
            duration_text(spec.idle_timeout)
        )?;
        let most = spec.state.max_bytes.as_ref().map(|most| *most.get_ref());
        let data_dir = self
            .config
            .broker
            .data_dir
            .join(crate::model_topics::STATE_FOLDER);
        writeln!(
            f,
            "  state     up to {} in memory, more in {}; logged to {}",
            iec(most.unwrap_or(DEFAULT_STATE_BYTES)),
            data_dir.join(spec.name()).display(),
            spec.changelog_topic()
        )?;
        if spec.state.query && !self.config.http.listen.is_empty() {
            let (listen, name) = (&self.config.http.listen, spec.name());
            writeln!(f, "  query     http://{listen}/v1/state/{name}/{{key}}")?;
        }
        Ok(())
    }

    /// What the file says beside topics and models.
    fn sections(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nbroker")?;
        let sections = ["broker", "log", "group", "transaction", "http"];
        for section in sections {
            let written = self.written.get(section).and_then(toml::Value::as_table);
            for (key, value) in written.into_iter().flatten() {
                writeln!(f, "  {section}.{key} = {value}")?;
            }
        }
        writeln!(f, "  all else has its default: milena schema --reference")
    }
}

fn iec(bytes: impl TryInto<u64>) -> String {
    let bytes = bytes.try_into().unwrap_or(u64::MAX);
    ByteSize::b(bytes).display().iec().to_string()
}

/// Keys of tables within tables, with dots.
fn flatten(prefix: &str, value: &Value, keys: &mut Vec<(String, Value)>) {
    let Value::Object(members) = value else {
        keys.push((prefix.to_owned(), value.clone()));
        return;
    };
    for (name, value) in members {
        let key = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        match key.as_str() {
            // The user's own names are in it.
            "output.template" => keys.push((key, value.clone())),
            _ => flatten(&key, value, keys),
        }
    }
}

/// What is about state says nothing where none is kept.
fn has_effect(spec: &ModelTopicSpec, key: &str) -> bool {
    let of_state = key.starts_with("state.") || ["late", "idle_timeout"].contains(&key);
    spec.is_stateful() || !of_state
}

fn is_written(written: &toml::Value, key: &str) -> bool {
    let mut at = Some(written);
    for name in key.split('.') {
        at = at.and_then(|at| at.get(name));
    }
    at.is_some()
}
