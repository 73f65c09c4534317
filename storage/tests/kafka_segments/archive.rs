//! The folders that Kafka has written, and copies of them to open.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use tempfile::TempDir;

const ARCHIVE: &[u8] = include_bytes!("kafka-4.3.tar.gz");
const BLOCK: usize = 512;

/// The folder that has `stopped` and `killed`; in each of them the data folder `data`, and the file `said`.
pub fn taken() -> &'static Path {
    static TAKEN: OnceLock<PathBuf> = OnceLock::new();
    TAKEN.get_or_init(|| match std::env::var_os("MILENA_KAFKA_SEGMENTS") {
        Some(path) => PathBuf::from(path),
        None => {
            // Statics are not dropped, so it goes under the build's own folder.
            let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka_segments");
            let _ = fs::remove_dir_all(&to);
            unpack(&to);
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

fn copy_into(from: &Path, to: &Path, leave_out: &impl Fn(&Path) -> bool) {
    fs::create_dir_all(to).expect("creates a folder");
    for entry in fs::read_dir(from).expect("lists the folder") {
        let from = entry.expect("lists the folder").path();
        let to = to.join(from.file_name().expect("a name"));
        if from.is_dir() {
            copy_into(&from, &to, leave_out);
        } else if !leave_out(&from) {
            fs::copy(&from, &to).expect("copies");
        }
    }
}

/// Unpacks the archive, which is a plain ustar one: 512 bytes of header, then the file in blocks of 512 bytes.
fn unpack(to: &Path) {
    let mut bytes = Vec::new();
    GzDecoder::new(ARCHIVE)
        .read_to_end(&mut bytes)
        .expect("decompresses");
    let mut rest = bytes.as_slice();
    while rest.len() >= BLOCK && rest[0] != 0 {
        let (header, after) = rest.split_at(BLOCK);
        let size = usize::from_str_radix(&text(&header[124..135]), 8).expect("a size");
        let path = to.join(text(&header[345..500])).join(text(&header[..100]));
        fs::create_dir_all(path.parent().expect("a folder")).expect("creates a folder");
        fs::write(&path, &after[..size]).expect("writes");
        rest = &after[size.div_ceil(BLOCK) * BLOCK..];
    }
}

fn text(field: &[u8]) -> String {
    let text: Vec<u8> = field
        .iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8(text).expect("a name")
}
