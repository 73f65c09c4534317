//! Model topics beside what is run today instead: the same model on the same records, scored inside of
//! Milena, by a process beside Milena, and by Python beside Kafka.
//!
//! All arms get the same two processors, one thread for the model in each process or worker, the same records, and must come to the
//! same scores.

pub mod arm;
pub mod backlog;
pub mod bare;
pub mod drain;
pub mod ends;
pub mod kind;
pub mod latency;
pub mod minilm;
pub mod mlp;
pub mod network;
pub mod output;
pub mod plan;
pub mod programs;
pub mod records;
pub mod scenario;
pub mod scorer;
pub mod scorer_process;
pub mod site;
pub mod stateful;
pub mod subject;
pub mod text;
pub mod workload;

use super::scenario::Scenario;
use scenario::ModelScenario;

/// All of them.
pub fn scenarios() -> Vec<Box<dyn Scenario>> {
    let of = |subject| Box::new(ModelScenario::new(subject)) as Box<dyn Scenario>;
    vec![
        of(mlp::SUBJECT),
        Box::<stateful::Stateful>::default(),
        of(text::SUBJECT),
    ]
}
