//! What a scenario is to the harness: rows of a table, each measured for several arms, in turns.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bench::Bench;

/// The figures of one arm in one round, by name; the name says the unit: `MB/s`, `CPU-s/GB`, `p99 ms`.
pub type Figures = BTreeMap<&'static str, f64>;

/// Whether more or less of a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Better {
    /// Rates.
    More,
    /// Times, costs and sizes.
    Less,
}

/// A column of a scenario's table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// As in [`Figures`].
    pub figure: &'static str,
    /// Which way.
    pub better: Better,
}

/// One line of a scenario's table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Short, unique within the scenario: `1 KiB, 6 partitions, acks=all, lz4`.
    pub name: String,
    /// The arms it is measured for, `milena` first: `milena`, `kafka`, `bare` and so on.
    pub arms: Vec<&'static str>,
    /// Every setting that matters, as one would type it.
    pub settings: String,
}

/// Rows that are measured in one way.
pub trait Scenario {
    /// As on the command line: `produce`.
    fn name(&self) -> &'static str;

    /// What is measured and how, for the report; with units, and what each arm but `milena` and
    /// `kafka` is.
    fn about(&self) -> String;

    /// The figures, in the order of the table.
    fn columns(&self) -> Vec<Column>;

    /// The rows; fewer of them where the bench is a short one.
    fn rows(&self, short: bool) -> Vec<Row>;

    /// How often each arm is measured where `wanted` times were asked for: fewer times where each takes long.
    fn rounds(&self, wanted: usize) -> usize {
        wanted
    }

    /// After the last round: lets go of what the runs have left, such as topics.
    fn finish(&mut self, _bench: &mut Bench) -> anyhow::Result<()> {
        Ok(())
    }

    /// Measures one arm of one row, once. An arm that can't be measured is an error, and has no figures in
    /// that round; the others go on.
    fn run(&mut self, bench: &mut Bench, row: &Row, arm: &str) -> anyhow::Result<Figures>;
}
