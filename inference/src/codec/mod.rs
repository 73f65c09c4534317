//! Bytes of a record to a row of the model's inputs, and logits to bytes.

mod json;
mod output;
mod raw;

pub use json::{JsonDecoder, JsonError};
pub use output::OutputEncoder;
pub use raw::{RawError, decode_raw};

use crate::feature::Features;
use crate::model::card::ModelCard;
use crate::spec::Codec;

/// Why a record can't be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// As JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// As numbers.
    #[error(transparent)]
    Raw(#[from] RawError),
}

/// Reads records as a model topic's codec says.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// JSON.
    Json(JsonDecoder),
    /// Little-endian f32s, this many.
    Raw(usize),
}

impl Decoder {
    /// For a model.
    pub fn new(card: &ModelCard, codec: Codec) -> Self {
        match codec {
            Codec::Json => Self::Json(JsonDecoder::new(Features::new(&card.inputs))),
            Codec::Raw => Self::Raw(card.width()),
        }
    }

    /// Appends a record's row; on error `row` is as it was.
    pub fn decode(&self, record: &[u8], row: &mut Vec<f32>) -> Result<(), DecodeError> {
        match self {
            Self::Json(json) => Ok(json.decode(record, row)?),
            Self::Raw(width) => Ok(decode_raw(record, *width, row)?),
        }
    }
}
