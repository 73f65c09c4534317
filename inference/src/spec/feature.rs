//! `[[model_topic.feature]]`: what a model is given beside, or in place of, a record's own fields.
//!
//! A feature is one of three things: a *field* of the record (`path`), an *aggregate* of what its key did (`agg`), or a
//! *lookup* in a table (`lookup`).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::duration;
use crate::feature::JsonPath;

/// `[[model_topic.feature]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// What the model's card, templates (`$f.name`) and rules call it.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// The record's field: the feature itself, or what `agg` aggregates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<JsonPath>,
    /// What the field is read as. Without it, it has to be a number (or `true` or `false`, which count as 1 and 0), and with
    /// `one_hot` or `hash` a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cast: Option<Cast>,
    /// What counts where there is nothing. A field without one is required; an aggregate's is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FeatureDefault")]
    pub default: Option<Spanned<FeatureDefault>>,
    /// What is done to the number, before `scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// How the number is scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Scale")]
    pub scale: Option<Spanned<Scale>>,
    /// The field is a text, and becomes a number for each of these: 1 for the one that it equals, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    pub one_hot: Option<Spanned<Vec<String>>>,
    /// The field is a text, and becomes so many numbers: 1 for the one that its hash chooses, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize")]
    pub hash: Option<Spanned<usize>>,
    /// What is made of the records of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agg: Option<Aggregate>,
    /// Which of them; all of the last `state.ttl` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WindowSpec")]
    pub window: Option<Spanned<WindowSpec>>,
    /// What a table says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<LookupSpec>,
}

/// What a field is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cast {
    /// Also a text that is a number, as `"12.5"`.
    Number,
    /// Also a number or a boolean, as JSON writes it.
    Text,
    /// `true` or `false`, also as a text; of numbers all but 0 are true. 1 or 0.
    Bool,
}

/// What counts where there is nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number or a text")]
pub enum FeatureDefault {
    /// For a number.
    Number(f64),
    /// For a text.
    Text(String),
}

/// What is done to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// ln(x)
    Log,
    /// ln(1 + x)
    Log1p,
    /// The decimal logarithm.
    Log10,
    /// The square root.
    Sqrt,
    /// x²
    Square,
    /// |x|
    Abs,
    /// e to the x
    Exp,
    /// -1, 0 or 1
    Sign,
}

impl Op {
    /// Of a number; not finite where there is no such value.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::Log => x.ln(),
            Self::Log1p => x.ln_1p(),
            Self::Log10 => x.log10(),
            Self::Sqrt => x.sqrt(),
            Self::Square => x * x,
            Self::Abs => x.abs(),
            Self::Exp => x.exp(),
            Self::Sign if x == 0.0 => 0.0,
            Self::Sign => x.signum(),
        }
    }
}

/// How a number is scaled: by `mean` and `std`, or so that `min` and `max` become 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Subtracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Divided by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Becomes 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Becomes 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

impl Scale {
    /// What is subtracted, and what is divided by then.
    pub fn shift_and_divisor(&self) -> Result<(f64, f64), String> {
        let (shift, divisor) = match (self.mean, self.std, self.min, self.max) {
            (mean, std, None, None) => (mean.unwrap_or(0.0), std.unwrap_or(1.0)),
            (None, None, Some(min), Some(max)) => (min, max - min),
            _ => {
                return Err("a scale is { mean, std } or { min, max }".to_owned());
            }
        };
        match shift.is_finite() && divisor.is_finite() && divisor > 0.0 {
            true => Ok((shift, divisor)),
            false => Err("std is above 0, max above min, and all are finite".to_owned()),
        }
    }
}

/// What is made of the records of a key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Aggregate {
    /// How many.
    Count,
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The standard deviation of the population.
    Std,
    /// How many different ones, by HyperLogLog.
    Distinct,
    /// What so large a part of them is not above, by DDSketch.
    Quantile(f64),
    /// How many in a second.
    Rate,
    /// The one before this record.
    Last,
    /// This record's less the one before.
    Delta,
    /// Seconds since the record before.
    TimeSinceLast,
}

impl Aggregate {
    /// Whether it can do without a field.
    pub fn counts_records(self) -> bool {
        matches!(self, Self::Count | Self::Rate | Self::TimeSinceLast)
    }
}

