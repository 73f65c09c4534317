//! `GET /v1/state/{model_topic}/{key}`: what a model topic remembers of a key.
//!
//! ```json
//! {
//!   "model_topic": "transactions.scored",
//!   "key": "c-18762",
//!   "partition": 2,
//!   "as_of_ms": 1763625600000,
//!   "stream_time_ms": 1763625599000,
//!   "committed": true,
//!   "features": { "n_5m": 3.0, "sum_1h": 148.5 }
//! }
//! ```
//!
//! The features are the aggregated ones, of the windows that end at the highest event time that the task has seen (`as_of_ms`), as
//! they would be for a record then that adds nothing. Stream time, which closes windows, is the least of its sources' highest
//! times; null before all have given a record. What was processed and is not committed yet is in them; `committed` says whether there is such. 404
//! where there is no such state, and 503 while it is being restored; the reason is in `error`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use inference::task::Remembered;
use serde_json::{Map, Value, json};

use crate::Broker;

type Answer = (StatusCode, Json<Value>);

pub(super) async fn get(
    State(broker): State<Arc<Broker>>,
    Path((model_topic, key)): Path<(String, String)>,
) -> Answer {
    let Some(state) = broker.model_topics.state(&model_topic) else {
        let reason = match broker.model_topics.is_configured(&model_topic) {
            true => format!("model topic {model_topic:?} has no state, or state.query is false"),
            false => format!("there is no model topic {model_topic:?}"),
        };
        return refused(StatusCode::NOT_FOUND, reason);
    };
    let wanted = key.clone();
    // It may be on the disk.
    let found = tokio::task::spawn_blocking(move || state.get(wanted.as_bytes())).await;
    let found = match found {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => return refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let found = match found {
        Remembered::Key(found) => found,
        Remembered::Nothing => {
            let reason = format!("model topic {model_topic:?} remembers nothing of {key:?}");
            return refused(StatusCode::NOT_FOUND, reason);
        }
        Remembered::Restoring => {
            let reason = format!("the state of model topic {model_topic:?} is not restored yet");
            return refused(StatusCode::SERVICE_UNAVAILABLE, reason);
        }
    };
    let features = found.features.iter();
    let features: Map<String, Value> = features
        .map(|(name, value)| (name.clone(), value.to_json()))
        .collect();
    let answer = json!({
        "model_topic": model_topic,
        "key": key,
        "partition": found.partition,
        "as_of_ms": found.as_of_ms,
        "stream_time_ms": found.stream_ms,
        "committed": found.is_committed,
        "features": features,
    });
    (StatusCode::OK, Json(answer))
}

fn refused(status: StatusCode, reason: String) -> Answer {
    (status, Json(json!({ "error": reason })))
}
