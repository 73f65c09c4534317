//! Which names a topic may have: Kafka's rules.

use super::CatalogError;

/// The longest topic name. A partition's folder is the name, a dash and the partition, and must
/// fit in a file name of 255 bytes.
pub(crate) const MAX_NAME_LENGTH: usize = 249;

const CONSUMER_OFFSETS: &str = "__consumer_offsets";
const TRANSACTION_STATE: &str = "__transaction_state";
const MILENA_PREFIX: &str = "__milena_";

/// Checks a topic's name: 1 to 249 of ASCII letters, digits, `.`, `_` and `-`, but not `.` or `..`.
pub fn check_name(name: &str) -> Result<(), CatalogError> {
    let reason = if name.is_empty() {
        "it is empty".to_owned()
    } else if name == "." || name == ".." {
        "it must not be '.' or '..'".to_owned()
    } else if name.len() > MAX_NAME_LENGTH {
        format!("it is longer than {MAX_NAME_LENGTH} bytes")
    } else if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        "it has characters other than ASCII letters, digits, '.', '_' and '-'".to_owned()
    } else {
        return Ok(());
    };
    Err(CatalogError::InvalidName(shortened(name), reason))
}

/// The broker's own topics: clients neither create them nor have them created.
pub fn is_reserved(name: &str) -> bool {
    name == CONSUMER_OFFSETS || name == TRANSACTION_STATE || name.starts_with(MILENA_PREFIX)
}

/// Error messages quote a name only as far as a name may go.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME_LENGTH) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for name in ["a", "A.b_c-9", "...", "-", &"x".repeat(249)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "../a",
            "ž",
            "a\0",
            &"x".repeat(250),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
        let long = check_name(&"ž".repeat(100_000)).unwrap_err().to_string();
        assert!(long.len() < 1000);
    }

    #[test]
    fn the_brokers_own_names_are_reserved() {
        assert!(is_reserved("__consumer_offsets"));
        assert!(is_reserved("__milena_catalog"));
        assert!(!is_reserved("__mine"));
    }
}
