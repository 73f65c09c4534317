//! Values that parse and still make no sense.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use inference::model::card::Card;
use inference::model::{Footprint, LoadedModel};
use inference::spec::{ModelSource, ModelSpec, ModelTopicSpec, SpecError};
use inference::task::check_fit;

use super::Config;
use crate::catalog::MAX_PARTITIONS;
use crate::catalog::names::{check_name, is_reserved};
use crate::catalog::topic_config::TopicDefaults;

/// What is wrong with a value, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Problem {
    /// The key's path, such as `topic[1].name`.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, reason: impl Display) -> Self {
        Self {
            key: key.into(),
            reason: reason.to_string(),
        }
    }
}

impl From<SpecError> for Problem {
    fn from(error: SpecError) -> Self {
        Self::new(error.key, error.problem)
    }
}

/// The cards of models that could be loaded, and what they take, by name and version.
pub type Cards = HashMap<(String, String), (Arc<Card>, Footprint)>;

impl Config {
    /// Every value that makes no sense, and what is wrong with models and model topics as far as that can be told without
    /// loading a model.
    pub fn check(&self) -> Vec<Problem> {
        let mut faults = Vec::new();
        self.check_broker(&mut faults);
        self.check_addresses(&mut faults);
        self.check_group(&mut faults);
        self.check_transaction(&mut faults);
        let interval_ms = clamp(self.log.retention_check_interval_ms);
        let key = "log.retention_check_interval_ms".to_owned();
        faults.extend(between(key, interval_ms, 1, i64::MAX));
        self.log.check_cleaner(&mut faults);
        self.check_defaults(&mut faults);
        self.check_topics(&mut faults);
        let specs = inference::spec::check(&self.model, &self.model_topic, &self.base_dir);
        faults.extend(specs.into_iter().map(Problem::from));
        faults
    }

    /// Loads every model, and tells which can't be, and which model topics do not fit theirs. What has a fault already is
    /// left out.
    pub fn check_weights(&self, faults: &mut Vec<Problem>) -> Cards {
        let mut cards = Cards::new();
        for (index, model) in self.model.iter().map(AsRef::as_ref).enumerate() {
            let model: &ModelSpec = model;
            if has_fault(faults, &format!("model[{index}]")) {
                continue;
            }
            let versions: Vec<(String, Option<&str>)> = match model.version.as_slice() {
                [] => vec![(format!("model[{index}].source"), None)],
                versions => (0..)
                    .zip(versions)
                    .map(|(n, version): (usize, _)| {
                        let key = format!("model[{index}].version[{n}].source");
                        (key, Some(version.id.as_ref().as_str()))
                    })
                    .collect(),
            };
            for (key, version) in versions {
                match self.load_model(model, version) {
                    Ok((source, loaded)) => {
                        let footprint = loaded.model.footprint();
                        let name = (source.name, source.version);
                        cards.insert(name, (loaded.card, footprint));
                    }
                    Err(reason) => faults.push(Problem::new(key, reason)),
                }
            }
        }
        for (index, topic) in self.model_topic.iter().map(AsRef::as_ref).enumerate() {
            let topic: &ModelTopicSpec = topic;
            let at = format!("model_topic[{index}]");
            if has_fault(faults, &at) {
                continue;
            }
            let Ok(source) = topic.resolve_model(&self.model, &self.base_dir) else {
                continue;
            };
            let name = (source.name.clone(), source.version.clone());
            if let Some((card, footprint)) = cards.get(&name) {
                for error in check_fit(topic, &source, card, *footprint) {
                    faults.push(Problem::new(format!("{at}.{}", error.key), error.reason));
                }
            }
        }
        cards
    }

    fn load_model(
        &self,
        model: &ModelSpec,
        version: Option<&str>,
    ) -> Result<(ModelSource, LoadedModel), String> {
        let source = model.resolve(version, &self.base_dir)?;
        let loaded = inference::model::load(
            &source.name,
            &source.version,
            &source.folder,
            &source.options,
        );
        loaded
            .map(|loaded| (source, loaded))
            .map_err(|error| error.to_string())
    }

