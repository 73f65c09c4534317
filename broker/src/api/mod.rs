//! One file per Kafka API, named as Kafka names it: `VERSIONS` and `handle`.

pub mod api_versions;
pub mod create_topics;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod error_code;
pub mod fetch;
mod fetch_poll;
pub mod get_telemetry_subscriptions;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
mod partition_request;
pub mod produce;
