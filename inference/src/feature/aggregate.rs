//! What is kept of records that are put together: enough for every aggregate that is asked for, and mergeable.
//!
//! Sums are of f64; variance is by Welford's method, merged as Chan, Golub and LeVeque do; distinct values are counted by
//! HyperLogLog with 2^[`LG_K`] registers (standard error 1.04 / sqrt(2^LG_K), 1.6 %; exact for a few dozen); quantiles are
//! DDSketch's with a relative error of [`QUANTILE_ERROR`].
//!
//! The bytes of an accumulator, big-endian, each only where its [`Parts`] has it, in this order: count `u64` and last time
//! `i64` (always); sum `f64`; mean `f64` and sum of squared deviations `f64`; min `f64`; max `f64`; last value `f64`; the
//! sketches, each with its length `u32`.

use bytes::{Buf, BufMut};
use datasketches::hll::HllSketch;
use sketches_ddsketch::DDSketch;

use super::sketches::{new_distinct, new_quantiles, read_distinct, read_quantiles, union};
use crate::spec::Aggregate;

pub use super::sketches::LG_K;

/// Relative error of a quantile: that of DDSketch's defaults.
pub const QUANTILE_ERROR: f64 = 0.01;

/// What an accumulator keeps beside count and last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parts(u8);

impl Parts {
    const SUM: u8 = 1;
    const MOMENTS: u8 = 2;
    const MIN: u8 = 4;
    const MAX: u8 = 8;
    const LAST: u8 = 16;
    const DISTINCT: u8 = 32;
    const QUANTILES: u8 = 64;

    /// What an aggregate needs.
    pub fn of(aggregate: Aggregate) -> Self {
        Self(match aggregate {
            Aggregate::Count | Aggregate::Rate | Aggregate::TimeSinceLast => 0,
            Aggregate::Sum | Aggregate::Mean => Self::SUM,
            Aggregate::Std => Self::MOMENTS,
            Aggregate::Min => Self::MIN,
            Aggregate::Max => Self::MAX,
            Aggregate::Last | Aggregate::Delta => Self::LAST,
            Aggregate::Distinct => Self::DISTINCT,
            Aggregate::Quantile(_) => Self::QUANTILES,
        })
    }

    /// What both need.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether values have to be numbers.
    pub fn need_numbers(self) -> bool {
        self.0 & !Self::DISTINCT != 0
    }

    /// Whether it has all of another's.
    pub fn contain(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn has(self, part: u8) -> bool {
        self.0 & part != 0
    }

    /// As a number, for the state's definition.
    pub fn bits(self) -> u8 {
        self.0
    }
}

/// What is aggregated of a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// That there is one.
    Record,
    /// A number.
    Number(f64),
    /// A whole number that no f64 is: told apart as it is, and a rounded number to all else.
    Integer(i64),
    /// A text, for distinct counts.
    Text(&'a str),
    /// What a text or number is told apart by, for distinct counts.
    Hash(u64),
}

impl Value<'_> {
    /// A whole number.
    pub fn of_integer(number: i64) -> Self {
        let rounded = number as f64;
        match rounded as i128 == i128::from(number) {
            true => Self::Number(rounded),
            false => Self::Integer(number),
        }
    }

    /// The number that it is, if it is one.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Integer(number) => Some(number as f64),
            Self::Record | Self::Text(_) | Self::Hash(_) => None,
        }
    }
}

/// What is known of some records.
#[derive(Clone)]
pub struct Accumulator {
    parts: Parts,
    /// How many.
    pub count: u64,
    /// The highest event time; among equals the last to arrive counts.
    pub last_ms: i64,
    sum: f64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
    last: f64,
    // Large, and moved about with the rest.
    distinct: Option<Box<HllSketch>>,
    quantiles: Option<Box<DDSketch>>,
}

impl std::fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accumulator")
            .field("count", &self.count)
            .field("last_ms", &self.last_ms)
            .finish_non_exhaustive()
    }
}

/// Bytes that are no accumulator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes of state are not an aggregate: {reason}")]
pub struct AccumulatorError {
    length: usize,
    reason: String,
}

