//! Values that parse and still make no sense.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use inference::spec::{ModelSpec, ModelTopicSpec, SpecError};
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

impl Config {
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), Problem> {
        self.check_broker()?;
        self.check_addresses()?;
        self.check_group()?;
        self.check_transaction()?;
        let interval_ms = clamp(self.log.retention_check_interval_ms);
        between(
            "log.retention_check_interval_ms".to_owned(),
            interval_ms,
            1,
            i64::MAX,
        )?;
        self.log.check_cleaner()?;
        self.topic_defaults()?;
        self.check_topics()
    }

    /// The first thing wrong with models and model topics.
    pub fn check_models(&self) -> Result<(), SpecError> {
        inference::spec::check(&self.model, &self.model_topic, &self.base_dir)
    }

    /// The first model that can't be loaded, or model topic that does not fit its model. Reads every model's
    /// folder.
    pub fn check_weights(&self) -> Result<(), Problem> {
        let mut loaded_models = HashMap::new();
        for (index, model) in self.model.iter().map(AsRef::as_ref).enumerate() {
            let model: &ModelSpec = model;
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
                let source = model
                    .resolve(version, &self.base_dir)
                    .map_err(|reason| Problem::new(&key, reason))?;
                let loaded = inference::model::load(
                    &source.name,
                    &source.version,
                    &source.folder,
                    &source.options,
                )
                .map_err(|error| Problem::new(&key, error))?;
                let footprint = loaded.model.footprint();
                loaded_models.insert((source.name, source.version), (loaded.card, footprint));
            }
        }
        for (index, topic) in self.model_topic.iter().map(AsRef::as_ref).enumerate() {
            let topic: &ModelTopicSpec = topic;
            let at = |key: &str| format!("model_topic[{index}].{key}");
            let source = topic
                .resolve_model(&self.model, &self.base_dir)
                .map_err(|reason| Problem::new(at("model"), reason))?;
            let key = (source.name.clone(), source.version.clone());
            if let Some((card, footprint)) = loaded_models.get(&key) {
                check_fit(topic, &source, card, *footprint)
                    .map_err(|error| Problem::new(at(&error.key), error.reason))?;
            }
        }
        Ok(())
    }

    fn check_broker(&self) -> Result<(), Problem> {
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
            between(format!("broker.{key}"), value, least, most)?;
        }
        if broker.data_dir.as_os_str().is_empty() {
            return Err(Problem::new("broker.data_dir", "must name a folder"));
        }
        if broker.max_connections_per_ip == 0 && broker.max_connections_per_ip_overrides.is_empty()
        {
            return Err(Problem::new(
                "broker.max_connections_per_ip",
                "may only be 0 where max_connections_per_ip_overrides names an address",
            ));
        }
        self.admission().map(drop)
    }

    fn check_transaction(&self) -> Result<(), Problem> {
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
            between(format!("transaction.{key}"), value, least, most)?;
        }
        Ok(())
    }

    fn check_group(&self) -> Result<(), Problem> {
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
            between(format!("group.{key}"), value, least, most)?;
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), Problem> {
        let listen = self.listen_address()?;
        if self.broker.advertise.is_empty() && listen.ip().is_unspecified() {
            return Err(Problem::new(
                "broker.advertise",
                format!(
                    "must be set, since broker.listen = {listen} is not an address that clients can reach"
                ),
            ));
        }
        self.advertised(listen)?;
        self.http_address()?;
        Ok(())
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

    fn check_topics(&self) -> Result<(), Problem> {
        let mut names = HashSet::new();
        let written = self.model_topic.iter().flat_map(|spec| {
            let spec = spec.get_ref();
            let dead_letters = spec.dead_letter_topic();
            [
                Some(spec.name().to_owned()),
                dead_letters,
                Some(spec.changelog_topic()),
            ]
        });
        let written: HashSet<String> = written.flatten().collect();
        for (at, topic) in self.topic.iter().enumerate() {
            let key = |name: &str| format!("topic[{at}].{name}");
            check_name(&topic.name).map_err(|error| Problem::new(key("name"), error))?;
            if is_reserved(&topic.name) || written.contains(&topic.name) {
                return Err(Problem::new(
                    key("name"),
                    "the broker creates this topic itself",
                ));
            }
            if !names.insert(topic.name.as_str()) {
                let reason = format!("there are two topics named '{}'", topic.name);
                return Err(Problem::new(key("name"), reason));
            }
            if let Some(partitions) = topic.partitions {
                between(
                    key("partitions"),
                    partitions.into(),
                    1,
                    MAX_PARTITIONS.into(),
                )?;
            }
            // The same rules as for defaults: known names, legal values.
            TopicDefaults::new(topic.configs())
                .map_err(|error| Problem::new(key("configs"), error))?;
        }
        Ok(())
    }
}

pub(super) fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn between(key: String, value: i64, least: i64, most: i64) -> Result<(), Problem> {
    if value < least {
        return Err(Problem::new(key, format!("must be at least {least}")));
    }
    if value > most {
        return Err(Problem::new(key, format!("must be at most {most}")));
    }
    Ok(())
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
