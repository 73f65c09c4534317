//! What the threads that compact logs obey: Kafka's `log.cleaner.` configs of the broker.
//!
//! The broker's file sets them; but for `log.cleaner.enable` they can be set on the running broker
//! too, and then those go before the file.

use crate::catalog::broker_config::BrokerConfigs;

/// `log.cleaner.backoff.ms`
pub const BACKOFF_MS: &str = "log.cleaner.backoff.ms";
/// `log.cleaner.dedupe.buffer.size`
pub const DEDUPE_BUFFER_SIZE: &str = "log.cleaner.dedupe.buffer.size";
/// `log.cleaner.io.buffer.load.factor`
pub const IO_BUFFER_LOAD_FACTOR: &str = "log.cleaner.io.buffer.load.factor";
/// `log.cleaner.io.buffer.size`
pub const IO_BUFFER_SIZE: &str = "log.cleaner.io.buffer.size";
/// `log.cleaner.io.max.bytes.per.second`
pub const IO_MAX_BYTES_PER_SECOND: &str = "log.cleaner.io.max.bytes.per.second";
/// `log.cleaner.threads`
pub const THREADS: &str = "log.cleaner.threads";

/// The least that one thread remembers keys in, bytes: Kafka's bound.
pub const LEAST_DEDUPE_BYTES: u64 = 1024 * 1024;

/// The values, under Kafka's names less their `log.cleaner.`.
#[derive(Clone, Debug, PartialEq)]
pub struct CleanerConfig {
    /// Logs are compacted at all.
    pub enable: bool,
    /// How many threads there are.
    pub threads: usize,
    /// What they read and write together at most.
    pub io_max_bytes_per_second: f64,
    /// What they remember keys in, over all threads, bytes.
    pub dedupe_buffer_size: u64,
    /// What they read and write with, over all threads, bytes.
    pub io_buffer_size: u64,
    /// How full the memory for keys gets.
    pub io_buffer_load_factor: f64,
    /// How long a thread that found nothing to compact waits until it looks again.
    pub backoff_ms: u64,
}

impl CleanerConfig {
    /// With what is set on the running broker. There are no more threads than the memory for keys
    /// is enough for: it can be set by itself, and in any order.
    #[must_use]
    pub fn with(&self, set: &BrokerConfigs) -> Self {
        let dedupe_buffer_size = set.number(DEDUPE_BUFFER_SIZE);
        let dedupe_buffer_size = dedupe_buffer_size.unwrap_or(self.dedupe_buffer_size);
        let enough_for = dedupe_buffer_size / LEAST_DEDUPE_BYTES;
        let enough_for = usize::try_from(enough_for).unwrap_or(usize::MAX).max(1);
        let threads = set.number(THREADS).unwrap_or(self.threads);
        let number = |name, file: f64| set.number(name).unwrap_or(file);
        Self {
            enable: self.enable,
            threads: threads.clamp(1, enough_for),
            io_max_bytes_per_second: number(IO_MAX_BYTES_PER_SECOND, self.io_max_bytes_per_second),
            dedupe_buffer_size,
            io_buffer_size: set.number(IO_BUFFER_SIZE).unwrap_or(self.io_buffer_size),
            io_buffer_load_factor: number(IO_BUFFER_LOAD_FACTOR, self.io_buffer_load_factor),
            backoff_ms: set.number(BACKOFF_MS).unwrap_or(self.backoff_ms),
        }
    }

    /// The limit of bytes per second, where there is one.
    pub fn io_limit(&self) -> Option<f64> {
        (self.io_max_bytes_per_second < f64::MAX).then_some(self.io_max_bytes_per_second)
    }

    /// Bytes that one thread remembers keys in.
    pub fn dedupe_bytes_per_thread(&self) -> u64 {
        self.dedupe_buffer_size / (self.threads.max(1) as u64)
    }

    /// Bytes that one thread reads and writes with.
    pub fn io_bytes_per_thread(&self) -> usize {
        let bytes = usize::try_from(self.io_buffer_size).unwrap_or(usize::MAX);
        bytes / self.threads.max(1)
    }
}

/// A number as Java's `Double.toString` writes it, which is how Kafka shows it.
pub fn java_double(value: f64) -> String {
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::broker_config::BrokerScope;
    use crate::config::LogSection;
    use std::collections::BTreeMap;

    fn set(pairs: &[(&str, &str)]) -> BrokerConfigs {
        let node = pairs.iter();
        let node = node.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let configs = BrokerConfigs {
            node: node.collect(),
            cluster: BTreeMap::from([(BACKOFF_MS.to_owned(), "7".to_owned())]),
        };
        assert!(configs.of(BrokerScope::Cluster).len() == 1);
        configs
    }

    #[test]
    fn what_is_set_on_the_running_broker_goes_before_the_file() {
        let file = LogSection::default().cleaner();
        assert_eq!(file.with(&BrokerConfigs::default()), file);
        assert_eq!(file.io_limit(), None);
        let changed = file.with(&set(&[
            (THREADS, "4"),
            (DEDUPE_BUFFER_SIZE, "8388608"),
            (IO_MAX_BYTES_PER_SECOND, "1e6"),
            (IO_BUFFER_LOAD_FACTOR, "0.5"),
            (IO_BUFFER_SIZE, "4096"),
        ]));
        assert_eq!(changed.threads, 4);
        assert_eq!(changed.dedupe_bytes_per_thread(), 2 << 20);
        assert_eq!(changed.io_bytes_per_thread(), 1024);
        assert_eq!(changed.io_limit(), Some(1e6));
        assert_eq!(changed.io_buffer_load_factor, 0.5);
        assert_eq!(changed.backoff_ms, 7);
        // More threads than there is a MiB for.
        let few = file.with(&set(&[(THREADS, "64"), (DEDUPE_BUFFER_SIZE, "3145728")]));
        assert_eq!((few.threads, few.dedupe_bytes_per_thread()), (3, 1 << 20));
    }

    #[test]
    fn numbers_are_written_as_java_writes_them() {
        for (value, expected) in [
            (f64::MAX, "1.7976931348623157E308"),
            (0.9, "0.9"),
            (0.0, "0.0"),
            (1e6, "1000000.0"),
            (1e7, "1.0E7"),
            (12_345_678.0, "1.2345678E7"),
            (0.0001, "1.0E-4"),
        ] {
            assert_eq!(java_double(value), expected);
        }
    }
}
