//! What `tokenizer.json` asks of the library that reads it, looked at before it does: the library trusts its
//! file. It would set aside what a table announces, recurse as deep as a token is long, and let a text grow
//! with each step that it goes through.

use std::borrow::Cow;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Longest token or regular expression, in bytes.
const MAX_TEXT: usize = 2048;
/// Longest of what a word's parts are marked with, in bytes.
const MAX_MARK: usize = 64;
/// How texts are normalized, split or framed, in bytes each. The largest there is is a table of 300 kB.
const MAX_STEPS_BYTES: usize = 4 << 20;
/// Most regular expressions, each of which may take 10 MB.
const MAX_EXPRESSIONS: usize = 16;
/// How many times its length a text may come to. The longest that a letter is spelled out to is 33 bytes.
const MAX_GROWTH: u64 = 1024;
/// What tokens that are found in normalized texts may come to when they are normalized, in bytes.
const MAX_GROWN_TOKENS: u64 = 256 << 10;

/// As the library reads it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, default)]
    added_tokens: Vec<Added<'a>>,
    #[serde(borrow, default)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    decoder: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Added<'a> {
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(default = "yes")]
    normalized: bool,
}

fn yes() -> bool {
    true
}

/// Refuses a file that is not to be read, or says why it is no JSON.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    Texts(MAX_TEXT)
        .deserialize(&mut reader)
        .map_err(|error| error.to_string())?;
    let file: File<'_> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut steps = Steps::default();
    for (key, part, grows) in [
        ("normalizer", file.normalizer, true),
        ("pre_tokenizer", file.pre_tokenizer, true),
        ("post_processor", file.post_processor, false),
        ("decoder", file.decoder, false),
    ] {
        let Some(part) = part.map(RawValue::get) else {
            continue;
        };
        if part.len() > MAX_STEPS_BYTES {
            let found = part.len();
            return Err(format!(
                "{key} is {found} bytes long, over {MAX_STEPS_BYTES}"
            ));
        }
        let part: Value = serde_json::from_str(part).map_err(|error| error.to_string())?;
        let growth = steps.growth;
        steps.look_at(&part)?;
        if !grows {
            steps.growth = growth;
        }
    }
    let Steps {
        growth,
        expressions,
    } = steps;
    if expressions > MAX_EXPRESSIONS {
        return Err(format!(
            "it has {expressions} regular expressions, over {MAX_EXPRESSIONS}"
        ));
    }
    if growth > MAX_GROWTH {
        return Err(format!(
            "a text may grow to {growth} times its length, over {MAX_GROWTH}"
        ));
    }
    let normalized = file.added_tokens.iter().filter(|token| token.normalized);
    let bytes: u64 = normalized.map(|token| token.content.len() as u64).sum();
    if growth > 1 && bytes * growth > MAX_GROWN_TOKENS {
        return Err(format!(
            "{bytes} bytes of added tokens may grow to {growth} times that, over {MAX_GROWN_TOKENS}"
        ));
    }
    Ok(())
}

/// What a text goes through.
struct Steps {
    growth: u64,
    expressions: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            growth: 1,
            expressions: 0,
        }
    }
}

impl Steps {
    /// Steps may have no type: they are known by their keys.
    fn look_at(&mut self, step: &Value) -> Result<(), String> {
        match step {
            Value::Array(steps) => steps.iter().try_for_each(|step| self.look_at(step)),
            Value::Object(step) => {
                let text = |key: &str| step.get(key).and_then(Value::as_str);
                if let Some(table) = text("precompiled_charsmap") {
                    self.grow(longest_entry(table)?);
                }
                if let Some(content) = text("content") {
                    self.grow(replaced(step.get("pattern"), content.len()));
                }
                if let Some(first) = text("prepend") {
                    self.grow(first.len());
                }
                // Half of the bytes there are become letters of two.
                if text("type") == Some("ByteLevel") || step.contains_key("trim_offsets") {
                    self.grow(2);
                }
                if step.contains_key("Regex") {
                    self.expressions += 1;
                }
                step.values().try_for_each(|step| self.look_at(step))
            }
            _ => Ok(()),
        }
    }

    fn grow(&mut self, times: usize) {
        self.growth = self.growth.saturating_mul(times.max(1) as u64);
    }
}

/// How many times its length a text comes to where a pattern is replaced by so many bytes.
fn replaced(pattern: Option<&Value>, by: usize) -> usize {
    let text = pattern.and_then(|pattern| pattern.get("String")?.as_str());
    match text.map(str::len) {
        Some(length) if length > 0 => by.div_ceil(length),
        // It may be found between all letters.
        _ if by > 0 => by + 1,
        _ => 1,
    }
}

/// Of SentencePiece's table of what letters become: a trie with its length in front, and texts with a zero
/// behind each.
fn longest_entry(table: &str) -> Result<usize, String> {
    let bytes = BASE64
        .decode(table)
        .map_err(|error| format!("precompiled_charsmap is not base64: {error}"))?;
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Err("precompiled_charsmap is too short".to_owned());
    };
    let announced = u32::from_le_bytes(*length);
    let texts = rest.get(announced as usize..).ok_or_else(|| {
        let there = rest.len();
        format!("precompiled_charsmap announces {announced} bytes, and has {there}")
    })?;
    let lengths = texts.split(|byte| *byte == 0).map(<[u8]>::len);
    Ok(lengths.max().unwrap_or(0))
}

/// Reads JSON without keeping it: no text of it is longer than this.
#[derive(Clone, Copy)]
struct Texts(usize);

impl Texts {
    fn check<E: Error>(self, what: &str, text: &str) -> Result<(), E> {
        let (length, limit) = (text.len(), self.0);
        match length > limit {
            true => Err(E::custom(format!(
                "{what} is {length} bytes long, over {limit}"
            ))),
            false => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.0 {
            MAX_MARK => self.check("a mark of a word's parts", text),
            _ => self.check("a text of it", text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self(MAX_TEXT))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(of_value) = members.next_key_seed(Key)? {
            members.next_value_seed(of_value)?;
        }
        Ok(())
    }
}

/// A member's name, which says how long its text may be.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Texts;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Texts, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Texts;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Texts, E> {
        Texts(MAX_TEXT).check("a text of it", name)?;
        Ok(Texts(match name {
            "precompiled_charsmap" => MAX_STEPS_BYTES,
            "continuing_subword_prefix" | "end_of_word_suffix" => MAX_MARK,
            _ => MAX_TEXT,
        }))
    }
}
