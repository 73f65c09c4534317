//! The folders that Kafka has written, and copies of them to open.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::folders::{copy_into, unpack};

const ARCHIVE: &[u8] = include_bytes!("kafka-4.3.tar.gz");

/// The folder that has `stopped` and `killed`; in each of them the data folder `data`, and the file `said`.
pub fn taken() -> &'static Path {
    static TAKEN: OnceLock<PathBuf> = OnceLock::new();
    TAKEN.get_or_init(|| match std::env::var_os("MILENA_KAFKA_SEGMENTS") {
        Some(path) => PathBuf::from(path),
        None => {
            // Statics are not dropped, so it goes under the build's own folder.
            let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka_segments");
            let _ = fs::remove_dir_all(&to);
            unpack(ARCHIVE, &to);
            to
        }
    })
}

/// A copy of one of the data folders, without what `leave_out` says.
pub fn copy(of: &str, leave_out: impl Fn(&Path) -> bool) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    copy_into(&taken().join(of).join("data"), folder.path(), &leave_out);
    folder
}
