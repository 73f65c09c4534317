//! Finds the references of an expression, and writes the rest for the engine.
//!
//! Only the tokens of the language get through, each set apart by a blank: what the engine could do beyond it
//! is never seen by it. References become variables `r_0`, `r_1`, …, string literals are written anew.

use std::fmt::Write;
use std::ops::Range;

use super::functions::FUNCTIONS;
use super::reference::{Reference, Root};
use crate::feature::JsonPath;

/// Members of the model's output that need no `$out.`.
const BARE_NAMES: [&str; 6] = ["label", "score", "scores", "value", "embedding", "anomaly"];
/// The longer ones first.
const SYMBOLS: [&str; 19] = [
    "==", "!=", "<=", ">=", "&&", "||", "??", "<", ">", "+", "-", "*", "/", "%", "!", "(", ")",
    ",", "]",
];

/// An expression for the engine.
#[derive(Debug, Default)]
pub(super) struct Lexed {
    /// What the engine compiles.
    pub code: String,
    /// By the number in the variable's name.
    pub references: Vec<Reference>,
    /// The references as they were first written.
    pub names: Vec<String>,
    /// Where each token begins in the code, in characters, and where it stands in the text.
    tokens: Vec<(usize, Range<usize>)>,
    /// Of the code, in characters.
    length: usize,
}

/// The name of a reference's variable.
pub(super) fn variable(index: usize) -> String {
    format!("r_{index}")
}

impl Lexed {
    /// What stands in the text for a column of the code, counted from 1; `None` is past its end.
    pub fn source<'a>(&self, text: &'a str, column: usize) -> Option<&'a str> {
        let after = self.tokens.partition_point(|(start, _)| *start < column);
        let (_, range) = self.tokens.get(after.checked_sub(1)?)?;
        text.get(range.clone()).filter(|_| column <= self.length)
    }

    fn push(&mut self, code: &str, source: Range<usize>) {
        self.tokens.push((self.length, source));
        self.code.push_str(code);
        self.code.push(' ');
        self.length += code.chars().count() + 1;
    }

    fn refer(&mut self, reference: Reference, source: Range<usize>, written: &str) {
        let known = self.references.iter().position(|known| *known == reference);
        let index = known.unwrap_or(self.references.len());
        if known.is_none() {
            self.references.push(reference);
            self.names.push(written.to_owned());
        }
        self.push(&variable(index), source);
    }
}

/// A bracket that is open.
enum Open<'a> {
    Group,
    List,
    Call {
        name: &'a str,
        takes: (usize, usize),
        commas: usize,
    },
}

/// Reads an expression's tokens.
pub(super) fn lex(text: &str) -> Result<Lexed, String> {
    let mut lexed = Lexed::default();
    let mut open = Vec::new();
    let mut last = "";
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        if matches!(next, ' ' | '\t' | '\r' | '\n') {
            at += 1;
            continue;
        }
        let rest = &text[at..];
        let length = match next {
            '$' => reference(&mut lexed, text, at, false)?,
            '"' | '\'' => {
                let (literal, length) = string(rest)?;
                lexed.push(&quoted(&literal), at..at + length);
                length
            }
            '0'..='9' => number(&mut lexed, rest, at)?,
            _ if next.is_alphabetic() || next == '_' => word(&mut lexed, text, at, &mut open)?,
            '[' if last == "in" => {
                open.push(Open::List);
                lexed.push("[", at..at + 1);
                1
            }
            _ => symbol(&mut lexed, rest, at, last, &mut open)?,
        };
        last = &text[at..at + length];
        at += length;
    }
    match open.last() {
        None => Ok(lexed),
        Some(Open::List) => Err("a [ is not closed".to_owned()),
        Some(Open::Group | Open::Call { .. }) => Err("a ( is not closed".to_owned()),
    }
}

/// A function with its bracket, a constant, `in`, or a bare name.
fn word<'a>(
    lexed: &mut Lexed,
    text: &'a str,
    at: usize,
    open: &mut Vec<Open<'a>>,
) -> Result<usize, String> {
    let word = name(&text[at..]);
    let end = at + word.len();
    if matches!(word, "true" | "false" | "in") {
        lexed.push(word, at..end);
        return Ok(word.len());
    }
    let after = text[end..].trim_start();
    if after.starts_with('(') {
        let known = FUNCTIONS.iter().find(|(known, _)| *known == word);
        let Some((_, takes)) = known else {
            let known: Vec<&str> = FUNCTIONS.iter().map(|(known, _)| *known).collect();
            let known = known.join(", ");
            return Err(format!(
                "there is no function {word:?}: the functions are {known}"
            ));
        };
        open.push(Open::Call {
            name: word,
            takes: *takes,
            commas: 0,
        });
        let length = text.len() - after.len() + 1 - at;
        lexed.push(&format!("{word}("), at..at + length);
        return Ok(length);
    }
    if !BARE_NAMES.contains(&word) {
        let known = BARE_NAMES.join(", ");
        return Err(format!(
            "there is no {word:?}: the names are {known}; fields of the record are $in.name, members of the output \
             $out.name, features $f.name"
        ));
    }
    reference(lexed, text, at, true)
}

