//! From a file to a [`Config`], with errors that say where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;

/// Why a config file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {message}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
    /// A key or a value is refused.
    #[error("{file}:{line}: {place}{reason}", file = .file.display(), place = Place(key, value))]
    Refused {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key's path, such as `topic[1].name`; empty where the file is not TOML.
        key: String,
        /// The value as written, or empty.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

/// A key and, where there is one, its value.
struct Place<'a>(&'a str, &'a str);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self("", _) => Ok(()),
            Self(key, "") => write!(f, "{key}: "),
            Self(key, value) => write!(f, "{key} = {value}: "),
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, path)
    }

    /// Parses and checks the text of the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config = deserialize(text, path)?;
        config.base_dir = path.parent().unwrap_or(Path::new("")).to_owned();
        if let Err(problem) = config.check() {
            return Err(refused(text, path, problem.key, problem.reason));
        }
        if let Err(error) = config.check_models() {
            return Err(refused(text, path, error.key, error.problem.to_string()));
        }
        Ok(config)
    }

    /// Reads and checks a file, and loads every model that it names.
    pub fn check_file(path: &Path) -> Result<(), ConfigError> {
        let text = read(path)?;
        let config = Self::parse(&text, path)?;
        config
            .check_weights()
            .map_err(|problem| refused(&text, path, problem.key, problem.reason))
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

fn refused(text: &str, path: &Path, key: String, reason: String) -> ConfigError {
    let (span, value) = locate(text, &key);
    ConfigError::Refused {
        file: path.to_owned(),
        line: line(text, span.start),
        key,
        value,
        reason,
    }
}

fn deserialize(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let refused = |error: &toml::de::Error, key: String| ConfigError::Refused {
        file: path.to_owned(),
        line: line(text, error.span().map_or(0, |span| span.start)),
        key,
        value: String::new(),
        reason: error.message().to_owned(),
    };
    let deserializer =
        toml::Deserializer::parse(text).map_err(|error| refused(&error, String::new()))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        // A segment that is in no file: how spanned values are read.
        let key = error
            .path()
            .to_string()
            .replace(".$__serde_spanned_private_value", "");
        // "." is the whole file; "?" stands for a key that was not read to its end.
        let key = key.trim_end_matches('?').trim_end_matches('.').to_owned();
        refused(error.inner(), key)
    })
}

/// Where a key's value is, or the nearest table around it, and the value as written where it is
/// one of a line.
fn locate(text: &str, key: &str) -> (Range<usize>, String) {
    let nothing = (0..0, String::new());
    let Ok(table) = DeTable::parse(text) else {
        return nothing;
    };
    let mut at = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    let mut found = true;
    let mut span = 0..0;
    for segment in key.split(['.', '[']) {
        let next = match (at.get_ref(), segment.strip_suffix(']')) {
            (DeValue::Array(items), Some(index)) => index
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index))
                .cloned(),
            (DeValue::Table(table), None) => table.get(segment).cloned(),
            _ => None,
        };
        match next {
            Some(value) => {
                span = value.span();
                at = value;
            }
            None => {
                found = false;
                break;
            }
        }
    }
    let value = match at.get_ref() {
        DeValue::Table(_) | DeValue::Array(_) => None,
        _ if !found => None,
        _ => text.get(span.clone()).filter(|value| !value.contains('\n')),
    };
    let value = value.unwrap_or_default().to_owned();
    (span, value)
}

/// The line of a position, from 1.
fn line(text: &str, position: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(position)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
