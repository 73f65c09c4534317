//! One file per Kafka API, named as Kafka names it: `VERSIONS` and `handle`.

pub mod error_code;
