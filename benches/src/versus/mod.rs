//! Milena beside Apache Kafka, and model topics beside the Python pipeline, in the same run.
//!
//! ```text
//! cargo run --release -p benches --bin versus
//! cargo run --release -p benches --bin versus -- --short --scenario produce
//! cargo run --release -p benches --bin versus -- --help
//! ```
//!
//! A *scenario* is a table; each of its rows is measured for several *arms* that take turns in every
//! *round*. `benches/versus/README.md` says how, and what is fair about it.

pub mod aims;
pub mod bare;
pub mod bench;
pub mod broker;
pub mod built;
pub mod cold;
pub mod comparison;
pub mod kafka;
pub mod load;
pub mod machine;
pub mod model;
pub mod plot;
pub mod report;
pub mod results;
pub mod run;
pub mod scenario;
pub mod scenarios;
