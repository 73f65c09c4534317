//! Model topics beside what is run today instead: the same model on the same records, scored inside of
//! Milena, by a process beside Milena, and by Python beside Kafka.
//!
//! All arms get the same two processors, one thread for the model, the same records, and must come to the
//! same scores.

pub mod arm;
pub mod backlog;
pub mod bare;
pub mod drain;
pub mod ends;
pub mod latency;
pub mod mlp;
pub mod network;
pub mod output;
pub mod plan;
pub mod programs;
pub mod records;
pub mod scorer;
pub mod scorer_process;
pub mod site;
pub mod workload;

use super::scenario::Scenario;

/// All of them.
pub fn scenarios() -> Vec<Box<dyn Scenario>> {
    vec![Box::<mlp::ModelMlp>::default()]
}
