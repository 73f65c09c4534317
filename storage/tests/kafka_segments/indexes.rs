//! Indexes that Milena makes of Kafka's segments, beside Kafka's own.
//!
//! Those of aborted transactions are equal byte for byte. So are the others, but for one thing: where Kafka opens a segment again it begins to count
//! `index.interval.bytes` anew, and it has written the largest timestamp when it closed it. So in a segment
//! that lived through a restart only what was indexed before is compared; there are no more of these than
//! there were restarts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::archive::{copy, taken};
use crate::said::{self, Partition};
use crate::segments::open;

/// The index files of a partition's folder: by name, with the base offset of each.
fn indexes(dir: &Path) -> BTreeMap<String, (i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("lists the folder") {
        let path = entry.expect("lists the folder").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let digits = name
            .strip_suffix(".index")
            .or(name.strip_suffix(".timeindex"));
        if let Some(digits) = digits {
            let base = digits.parse().expect("an offset");
            found.insert(name.to_owned(), (base, fs::read(&path).expect("reads")));
        }
    }
    found
}

/// The files of a partition's folder that have a suffix: by name, in the order of their offsets.
pub fn files(dir: &Path, suffix: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("lists the folder") {
        let path = entry.expect("lists the folder").path();
        if path
            .extension()
            .is_some_and(|extension| extension == suffix)
        {
            let name = path.file_name().expect("a name").to_string_lossy();
            found.insert(name.into_owned(), fs::read(&path).expect("reads"));
        }
    }
    found
}

/// Where Kafka began new epochs: it did at every start.
fn restarts(said: &Partition) -> Vec<i64> {
    let mut ends: Vec<i64> = said.epochs.iter().map(|(_, _, end)| *end).collect();
    ends.retain(|end| (said.start + 1..said.end).contains(end));
    ends.dedup();
    ends
}

/// The entries for offsets below `end`, which is relative to the segment's base.
fn below(bytes: &[u8], size: usize, end: i64) -> Vec<&[u8]> {
    let offset = |entry: &[u8]| {
        let field = &entry[size - if size == 8 { 8 } else { 4 }..];
        i64::from(u32::from_be_bytes([field[0], field[1], field[2], field[3]]))
    };
    let entries = bytes.chunks_exact(size);
    entries.filter(|entry| offset(entry) < end).collect()
}

#[test]
fn indexes_made_of_kafkas_segments_are_kafkas() {
    let said = said::partitions("stopped");
    let index = |path: &Path| {
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        matches!(suffix, Some("index" | "timeindex"))
    };
    let folder = copy("stopped", index);
    let (dir, logs) = open(folder.path(), &said);
    dir.shutdown().expect("stops");
    drop((logs, dir));
    let (mut equal, mut reopened) = (0, 0);
    for partition in &said {
        let name = format!("{}-{}", partition.topic, partition.number);
        let kafkas = indexes(&taken().join("stopped/data").join(&name));
        let ours = indexes(&folder.path().join(&name));
        assert!(kafkas.keys().eq(ours.keys()), "{name}");
        let restarts = restarts(partition);
        let mut differing = 0;
        for (file, (base, theirs)) in &kafkas {
            let ours = &ours[file].1;
            if theirs == ours {
                equal += 1;
                continue;
            }
            if *base < partition.start {
                // Of restarts below the log's start nothing is known any more.
                continue;
            }
            differing += 1;
            let next = kafkas
                .values()
                .map(|(base, _)| *base)
                .find(|next| next > base);
            let next = next.unwrap_or(partition.end);
            let lived_through = restarts
                .iter()
                .find(|restart| (base + 1..next).contains(restart));
            let restart = lived_through.unwrap_or_else(|| panic!("{name}/{file} differs"));
            let size = if file.ends_with(".timeindex") { 12 } else { 8 };
            let (theirs, ours) = (
                below(theirs, size, restart - base),
                below(ours, size, restart - base),
            );
            let common = theirs.len().min(ours.len());
            // That of the close, and what was due only after it.
            let last = usize::from(size == 12);
            assert!(theirs.len().abs_diff(ours.len()) <= last, "{name}/{file}");
            assert_eq!(
                theirs[..common - last.min(common)],
                ours[..common - last.min(common)],
                "{name}/{file}"
            );
        }
        // An offset and a time index each.
        assert!(differing <= 2 * restarts.len(), "{name}");
        reopened += differing;
    }
    println!("{equal} indexes are equal, {reopened} are of segments that were opened again");
    assert!(equal > 2 * reopened);
}

/// Opens a folder without what `leave_out` says, after `damage`, and compares what is there then of the
/// indexes of aborted transactions. Returns how many there are.
fn compare_aborted(of: &str, leave_out: impl Fn(&Path) -> bool, damage: fn(&mut Vec<u8>)) -> usize {
    let said = said::partitions(of);
    let folder = copy(of, leave_out);
    for partition in &said {
        let dir = folder
            .path()
            .join(format!("{}-{}", partition.topic, partition.number));
        for (name, mut bytes) in files(&dir, "txnindex") {
            damage(&mut bytes);
            fs::write(dir.join(name), bytes).expect("damages");
        }
    }
    let (dir, logs) = open(folder.path(), &said);
    dir.shutdown().expect("stops");
    drop((logs, dir));
    let mut compared = 0;
    for partition in &said {
        let name = format!("{}-{}", partition.topic, partition.number);
        let kafkas = files(&taken().join(of).join("data").join(&name), "txnindex");
        let ours = files(&folder.path().join(&name), "txnindex");
        assert_eq!(ours, kafkas, "{name}");
        compared += kafkas.len();
    }
    compared
}

#[test]
fn indexes_of_aborted_transactions_are_kafkas() {
    let ends_with = |path: &Path, ends: &[&str]| {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("a name in UTF-8");
        ends.iter().any(|end| name.ends_with(end))
    };
    let (marker, point) = (".kafka_cleanshutdown", "recovery-point-offset-checkpoint");
    for of in ["stopped", "killed"] {
        // Made of the batches, with and without snapshots.
        let batches = [marker, point, ".txnindex", ".snapshot"];
        let compared = compare_aborted(of, |path| ends_with(path, &batches), |_| {});
        compare_aborted(of, |path| ends_with(path, &batches[..3]), |_| {});
        // Kafka's own, and what follows the recovery point.
        compare_aborted(of, |path| ends_with(path, &[marker]), |_| {});
        assert!(compared > 2, "{compared} compared");
    }
    compare_aborted("stopped", |_| false, |_| {});
    compare_aborted(
        "stopped",
        |_| false,
        |bytes| bytes.truncate(bytes.len() - 1),
    );
}
