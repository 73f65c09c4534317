//! What is wrong with models and model topics beyond what their types refuse.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{
    Codec, MAX_BATCH_RECORDS, MAX_BATCH_TOKENS, MAX_TIMEOUT, MAX_WORKERS, ModelSpec,
    ModelTopicSpec, Spanned,
};
use crate::model::CARD_FILE;

/// Something wrong in the config, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct SpecError {
    /// The key's path, as `model_topic[1].model`, counted from 0.
    pub key: String,
    /// Where it stands in the file, in bytes.
    pub span: Range<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// A name that can't be one.
    #[error("{name:?} is not a name: {reason}")]
    Name {
        /// As written.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name that is taken.
    #[error("{name:?} is already {by}")]
    Duplicate {
        /// The name.
        name: String,
        /// Who has it.
        by: String,
    },
    /// A model without a folder, or with two kinds of one.
    #[error("a model has either source or versions, this one has {0}")]
    Source(&'static str),
    /// A folder that is not there, or is no model's.
    #[error("{path} {reason}")]
    Folder {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A pin that is no SHA-256.
    #[error("{0:?} is not a sha256 of 64 hexadecimal digits")]
    Sha256(String),
    /// A model that is not there.
    #[error("{0}")]
    Model(String),
    /// No input.
    #[error("there is no input")]
    NoInput,
    /// A model topic that reads what it writes.
    #[error("model topics feed themselves: {0}")]
    Cycle(String),
    /// A codec that outputs have not.
    #[error("\"text\" is a codec of inputs; outputs are \"json\" or \"raw\"")]
    TextOutput,
    /// A number outside its range.
    #[error("{found} is not between {from} and {to}")]
    Range {
        /// As written.
        found: String,
        /// The least.
        from: String,
        /// The most.
        to: String,
    },
}

/// Refuses duplicate names, unknown models and versions, missing folders, clashes between topics, and
/// cycles. `base_dir` is the config file's folder. Tells the first problem.
pub fn check(
    models: &[Spanned<ModelSpec>],
    model_topics: &[Spanned<ModelTopicSpec>],
    base_dir: &Path,
) -> Result<(), SpecError> {
    check_models(models, base_dir)?;
    let mut written = BTreeMap::new();
    for (index, topic) in model_topics.iter().enumerate() {
        check_topic(index, topic, models, base_dir)?;
        claim_topics(index, topic.get_ref(), &mut written)?;
    }
    for (index, topic) in model_topics.iter().enumerate() {
        check_inputs(index, topic.get_ref(), &written)?;
    }
    check_cycles(model_topics)
}

fn error(key: String, span: Range<usize>, problem: Problem) -> SpecError {
    SpecError { key, span, problem }
}

fn check_models(models: &[Spanned<ModelSpec>], base_dir: &Path) -> Result<(), SpecError> {
    for (index, model) in models.iter().enumerate() {
        let at = |key: &str| format!("model[{index}].{key}");
        let (span, model) = (model.span(), model.get_ref());
        let name = &model.name;
        check_name(name.get_ref()).map_err(|problem| error(at("name"), name.span(), problem))?;
        if let Some(first) = models[..index]
            .iter()
            .position(|known| known.get_ref().name == *name)
        {
            let problem = Problem::Duplicate {
                name: name.get_ref().clone(),
                by: format!("model[{first}]"),
            };
            return Err(error(at("name"), name.span(), problem));
        }
        let sources = match (&model.source, model.version.is_empty()) {
            (None, true) => Err("neither"),
            (Some(_), false) => Err("both"),
            _ => Ok(()),
        };
        sources.map_err(|found| error(format!("model[{index}]"), span, Problem::Source(found)))?;
        if let Some(source) = &model.source {
            check_folder(base_dir, source)
                .map_err(|(span, problem)| error(at("source"), span, problem))?;
        }
        check_sha256(&model.sha256)
            .map_err(|(span, problem)| error(at("sha256"), span, problem))?;
        check_limits(model).map_err(|(key, span, problem)| error(at(key), span, problem))?;
        check_versions(&at("version"), model, base_dir)?;
    }
    Ok(())
}

fn check_limits(model: &ModelSpec) -> Result<(), (&'static str, Range<usize>, Problem)> {
    if let Some(workers) = &model.workers {
        in_range(workers, MAX_WORKERS).map_err(|problem| ("workers", workers.span(), problem))?;
    }
    match &model.limits.timeout {
        Some(timeout) if timeout.get_ref().is_zero() => {
            let problem = Problem::Range {
                found: "0ms".to_owned(),
                from: "1us".to_owned(),
                to: format!("{MAX_TIMEOUT:?}"),
            };
            Err(("limits.timeout", timeout.span(), problem))
        }
        _ => Ok(()),
    }
}

/// From 1 on.
fn in_range(found: &Spanned<usize>, most: usize) -> Result<(), Problem> {
    match found.get_ref() {
        found if (1..=most).contains(found) => Ok(()),
        found => Err(Problem::Range {
            found: found.to_string(),
            from: "1".to_owned(),
            to: most.to_string(),
        }),
    }
}

fn check_versions(key: &str, model: &ModelSpec, base_dir: &Path) -> Result<(), SpecError> {
    if let (Some(sha256), false) = (&model.sha256, model.version.is_empty()) {
        let problem = Problem::Source("versions, and a sha256 beside them");
        return Err(error(
            key.replace("version", "sha256"),
            sha256.span(),
            problem,
        ));
    }
    for (number, version) in model.version.iter().enumerate() {
        let at = |name: &str| format!("{key}[{number}].{name}");
        let id = &version.id;
        check_name(id.get_ref()).map_err(|problem| error(at("id"), id.span(), problem))?;
        if let Some(first) = model.version[..number]
            .iter()
            .position(|known| known.id == *id)
        {
            let problem = Problem::Duplicate {
                name: id.get_ref().clone(),
                by: format!("{key}[{first}]"),
            };
            return Err(error(at("id"), id.span(), problem));
        }
        check_folder(base_dir, &version.source)
            .map_err(|(span, problem)| error(at("source"), span, problem))?;
        check_sha256(&version.sha256)
            .map_err(|(span, problem)| error(at("sha256"), span, problem))?;
    }
    Ok(())
}

type Located = (Range<usize>, Problem);

fn check_folder(base_dir: &Path, source: &Spanned<PathBuf>) -> Result<(), Located> {
    let path = base_dir.join(source.get_ref());
    let reason = if !path.exists() {
        "does not exist"
    } else if !path.is_dir() {
        "is not a folder"
    } else if !path.join(CARD_FILE).is_file() {
        "has no config.json"
    } else {
        return Ok(());
    };
    Err((source.span(), Problem::Folder { path, reason }))
}

fn check_sha256(sha256: &Option<Spanned<String>>) -> Result<(), Located> {
    match sha256 {
        Some(pin)
            if pin.get_ref().len() != 64
                || !pin.get_ref().bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Err((pin.span(), Problem::Sha256(pin.get_ref().clone())))
        }
        _ => Ok(()),
    }
}

/// Kafka's rule for topics serves for models and versions too.
fn check_name(name: &str) -> Result<(), Problem> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > 249 {
        "it is longer than 249 characters"
    } else if name == "." || name == ".." {
        "it is . or .."
    } else if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    {
        "it has other characters than letters, digits, '.', '_' and '-'"
    } else {
        return Ok(());
    };
    Err(Problem::Name {
        name: name.to_owned(),
        reason,
    })
}

