//! Who may connect: so many connections in all, so many from one address, and never so many that the
//! logs have no file descriptors left.
//!
//! The limits can be changed while the broker runs. A lower one closes nothing that is open: it holds
//! from the next connection on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use storage::open_files::{FILES_PER_LOG, max_kept};

/// Descriptors that are never given to connections: log files beside those of partitions, sockets
/// that listen, models.
const SPARE_FILES: usize = 256;

/// Counts connections and decides about new ones.
#[derive(Debug)]
pub struct Admission {
    max_connections: AtomicUsize,
    max_connections_per_ip: AtomicUsize,
    /// What the limit of open files leaves.
    max_by_files: AtomicUsize,
    /// Taken once when a connection opens and once when it closes.
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    open: usize,
    by_address: HashMap<IpAddr, usize>,
    /// `max.connections.per.ip.overrides`.
    overrides: HashMap<IpAddr, usize>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `max.connections` are open.
    #[error("{0} connections are open (max.connections)")]
    Connections(usize),
    /// More would take the descriptors that the logs need.
    #[error("{0} connections are open, the limit of open files leaves no more beside the logs")]
    Files(usize),
    /// Too many from one address.
    #[error("{0} connections from this address are open (max.connections.per.ip or its overrides)")]
    Address(usize),
}

