//! One file per Kafka API, named as Kafka names it: `VERSIONS` and `handle`.

pub mod error_code;
pub mod init_producer_id;
pub mod list_offsets;
mod partition_request;
pub mod produce;
