//! Texts, as token ids: of equal lengths, and real ones.

use std::path::Path;

use anyhow::{Context, anyhow};
use inference::model::text::config::EncoderConfig;
use inference::model::text::{Overflow, TextLimits, Tokenizer, Tokens};

use crate::versus::model::kind::MAX_TOKENS;

/// In the order of the table; each is a list of texts.
pub type Cases = Vec<(String, Vec<Vec<u32>>)>;

/// Lengths that all texts of a case have.
const LENGTHS: [usize; 2] = [20, 128];
/// Of each case.
const TEXTS: usize = 128;

/// All of them, by a model's tokenizer.
pub fn cases(folder: &Path) -> anyhow::Result<Cases> {
    let vocabulary = vocabulary(folder)?;
    let mut cases: Cases = LENGTHS
        .into_iter()
        .map(|length| {
            let texts = (0..TEXTS).map(|text| {
                let ids = (0..length).map(|at| ((text * 7919 + at * 104_729) % vocabulary) as u32);
                ids.collect()
            });
            (format!("{length} tokens"), texts.collect())
        })
        .collect();
    let real = real_texts(folder)?;
    // From all of the file.
    let every = (real.len() / TEXTS).max(1);
    let mut real: Vec<_> = real.into_iter().step_by(every).take(TEXTS).collect();
    cases.push(("real texts".to_owned(), real.clone()));
    real.sort_by_key(Vec::len);
    cases.push(("real texts, sorted".to_owned(), real));
    Ok(cases)
}

/// Of `tests/minilm/texts.txt`, by a model's tokenizer.
pub fn real_texts(folder: &Path) -> anyhow::Result<Vec<Vec<u32>>> {
    let path = tests::repository().join("tests/minilm/texts.txt");
    let lines = std::fs::read_to_string(&path).context("tests/minilm/texts.txt")?;
    let tokenizer = Tokenizer::read(folder, vocabulary(folder)?)?;
    let limits = TextLimits {
        max_tokens: MAX_TOKENS,
        overflow: Overflow::Truncate,
    };
    let tokenize = |line: &str| {
        let mut tokens = Tokens::default();
        tokenizer
            .tokenize(line, limits, &mut tokens)
            .map_err(|error| anyhow!("{error}: {line:?}"))?;
        Ok(tokens.ids().to_vec())
    };
    lines.lines().map(tokenize).collect()
}

fn vocabulary(folder: &Path) -> anyhow::Result<usize> {
    let config = std::fs::read(folder.join("config.json")).context("config.json")?;
    Ok(EncoderConfig::parse(&config)?.vocabulary)
}
