//! What models are given.

use std::ops::Range;

use super::text::Tokens;
use super::{InferError, Rows};

/// A batch of records, in the form that a model takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Numbers.
    Rows(Rows),
    /// Texts.
    Tokens(Tokens),
}

/// The form in which a model takes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Rows of so many numbers.
    Rows(usize),
    /// Tokens of a text.
    Tokens,
}

impl Takes {
    /// No records yet.
    pub fn none(self) -> Input {
        match self {
            Self::Rows(width) => Input::Rows(Rows::new(width)),
            Self::Tokens => Input::Tokens(Tokens::default()),
        }
    }
}

impl std::fmt::Display for Takes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(width) => write!(f, "rows of {width} numbers"),
            Self::Tokens => f.write_str("texts"),
        }
    }
}

impl From<Rows> for Input {
    fn from(rows: Rows) -> Self {
        Self::Rows(rows)
    }
}

impl From<Tokens> for Input {
    fn from(tokens: Tokens) -> Self {
        Self::Tokens(tokens)
    }
}

impl Input {
    /// Its form.
    pub fn form(&self) -> Takes {
        match self {
            Self::Rows(rows) => Takes::Rows(rows.width()),
            Self::Tokens(_) => Takes::Tokens,
        }
    }

    /// How many records.
    pub fn len(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::Tokens(tokens) => tokens.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all its texts; rows have none.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Rows(_) => 0,
            Self::Tokens(tokens) => tokens.ids().len(),
        }
    }

    /// Leaves none; keeps the memory.
    pub fn clear(&mut self) {
        match self {
            Self::Rows(rows) => rows.values_mut().clear(),
            Self::Tokens(tokens) => tokens.clear(),
        }
    }

    /// Some of the records, copied.
    pub fn slice(&self, records: Range<usize>) -> Self {
        match self {
            Self::Rows(rows) => Self::Rows(rows.slice(records)),
            Self::Tokens(tokens) => Self::Tokens(tokens.slice(records)),
        }
    }

    /// Appends the records of another of the same form.
    pub fn append(&mut self, other: &Self) {
        match (self, other) {
            (Self::Rows(rows), Self::Rows(other)) => rows.append(other),
            (Self::Tokens(tokens), Self::Tokens(other)) => tokens.append(other),
            _ => debug_assert!(false, "batches of two forms"),
        }
    }

    /// Each record as whole numbers that no other record has: its tokens, or its numbers' bits.
    pub fn for_each_bits(&self, mut each: impl FnMut(usize, &[u32])) {
        match self {
            Self::Rows(rows) => {
                let mut bits = Vec::with_capacity(rows.width());
                for row in 0..rows.len() {
                    bits.clear();
                    bits.extend(rows.row(row).iter().map(|number| number.to_bits()));
                    each(row, &bits);
                }
            }
            Self::Tokens(tokens) => {
                let mut rest = tokens.ids();
                for (row, &length) in tokens.lengths().as_slice().iter().enumerate() {
                    let (text, others) = rest.split_at(length.min(rest.len()));
                    each(row, text);
                    rest = others;
                }
            }
        }
    }

    /// Its rows; an error where it has texts.
    pub fn as_rows(&self) -> Result<&Rows, InferError> {
        match self {
            Self::Rows(rows) => Ok(rows),
            Self::Tokens(_) => Err(InferError("texts for a model of rows".to_owned())),
        }
    }

    /// Its texts; an error where it has rows.
    pub fn as_tokens(&self) -> Result<&Tokens, InferError> {
        match self {
            Self::Tokens(tokens) => Ok(tokens),
            Self::Rows(_) => Err(InferError("rows for a model of texts".to_owned())),
        }
    }

    /// Parts of at most so many records and tokens; a record of more tokens is a part of its own.
    pub fn parts(&self, max_records: usize, max_tokens: usize) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let (mut start, mut tokens) = (0, 0);
        for record in 0..self.len() {
            let of_record = match self {
                Self::Rows(_) => 0,
                Self::Tokens(all) => all.lengths().as_slice().get(record).copied().unwrap_or(0),
            };
            let is_full = record - start >= max_records || tokens + of_record > max_tokens;
            if is_full && record > start {
                parts.push(start..record);
                (start, tokens) = (record, 0);
            }
            tokens += of_record;
        }
        if start < self.len() {
            parts.push(start..self.len());
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_to_both_limits() {
        let mut tokens = Tokens::default();
        for length in [3, 3, 9, 1, 1, 1, 2] {
            tokens.push(&vec![0; length]);
        }
        let input = Input::from(tokens);
        assert_eq!(input.parts(usize::MAX, 6), [0..2, 2..3, 3..7]);
        assert_eq!(input.parts(3, 6), [0..2, 2..3, 3..6, 6..7]);
        assert_eq!(input.parts(10, 100).first(), Some(&(0..7)));
        assert_eq!(input.slice(2..4).tokens(), 10);
        let rows = Input::from(Rows::from_values(1, vec![0.0; 5]).unwrap());
        assert_eq!(rows.parts(2, 1), [0..2, 2..4, 4..5]);
        assert!(Takes::Tokens.none().parts(2, 1).is_empty());
    }
}
