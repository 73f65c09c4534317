//! Sizes as they are written: `"64MiB"`, `"1GB"`, or a number of bytes.

use bytesize::ByteSize;
use serde::de::{Deserialize, Deserializer, Error};
use toml::Spanned;

/// Bytes, with where they stand.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Spanned<u64>>, D::Error> {
    let written = Spanned::<Written>::deserialize(deserializer)?;
    let span = written.span();
    let bytes = match written.into_inner() {
        Written::Number(bytes) => bytes,
        Written::Text(text) => match text.parse::<ByteSize>() {
            Ok(size) => size.as_u64(),
            Err(_) => {
                return Err(D::Error::custom(format!(
                    "{text:?} is not a size like \"64MiB\" or \"1GB\""
                )));
            }
        },
    };
    Ok(Some(Spanned::new(span, bytes)))
}

#[derive(serde::Deserialize)]
#[serde(
    untagged,
    expecting = "expected a size like \"64MiB\" or a number of bytes"
)]
enum Written {
    Number(u64),
    Text(String),
}
