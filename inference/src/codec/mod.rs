//! Bytes of a record to what a model takes, and a model's numbers to bytes.

mod json;
mod output;
mod raw;
mod text;

pub use json::{JsonDecoder, JsonError, JsonText, Picker};
pub use output::OutputEncoder;
pub use raw::{RawError, decode_raw};
pub use text::{TextDecoder, TextError};

use crate::feature::Features;
use crate::model::card::Card;
use crate::model::{Input, Takes};
use crate::spec::{Codec, TextSpec};

/// Why a record can't be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// As JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// As numbers.
    #[error(transparent)]
    Raw(#[from] RawError),
    /// As a text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The batch is for another model's records.
    #[error("a batch of {0} is not what this codec reads into")]
    Form(Takes),
}

/// A model topic's key that does not fit its model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct CodecError {
    /// The key.
    pub key: &'static str,
    /// Why.
    pub reason: String,
}

/// Reads records as a model topic's codec says.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// JSON, of which numbers are picked.
    Json(JsonDecoder),
    /// Little-endian f32s, this many.
    Raw(usize),
    /// Texts.
    Text(TextDecoder),
}

impl Decoder {
    /// For a model, and a model topic's `codec.in` and `text`.
    pub fn new(card: &Card, codec: Codec, text: Option<&TextSpec>) -> Result<Self, CodecError> {
        let of_texts = |key| {
            let reason = "is about models of texts, and this one is of rows".to_owned();
            Err(CodecError { key, reason })
        };
        match card {
            Card::Text(card) => Ok(Self::Text(TextDecoder::new(card, codec, text)?)),
            Card::Tabular(_) if text.is_some() => of_texts("text"),
            Card::Tabular(card) => match codec {
                Codec::Json => Ok(Self::Json(JsonDecoder::new(Features::new(&card.inputs))?)),
                Codec::Raw => Ok(Self::Raw(card.width())),
                Codec::Text => of_texts("codec.in"),
            },
        }
    }

    /// Appends what the model takes of a record; on error `batch`, which is of the model's form, is as it
    /// was.
    pub fn decode(&self, record: &[u8], batch: &mut Input) -> Result<(), DecodeError> {
        match (self, batch) {
            (Self::Json(json), Input::Rows(rows)) => Ok(json.decode(record, rows.values_mut())?),
            (Self::Raw(width), Input::Rows(rows)) => {
                Ok(decode_raw(record, *width, rows.values_mut())?)
            }
            (Self::Text(text), Input::Tokens(tokens)) => Ok(text.decode(record, tokens)?),
            (_, batch) => Err(DecodeError::Form(batch.form())),
        }
    }
}