/// One connection's place; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// With Kafka's `max.connections`, `max.connections.per.ip` and `max.connections.per.ip.overrides`.
    pub fn new(
        max_connections: usize,
        max_connections_per_ip: usize,
        overrides: HashMap<IpAddr, usize>,
    ) -> Arc<Self> {
        Arc::new(Self {
            max_connections: AtomicUsize::new(max_connections),
            max_connections_per_ip: AtomicUsize::new(max_connections_per_ip),
            max_by_files: AtomicUsize::new(usize::MAX),
            counts: Mutex::new(Counts {
                overrides,
                ..Counts::default()
            }),
        })
    }

    /// `max.connections`.
    pub fn set_max_connections(&self, limit: usize) {
        self.max_connections.store(limit, Ordering::Relaxed);
    }

    /// `max.connections.per.ip`.
    pub fn set_max_connections_per_ip(&self, limit: usize) {
        self.max_connections_per_ip.store(limit, Ordering::Relaxed);
    }

    /// `max.connections.per.ip.overrides`, as [`parse_overrides`] reads them.
    pub fn set_overrides(&self, overrides: HashMap<IpAddr, usize>) {
        self.counts().overrides = overrides;
    }

    /// Takes the system's limit of open files and the number of partitions into account. Returns
    /// what connections may have, where that is new.
    pub fn set_open_files(&self, limit: u64, partitions: usize) -> Option<usize> {
        let of_logs = partitions.saturating_mul(FILES_PER_LOG).min(max_kept());
        let left = left_by_files(usize::try_from(limit).unwrap_or(usize::MAX), of_logs);
        let before = self.max_by_files.swap(left, Ordering::Relaxed);
        (left != before).then_some(left)
    }

    /// `max.connections`, or less where the limit of open files leaves less.
    pub fn effective_max_connections(&self) -> usize {
        let max_connections = self.max_connections.load(Ordering::Relaxed);
        max_connections.min(self.max_by_files.load(Ordering::Relaxed))
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.counts().open
    }

    /// Takes a place for a connection from `address`.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refusal> {
        // An IPv4 client of a socket that takes both is the same client.
        let address = address.to_canonical();
        let mut counts = self.counts();
        let max_connections = self.max_connections.load(Ordering::Relaxed);
        if counts.open >= max_connections {
            return Err(Refusal::Connections(max_connections));
        }
        if counts.open >= self.max_by_files.load(Ordering::Relaxed) {
            return Err(Refusal::Files(counts.open));
        }
        let limit = counts.overrides.get(&address).copied();
        let limit = limit.unwrap_or_else(|| self.max_connections_per_ip.load(Ordering::Relaxed));
        let from_address = counts.by_address.get(&address).copied().unwrap_or(0);
        if from_address >= limit {
            return Err(Refusal::Address(limit));
        }
        counts.by_address.insert(address, from_address + 1);
        counts.open += 1;
        Ok(Place {
            admission: Arc::clone(self),
            address,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.open = counts.open.saturating_sub(1);
        match counts.by_address.get_mut(&self.address) {
            Some(open) if *open > 1 => *open -= 1,
            _ => {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// A quarter of the descriptors, and in any case those `of_logs`, are kept from connections; a quarter
/// is theirs in any case.
fn left_by_files(limit: usize, of_logs: usize) -> usize {
    let of_logs = of_logs.saturating_add(SPARE_FILES);
    let quarter = limit / 4;
    limit.saturating_sub(of_logs.max(quarter)).max(quarter)
}

/// Reads `max.connections.per.ip.overrides`: `address:connections`, separated by commas. Names are
/// looked up, which may block.
pub fn parse_overrides(text: &str) -> Result<HashMap<IpAddr, usize>, String> {
    let mut overrides = HashMap::new();
    for entry in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (host, connections) = entry
            .rsplit_once(':')
            .ok_or_else(|| format!("'{entry}' is not of the form address:connections"))?;
        let connections = connections
            .trim()
            .parse::<u32>()
            .map_err(|error| format!("'{entry}': '{connections}' is no number ({error})"))?;
        for address in addresses(host.trim()).map_err(|error| format!("'{entry}': {error}"))? {
            overrides.insert(address, connections as usize);
        }
    }
    Ok(overrides)
}

fn addresses(host: &str) -> std::io::Result<Vec<IpAddr>> {
    let literal = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        return Ok(vec![address.to_canonical()]);
    }
    let found = (host, 0).to_socket_addrs()?;
    Ok(found
        .map(|address: SocketAddr| address.ip().to_canonical())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn places_are_counted_in_all_and_by_address() {
        let overrides = HashMap::from([(TWO, 1)]);
        let admission = Admission::new(3, 2, overrides);
        let first = admission.admit(ONE).expect("the first");
        let mapped = "::ffff:10.0.0.1".parse().expect("an address");
        let second = admission.admit(mapped).expect("the second");
        assert_eq!(admission.admit(ONE).unwrap_err(), Refusal::Address(2));
        let third = admission.admit(TWO).expect("another address");
        assert_eq!(admission.admit(TWO).unwrap_err(), Refusal::Connections(3));
        drop(first);
        assert_eq!(admission.admit(TWO).unwrap_err(), Refusal::Address(1));
        let again = admission.admit(ONE).expect("a place is free again");
        drop((second, third, again));
        assert_eq!(admission.open(), 0);
        assert!(admission.counts().by_address.is_empty(), "nothing is kept");
    }

    #[test]
    fn limits_change_while_connections_are_open() {
        let admission = Admission::new(2, 10, HashMap::new());
        let _open = [admission.admit(ONE), admission.admit(ONE)];
        assert!(admission.admit(TWO).is_err());
        admission.set_max_connections(10);
        let _third = admission.admit(TWO).expect("more are allowed");
        admission.set_max_connections_per_ip(1);
        assert_eq!(admission.admit(TWO).unwrap_err(), Refusal::Address(1));
        admission.set_overrides(parse_overrides("10.0.0.2:2").expect("legal"));
        let _fourth = admission.admit(TWO).expect("this address has more");
        assert_eq!(admission.set_open_files(400, 0), Some(100 + 44));
        assert_eq!(admission.set_open_files(400, 0), None);
        admission.set_open_files(16, 0);
        assert_eq!(admission.admit(TWO).unwrap_err(), Refusal::Files(4));
    }

    #[test]
    fn the_logs_keep_their_descriptors() {
        assert_eq!(left_by_files(20_000, 30), 15_000);
        assert_eq!(left_by_files(20_000, 12_000), 20_000 - 12_256);
        assert_eq!(left_by_files(1024, 300), 1024 - 556);
        assert_eq!(left_by_files(1024, 300_000), 256);
        assert_eq!(left_by_files(usize::MAX, usize::MAX), usize::MAX / 4);
    }

    #[test]
    fn overrides_are_read_as_kafka_writes_them() {
        let read = parse_overrides("127.0.0.1:200, ::1:3,[2001:db8::1]:4,").expect("legal");
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let expected = [("127.0.0.1", 200), ("::1", 3), ("2001:db8::1", 4)];
        assert_eq!(
            read,
            expected.map(|(at, limit)| (address(at), limit)).into()
        );
        assert_eq!(parse_overrides(""), Ok(HashMap::new()));
        assert!(parse_overrides("localhost:7").is_ok_and(|found| !found.is_empty()));
        for bad in ["127.0.0.1", "127.0.0.1:", "127.0.0.1:-1", "127.0.0.1:many"] {
            let error = parse_overrides(bad).expect_err(bad);
            assert!(error.contains(bad), "{error}");
        }
    }
}
