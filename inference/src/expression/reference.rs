//! What an expression may refer to, and where its values come from.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use serde_json::Value;

use crate::feature::JsonPath;

/// What a reference is into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// `$in`: the input record.
    In,
    /// `$out`: the model's output.
    Out,
    /// `$f`: the features.
    Features,
}

impl Root {
    /// After the `$`.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "in" => Some(Self::In),
            "out" => Some(Self::Out),
            "f" => Some(Self::Features),
            _ => None,
        }
    }
}

/// A value that an expression names. Shown as `$in.a[0]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What it is into.
    pub root: Root,
    /// Where in it; `None` is the whole.
    pub path: Option<JsonPath>,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.root {
            Root::In => "$in",
            Root::Out => "$out",
            Root::Features => "$f",
        })?;
        // A path's text begins with `$`.
        let path = self.path.as_ref().map_or("", |path| &path.as_str()[1..]);
        f.write_str(path)
    }
}

/// A record's values.
pub trait Scope {
    /// The value of a reference, null where there is none.
    fn get(&self, reference: &Reference) -> Cow<'_, Value>;

    /// Appends the value as JSON. For scopes that have it as text already.
    fn write(&self, reference: &Reference, out: &mut BytesMut) {
        write_json(&self.get(reference), out);
    }
}

/// Appends a value as JSON.
pub(crate) fn write_json(value: &Value, out: &mut BytesMut) {
    // Neither a value nor a growing buffer can fail.
    let _ = serde_json::to_writer(out.writer(), value);
}
