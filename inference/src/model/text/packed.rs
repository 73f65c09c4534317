//! Texts as tokens, one after another without padding.

/// The tokens of some texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    lengths: Lengths,
}

/// How many tokens each text has; none has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths(Vec<usize>);

impl Lengths {
    /// Of texts in order.
    pub fn new(lengths: Vec<usize>) -> Self {
        debug_assert!(!lengths.contains(&0), "a text without tokens");
        Self(lengths)
    }

    /// In order.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

impl Tokens {
    /// Adds a text. One without tokens is not a text: tokenizers frame each.
    pub fn push(&mut self, ids: &[u32]) {
        debug_assert!(!ids.is_empty(), "a text without tokens");
        self.ids.extend_from_slice(ids);
        self.lengths.0.push(ids.len());
    }

    /// Leaves none; keeps the memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.lengths.0.clear();
    }

    /// Of all texts.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Of each text.
    pub fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    /// How many texts.
    pub fn len(&self) -> usize {
        self.lengths.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.0.is_empty()
    }

    /// Some of the texts, copied.
    pub fn slice(&self, texts: std::ops::Range<usize>) -> Self {
        let before: usize = self.lengths.0.iter().take(texts.start).sum();
        let lengths = self.lengths.0.get(texts).unwrap_or_default().to_vec();
        let count: usize = lengths.iter().sum();
        Self {
            ids: self
                .ids
                .get(before..before + count)
                .unwrap_or_default()
                .to_vec(),
            lengths: Lengths(lengths),
        }
    }

    /// Appends the texts of another.
    pub fn append(&mut self, other: &Self) {
        self.ids.extend_from_slice(&other.ids);
        self.lengths.0.extend_from_slice(&other.lengths.0);
    }
}
