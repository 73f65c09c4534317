//! The settings of librdkafka that a run uses.
//!
//! They are librdkafka's own, but for what the options say and for these: Nagle's algorithm is off
//! (`socket.nagle.disable`), as it adds up to 40 ms to a lone small request; a consumer whose queue
//! is full looks again after 1 ms rather than 1 s (`fetch.queue.backoff.ms`), or the queue runs dry
//! meanwhile. `-X` goes before everything.

use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};

use crate::args::{Acks, Isolation, Load, Target, written};
use crate::error::{Error, Result};
use crate::transactions::Transactional;

/// librdkafka's setting that makes a producer transactional.
pub const TRANSACTIONAL_ID: &str = "transactional.id";

/// What librdkafka's queue of a producer takes if not told otherwise.
const QUEUE_MESSAGES: u32 = 100_000;
/// librdkafka's default for both `message.max.bytes` and `batch.size`.
const MESSAGE_BYTES: u64 = 1_000_000;

/// librdkafka's default for `transaction.timeout.ms`; here it comes on top of a transaction's time.
const TRANSACTION_TIMEOUT_MS: u128 = 60_000;

/// A producer's. A transactional one needs a transactional id beside them.
pub fn producer(
    target: &Target,
    load: &Load,
    linger_ms: f64,
    in_flight: Option<u32>,
    transactional: Option<&Transactional>,
) -> Result<ClientConfig> {
    if load.idempotent && load.acks != Acks::All {
        return Err(Error::Arguments("--idempotent needs --acks all"));
    }
    let idempotent = load.idempotent || transactional.is_some();
    let mut config = client(target);
    config
        .set("acks", written(&load.acks))
        .set("compression.type", written(&load.compression))
        .set("enable.idempotence", idempotent.to_string())
        .set("linger.ms", linger_ms.to_string())
        .set("batch.size", load.batch_bytes.to_string());
    if load.batch_bytes > MESSAGE_BYTES {
        config.set("message.max.bytes", load.batch_bytes.to_string());
    }
    if let Some(in_flight) = in_flight.filter(|most| *most > QUEUE_MESSAGES) {
        config.set("queue.buffering.max.messages", in_flight.to_string());
    }
    if let Some(Transactional { duration, .. }) = transactional {
        let timeout_ms = duration.as_millis() + TRANSACTION_TIMEOUT_MS;
        config.set("transaction.timeout.ms", timeout_ms.to_string());
    }
    Ok(overridden(config, target))
}

/// A consumer's, which commits only where it is in a group.
pub fn consumer(target: &Target, group: Option<&str>, isolation: Isolation) -> ClientConfig {
    let mut config = client(target);
    config
        .set("group.id", group.unwrap_or("milena-load"))
        .set("enable.auto.commit", group.is_some().to_string())
        .set("enable.auto.offset.store", group.is_some().to_string())
        .set("auto.offset.reset", "error")
        .set("isolation.level", written(&isolation))
        .set("fetch.queue.backoff.ms", "1");
    overridden(config, target)
}

/// What every client has, before `-X`.
fn client(target: &Target) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &target.bootstrap)
        .set("client.id", "milena-load")
        .set("socket.nagle.disable", "true")
        .set_log_level(RDKafkaLogLevel::Critical);
    config
}

/// A client of such settings.
pub fn create<C, T: FromClientConfigAndContext<C>>(config: &ClientConfig, context: C) -> Result<T>
where
    C: rdkafka::ClientContext,
{
    config
        .create_with_context(context)
        .map_err(|source| Error::Client {
            bootstrap: config.get("bootstrap.servers").unwrap_or("?").to_owned(),
            source,
        })
}

/// `--timeout-seconds`.
pub fn patience(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// For requests about topics.
pub fn admin(target: &Target) -> ClientConfig {
    overridden(client(target), target)
}

fn overridden(mut config: ClientConfig, target: &Target) -> ClientConfig {
    for (key, value) in &target.properties {
        config.set(key, value);
    }
    config
}
