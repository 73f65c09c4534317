//! What every handler can reach.

use std::sync::Arc;

use storage::reserved_disk::ReservedDisk;
use tokio::sync::{Semaphore, watch};

use crate::catalog::Catalog;
use crate::cleaner_config::CleanerConfig;
use crate::clock::Clock;
use crate::fetch_session::FetchSessions;
use crate::group::GroupCoordinator;
use crate::memory_budget::Budgets;
use crate::model_topics::Registry;
use crate::server::admission::Admission;
use crate::transaction::TransactionCoordinator;

/// The running broker's parts, shared by all connections.
#[derive(Debug)]
pub struct Broker {
    /// `node.id`.
    pub node_id: i32,
    /// The address that clients are told, host and port.
    pub advertised: (String, u16),
    /// 22 characters, as Kafka writes it.
    pub cluster_id: String,
    /// Who may connect.
    pub admission: Arc<Admission>,
    /// What requests and responses may hold.
    pub memory: Arc<Budgets>,
    /// Held by whoever decompresses or compresses a client's batch: as many may as there are network
    /// threads, which bounds both the threads that it keeps busy and the memory that it takes.
    pub recompressing: Arc<Semaphore>,
    /// What may be set for the whole broker.
    pub settings: Settings,
    /// Topics, partitions, configs, ids.
    pub catalog: Arc<Catalog>,
    /// Consumer groups.
    pub groups: Arc<GroupCoordinator>,
    /// Transactions.
    pub transactions: Arc<TransactionCoordinator>,
    /// What clients fetch, remembered between their requests.
    pub fetch_sessions: FetchSessions,
    /// The model topics that run here.
    pub model_topics: Arc<Registry>,
    /// Whether there is room on the disk.
    pub disk: Arc<ReservedDisk>,
    /// Turns true when the broker stops.
    pub shutdown: watch::Receiver<bool>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Broker-wide settings that handlers read. Names are Kafka's, with `_` for `.`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect, `host:port`.
    pub listen: String,
    /// Threads that serve connections.
    pub network_threads: usize,
    /// Threads that recover logs at start.
    pub recovery_threads: usize,
    /// How often recovery points are written.
    pub checkpoint_interval_ms: u64,
    /// How often segments to delete are looked for.
    pub retention_check_interval_ms: u64,
    /// What the threads that compact logs obey, as the file has it.
    pub cleaner: CleanerConfig,
    /// Create a topic when Metadata or Produce names one that does not exist.
    pub auto_create_topics_enable: bool,
    /// Partitions of a topic that does not say.
    pub num_partitions: i32,
    /// The largest response to one fetch, bytes.
    pub fetch_max_bytes: i32,
    /// Fetch sessions at the same time.
    pub max_incremental_fetch_session_cache_slots: usize,
    /// A fetch session that was not used for so long may go for another.
    pub min_incremental_fetch_session_eviction_ms: u64,
    /// Partitions of `__consumer_offsets`.
    pub offsets_topic_num_partitions: i32,
    /// First rebalance of an empty group waits this long for more members.
    pub group_initial_rebalance_delay_ms: u64,
    /// Bounds of a member's session timeout.
    pub group_min_session_timeout_ms: i32,
    /// Bounds of a member's session timeout.
    pub group_max_session_timeout_ms: i32,
    /// Largest number of members.
    pub group_max_size: usize,
    /// Offsets of a group without members are kept for this long.
    pub offsets_retention_minutes: i32,
    /// How often expired offsets are looked for.
    pub offsets_retention_check_interval_ms: u64,
    /// Partitions of `__transaction_state`.
    pub transaction_state_log_num_partitions: i32,
    /// The longest timeout that a transactional producer may ask for.
    pub transaction_max_timeout_ms: i32,
    /// Transactional ids that nobody uses are kept for this long.
    pub transactional_id_expiration_ms: u64,
    /// How often transactions that are open for too long are looked for.
    pub transaction_abort_timed_out_transaction_cleanup_interval_ms: u64,
    /// How often transactional ids that have expired are looked for.
    pub transaction_remove_expired_transaction_cleanup_interval_ms: u64,
    /// The longest commit metadata, bytes.
    pub offset_metadata_max_bytes: usize,
    /// The largest request, bytes.
    pub socket_request_max_bytes: usize,
    /// Idle connections close after this long.
    pub connections_max_idle_ms: u64,
    /// Connections open at the same time.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_ip: u32,
    /// The same for some addresses, as written.
    pub max_connections_per_ip_overrides: String,
    /// What requests in flight may hold, bytes.
    pub queued_max_request_bytes: usize,
    /// What responses that were not taken may hold, bytes.
    pub queued_max_response_bytes: usize,
}
