//! What is known of a text model beside its weights.

use std::sync::Arc;

use serde::Serialize;

use super::head::Pooling;
use super::tokenizer::Tokenizer;
use crate::model::card::ModelTask;

/// Of a text model. What is serialized tells two apart that would make different outputs.
#[derive(Clone, Debug, Serialize)]
pub struct TextCard {
    /// Embed or classify.
    pub task: ModelTask,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Of embeddings.
    pub pooling: Option<Pooling>,
    /// Of embeddings: they are of length 1.
    pub normalize: Option<bool>,
    /// Numbers of an output.
    pub outputs: usize,
    /// The most tokens that the model can look at.
    pub positions: usize,
    /// Of the folder's config, in hexadecimal.
    pub config_sha256: String,
    /// Of the tokenizer, in hexadecimal.
    pub tokenizer_sha256: String,
    /// Texts to tokens.
    #[serde(skip)]
    pub tokenizer: Arc<Tokenizer>,
}
