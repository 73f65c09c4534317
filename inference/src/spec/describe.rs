//! Features in words, with what their defaults come to.

use std::fmt;
use std::time::Duration;

use super::duration;
use super::{FeatureDefault, FeatureSpec, Scale, StateSpec};
use crate::feature::window::Window;

impl FeatureSpec {
    /// What it is made of: `count over the last 5m in slices of 30s`. State is kept as `state` says.
    pub fn describe(&self, state: &StateSpec) -> String {
        let mut text = match (self.agg, &self.lookup, &self.path) {
            (Some(aggregate), _, path) => {
                let of = path.as_ref().map(|path| format!(" of {path}"));
                let window = Window::new(self.window.as_ref().map(|window| window.get_ref()));
                let window = match window {
                    Ok(Window::All) | Err(_) => {
                        let ttl = duration::text(*state.ttl.get_ref());
                        format!("all since the key was last forgotten, {ttl} after its last record")
                    }
                    Ok(window) => window.to_string(),
                };
                format!("{aggregate}{} over {window}", of.unwrap_or_default())
            }
            (None, Some(lookup), _) => {
                format!("{}[{}] {}", lookup.table.get_ref(), lookup.key, lookup.path)
            }
            (None, None, Some(path)) => path.to_string(),
            (None, None, None) => String::new(),
        };
        let mut add = |part: String| {
            text.push_str(", ");
            text.push_str(&part);
        };
        if let Some(cast) = self.cast {
            add(format!("as {}", format!("{cast:?}").to_lowercase()));
        }
        if let Some(texts) = &self.one_hot {
            add(format!("one of {}", texts.get_ref().join(", ")));
        }
        if let Some(buckets) = &self.hash {
            add(format!("hashed to one of {}", buckets.get_ref()));
        }
        if let Some(op) = self.op {
            add(format!("{op:?}").to_lowercase());
        }
        if let Some(scale) = &self.scale {
            add(scale.get_ref().to_string());
        }
        let default = self.default.as_ref().or(self
            .lookup
            .as_ref()
            .and_then(|lookup| lookup.default.as_ref()));
        match (default.map(|default| default.get_ref()), self.agg) {
            (Some(FeatureDefault::Number(number)), _) => {
                add(format!("{number} where there is none"))
            }
            (Some(FeatureDefault::Text(text)), _) => add(format!("{text:?} where there is none")),
            (None, Some(_)) => add("0 where there is none".to_owned()),
            (None, None) => add("required".to_owned()),
        }
        text
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) => write!(f, "scaled from {min} to {max}"),
            _ => {
                let (mean, std) = (self.mean.unwrap_or(0.0), self.std.unwrap_or(1.0));
                write!(f, "less {mean}, by {std}")
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |ms: i64| duration::text(Duration::from_millis(ms.unsigned_abs()));
        let grace = match *self {
            Self::Sliced {
                slice_ms,
                slices: 1,
                grace_ms,
            } => {
                write!(f, "each {}", text(slice_ms))?;
                grace_ms
            }
            Self::Sliced {
                slice_ms,
                slices,
                grace_ms,
            } => {
                let (size, slice) = (text(slice_ms.saturating_mul(slices)), text(slice_ms));
                write!(f, "the last {size} in slices of {slice}")?;
                grace_ms
            }
            Self::Session { gap_ms, grace_ms } => {
                write!(f, "the session, to a pause of {}", text(gap_ms))?;
                grace_ms
            }
            Self::Count { records } => return write!(f, "the last {records} records"),
            Self::All => return f.write_str("all records"),
        };
        match grace {
            0 => Ok(()),
            grace => write!(f, ", grace {}", text(grace)),
        }
    }
}
