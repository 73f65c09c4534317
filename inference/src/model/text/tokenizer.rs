//! `tokenizer.json`: texts to token ids.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::{Encoding, PostProcessor, Token, Tokenizer as HfTokenizer, TruncationDirection};

use super::packed::Tokens;
use super::{tensors, tokenizer_file};
use crate::model::load::LoadError;

/// The tokenizer's file name.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Largest tokenizer.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// Most tokens that frame a text.
const MAX_FRAMING: usize = 1024;

/// What becomes of a text of more tokens than there may be.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Its end is left out.
    #[default]
    Truncate,
    /// It can't be read.
    Error,
}

/// How long a text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLimits {
    /// Tokens, with those that frame it.
    pub max_tokens: usize,
    /// Beyond that.
    pub overflow: Overflow,
}

/// Why a text has no tokens for the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// There is nothing for the model to look at.
    #[error("the text gives no token")]
    Empty,
    /// It is too long.
    #[error("the text has {found} tokens, over max_tokens = {limit}")]
    TooLong {
        /// Its tokens, with those that frame it.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The tokenizer fails on it.
    #[error("the tokenizer fails: {0}")]
    Failed(String),
}

/// Texts to token ids, with those that frame a text.
pub struct Tokenizer {
    inner: HfTokenizer,
    framing: usize,
    sha256: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a folder's tokenizer, for a model of so many tokens.
    pub fn read(folder: &Path, vocabulary: usize) -> Result<Self, LoadError> {
        let path = folder.join(TOKENIZER_FILE);
        let bytes = tensors::read(&path, MAX_TOKENIZER_BYTES, MAX_TOKENIZER_BYTES)?;
        let refused = |reason: String| LoadError::Tokenizer {
            path: path.clone(),
            reason,
        };
        tokenizer_file::check(&bytes).map_err(refused)?;
        let mut inner = caught(|| HfTokenizer::from_bytes(&bytes))
            .ok_or_else(|| refused("its library panics on it".to_owned()))?
            .map_err(|error| refused(error.to_string()))?;
        let largest = inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        match largest {
            None => return Err(refused("it has no tokens".to_owned())),
            Some((token, id)) if id as usize >= vocabulary => {
                return Err(refused(format!(
                    "it is of another model: its token {token:?} is number {id}, and the model has {vocabulary}"
                )));
            }
            Some(_) => {}
        }
        // What the file says of these is about other uses of it.
        inner.with_padding(None);
        let plain = inner.with_truncation(None).map(|_| ());
        plain.map_err(|error| refused(error.to_string()))?;
        let framing = framing(&inner).map_err(refused)?;
        if caught(|| inner.encode_fast("a", false).is_ok()).is_none() {
            return Err(refused("it panics on a text".to_owned()));
        }
        Ok(Self {
            inner,
            framing,
            sha256: Sha256::digest(&bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        })
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// How many tokens frame a text: `max_tokens` has to be larger.
    pub fn framing(&self) -> usize {
        self.framing
    }

    /// Adds a text; on error `tokens` is as it was.
    pub fn tokenize(
        &self,
        text: &str,
        limits: TextLimits,
        tokens: &mut Tokens,
    ) -> Result<(), TokenizeError> {
        // The library has no errors for all that a file may make it do.
        let ids = caught(|| self.ids(text, limits))
            .unwrap_or_else(|| Err(TokenizeError::Failed("it panicked".to_owned())))?;
        match ids.as_slice() {
            [] => Err(TokenizeError::Empty),
            ids => {
                tokens.push(ids);
                Ok(())
            }
        }
    }

    fn ids(&self, text: &str, limits: TextLimits) -> Result<Vec<u32>, TokenizeError> {
        let failed = |error: tokenizers::Error| TokenizeError::Failed(error.to_string());
        let mut encoding = self.inner.encode_fast(text, false).map_err(failed)?;
        let found = encoding.len() + self.framing;
        if found > limits.max_tokens {
            if limits.overflow == Overflow::Error {
                return Err(TokenizeError::TooLong {
                    found,
                    limit: limits.max_tokens,
                });
            }
            let room = limits.max_tokens.saturating_sub(self.framing);
            encoding.truncate(room, 0, TruncationDirection::Right);
        }
        let framed = self
            .inner
            .post_process(encoding, None, true)
            .map_err(failed)?;
        Ok(framed.get_ids().to_vec())
    }
}

/// What it gives, unless it panics.
fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    // A tokenizer is only looked at, and what it keeps for itself is whole at any time.
    catch_unwind(AssertUnwindSafe(run)).ok()
}

/// How many tokens frame a text, if it is as many as the file says.
fn framing(tokenizer: &HfTokenizer) -> Result<usize, String> {
    let Some(frame) = tokenizer.get_post_processor() else {
        return Ok(0);
    };
    let (one, two) = (frame.added_tokens(false), frame.added_tokens(true));
    if one.max(two) > MAX_FRAMING {
        let found = one.max(two);
        return Err(format!(
            "it frames a text with {found} tokens, over {MAX_FRAMING}"
        ));
    }
    let text = Encoding::from_tokens(vec![Token::new(0, "a".to_owned(), (0, 1))], 0);
    let framed = caught(|| tokenizer.post_process(text, None, true))
        .ok_or("it panics when it frames a text")?
        .map_err(|error| error.to_string())?;
    match framed.len() == one + 1 {
        true => Ok(one),
        false => Err(format!(
            "it frames a text with {one} tokens, and makes {} of 1",
            framed.len()
        )),
    }
}