/// A reference with its path: `$in.a["b"][0]`, or a bare name.
fn reference(lexed: &mut Lexed, text: &str, at: usize, bare: bool) -> Result<usize, String> {
    let first = name(&text[at + usize::from(!bare)..]);
    let (root, mut path, mut steps) = match Root::named(first) {
        _ if bare => (Root::Out, format!("$.{first}"), 1),
        Some(root) => (root, "$".to_owned(), 0),
        None => {
            return Err(format!(
                "there is no \"${first}\": references begin with $in, $out or $f"
            ));
        }
    };
    let mut end = at + usize::from(!bare) + first.len();
    loop {
        let rest = &text[end..];
        let length = if let Some(after) = rest.strip_prefix('.') {
            let name = name(after);
            let _ = write!(path, ".{name}");
            1 + name.len()
        } else if rest.starts_with("[\"") || rest.starts_with("['") {
            let (name, length) = string(&rest[1..])?;
            if !rest[1 + length..].starts_with(']') {
                return Err("a [ is not closed".to_owned());
            }
            let _ = write!(path, ".{name}");
            length + 2
        } else if rest.starts_with('[') {
            let length = rest.find(']').map_or(rest.len(), |close| close + 1);
            path.push_str(&rest[..length]);
            length
        } else {
            break;
        };
        steps += 1;
        end += length;
    }
    let written = &text[at..end];
    if text[end..].trim_start().starts_with('(') {
        return Err(format!(
            "{written:?} is no function: functions are called as in len(label)"
        ));
    }
    let path = match steps {
        0 => None,
        _ => {
            let path: JsonPath = path.parse().map_err(|error: crate::feature::PathError| {
                format!("{written:?}: {}", error.reason)
            })?;
            if path.steps().len() != steps {
                return Err(format!("{written:?}: a name in [] is plain: no . or ["));
            }
            Some(path)
        }
    };
    lexed.refer(Reference { root, path }, at..end, written);
    Ok(end - at)
}

/// An operator, a bracket or a comma.
fn symbol(
    lexed: &mut Lexed,
    rest: &str,
    at: usize,
    last: &str,
    open: &mut Vec<Open<'_>>,
) -> Result<usize, String> {
    let unexpected = |what: &str| format!("unexpected {what:?}");
    let Some(symbol) = SYMBOLS.into_iter().find(|known| rest.starts_with(known)) else {
        return Err(match rest.chars().next() {
            Some('[') => "a list stands only after in; a [ of a path follows it at once".to_owned(),
            Some('=') => "unexpected \"=\": what is equal is written ==".to_owned(),
            other => unexpected(&other.map(String::from).unwrap_or_default()),
        });
    };
    match (symbol, open.last_mut()) {
        ("(", _) => open.push(Open::Group),
        (")", Some(Open::Group)) if last != "(" => drop(open.pop()),
        (
            ")",
            Some(Open::Call {
                name,
                takes: (least, most),
                commas,
            }),
        ) => {
            let given = if last.ends_with('(') { 0 } else { *commas + 1 };
            if !(*least..=*most).contains(&given) {
                let takes = match *least == *most {
                    true => format!("{least}"),
                    false => format!("{least} or {most}"),
                };
                return Err(format!("{name} takes {takes} values, not {given}"));
            }
            open.pop();
        }
        ("]", Some(Open::List)) => drop(open.pop()),
        (",", Some(Open::Call { commas, .. })) => *commas += 1,
        (",", Some(Open::List)) => {}
        (")" | "]" | ",", _) => return Err(unexpected(symbol)),
        _ => {}
    }
    lexed.push(symbol, at..at + symbol.len());
    Ok(symbol.len())
}

/// `1`, `1.5`, `1e-3`.
fn number(lexed: &mut Lexed, rest: &str, at: usize) -> Result<usize, String> {
    let digits = |from: usize| {
        let digits = rest[from..].bytes().take_while(u8::is_ascii_digit);
        from + digits.count()
    };
    let mut end = digits(0);
    if rest[end..].starts_with('.') {
        end = digits(end + 1);
    }
    if rest[end..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
        end = digits(end + 1 + sign);
    }
    end += name(&rest[end..]).len();
    let written = &rest[..end];
    let float = written
        .parse::<f64>()
        .ok()
        .filter(|float| float.is_finite());
    match (written.parse::<i64>(), float) {
        (Ok(integer), _) => lexed.push(&integer.to_string(), at..at + end),
        (_, Some(float)) if !written.ends_with('.') => {
            lexed.push(&format!("{float:?}"), at..at + end)
        }
        _ => return Err(format!("{written:?} is not a number")),
    }
    Ok(end)
}

/// A string literal at the beginning: its value, and how long it is as it is written.
fn string(rest: &str) -> Result<(String, usize), String> {
    let mut chars = rest.char_indices();
    let quote = chars.next().map_or('"', |(_, quote)| quote);
    let mut value = String::new();
    while let Some((index, next)) = chars.next() {
        let escaped = match next {
            '\\' => chars.next().map(|(_, escaped)| escaped),
            _ if next == quote => return Ok((value, index + 1)),
            _ => {
                value.push(next);
                continue;
            }
        };
        match escaped {
            Some(plain @ ('\\' | '"' | '\'')) => value.push(plain),
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('t') => value.push('\t'),
            Some(other) => {
                return Err(format!(
                    "\"\\{other}\" is no escape: they are \\\\ \\\" \\' \\n \\r \\t"
                ));
            }
            None => break,
        }
    }
    Err(format!("a {quote} is not closed"))
}

/// A string literal of the engine's.
fn quoted(value: &str) -> String {
    let mut code = String::from("\"");
    for char in value.chars() {
        match char {
            '"' | '\\' => code.extend(['\\', char]),
            _ if char.is_control() => {
                let _ = write!(code, "\\u{:04x}", u32::from(char));
            }
            _ => code.push(char),
        }
    }
    code.push('"');
    code
}

/// The letters, digits and underscores at the beginning.
fn name(text: &str) -> &str {
    let end = text.find(|char: char| !char.is_alphanumeric() && char != '_');
    &text[..end.unwrap_or(text.len())]
}
