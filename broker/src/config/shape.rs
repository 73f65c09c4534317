//! From text to values of the right types, telling everything that is none.
//!
//! Deserializing ends at the first fault. So what is at fault is taken out of the document, which is then read again,
//! until nothing is left to tell.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// A key or value that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The key's path, as `topic[1].name`; empty where the text is not TOML.
    pub(super) key: String,
    /// Where it stands, in bytes.
    pub(super) position: usize,
    /// What is wrong.
    pub(super) reason: String,
}

/// As many faults are told; each costs a reading of the document.
const MAX_FAULTS: usize = 100;

/// What a text says, or everything wrong with its syntax or else with its keys and types.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Vec<Fault>> {
    let (mut document, errors) = DeTable::parse_recoverable(text);
    let syntax = errors.iter().take(MAX_FAULTS);
    let mut faults: Vec<Fault> = syntax.map(|error| fault(error, String::new())).collect();
    if !faults.is_empty() {
        faults.sort_by_key(|fault| fault.position);
        return Err(faults);
    }
    let mut removed = Removed::default();
    loop {
        let deserializer = toml::Deserializer::from(document.clone());
        let error = match serde_path_to_error::deserialize(deserializer) {
            Ok(read) if faults.is_empty() => return Ok(read),
            Ok(_) => break,
            Err(error) => error,
        };
        let key = key(error.path());
        let told = fault(error.inner(), removed.as_written(&key));
        let is_missing = removed.left_missing(&key, &told.reason);
        if !is_missing {
            faults.push(told);
        }
        if faults.len() >= MAX_FAULTS || !remove(&mut document, &key) {
            break;
        }
        removed.0.push(key);
    }
    faults.sort_by_key(|fault| fault.position);
    Err(faults)
}

fn fault(error: &toml::de::Error, key: String) -> Fault {
    Fault {
        key,
        position: error.span().map_or(0, |span| span.start),
        reason: error.message().to_owned(),
    }
}

fn key(path: &serde_path_to_error::Path) -> String {
    // A segment that is in no file: how spanned values are read.
    let key = path
        .to_string()
        .replace(".$__serde_spanned_private_value", "");
    // "." is the whole file; "?" stands for a key that was not read to its end.
    key.trim_end_matches('?').trim_end_matches('.').to_owned()
}

/// What was taken out, each as its key was then.
#[derive(Default)]
struct Removed(Vec<String>);

impl Removed {
    /// A key as it is in the file: the elements of a list that went before it count.
    fn as_written(&self, key: &str) -> String {
        let mut key = key.to_owned();
        for removed in self.0.iter().rev() {
            let Some((list, index)) = element(removed) else {
                continue;
            };
            let Some(rest) = key
                .strip_prefix(list)
                .and_then(|rest| rest.strip_prefix('['))
            else {
                continue;
            };
            let Some((at, rest)) = rest.split_once(']') else {
                continue;
            };
            if let Ok(at) = at.parse::<usize>()
                && at >= index
            {
                key = format!("{list}[{}]{rest}", at + 1);
            }
        }
        key
    }

    /// Whether a field is missing only since it was at fault.
    fn left_missing(&self, table: &str, reason: &str) -> bool {
        let name = reason.strip_prefix("missing field `");
        let Some(name) = name.and_then(|rest| rest.strip_suffix('`')) else {
            return false;
        };
        let key = match table {
            "" => name.to_owned(),
            table => format!("{table}.{name}"),
        };
        self.0.contains(&key)
    }
}

/// The list, and the place in it, of a key that ends with one.
fn element(key: &str) -> Option<(&str, usize)> {
    let (list, index) = key.strip_suffix(']')?.rsplit_once('[')?;
    Some((list, index.parse().ok()?))
}

/// Takes out what is at a key; `false` where nothing is.
fn remove(document: &mut Spanned<DeTable<'_>>, key: &str) -> bool {
    let segments: Vec<&str> = key.split(['.', '[']).collect();
    remove_of_table(document.get_mut(), &segments)
}

fn remove_of_table(table: &mut DeTable<'_>, segments: &[&str]) -> bool {
    match segments {
        [] => false,
        [last] => table.remove(*last).is_some(),
        [name, rest @ ..] => match table.get_mut(*name).map(Spanned::get_mut) {
            Some(DeValue::Table(table)) => remove_of_table(table, rest),
            Some(DeValue::Array(list)) => remove_of_list(list, rest),
            _ => false,
        },
    }
}

fn remove_of_list<'i>(list: &mut DeArray<'i>, segments: &[&str]) -> bool {
    let Some((index, rest)) = segments.split_first() else {
        return false;
    };
    let index = index.strip_suffix(']').map(str::parse::<usize>);
    let Some(Ok(index)) = index.filter(|index| matches!(index, Ok(index) if *index < list.len()))
    else {
        return false;
    };
    match list.get_mut(index).map(Spanned::get_mut) {
        Some(DeValue::Table(table)) if !rest.is_empty() => remove_of_table(table, rest),
        Some(DeValue::Array(list)) if !rest.is_empty() => remove_of_list(list, rest),
        _ if rest.is_empty() => {
            let all: DeArray<'i> = std::mem::replace(list, DeArray::new());
            let all = all.into_iter().enumerate();
            *list = all
                .filter_map(|(at, item)| (at != index).then_some(item))
                .collect();
            true
        }
        _ => false,
    }
}