fn check_topic(
    index: usize,
    topic: &Spanned<ModelTopicSpec>,
    models: &[Spanned<ModelSpec>],
    base_dir: &Path,
) -> Result<(), SpecError> {
    let at = |key: &str| format!("model_topic[{index}].{key}");
    let (topic_span, topic) = (topic.span(), topic.get_ref());
    check_name(topic.name()).map_err(|problem| error(at("name"), topic.name.span(), problem))?;
    // The longest name that is made of it has to be one, too.
    check_name(&topic.changelog_topic())
        .map_err(|problem| error(at("name"), topic.name.span(), problem))?;
    if let Some(dlq) = &topic.on_error.dlq {
        check_name(dlq.get_ref())
            .map_err(|problem| error(at("on_error.dlq"), dlq.span(), problem))?;
    }
    if topic.input.0.is_empty() {
        return Err(error(at("input"), topic_span, Problem::NoInput));
    }
    for (number, input) in topic.input.0.iter().enumerate() {
        let key = || match topic.input.0.len() {
            1 => at("input"),
            _ => at(&format!("input[{number}]")),
        };
        let span = input_span(topic, number);
        check_name(input.get_ref()).map_err(|problem| error(key(), span.clone(), problem))?;
        if topic.input.0[..number].contains(input) {
            let problem = Problem::Duplicate {
                name: input.get_ref().clone(),
                by: "an input".to_owned(),
            };
            return Err(error(key(), span, problem));
        }
    }
    topic
        .resolve_model(models, base_dir)
        .map_err(|reason| error(at("model"), topic.model.span(), Problem::Model(reason)))?;
    for (key, found, most) in [
        (
            "batch.max_records",
            &topic.batch.max_records,
            MAX_BATCH_RECORDS,
        ),
        (
            "batch.max_tokens",
            &topic.batch.max_tokens,
            MAX_BATCH_TOKENS,
        ),
    ] {
        in_range(found, most).map_err(|problem| error(at(key), found.span(), problem))?;
    }
    if topic.codec.out == Codec::Text {
        return Err(error(at("codec.out"), topic_span, Problem::TextOutput));
    }
    Ok(())
}