    fn check_broker(&self, faults: &mut Vec<Problem>) {
        let broker = &self.broker;
        let most = i64::from(i32::MAX);
        for (key, value, least, most) in [
            ("node_id", i64::from(broker.node_id), 0, most),
            (
                "num_partitions",
                broker.num_partitions.into(),
                1,
                MAX_PARTITIONS.into(),
            ),
            (
                "socket_request_max_bytes",
                broker.socket_request_max_bytes.into(),
                1024,
                most,
            ),
            ("fetch_max_bytes", broker.fetch_max_bytes.into(), 1024, most),
            (
                "max_incremental_fetch_session_cache_slots",
                clamp(broker.max_incremental_fetch_session_cache_slots as u64),
                0,
                most,
            ),
            (
                "min_incremental_fetch_session_eviction_ms",
                clamp(broker.min_incremental_fetch_session_eviction_ms),
                0,
                i64::MAX,
            ),
            (
                "queued_max_request_bytes",
                clamp(broker.queued_max_request_bytes as u64),
                broker.socket_request_max_bytes.into(),
                i64::MAX,
            ),
            (
                "queued_max_response_bytes",
                clamp(broker.queued_max_response_bytes as u64),
                1024 * 1024,
                i64::MAX,
            ),
            (
                "connections_max_idle_ms",
                clamp(broker.connections_max_idle_ms),
                1000,
                i64::MAX,
            ),
            (
                "max_connections",
                clamp(broker.max_connections as u64),
                1,
                i64::MAX,
            ),
            (
                "max_connections_per_ip",
                broker.max_connections_per_ip.into(),
                0,
                most,
            ),
            (
                "checkpoint_interval_ms",
                clamp(broker.checkpoint_interval_ms),
                100,
                i64::MAX,
            ),
            (
                "producer_id_expiration_ms",
                clamp(broker.producer_id_expiration_ms),
                1,
                i64::MAX,
            ),
            (
                "network_threads",
                clamp(broker.network_threads as u64),
                1,
                1024,
            ),
            ("sync_threads", clamp(broker.sync_threads as u64), 1, 1024),
            (
                "recovery_threads",
                clamp(broker.recovery_threads as u64),
                1,
                1024,
            ),
        ] {
            faults.extend(between(format!("broker.{key}"), value, least, most));
        }
        if broker.data_dir.as_os_str().is_empty() {
            faults.push(Problem::new("broker.data_dir", "must name a folder"));
        }
        if broker.max_connections_per_ip == 0 && broker.max_connections_per_ip_overrides.is_empty()
        {
            faults.push(Problem::new(
                "broker.max_connections_per_ip",
                "may only be 0 where max_connections_per_ip_overrides names an address",
            ));
        }
        faults.extend(self.admission().err());
    }

    fn check_transaction(&self, faults: &mut Vec<Problem>) {
        let transaction = &self.transaction;
        for (key, value, least, most) in [
            (
                "transaction_state_log_num_partitions",
                i64::from(transaction.transaction_state_log_num_partitions),
                1,
                i64::from(MAX_PARTITIONS),
            ),
            (
                "transaction_max_timeout_ms",
                transaction.transaction_max_timeout_ms.into(),
                1,
                i64::from(i32::MAX),
            ),
            (
                "transactional_id_expiration_ms",
                clamp(transaction.transactional_id_expiration_ms),
                1,
                i64::MAX,
            ),
            (
                "transaction_abort_timed_out_transaction_cleanup_interval_ms",
                clamp(transaction.transaction_abort_timed_out_transaction_cleanup_interval_ms),
                1,
                i64::MAX,
            ),
            (
                "transaction_remove_expired_transaction_cleanup_interval_ms",
                clamp(transaction.transaction_remove_expired_transaction_cleanup_interval_ms),
                1,
                i64::MAX,
            ),
        ] {
            let key = format!("transaction.{key}");
            faults.extend(between(key, value, least, most));
        }
    }

    fn check_group(&self, faults: &mut Vec<Problem>) {
        let group = &self.group;
        let most = i64::from(i32::MAX);
        let (shortest, longest) = (
            group.group_min_session_timeout_ms,
            group.group_max_session_timeout_ms,
        );
        for (key, value, least, most) in [
            (
                "offsets_topic_num_partitions",
                i64::from(group.offsets_topic_num_partitions),
                1,
                i64::from(MAX_PARTITIONS),
            ),
            (
                "group_initial_rebalance_delay_ms",
                clamp(group.group_initial_rebalance_delay_ms),
                0,
                most,
            ),
            ("group_min_session_timeout_ms", shortest.into(), 1, most),
            (
                "group_max_session_timeout_ms",
                longest.into(),
                shortest.into(),
                most,
            ),
            (
                "group_max_size",
                clamp(group.group_max_size as u64),
                1,
                most,
            ),
            (
                "offset_metadata_max_bytes",
                clamp(group.offset_metadata_max_bytes as u64),
                0,
                32767,
            ),
            (
                "offsets_retention_minutes",
                group.offsets_retention_minutes.into(),
                1,
                most,
            ),
            (
                "offsets_retention_check_interval_ms",
                clamp(group.offsets_retention_check_interval_ms),
                1,
                i64::MAX,
            ),
        ] {
            faults.extend(between(format!("group.{key}"), value, least, most));
        }
    }