impl TryFrom<String> for Aggregate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "mean" => Self::Mean,
            "min" => Self::Min,
            "max" => Self::Max,
            "std" => Self::Std,
            "distinct" => Self::Distinct,
            "rate" => Self::Rate,
            "last" => Self::Last,
            "delta" => Self::Delta,
            "time_since_last" => Self::TimeSinceLast,
            _ => {
                let q = text.strip_prefix("quantile(");
                let q = q.and_then(|rest| rest.strip_suffix(')'));
                let q: Option<f64> = q.and_then(|q| q.trim().parse().ok());
                match q {
                    Some(q) if (0.0..=1.0).contains(&q) => Self::Quantile(q),
                    _ => {
                        return Err(format!(
                            "{text:?} is none of count, sum, mean, min, max, std, distinct, quantile(q) with q from 0 to 1, \
                             rate, last, delta, time_since_last"
                        ));
                    }
                }
            }
        })
    }
}

impl From<Aggregate> for String {
    fn from(aggregate: Aggregate) -> Self {
        aggregate.to_string()
    }
}

impl std::fmt::Display for Aggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Std => "std",
            Self::Distinct => "distinct",
            Self::Quantile(q) => return write!(f, "quantile({q})"),
            Self::Rate => "rate",
            Self::Last => "last",
            Self::Delta => "delta",
            Self::TimeSinceLast => "time_since_last",
        })
    }
}

/// Which records of a key are aggregated: `tumbling`, `sliding`, `session` or `last`, one of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WindowSpec {
    /// Those of windows of this length, one after another.
    #[serde(
        deserialize_with = "duration::optional",
        serialize_with = "duration::write",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "super::schema::DurationText")]
    pub tumbling: Option<Duration>,
    /// Those of the last so long, in steps of `slice`.
    #[serde(
        deserialize_with = "duration::optional",
        serialize_with = "duration::write",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "super::schema::DurationText")]
    pub sliding: Option<Duration>,
    /// Of a sliding window; a tenth of it by default.
    #[serde(
        deserialize_with = "duration::optional",
        serialize_with = "duration::write",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "super::schema::DurationText")]
    pub slice: Option<Duration>,
    /// Those that follow one another at most so far apart.
    #[serde(
        deserialize_with = "duration::optional",
        serialize_with = "duration::write",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "super::schema::DurationText")]
    pub session: Option<Duration>,
    /// The last so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// How long a window takes records after its end; 0 by default.
    #[serde(
        deserialize_with = "duration::optional",
        serialize_with = "duration::write",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "super::schema::DurationText")]
    pub grace: Option<Duration>,
}

/// What a table says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LookupSpec {
    /// A topic; of each key the newest record counts.
    #[schemars(with = "String")]
    pub table: Spanned<String>,
    /// The record's field that is looked up.
    pub key: JsonPath,
    /// The table record's field.
    pub path: JsonPath,
    /// What counts where the table has nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FeatureDefault")]
    pub default: Option<Spanned<FeatureDefault>>,
}

/// `[[model_topic.rule]]`: what else is produced, in the same commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// For which outputs.
    pub when: crate::expression::Expression,
    /// To which topic.
    #[schemars(with = "String")]
    pub produce: Spanned<String>,
    /// What; the output's value without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<crate::expression::Template>,
}

/// `[model_topic.state]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateSpec {
    /// What it may take in memory; more goes to the disk.
    #[serde(deserialize_with = "super::size::deserialize")]
    #[schemars(with = "super::schema::SizeText")]
    pub max_bytes: Option<Spanned<u64>>,
    /// How long a key is remembered after its last record, in the time of the records, where no window says so.
    #[serde(
        deserialize_with = "duration::state",
        serialize_with = "duration::write"
    )]
    #[schemars(with = "super::schema::DurationText")]
    pub ttl: Spanned<Duration>,
    /// Whether it can be read over HTTP.
    pub query: bool,
}

/// What state may take in memory by default, in bytes.
pub const DEFAULT_STATE_BYTES: u64 = 512 << 20;
/// How long a key is remembered by default.
pub const DEFAULT_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

impl Default for StateSpec {
    fn default() -> Self {
        Self {
            max_bytes: None,
            ttl: Spanned::new(0..0, DEFAULT_TTL),
            query: true,
        }
    }
}

/// What becomes of a record that comes after its window has closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// The windows that are closed for it do not count it; it is scored with what they hold.
    #[default]
    Drop,
    /// It goes to the dead-letter topic and is counted nowhere.
    Dlq,
    /// It is counted for as long as the state is kept.
    Update,
}

/// Where a record's event time is. Without one it is the record's timestamp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventTimeSpec {
    /// The field.
    pub field: JsonPath,
    /// How it is written.
    pub format: TimeFormat,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// Seconds since the epoch; also with a fraction.
    UnixS,
    /// Milliseconds since the epoch.
    UnixMs,
    /// Microseconds since the epoch.
    UnixUs,
    /// As in `2026-12-01T10:00:00.5Z`.
    Rfc3339,
}
