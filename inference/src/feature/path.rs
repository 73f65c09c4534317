//! JSON paths: `$.a.b`, `$.a[0]`, names and positions only.

use serde::{Deserialize, Serialize};

/// Longest path in steps.
pub const MAX_STEPS: usize = 32;

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A member of an object.
    Name(String),
    /// An element of an array.
    Index(usize),
}

/// A path into a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

/// Why a path is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is not a path like $.a.b or $.a[0]: {reason}")]
pub struct PathError {
    /// As it was written.
    pub path: String,
    /// What is wrong.
    pub reason: &'static str,
}

impl JsonPath {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its steps, at least one.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl std::str::FromStr for JsonPath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        let fail = |reason| PathError {
            path: path.to_owned(),
            reason,
        };
        let mut rest = path
            .strip_prefix('$')
            .ok_or_else(|| fail("it does not start with $"))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if steps.len() == MAX_STEPS {
                return Err(fail("it has more than 32 steps"));
            }
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, tail) = after.split_at(end);
                if name.is_empty() {
                    return Err(fail("a name is empty"));
                }
                if name.contains([']', '*', '?', '\'', '"', ' ']) {
                    return Err(fail("names are plain: no quotes, wildcards or blanks"));
                }
                steps.push(Step::Name(name.to_owned()));
                rest = tail;
            } else if let Some(after) = rest.strip_prefix('[') {
                let (index, tail) = after
                    .split_once(']')
                    .ok_or_else(|| fail("a [ is not closed"))?;
                if !index.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(fail("what is in [] is not a position"));
                }
                let index: u32 = index
                    .parse()
                    .map_err(|_| fail("what is in [] is not a position"))?;
                steps.push(Step::Index(index as usize));
                rest = tail;
            } else {
                return Err(fail("a step starts with neither . nor ["));
            }
        }
        if steps.is_empty() {
            return Err(fail("it has no step"));
        }
        Ok(Self {
            text: path.to_owned(),
            steps,
        })
    }
}

impl TryFrom<String> for JsonPath {
    type Error = PathError;

    fn try_from(path: String) -> Result<Self, PathError> {
        path.parse()
    }
}

impl From<JsonPath> for String {
    fn from(path: JsonPath) -> Self {
        path.text
    }
}

impl std::fmt::Display for JsonPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_positions() {
        let path: JsonPath = "$.card.items[3].price[0]".parse().unwrap();
        let name = |name: &str| Step::Name(name.to_owned());
        assert_eq!(
            path.steps(),
            [
                name("card"),
                name("items"),
                Step::Index(3),
                name("price"),
                Step::Index(0)
            ]
        );
        assert_eq!(path.to_string(), "$.card.items[3].price[0]");
        assert_eq!(
            "$[2]".parse::<JsonPath>().unwrap().steps(),
            [Step::Index(2)]
        );
    }

    #[test]
    fn refuses_anything_else() {
        for bad in [
            "",
            "$",
            "a",
            ".a",
            "$a",
            "$.",
            "$..a",
            "$.a.",
            "$.a[",
            "$.a[]",
            "$.a[-1]",
            "$.a[x]",
            "$.a[1]b",
            "$.*",
            "$['a']",
            "$.a b",
            "$.a[99999999999]",
            "$.a[+1]",
        ] {
            assert!(bad.parse::<JsonPath>().is_err(), "{bad:?} was taken");
        }
        assert!(format!("${}", ".a".repeat(33)).parse::<JsonPath>().is_err());
    }
}
