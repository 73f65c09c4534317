//! `milena-load`: a load generator for Milena and any Kafka, on librdkafka.
//!
//! A run has a clock ([`clock`]), workers that produce ([`share`]), consume ([`consumer`]) or do
//! both and compare ([`end_to_end`]), a lane of counts for each of them ([`meter`]), and one loop
//! that watches them ([`run`]): every run ends, at its bounds or where nothing moves any more.
//! [`pacing`], [`flights`] and [`payload`] are pure.

pub mod allocator;
pub mod args;
pub mod cli;
pub mod clock;
pub mod consumer;
pub mod end_to_end;
pub mod error;
pub mod flights;
pub mod meter;
pub mod mix;
pub mod pacing;
pub mod payload;
pub mod plot;
pub mod producer;
pub mod progress;
pub mod random;
pub mod reader;
pub mod report;
pub mod run;
pub mod settings;
pub mod share;
pub mod summary;
pub mod topic;
pub mod transactions;
