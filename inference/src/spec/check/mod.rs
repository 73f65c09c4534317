//! What is wrong with models and model topics beyond what their types refuse.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{
    Codec, MAX_BATCH_RECORDS, MAX_BATCH_TOKENS, MAX_TIMEOUT, MAX_WORKERS, ModelSpec,
    ModelTopicSpec, Spanned,
};
use crate::feature::plan::Plan;
use crate::model::CARD_FILE;

mod topics;

pub use topics::{ReadTopic, WrittenTopic};

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
    /// A model that is not there, or features that do not fit one another.
    #[error("{0}")]
    Other(String),
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

/// Everything wrong with models and model topics that can be told without loading a model: duplicate names, unknown models
/// and versions, missing folders, clashes between topics, cycles, features that don't fit one another. In the order of the
/// file; `base_dir` is its folder.
pub fn check(
    models: &[Spanned<ModelSpec>],
    model_topics: &[Spanned<ModelTopicSpec>],
    base_dir: &Path,
) -> Vec<SpecError> {
    let mut faults = Vec::new();
    for (index, model) in models.iter().enumerate() {
        check_model(index, models, model, base_dir, &mut faults);
    }
    for (index, topic) in model_topics.iter().enumerate() {
        check_topic(index, topic, models, base_dir, &mut faults);
    }
    topics::check(model_topics, &mut faults);
    faults.sort_by_key(|fault| fault.span.start);
    faults
}

fn error(key: String, span: Range<usize>, problem: Problem) -> SpecError {
    SpecError { key, span, problem }
}

fn check_model(
    index: usize,
    models: &[Spanned<ModelSpec>],
    model: &Spanned<ModelSpec>,
    base_dir: &Path,
    faults: &mut Vec<SpecError>,
) {
    let at = |key: &str| format!("model[{index}].{key}");
    let (span, model) = (model.span(), model.get_ref());
    let name = &model.name;
    if let Err(problem) = check_name(name.get_ref()) {
        faults.push(error(at("name"), name.span(), problem));
    }
    let mut before = models.iter().take(index);
    if let Some(first) = before.position(|known| known.get_ref().name == *name) {
        let problem = Problem::Duplicate {
            name: name.get_ref().clone(),
            by: format!("model[{first}]"),
        };
        faults.push(error(at("name"), name.span(), problem));
    }
    match (&model.source, model.version.is_empty()) {
        (None, true) => faults.push(error(
            format!("model[{index}]"),
            span,
            Problem::Source("neither"),
        )),
        (Some(_), false) => faults.push(error(
            format!("model[{index}]"),
            span,
            Problem::Source("both"),
        )),
        _ => {}
    }
    if let Some(source) = &model.source {
        check_folder(base_dir, source, at("source"), faults);
    }
    check_sha256(&model.sha256, at("sha256"), faults);
    check_limits(model, at, faults);
    check_versions(model, at, base_dir, faults);
}

fn check_limits(model: &ModelSpec, at: impl Fn(&str) -> String, faults: &mut Vec<SpecError>) {
    if let Some(workers) = &model.workers
        && let Err(problem) = in_range(workers, MAX_WORKERS)
    {
        faults.push(error(at("workers"), workers.span(), problem));
    }
    if let Some(timeout) = &model.limits.timeout
        && timeout.get_ref().is_zero()
    {
        let problem = Problem::Range {
            found: "0ms".to_owned(),
            from: "1us".to_owned(),
            to: format!("{MAX_TIMEOUT:?}"),
        };
        faults.push(error(at("limits.timeout"), timeout.span(), problem));
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

fn check_versions(
    model: &ModelSpec,
    at: impl Fn(&str) -> String,
    base_dir: &Path,
    faults: &mut Vec<SpecError>,
) {
    if let (Some(sha256), false) = (&model.sha256, model.version.is_empty()) {
        let problem = Problem::Source("versions, and a sha256 beside them");
        faults.push(error(at("sha256"), sha256.span(), problem));
    }
    for (number, version) in model.version.iter().enumerate() {
        let at = |name: &str| at(&format!("version[{number}].{name}"));
        let id = &version.id;
        if let Err(problem) = check_name(id.get_ref()) {
            faults.push(error(at("id"), id.span(), problem));
        }
        let mut before = model.version.iter().take(number);
        if let Some(first) = before.position(|known| known.id == *id) {
            let problem = Problem::Duplicate {
                name: id.get_ref().clone(),
                by: format!("version[{first}]"),
            };
            faults.push(error(at("id"), id.span(), problem));
        }
        check_folder(base_dir, &version.source, at("source"), faults);
        check_sha256(&version.sha256, at("sha256"), faults);
    }
}

fn check_folder(
    base_dir: &Path,
    source: &Spanned<PathBuf>,
    key: String,
    faults: &mut Vec<SpecError>,
) {
    let path = base_dir.join(source.get_ref());
    let reason = if !path.exists() {
        "does not exist"
    } else if !path.is_dir() {
        "is not a folder"
    } else if !path.join(CARD_FILE).is_file() {
        "has no config.json"
    } else {
        return;
    };
    faults.push(error(key, source.span(), Problem::Folder { path, reason }));
}

fn check_sha256(sha256: &Option<Spanned<String>>, key: String, faults: &mut Vec<SpecError>) {
    if let Some(pin) = sha256
        && (pin.get_ref().len() != 64 || !pin.get_ref().bytes().all(|b| b.is_ascii_hexdigit()))
    {
        let problem = Problem::Sha256(pin.get_ref().clone());
        faults.push(error(key, pin.span(), problem));
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
    faults: &mut Vec<SpecError>,
) {
    let at = |key: &str| format!("model_topic[{index}].{key}");
    let (topic_span, topic) = (topic.span(), topic.get_ref());
    if let Err(reason) = topic.resolve_model(models, base_dir) {
        let problem = Problem::Other(reason);
        faults.push(error(at("model"), topic.model.span(), problem));
    }
    let batch = &topic.batch;
    for (key, found, most) in [
        ("batch.max_records", &batch.max_records, MAX_BATCH_RECORDS),
        ("batch.max_tokens", &batch.max_tokens, MAX_BATCH_TOKENS),
    ] {
        if let Err(problem) = in_range(found, most) {
            faults.push(error(at(key), found.span(), problem));
        }
    }
    if topic.codec.out == Codec::Text {
        faults.push(error(
            at("codec.out"),
            topic_span.clone(),
            Problem::TextOutput,
        ));
    }
    for fault in Plan::faults(topic, None) {
        let span = fault.span.unwrap_or(topic_span.clone());
        faults.push(error(at(&fault.key), span, Problem::Other(fault.reason)));
    }
}
