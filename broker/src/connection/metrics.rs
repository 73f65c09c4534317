//! What is counted of connections.

use std::fmt;

/// Bytes and connections of all clients.
pub struct ConnectionMetrics {
    pub(super) bytes_in: metrics::Counter,
    pub(super) bytes_out: metrics::Counter,
    /// Connections accepted.
    pub accepted: metrics::Counter,
    /// Connections that are open.
    pub open: metrics::Gauge,
    /// Connections closed at once because there were too many.
    pub refused: metrics::Counter,
}

impl fmt::Debug for ConnectionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionMetrics").finish_non_exhaustive()
    }
}

/// The process's handles, registered at first use.
pub fn metrics_of_connections() -> &'static ConnectionMetrics {
    static METRICS: std::sync::OnceLock<ConnectionMetrics> = std::sync::OnceLock::new();
    METRICS.get_or_init(|| ConnectionMetrics {
        bytes_in: metrics::counter!("milena_network_in_bytes_total"),
        bytes_out: metrics::counter!("milena_network_out_bytes_total"),
        accepted: metrics::counter!("milena_connections_accepted_total"),
        open: metrics::gauge!("milena_connections"),
        refused: metrics::counter!("milena_connections_refused_total"),
    })
}