fn input_span(topic: &ModelTopicSpec, number: usize) -> Range<usize> {
    match topic.input.0.get(number) {
        Some(input) => input.span(),
        None => topic.name.span(),
    }
}

/// What a model topic writes is written by nobody else.
fn claim_topics(
    index: usize,
    topic: &ModelTopicSpec,
    written: &mut BTreeMap<String, String>,
) -> Result<(), SpecError> {
    let name_span = topic.name.span();
    let dlq_span = match &topic.on_error.dlq {
        Some(dlq) => dlq.span(),
        None => name_span.clone(),
    };
    let claims = [
        (
            Some(topic.name().to_owned()),
            "name",
            name_span.clone(),
            "the derived topic",
        ),
        (
            topic.dead_letter_topic(),
            "on_error.dlq",
            dlq_span,
            "the dead-letter topic",
        ),
        (
            Some(topic.changelog_topic()),
            "name",
            name_span,
            "the changelog",
        ),
    ];
    for (name, key, span, what) in claims {
        let Some(name) = name else { continue };
        let by = format!("{what} of model_topic[{index}]");
        if let Some(by) = written.insert(name.clone(), by) {
            let key = format!("model_topic[{index}].{key}");
            return Err(error(key, span, Problem::Duplicate { name, by }));
        }
    }
    Ok(())
}

fn check_inputs(
    index: usize,
    topic: &ModelTopicSpec,
    written: &BTreeMap<String, String>,
) -> Result<(), SpecError> {
    for (number, input) in topic.inputs().enumerate() {
        if let Some(by) = written.get(input)
            && by.starts_with("the changelog")
        {
            let problem = Problem::Duplicate {
                name: input.to_owned(),
                by: by.clone(),
            };
            let key = format!("model_topic[{index}].input");
            return Err(error(key, input_span(topic, number), problem));
        }
    }
    Ok(())
}

/// Follows each model topic's inputs to whoever writes them.
fn check_cycles(model_topics: &[Spanned<ModelTopicSpec>]) -> Result<(), SpecError> {
    let mut writers: BTreeMap<String, usize> = BTreeMap::new();
    for (index, topic) in model_topics.iter().enumerate() {
        let topic = topic.get_ref();
        writers.insert(topic.name().to_owned(), index);
        if let Some(dlq) = topic.dead_letter_topic() {
            writers.insert(dlq, index);
        }
    }
    let topics: Vec<&ModelTopicSpec> = model_topics.iter().map(Spanned::get_ref).collect();
    let mut done = vec![false; topics.len()];
    for start in 0..topics.len() {
        // The way so far: each model topic with its next input to follow.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some(&(at, next)) = way.last() {
            let Some(topic) = topics.get(at) else { break };
            let Some(input) = topic.inputs().nth(next).filter(|_| !done[at]) else {
                done[at] = true;
                way.pop();
                continue;
            };
            if let Some(last) = way.last_mut() {
                last.1 += 1;
            }
            let Some(&writer) = writers.get(input) else {
                continue;
            };
            if let Some(from) = way.iter().position(|&(seen, _)| seen == writer) {
                return Err(cycle(&topics, &way[from..], input));
            }
            way.push((writer, 0));
        }
    }
    Ok(())
}

/// `way` goes from the model topic that writes `closing` upstream to the one that reads it.
fn cycle(topics: &[&ModelTopicSpec], way: &[(usize, usize)], closing: &str) -> SpecError {
    // Each step's input is what the next model topic upstream writes; data flows the other way.
    let mut names = vec![closing.to_owned()];
    for &(at, next) in way.iter().rev().skip(1) {
        names.extend(
            topics
                .get(at)
                .and_then(|topic| topic.inputs().nth(next.saturating_sub(1)))
                .map(str::to_owned),
        );
    }
    names.push(closing.to_owned());
    let (index, number) = way
        .last()
        .map_or((0, 0), |&(at, next)| (at, next.saturating_sub(1)));
    let span = topics
        .get(index)
        .map_or(0..0, |topic| input_span(topic, number));
    error(
        format!("model_topic[{index}].input"),
        span,
        Problem::Cycle(names.join(" -> ")),
    )
}
