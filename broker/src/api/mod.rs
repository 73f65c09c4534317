//! One file per Kafka API, named as Kafka names it: `VERSIONS` and `handle`.

pub mod api_versions;
pub mod create_topics;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod error_code;
pub mod fetch;
mod fetch_poll;
pub mod find_coordinator;
pub mod get_telemetry_subscriptions;
mod group_answer;
pub mod heartbeat;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_fetch;
mod partition_request;
pub mod produce;
pub mod sync_group;
