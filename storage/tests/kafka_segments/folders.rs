//! Folders that Kafka has written: unpacked from an archive, and copied to be opened.

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

const BLOCK: usize = 512;

/// Copies a folder, without what `leave_out` says.
pub fn copy_into(from: &Path, to: &Path, leave_out: &impl Fn(&Path) -> bool) {
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

/// Unpacks an archive, which is a plain ustar one: 512 bytes of header, then the file in blocks of 512 bytes.
pub fn unpack(archive: &[u8], to: &Path) {
    let mut bytes = Vec::new();
    GzDecoder::new(archive)
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
