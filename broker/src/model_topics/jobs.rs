//! What runs for a model topic: one job, or two where its records are brought to where the others of their key are.

use std::sync::Arc;

use inference::spec::{Inputs, Late, ModelTopicSpec, OnError, OnErrorSpec, Spanned, Start};

/// The name of what brings a model topic's records to their keys, and of the topic in between.
pub(super) fn repartition_of(model_topic: &str) -> String {
    format!("{model_topic}.repartition")
}

/// Something that reads topics and writes others.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// What it does: that of the config, but for names.
    pub spec: Arc<ModelTopicSpec>,
    pub role: Role,
}

/// What a job is of its model topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// All of it.
    Whole,
    /// What brings records to their keys, for the model topic of this name.
    Repartitions(String),
    /// What reads them there; these are the model topic's inputs.
    Repartitioned(Vec<String>),
}

impl Job {
    /// The jobs of a model topic, in the order in which records go through them.
    pub(super) fn of(spec: Arc<ModelTopicSpec>) -> Vec<Self> {
        let Some(between) = spec.repartition_topic() else {
            return vec![Self {
                spec,
                role: Role::Whole,
            }];
        };
        let name = spec.name().to_owned();
        let inputs = spec.inputs().map(str::to_owned).collect();
        let dead_letter = spec.dead_letter_topic();
        let first = ModelTopicSpec {
            name: Spanned::new(spec.name.span(), between.clone()),
            output: Default::default(),
            feature: Vec::new(),
            rule: Vec::new(),
            late: Late::Drop,
            on_error: OnErrorSpec {
                infer: OnError::Skip,
                dlq: dead_letter.map(|topic| Spanned::new(spec.name.span(), topic)),
                ..spec.on_error.clone()
            },
            ..(*spec).clone()
        };
        let second = ModelTopicSpec {
            input: Inputs(vec![Spanned::new(spec.name.span(), between)]),
            start: Start::Earliest,
            ..(*spec).clone()
        };
        vec![
            Self {
                spec: Arc::new(first),
                role: Role::Repartitions(name),
            },
            Self {
                spec: Arc::new(second),
                role: Role::Repartitioned(inputs),
            },
        ]
    }

    /// The model topic that dead letters are of.
    pub(super) fn owner(&self) -> &str {
        match &self.role {
            Role::Repartitions(model_topic) => model_topic,
            _ => self.spec.name(),
        }
    }

    /// Whether it only brings records to their keys.
    pub(super) fn repartitions(&self) -> bool {
        matches!(self.role, Role::Repartitions(_))
    }
}
