//! Durations as they are written: a whole number and `us`, `ms`, `s`, `m`, `h` or `d`.

use std::time::Duration;

use serde::Serializer;
use serde::de::{Deserialize, Deserializer, Error};
use toml::Spanned;

use super::{MAX_BATCH_DELAY, MAX_TIMEOUT, MAX_WINDOW};

/// A batch's delay, no longer than the longest.
pub(super) fn delay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    up_to(&String::deserialize(deserializer)?, MAX_BATCH_DELAY)
}

/// A model's timeout, no longer than the longest.
pub(super) fn timeout<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Spanned<Duration>>, D::Error> {
    let written = Spanned::<String>::deserialize(deserializer)?;
    let timeout = up_to(written.get_ref(), MAX_TIMEOUT)?;
    Ok(Some(Spanned::new(written.span(), timeout)))
}

/// A window's length, or its grace, no longer than the longest.
pub(super) fn optional<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    up_to(&String::deserialize(deserializer)?, MAX_WINDOW).map(Some)
}

/// How long something is waited for.
pub(super) fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    up_to(&String::deserialize(deserializer)?, MAX_WINDOW)
}

/// How long state is kept.
pub(super) fn state<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Spanned<Duration>, D::Error> {
    let written = Spanned::<String>::deserialize(deserializer)?;
    let duration = up_to(written.get_ref(), MAX_WINDOW)?;
    Ok(Spanned::new(written.span(), duration))
}

/// Something that may be a duration.
pub(super) trait MayLast {
    /// Itself.
    fn duration(&self) -> Option<Duration>;
}

impl MayLast for Duration {
    fn duration(&self) -> Option<Duration> {
        Some(*self)
    }
}

impl MayLast for Option<Duration> {
    fn duration(&self) -> Option<Duration> {
        *self
    }
}

impl MayLast for Spanned<Duration> {
    fn duration(&self) -> Option<Duration> {
        Some(*self.get_ref())
    }
}

/// As it could have been written.
pub(super) fn write<S: Serializer>(value: &impl MayLast, serializer: S) -> Result<S::Ok, S::Error> {
    match value.duration() {
        Some(duration) => serializer.serialize_str(&text(duration)),
        None => serializer.serialize_none(),
    }
}

/// In the largest unit of which it is a whole number: `"5m"`.
pub fn text(duration: Duration) -> String {
    let us = duration.as_micros();
    if us == 0 {
        return "0ms".to_owned();
    }
    let units = [
        (24 * 3_600_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1000, "ms"),
        (1, "us"),
    ];
    let largest = units.into_iter().find(|(size, _)| us.is_multiple_of(*size));
    let (size, unit) = largest.unwrap_or((1, "us"));
    format!("{}{unit}", us / size)
}

fn up_to<E: Error>(text: &str, longest: Duration) -> Result<Duration, E> {
    match parse(text) {
        Some(duration) if duration <= longest => Ok(duration),
        Some(_) => Err(E::custom(format!("{text:?} is longer than {longest:?}"))),
        None => Err(E::custom(format!(
            "{text:?} is not a duration like \"10ms\", \"5s\", \"1m\", \"2h\" or \"7d\""
        ))),
    }
}

fn parse(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    match unit.trim_start() {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        "d" => Some(Duration::from_secs(number.checked_mul(24 * 3600)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_with_units() {
        assert_eq!(parse("0ms"), Some(Duration::ZERO));
        assert_eq!(parse("250us"), Some(Duration::from_micros(250)));
        assert_eq!(parse("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse("2 m"), Some(Duration::from_secs(120)));
        assert_eq!(parse("3h"), Some(Duration::from_secs(3 * 3600)));
        assert_eq!(parse("7d"), Some(Duration::from_secs(7 * 24 * 3600)));
        for written in ["0ms", "250us", "5s", "90s", "2m", "3h", "7d", "1001ms"] {
            assert_eq!(parse(written).map(text), Some(written.to_owned()));
        }
        for bad in [
            "",
            "5",
            "ms",
            "-1s",
            "1.5s",
            "1w",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