    fn check_addresses(&self, faults: &mut Vec<Problem>) {
        match self.listen_address() {
            Ok(listen) if self.broker.advertise.is_empty() && listen.ip().is_unspecified() => {
                faults.push(Problem::new(
                    "broker.advertise",
                    format!(
                        "must be set, since broker.listen = {listen} is not an address that clients can reach"
                    ),
                ));
            }
            Ok(listen) => faults.extend(self.advertised(listen).err()),
            Err(problem) => faults.push(problem),
        }
        faults.extend(self.http_address().err());
    }

    /// `broker.listen`, resolved.
    pub fn listen_address(&self) -> Result<SocketAddr, Problem> {
        resolve("broker.listen", &self.broker.listen)
    }

    /// `http.listen`, resolved; `None` where it is off.
    pub fn http_address(&self) -> Result<Option<SocketAddr>, Problem> {
        match self.http.listen.as_str() {
            "" => Ok(None),
            listen => resolve("http.listen", listen).map(Some),
        }
    }

    /// The host and the port that clients are told, where the broker listens on `bound`.
    pub fn advertised(&self, bound: SocketAddr) -> Result<(String, u16), Problem> {
        let advertise = self.broker.advertise.as_str();
        let bad = |reason: &str| Err(Problem::new("broker.advertise", reason));
        if advertise.is_empty() {
            // The name as written, if there is one: "localhost" stays "localhost".
            let written = self
                .broker
                .listen
                .rsplit_once(':')
                .map_or("", |(host, _)| host);
            let host = written.trim_start_matches('[').trim_end_matches(']');
            return Ok((host.to_owned(), bound.port()));
        }
        if let Ok(ip) = advertise.parse::<IpAddr>() {
            return Ok((ip.to_string(), bound.port()));
        }
        if let Ok(address) = advertise.parse::<SocketAddr>() {
            return Ok((address.ip().to_string(), address.port()));
        }
        let (host, port) = match advertise.rsplit_once(':') {
            None => (advertise, bound.port()),
            Some((host, port)) => match port.parse() {
                Ok(port) if port > 0 => (host, port),
                _ => return bad("the port must be a number from 1 to 65535"),
            },
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || !host.chars().all(legal) {
            return bad("must be a host name or an address, with or without a port");
        }
        Ok((host.to_owned(), port))
    }

    fn check_topics(&self, faults: &mut Vec<Problem>) {
        let mut names = HashSet::new();
        let model_topics = self.model_topic.iter().map(AsRef::as_ref);
        let written: HashSet<String> = model_topics
            .flat_map(|spec: &ModelTopicSpec| spec.written_topics())
            .map(|written| written.topic)
            .collect();
        for (at, topic) in self.topic.iter().enumerate() {
            let key = |name: &str| format!("topic[{at}].{name}");
            if let Err(error) = check_name(&topic.name) {
                faults.push(Problem::new(key("name"), error));
            } else if is_reserved(&topic.name) || written.contains(&topic.name) {
                let reason = "the broker creates this topic itself";
                faults.push(Problem::new(key("name"), reason));
            } else if !names.insert(topic.name.as_str()) {
                let reason = format!("there are two topics named '{}'", topic.name);
                faults.push(Problem::new(key("name"), reason));
            }
            if let Some(partitions) = topic.partitions {
                let most = MAX_PARTITIONS.into();
                faults.extend(between(key("partitions"), partitions.into(), 1, most));
            }
            // The same rules as for defaults: known names, legal values.
            let configs = TopicDefaults::new(topic.configs());
            faults.extend(
                configs
                    .err()
                    .map(|error| Problem::new(key("configs"), error)),
            );
        }
    }
}

/// Whether there is one in the table at a key.
fn has_fault(faults: &[Problem], at: &str) -> bool {
    faults.iter().any(|fault| {
        let rest = fault.key.strip_prefix(at);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

pub(super) fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What is wrong with a value that has bounds.
pub(super) fn between(key: String, value: i64, least: i64, most: i64) -> Option<Problem> {
    if value < least {
        return Some(Problem::new(key, format!("must be at least {least}")));
    }
    if value > most {
        return Some(Problem::new(key, format!("must be at most {most}")));
    }
    None
}

fn resolve(key: &str, address: &str) -> Result<SocketAddr, Problem> {
    let resolved = address.to_socket_addrs().map_err(|error| {
        Problem::new(
            key,
            format!("is not an address of the form host:port ({error})"),
        )
    });
    resolved?
        .next()
        .ok_or_else(|| Problem::new(key, "resolves to no address"))
}
