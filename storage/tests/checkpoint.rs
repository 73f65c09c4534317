//! Kafka's text files: their exact content, what is refused, and what a crash leaves.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use storage::Error;
use storage::checkpoint::{self, EpochEntry, MetaProperties, OffsetCheckpoint, uuid_text};
use storage::disk::{Disk, DiskLock, File};
use uuid::Uuid;

/// Files in memory. Remembers the calls that change something, and fails the one it is told to.
#[derive(Clone, Debug, Default)]
struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    calls: Vec<String>,
    failing: Option<&'static str>,
}

impl MemoryDisk {
    fn with(path: &str, content: &str) -> Self {
        let disk = Self::default();
        disk.0
            .lock()
            .unwrap()
            .files
            .insert(path.into(), content.into());
        disk
    }

    fn content(&self, path: &str) -> Option<String> {
        let state = self.0.lock().unwrap();
        let bytes = state.files.get(Path::new(path))?;
        Some(String::from_utf8(bytes.clone()).unwrap())
    }

    fn changing<T>(
        &self,
        call: &'static str,
        path: &Path,
        act: impl FnOnce(&mut State) -> T,
    ) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        state.calls.push(format!("{call} {}", path.display()));
        if state.failing == Some(call) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(act(&mut state))
    }
}

#[derive(Debug)]
struct MemoryFile(MemoryDisk, PathBuf);

impl File for MemoryFile {
    fn write_at(&self, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.0.changing("write", &self.1, |state| {
            let file = state.files.get_mut(&self.1).unwrap();
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let end = position as usize + bytes.len();
            file.resize(file.len().max(end), 0);
            file[position as usize..end].copy_from_slice(&bytes);
            bytes.len()
        })
    }
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.0.0.lock().unwrap();
        // Short reads are allowed: one byte at a time.
        match state.files[&self.1].get(position as usize) {
            Some(byte) => {
                buf[0] = *byte;
                Ok(1)
            }
            None => Ok(0),
        }
    }
    fn sync(&self) -> io::Result<()> {
        self.0.changing("sync", &self.1, |_| ())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.changing("set_len", &self.1, |state| {
            state
                .files
                .get_mut(&self.1)
                .unwrap()
                .resize(len as usize, 0);
        })
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn modified_ms(&self) -> io::Result<i64> {
        Ok(0)
    }
    fn set_modified_ms(&self, _: i64) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().unwrap().files[&self.1].len() as u64)
    }
    fn map(&self, _: usize) -> io::Result<memmap2::MmapRaw> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock().unwrap();
        if create {
            state.files.entry(path.into()).or_default();
        } else if !state.files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(MemoryFile(self.clone(), path.into())))
    }
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changing("rename", to, |state| {
            let content = state.files.remove(from).unwrap();
            state.files.insert(to.into(), content);
        })
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.changing("remove_file", path, |state| {
            state.files.remove(path);
        })
    }
    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.changing("sync_dir", path, |_| ())
    }
    fn lock(&self, _: &Path) -> io::Result<DiskLock> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.lock().unwrap().files.keys().cloned().collect())
    }
}

const DIR: &str = "/data";

fn dir() -> &'static Path {
    Path::new(DIR)
}

