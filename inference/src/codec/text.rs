//! Texts to tokens: the whole of a record, or a field of a JSON record.
//!
//! An empty text is one like any other: the model sees the tokens that frame it. A record that is not UTF-8
//! can't be read.

use std::borrow::Cow;
use std::sync::Arc;

use super::json::JsonText;
use super::{CodecError, DecodeError};
use crate::model::text::{TextCard, TextLimits, TokenizeError, Tokenizer, Tokens};
use crate::spec::{Codec, TextSpec};

/// Why a record has no text for the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It is no text.
    #[error("not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// Where, from 0.
        at: usize,
    },
    /// It has no tokens that the model can look at.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
}

/// Reads texts for one model topic.
#[derive(Clone, Debug)]
pub struct TextDecoder {
    tokenizer: Arc<Tokenizer>,
    limits: TextLimits,
    /// Of a JSON record; the whole record without one.
    field: Option<JsonText>,
}

impl TextDecoder {
    pub(super) fn new(
        card: &TextCard,
        codec: Codec,
        text: Option<&TextSpec>,
    ) -> Result<Self, CodecError> {
        let refused = |key, reason: String| Err(CodecError { key, reason });
        let text = text.cloned().unwrap_or_default();
        let field = match (codec, text.path) {
            (Codec::Json, Some(path)) => Some(JsonText::new(path)),
            (Codec::Text, None) => None,
            (Codec::Json, None) => {
                let reason = "is needed to find the text in JSON; where the whole record is the text, \
                              codec.in is \"text\"";
                return refused("text.path", reason.to_owned());
            }
            (Codec::Text, Some(path)) => {
                let reason = format!(
                    "{:?} is a field of JSON, and codec.in is \"text\"",
                    path.as_str()
                );
                return refused("text.path", reason);
            }
            (Codec::Raw, _) => {
                let reason = "a model of texts reads \"text\" or \"json\", not \"raw\"";
                return refused("codec.in", reason.to_owned());
            }
        };
        let (least, most) = (card.tokenizer.framing() + 1, card.positions);
        let max_tokens = text.max_tokens.map_or(most, |max| *max.get_ref());
        if !(least..=most).contains(&max_tokens) {
            let reason = format!("{max_tokens} is not between {least} and {most}, the model's own");
            return refused("text.max_tokens", reason);
        }
        Ok(Self {
            tokenizer: Arc::clone(&card.tokenizer),
            limits: TextLimits {
                max_tokens,
                overflow: text.on_overflow,
            },
            field,
        })
    }

    /// Appends a record's tokens; on error `tokens` is as it was.
    pub fn decode(&self, record: &[u8], tokens: &mut Tokens) -> Result<(), DecodeError> {
        let text = match &self.field {
            Some(field) => field.pick(record)?,
            None => Cow::Borrowed(utf8(record)?),
        };
        let tokenized = self.tokenizer.tokenize(&text, self.limits, tokens);
        Ok(tokenized.map_err(TextError::from)?)
    }
}

fn utf8(record: &[u8]) -> Result<&str, TextError> {
    std::str::from_utf8(record).map_err(|error| TextError::NotUtf8 {
        at: error.valid_up_to(),
    })
}
