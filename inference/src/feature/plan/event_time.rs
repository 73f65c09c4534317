//! A record's event time, from a field of it.

use crate::feature::Field;
use crate::spec::TimeFormat;

/// Where a record's event time is picked to, and how it is written.
#[derive(Clone, Debug)]
pub(super) struct EventTime {
    pub(super) slot: usize,
    pub(super) label: String,
    pub(super) format: TimeFormat,
}

/// Times beyond it are mistakes, and would overflow: the year 30,000 or so, in milliseconds.
const MAX_TIME_MS: f64 = 1.0e15;

impl EventTime {
    /// In milliseconds since the epoch.
    pub(super) fn of(&self, fields: &[Field<'_>]) -> Result<i64, String> {
        let field = fields.get(self.slot).unwrap_or(&Field::Absent);
        let refused = |what: &str| Err(format!("field {:?}: {what}, not {field}", self.label));
        if let (TimeFormat::Rfc3339, Field::Text(text)) = (self.format, field) {
            return match text.parse::<jiff::Timestamp>() {
                Ok(time) => Ok(time.as_millisecond()),
                Err(_) => refused("a time like 2026-12-01T10:00:00Z is needed"),
            };
        }
        let number = match field {
            Field::Integer(number) => *number as f64,
            Field::Number(number) => *number,
            _ => return refused("a time is needed"),
        };
        let ms = match self.format {
            TimeFormat::UnixS => number * 1000.0,
            TimeFormat::UnixMs => number,
            TimeFormat::UnixUs => number / 1000.0,
            TimeFormat::Rfc3339 => return refused("a time as a text is needed"),
        };
        match ms.abs() <= MAX_TIME_MS {
            true => Ok(ms.floor() as i64),
            false => refused("a time before the year 33,000 is needed"),
        }
    }
}
