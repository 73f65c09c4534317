//! Requests by API: how many, how long until the response was ready, how many closed the connection.
//!
//! The handles are looked up once per process; a request costs two atomic operations.

use std::sync::OnceLock;
use std::time::Instant;

use futures_util::FutureExt;
use metrics::{Counter, Histogram};

use crate::router::{Api, Outcome};

/// One API's.
pub(crate) struct ApiMetrics {
    requests: Counter,
    refused: Counter,
    seconds: Histogram,
}

impl ApiMetrics {
    fn new(api: &'static str) -> Self {
        Self {
            requests: metrics::counter!("milena_requests_total", "api" => api),
            refused: metrics::counter!("milena_requests_refused_total", "api" => api),
            seconds: metrics::histogram!("milena_request_seconds", "api" => api),
        }
    }

    /// Counts a request that began at `began`, when its outcome is known.
    pub(crate) fn observe(&'static self, began: Instant, outcome: Outcome) -> Outcome {
        self.requests.increment(1);
        match outcome {
            Outcome::Later(response) => Outcome::Later(
                response
                    .inspect(move |response| match response {
                        Ok(_) => self.seconds.record(began.elapsed()),
                        Err(_) => self.refused.increment(1),
                    })
                    .boxed(),
            ),
            Outcome::Close(_) => {
                self.refused.increment(1);
                outcome
            }
            Outcome::Now(_) | Outcome::None => {
                self.seconds.record(began.elapsed());
                outcome
            }
        }
    }
}

/// The metrics of the table's line `at`; those of requests that are in no line where there is none.
pub(crate) fn of_line(at: Option<usize>) -> &'static ApiMetrics {
    static METRICS: OnceLock<(Vec<ApiMetrics>, ApiMetrics)> = OnceLock::new();
    let (lines, unknown) = METRICS.get_or_init(|| {
        let lines = crate::router::table()
            .iter()
            .map(Api::name)
            .map(ApiMetrics::new);
        (lines.collect(), ApiMetrics::new("unknown"))
    });
    at.and_then(|at| lines.get(at)).unwrap_or(unknown)
}
