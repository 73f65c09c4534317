//! From a file to a [`Config`], with errors that say where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{Cards, Problem};
use super::{Config, shape};

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

/// Everything a config file is refused for, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", Lines(.0))]
pub struct ConfigErrors(Vec<ConfigError>);

struct Lines<'a>(&'a [ConfigError]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "\n" };
            write!(f, "{between}{error}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(&read(path)?, path)
    }

    /// Parses and checks the text of the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        let config = deserialize(text, path)?;
        let faults = config.check();
        told(text, path, faults, config)
    }

    /// Parses a text that is in no file; models' folders are not looked for.
    pub fn of_text(text: &str) -> Result<Self, ConfigErrors> {
        deserialize(text, Path::new("-"))
    }

    /// Reads and checks a file, and loads every model that it names.
    pub fn check_file(path: &Path) -> Result<(Self, Cards), ConfigErrors> {
        let text = read(path)?;
        let config = deserialize(&text, path)?;
        let mut faults = config.check();
        let cards = config.check_weights(&mut faults);
        told(&text, path, faults, (config, cards))
    }
}

/// What was made of a file, where it has no faults.
fn told<T>(text: &str, path: &Path, faults: Vec<Problem>, made: T) -> Result<T, ConfigErrors> {
    if faults.is_empty() {
        return Ok(made);
    }
    let mut told: Vec<(usize, ConfigError)> = faults
        .into_iter()
        .map(|fault| refused(text, path, fault.key, fault.reason))
        .collect();
    told.sort_by_key(|(line, _)| *line);
    Err(ConfigErrors(
        told.into_iter().map(|(_, error)| error).collect(),
    ))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

fn refused(text: &str, path: &Path, key: String, reason: String) -> (usize, ConfigError) {
    let (span, value) = locate(text, &key);
    let line = line(text, span.start);
    let error = ConfigError::Refused {
        file: path.to_owned(),
        line,
        key,
        value,
        reason,
    };
    (line, error)
}

pub(super) fn deserialize(text: &str, path: &Path) -> Result<Config, ConfigErrors> {
    let mut config: Config = shape::read(text).map_err(|faults| {
        let told = faults.into_iter().map(|fault| ConfigError::Refused {
            file: path.to_owned(),
            line: line(text, fault.position),
            key: fault.key,
            value: String::new(),
            reason: fault.reason,
        });
        ConfigErrors(told.collect())
    })?;
    config.base_dir = path.parent().unwrap_or(Path::new("")).to_owned();
    Ok(config)
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
