//! Transactions to the model's rows, as the model topic makes them: for training, and for telling how good a model is.

use std::collections::HashMap;

use inference::feature::Field;
use inference::feature::cells::Cells;
use inference::feature::plan::{FeatureValue, Lookup, Plan, StreamTime, Tables};
use inference::model::card::{Card, ModelCard};
use inference::model::{Input, Rows};

use super::example;
use super::transactions::{self, Transaction};
use crate::config::Config;

/// What the example's model topic knows of its customers.
#[derive(Debug)]
pub struct RowMaker {
    plan: Plan,
    customers: HashMap<String, Cells>,
    rows: Input,
    width: usize,
}

/// The example looks nothing up.
struct NoTables;

impl Tables for NoTables {
    fn get(&self, _: usize, _: &Lookup, _: &str) -> Field<'static> {
        Field::Absent
    }
}

impl RowMaker {
    /// That knows nobody, for the example's features and a model's card.
    pub fn new(card: &ModelCard) -> Result<Self, String> {
        let config = Config::of_text(example::CONFIG).map_err(|error| error.to_string())?;
        let spec = config
            .model_topic
            .first()
            .ok_or("there is no model topic")?;
        let spec = spec.get_ref();
        let times = config.event_times();
        let times: Vec<_> = spec
            .inputs()
            .map(|input| times.get(input).cloned())
            .collect();
        let plan = Plan::new(spec, &Card::Tabular(card.clone()), &times);
        let plan = plan.map_err(|error| error.to_string())?;
        Ok(Self {
            plan: plan.ok_or("the model topic has no features")?,
            customers: HashMap::new(),
            rows: Rows::new(card.width()).into(),
            width: card.width(),
        })
    }

    /// The features' names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.plan.names()
    }

    /// Adds a transaction that comes after those before; gives its features.
    pub fn add(&mut self, transaction: &Transaction) -> Result<Vec<FeatureValue>, String> {
        let json = serde_json::to_vec(transaction).map_err(|error| error.to_string())?;
        let picked = self.plan.pick(0, &json, transaction.ts, &mut self.rows);
        let picked = picked.map_err(|error| error.to_string())?;
        let time = StreamTime {
            now_ms: transaction.ts,
            before_ms: transaction.ts - transactions::STEP_MS,
        };
        let customer = self.customers.entry(transaction.customer_id.clone());
        let cells = customer.or_default();
        let mut touched = Vec::new();
        let made = self.plan.make(
            &picked,
            cells,
            time,
            &NoTables,
            &mut self.rows,
            &mut touched,
        );
        made.map(|made| made.features)
            .map_err(|error| error.to_string())
    }

    /// The rows of the transactions since the last call.
    pub fn take(&mut self) -> Rows {
        let empty = Input::from(Rows::new(self.width));
        match std::mem::replace(&mut self.rows, empty) {
            Input::Rows(rows) => rows,
            Input::Tokens(_) => Rows::new(self.width),
        }
    }
}