impl Accumulator {
    /// Of no records.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            count: 0,
            last_ms: i64::MIN,
            sum: 0.0,
            mean: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            last: 0.0,
            distinct: None,
            quantiles: None,
        }
    }

    /// Adds a record.
    pub fn add(&mut self, time_ms: i64, value: Value<'_>) {
        self.count = self.count.saturating_add(1);
        let is_last = time_ms >= self.last_ms;
        self.last_ms = self.last_ms.max(time_ms);
        if self.parts.has(Parts::DISTINCT) {
            let sketch = self
                .distinct
                .get_or_insert_with(|| Box::new(new_distinct()));
            match value {
                Value::Number(number) => sketch.update(hash_of_number(number)),
                Value::Integer(number) => sketch.update(super::hash::of_text(&number.to_string())),
                Value::Text(text) => sketch.update(text),
                Value::Hash(hash) => sketch.update(hash),
                Value::Record => {}
            }
        }
        let Some(number) = value.number() else {
            return;
        };
        self.sum += number;
        if self.parts.has(Parts::MOMENTS) {
            let deviation = number - self.mean;
            self.mean += deviation / self.count as f64;
            self.squares += deviation * (number - self.mean);
        }
        self.min = self.min.min(number);
        self.max = self.max.max(number);
        if is_last {
            self.last = number;
        }
        if self.parts.has(Parts::QUANTILES) {
            self.quantiles
                .get_or_insert_with(|| Box::new(new_quantiles()))
                .add(number);
        }
    }

    /// Adds the records of another, which came later where last times are the same.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            // As it is: what is computed from nothing overflows where it would not have to.
            let parts = self.parts;
            *self = other.clone();
            self.parts = parts;
            return;
        }
        let (own, others) = (self.count as f64, other.count as f64);
        if self.parts.has(Parts::MOMENTS) {
            let deviation = other.mean - self.mean;
            let all = own + others;
            self.mean += deviation * (others / all);
            self.squares += other.squares + deviation * deviation * (own * (others / all));
        }
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.last_ms >= self.last_ms {
            (self.last_ms, self.last) = (other.last_ms, other.last);
        }
        if let Some(sketch) = &other.distinct {
            self.distinct = Some(match &self.distinct {
                None => sketch.clone(),
                Some(own) => Box::new(union(own, sketch)),
            });
        }
        if let Some(sketch) = &other.quantiles {
            match &mut self.quantiles {
                None => self.quantiles = Some(sketch.clone()),
                // Both have the same configuration, which is all that it can refuse.
                Some(own) => drop(own.merge(sketch)),
            }
        }
    }

    /// An aggregate's value; `None` where there is nothing to make it of. `seconds` is the window's length.
    pub fn value(&self, aggregate: Aggregate, seconds: f64) -> Option<f64> {
        let some = self.count > 0;
        match aggregate {
            Aggregate::Count => Some(self.count as f64),
            Aggregate::Sum => Some(self.sum),
            Aggregate::Rate if seconds > 0.0 => Some(self.count as f64 / seconds),
            Aggregate::Rate => Some(0.0),
            Aggregate::Distinct => {
                let estimate = self.distinct.as_deref().map_or(0.0, HllSketch::estimate);
                Some(estimate.round())
            }
            Aggregate::Mean => some.then(|| self.sum / self.count as f64),
            Aggregate::Std => some.then(|| (self.squares / self.count as f64).max(0.0).sqrt()),
            Aggregate::Min => some.then_some(self.min),
            Aggregate::Max => some.then_some(self.max),
            Aggregate::Last => some.then_some(self.last),
            Aggregate::Quantile(q) => {
                let quantile = self.quantiles.as_ref().map(|sketch| sketch.quantile(q));
                quantile.and_then(Result::ok).flatten()
            }
            // Of two moments; see `Pane`.
            Aggregate::Delta | Aggregate::TimeSinceLast => None,
        }
    }

    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.count);
        out.put_i64(self.last_ms);
        for (part, number) in [
            (Parts::SUM, self.sum),
            (Parts::MOMENTS, self.mean),
            (Parts::MOMENTS, self.squares),
            (Parts::MIN, self.min),
            (Parts::MAX, self.max),
            (Parts::LAST, self.last),
        ] {
            if self.parts.has(part) {
                out.put_f64(number);
            }
        }
        if self.parts.has(Parts::DISTINCT) {
            let sketch = self.distinct.as_deref().map(HllSketch::serialize);
            put_sketch(sketch, out);
        }
        if self.parts.has(Parts::QUANTILES) {
            let sketch = self.quantiles.as_deref().map(DDSketch::to_java_bytes);
            put_sketch(sketch, out);
        }
    }

    /// From its bytes.
    pub fn decode(parts: Parts, bytes: &[u8]) -> Result<Self, AccumulatorError> {
        let length = bytes.len();
        let failed = |reason: String| AccumulatorError { length, reason };
        let short = |_| failed("it is too short".to_owned());
        let mut from = bytes;
        let mut all = Self::new(parts);
        all.count = from.try_get_u64().map_err(short)?;
        all.last_ms = from.try_get_i64().map_err(short)?;
        for (part, number) in [
            (Parts::SUM, &mut all.sum),
            (Parts::MOMENTS, &mut all.mean),
            (Parts::MOMENTS, &mut all.squares),
            (Parts::MIN, &mut all.min),
            (Parts::MAX, &mut all.max),
            (Parts::LAST, &mut all.last),
        ] {
            if parts.has(part) {
                *number = from.try_get_f64().map_err(short)?;
            }
        }
        if parts.has(Parts::DISTINCT) {
            let sketch = get_sketch(&mut from).ok_or_else(|| failed("no sketch".to_owned()))?;
            if !sketch.is_empty() {
                all.distinct = Some(Box::new(read_distinct(sketch).map_err(failed)?));
            }
        }
        if parts.has(Parts::QUANTILES) {
            let sketch = get_sketch(&mut from).ok_or_else(|| failed("no sketch".to_owned()))?;
            if !sketch.is_empty() {
                all.quantiles = Some(Box::new(read_quantiles(sketch).map_err(failed)?));
            }
        }
        match from.is_empty() {
            true => Ok(all),
            false => Err(failed(format!("{} bytes are left over", from.len()))),
        }
    }
}

/// What a number is told apart by: -0 and 0 are the same.
pub(super) fn hash_of_number(number: f64) -> u64 {
    let number = if number == 0.0 { 0.0 } else { number };
    number.to_bits()
}

fn put_sketch(sketch: Option<Vec<u8>>, out: &mut Vec<u8>) {
    let sketch = sketch.unwrap_or_default();
    out.put_u32(sketch.len() as u32);
    out.put_slice(&sketch);
}

fn get_sketch<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = from.try_get_u32().ok()? as usize;
    let (sketch, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(sketch)
}

#[cfg(test)]
mod tests;
