//! `/metrics` for Prometheus, `/healthz` and the state of model topics, on a port of their own.
//!
//! There is no authentication; the default address is on loopback.
//!
//! - `/metrics`: everything recorded through the `metrics` crate, and each partition's offsets,
//!   read when asked;
//! - `/healthz`: 200 while the broker serves, 503 once it stops;
//! - `/v1/state/{model_topic}/{key}`: what a model topic remembers of a key (`state.rs`).

mod state;

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use storage::partition_log::Offsets;
use tokio::net::TcpListener;

use crate::Broker;

/// Bounds of `…_seconds` histograms: from a request in memory to a long poll.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Bounds of `…_records` histograms: batch sizes.
const RECORDS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0,
];

/// The process's recorder, installed at the first call. Install it before metrics are recorded:
/// what is recorded earlier is lost.
pub fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_records".to_owned()), RECORDS)
            });
        match builder.and_then(PrometheusBuilder::install_recorder) {
            Ok(handle) => Some(handle),
            Err(error) => {
                tracing::warn!(%error, "metrics are not recorded");
                None
            }
        }
    };
    RECORDER.get_or_init(install).as_ref()
}

/// Serves until the broker stops.
pub async fn serve(listener: TcpListener, broker: Arc<Broker>) {
    let mut stop = broker.shutdown.clone();
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/v1/state/{model_topic}/{key}", get(state::get))
        .with_state(broker);
    let serving = axum::serve(listener, routes);
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::warn!(%error, "http stopped");
            }
        }
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn healthz(State(broker): State<Arc<Broker>>) -> (StatusCode, &'static str) {
    if *broker.shutdown.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics(State(broker): State<Arc<Broker>>) -> impl IntoResponse {
    let mut text = recorder().map(PrometheusHandle::render).unwrap_or_default();
    memory(&broker, &mut text);
    partitions(&broker, &mut text);
    read_only(&broker, &mut text);
    uncleanable(&broker, &mut text);
    disk(&broker, &mut text);
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

/// What requests and responses hold now.
fn memory(broker: &Broker, text: &mut String) {
    let budgets = &broker.memory;
    for (name, budget) in [
        ("request", &budgets.requests),
        ("response", &budgets.responses),
    ] {
        let _ = writeln!(
            text,
            "# TYPE milena_{name}_memory_bytes gauge\nmilena_{name}_memory_bytes {}",
            budget.used()
        );
    }
}

/// Whether the disk is full, and how often it was found to be.
fn disk(broker: &Broker, text: &mut String) {
    let disk = &broker.disk;
    let _ = writeln!(
        text,
        "# TYPE milena_disk_full gauge\nmilena_disk_full {}\n\
         # TYPE milena_disk_full_calls_total counter\nmilena_disk_full_calls_total {}",
        u8::from(disk.is_full()),
        disk.refused()
    );
}

/// The partitions that nothing is written to any more because a sync failed: how many, and which.
fn read_only(broker: &Broker, text: &mut String) {
    let partitions = broker.catalog.read_only_partitions();
    let _ = writeln!(
        text,
        "# TYPE milena_read_only_partitions gauge\nmilena_read_only_partitions {}\n\
         # TYPE milena_partition_read_only gauge",
        partitions.len()
    );
    for (topic, partition) in partitions {
        let _ = writeln!(
            text,
            "milena_partition_read_only{{topic=\"{topic}\",partition=\"{partition}\"}} 1"
        );
    }
}

/// The partitions whose last compaction failed.
fn uncleanable(broker: &Broker, text: &mut String) {
    let _ = writeln!(
        text,
        "# TYPE milena_compaction_uncleanable_partitions gauge\n\
         milena_compaction_uncleanable_partitions {}",
        broker.catalog.uncleanable_partitions().len()
    );
}

/// The offsets of every partition: their rates are the records produced.
fn partitions(broker: &Broker, text: &mut String) {
    let topics = broker.catalog.topics();
    let _ = writeln!(
        text,
        "# TYPE milena_topics gauge\nmilena_topics {}",
        topics.len()
    );
    type Pick = fn(&Offsets) -> i64;
    let picks: [(&str, Pick); 3] = [
        ("log_start_offset", |offsets| offsets.log_start_offset),
        ("high_watermark", |offsets| offsets.high_watermark),
        ("log_end_offset", |offsets| offsets.log_end_offset),
    ];
    for (name, pick) in picks {
        let _ = writeln!(text, "# TYPE milena_partition_{name} gauge");
        for topic in &topics {
            // A topic's name has only letters, digits, `.`, `_` and `-`: nothing to escape.
            for (partition, log) in topic.partitions.iter().enumerate() {
                let (topic, value) = (&topic.name, pick(&log.offsets()));
                let _ = writeln!(
                    text,
                    "milena_partition_{name}{{topic=\"{topic}\",partition=\"{partition}\"}} {value}",
                );
            }
        }
    }
    let _ = writeln!(text, "# TYPE milena_partition_damaged_ranges gauge");
    for topic in &topics {
        for (partition, log) in topic.partitions.iter().enumerate() {
            let (topic, value) = (&topic.name, log.damaged_ranges());
            let _ = writeln!(
                text,
                "milena_partition_damaged_ranges{{topic=\"{topic}\",partition=\"{partition}\"}} {value}",
            );
        }
    }
}