/// The reason that a `CorruptFile` gives.
fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::CorruptFile { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn leader_epochs_are_kafkas_text() {
    let disk = MemoryDisk::default();
    assert_eq!(checkpoint::read_leader_epochs(&disk, dir()).unwrap(), []);
    let epochs = [(0, 0), (1, 57), (7, i64::MAX)].map(|(leader_epoch, start_offset)| EpochEntry {
        leader_epoch,
        start_offset,
    });
    checkpoint::write_leader_epochs(&disk, dir(), &epochs).unwrap();
    assert_eq!(
        disk.content("/data/leader-epoch-checkpoint").unwrap(),
        format!("0\n3\n0 0\n1 57\n7 {}\n", i64::MAX)
    );
    assert_eq!(
        checkpoint::read_leader_epochs(&disk, dir()).unwrap(),
        epochs
    );
}

#[test]
fn offsets_are_kafkas_text() {
    let disk = MemoryDisk::default();
    for (file, name) in [
        (
            OffsetCheckpoint::RecoveryPoint,
            "/data/recovery-point-offset-checkpoint",
        ),
        (
            OffsetCheckpoint::LogStartOffset,
            "/data/log-start-offset-checkpoint",
        ),
        (
            OffsetCheckpoint::HighWatermark,
            "/data/replication-offset-checkpoint",
        ),
    ] {
        assert!(
            checkpoint::read_offsets(&disk, dir(), file)
                .unwrap()
                .is_empty()
        );
        let offsets = [(("b".to_owned(), 0), 9), (("a.x-y_z".to_owned(), 12), 0)].into();
        checkpoint::write_offsets(&disk, dir(), file, &offsets).unwrap();
        assert_eq!(disk.content(name).unwrap(), "0\n2\na.x-y_z 12 0\nb 0 9\n");
        assert_eq!(
            checkpoint::read_offsets(&disk, dir(), file).unwrap(),
            offsets
        );
    }
}

#[test]
fn an_empty_checkpoint_has_no_entries() {
    let disk = MemoryDisk::with("/data/leader-epoch-checkpoint", "");
    assert_eq!(checkpoint::read_leader_epochs(&disk, dir()).unwrap(), []);
}

#[test]
fn a_bad_checkpoint_is_refused_with_its_line() {
    for (content, expected) in [
        ("1\n0\n", "version \"1\" is not 0"),
        ("x", "version \"x\" is not 0"),
        ("0\n", "malformed line 2: \"\""),
        ("0\n-1\n", "malformed line 2: \"-1\""),
        ("0\n1\n", "0 entries, 1 by its line 2"),
        ("0\n1\n0 0\n1 1\n", "2 entries, 1 by its line 2"),
        (
            "0\n99999999999\n0 0\n",
            "1 entries, 99999999999 by its line 2",
        ),
        ("0\n1\n0\n", "malformed line 3: \"0\""),
        ("0\n1\n0 0 0\n", "malformed line 3: \"0 0 0\""),
        ("0\n2\n0 0\nx 1\n", "malformed line 4: \"x 1\""),
        ("0\n2\n1 0\n1 5\n", "malformed line 4: \"1 5\""),
        ("0\n2\n1 5\n2 4\n", "malformed line 4: \"2 4\""),
        ("0\n1\n0 -1\n", "malformed line 3: \"0 -1\""),
        (
            "0\n1\n0 9223372036854775808\n",
            "malformed line 3: \"0 9223372036854775808\"",
        ),
    ] {
        let disk = MemoryDisk::with("/data/leader-epoch-checkpoint", content);
        assert_eq!(
            reason(checkpoint::read_leader_epochs(&disk, dir())),
            expected
        );
    }
    for line in ["a 0", "a 0 0 0", "a -1 0", "a 0 -1", "a x 0"] {
        let content = format!("0\n1\n{line}\n");
        let disk = MemoryDisk::with("/data/log-start-offset-checkpoint", &content);
        let result = checkpoint::read_offsets(&disk, dir(), OffsetCheckpoint::LogStartOffset);
        assert_eq!(reason(result), format!("malformed line 3: {line:?}"));
    }
    let disk = MemoryDisk::default();
    checkpoint::write_file(&disk, &dir().join("leader-epoch-checkpoint"), b"0\n\xff").unwrap();
    assert_eq!(
        reason(checkpoint::read_leader_epochs(&disk, dir())),
        "no UTF-8 at byte 2"
    );
}

#[test]
fn partition_metadata_is_kafkas_text() {
    let disk = MemoryDisk::default();
    assert_eq!(
        checkpoint::read_partition_metadata(&disk, dir()).unwrap(),
        None
    );
    let id = Uuid::from_bytes(*b"foobarfoobarfoob");
    checkpoint::write_partition_metadata(&disk, dir(), id).unwrap();
    assert_eq!(
        disk.content("/data/partition.metadata").unwrap(),
        "version: 0\ntopic_id: Zm9vYmFyZm9vYmFyZm9vYg"
    );
    assert_eq!(
        checkpoint::read_partition_metadata(&disk, dir()).unwrap(),
        Some(id)
    );

    for (content, expected) in [
        ("", "malformed line 1: \"\""),
        (
            "version: 1\ntopic_id: Zm9vYmFyZm9vYmFyZm9vYg",
            "version 1 is not 0",
        ),
        ("version: 0\n", "malformed line 2: \"\""),
        (
            "version: 0\ntopic: Zm9vYmFyZm9vYmFyZm9vYg",
            "malformed line 2: \"topic: Zm9vYmFyZm9vYmFyZm9vYg\"",
        ),
        ("version: 0\ntopic_id: short", "malformed line 2: \"short\""),
        (
            "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA",
            "malformed line 2: \"AAAAAAAAAAAAAAAAAAAAAA\"",
        ),
    ] {
        let disk = MemoryDisk::with("/data/partition.metadata", content);
        assert_eq!(
            reason(checkpoint::read_partition_metadata(&disk, dir())),
            expected
        );
    }
}

#[test]
fn meta_properties_are_kafkas() {
    let disk = MemoryDisk::default();
    assert_eq!(
        checkpoint::read_meta_properties(&disk, dir()).unwrap(),
        None
    );
    let id = Uuid::from_bytes(*b"foobarfoobarfoob");
    let mut properties = MetaProperties {
        node_id: 7,
        cluster_id: uuid_text::encode(Uuid::from_u128(1)),
        directory_id: Some(id),
    };
    checkpoint::write_meta_properties(&disk, dir(), &properties).unwrap();
    assert_eq!(
        checkpoint::read_meta_properties(&disk, dir())
            .unwrap()
            .as_ref(),
        Some(&properties)
    );

    // As Kafka's format command leaves it.
    let kafkas = "#\n#Sat Jan 04 10:11:12 UTC 2025\ncluster.id=AAAAAAAAAAAAAAAAAAAAAQ\n\
                  directory.id=Zm9vYmFyZm9vYmFyZm9vYg\nnode.id=7\nversion=1\n";
    let disk = MemoryDisk::with("/data/meta.properties", kafkas);
    assert_eq!(
        checkpoint::read_meta_properties(&disk, dir())
            .unwrap()
            .as_ref(),
        Some(&properties)
    );

    properties.directory_id = None;
    checkpoint::write_meta_properties(&disk, dir(), &properties).unwrap();
    assert_eq!(
        checkpoint::read_meta_properties(&disk, dir()).unwrap(),
        Some(properties)
    );

    for (content, expected) in [
        ("", "no version"),
        ("version=0\nbroker.id=1\n", "version 0 is not 1"),
        ("version=1\ncluster.id=x\n", "no node.id"),
        ("version=1\nnode.id=1\n", "no cluster.id"),
        (
            "version=1\nnode.id=one\ncluster.id=x\n",
            "node.id \"one\" is no number",
        ),
        (
            "version=1\nnode.id=1\ncluster.id=x\ndirectory.id=y",
            "directory.id \"y\" is no id",
        ),
        ("version=1\nnonsense\n", "malformed line 2: \"nonsense\""),
        (
            "version=1\ncluster.id=a\\:b\n",
            "malformed line 2: \"cluster.id=a\\\\:b\"",
        ),
    ] {
        let disk = MemoryDisk::with("/data/meta.properties", content);
        assert_eq!(
            reason(checkpoint::read_meta_properties(&disk, dir())),
            expected
        );
    }
}

#[test]
fn a_file_is_replaced_as_a_whole_and_in_this_order() {
    let disk = MemoryDisk::with("/data/x.tmp", "longer than what comes, left by a crash");
    checkpoint::write_file(&disk, &dir().join("x"), b"new").unwrap();
    assert_eq!(disk.content("/data/x").unwrap(), "new");
    assert_eq!(disk.content("/data/x.tmp"), None);
    assert_eq!(
        disk.0.lock().unwrap().calls,
        [
            "set_len /data/x.tmp",
            "write /data/x.tmp",
            "sync /data/x.tmp",
            "rename /data/x",
            "sync_dir /data",
        ]
    );
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    for call in ["set_len", "write", "sync", "rename"] {
        let disk = MemoryDisk::with("/data/x", "old");
        disk.0.lock().unwrap().failing = Some(call);
        let result = checkpoint::write_file(&disk, &dir().join("x"), b"new");
        assert!(
            matches!(
                result,
                Err(Error::Io {
                    kind: io::ErrorKind::StorageFull,
                    ..
                })
            ),
            "{call}: {result:?}"
        );
        assert_eq!(disk.content("/data/x").unwrap(), "old", "{call}");
    }
}
