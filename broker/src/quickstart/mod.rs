//! `milena quickstart`: a broker, a trained model topic and live traffic in one command.

pub mod auc;
pub mod client;
pub mod random;
pub mod transactions;
