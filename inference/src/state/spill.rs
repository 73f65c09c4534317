//! State that is on the disk: an LSM store (`fjall`), with a keyspace for each task.
//!
//! It is a cache of the changelog, and its writes are not synced: a start takes it up only where a clean stop has sealed it
//! with the version of the state that it holds, and takes the seal off before anything changes.

use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::StateError;
use crate::feature::cells::Cells;
use crate::stream_log::Task;

/// Cached blocks and write buffers, in bytes.
const CACHE_BYTES: u64 = 16 << 20;
const WRITE_BUFFER_BYTES: u64 = 8 << 20;
/// Keys that are written at once.
const BATCH_KEYS: usize = 1024;
const SEAL: &str = "seal";

/// The store of a model topic.
pub struct Spill {
    folder: PathBuf,
    database: Database,
    /// The version, and the tasks' own entries.
    own: Keyspace,
}

impl std::fmt::Debug for Spill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spill")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Removes what is in a folder, if there is one.
pub(super) fn remove(folder: &Path) -> Result<(), StateError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(folder)(error)),
        _ => Ok(()),
    }
}

fn failed<E: std::fmt::Display>(folder: &Path) -> impl Fn(E) -> StateError {
    let path = folder.to_owned();
    move |error| StateError::Disk {
        path: path.clone(),
        reason: error.to_string(),
    }
}

impl Spill {
    /// An empty one, in place of what may be there.
    pub(super) fn create(folder: &Path) -> Result<Self, StateError> {
        remove(folder)?;
        Self::open(folder)
    }

    /// What a clean stop has left, where it holds that version.
    pub(super) fn resume(folder: &Path, version: &str) -> Result<Option<Self>, StateError> {
        if !folder.exists() {
            return Ok(None);
        }
        let spill = match Self::open(folder) {
            Ok(spill) => spill,
            Err(error) => {
                tracing::warn!(%error, "a state store can't be opened and is built anew");
                return Ok(None);
            }
        };
        let seal = spill.own.get(SEAL).map_err(failed(folder))?;
        if seal.as_deref() != Some(version.as_bytes()) {
            return Ok(None);
        }
        spill.own.remove(SEAL).map_err(failed(folder))?;
        spill
            .database
            .persist(PersistMode::SyncAll)
            .map_err(failed(folder))?;
        Ok(Some(spill))
    }

    fn open(folder: &Path) -> Result<Self, StateError> {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .open()
            .map_err(failed(folder))?;
        let own = database
            .keyspace("own", KeyspaceCreateOptions::default)
            .map_err(failed(folder))?;
        Ok(Self {
            folder: folder.to_owned(),
            database,
            own,
        })
    }

    fn keys(&self, task: Task) -> Result<Keyspace, StateError> {
        let options = || KeyspaceCreateOptions::default().max_memtable_size(WRITE_BUFFER_BYTES);
        let name = format!("task-{}", task.partition);
        self.database
            .keyspace(&name, options)
            .map_err(failed(&self.folder))
    }

    pub(super) fn clear(&self, task: Task) -> Result<(), StateError> {
        self.keys(task)?.clear().map_err(failed(&self.folder))
    }

    pub(super) fn get(&self, task: Task, key: &[u8]) -> Result<Option<Cells>, StateError> {
        let found = self
            .keys(task)?
            .get(stored(key))
            .map_err(failed(&self.folder))?;
        found.map(|bytes| self.cells(&bytes)).transpose()
    }

    /// The next keys after one, or the first, so many. The first may be the empty key.
    pub(super) fn after(
        &self,
        task: Task,
        key: Option<&[u8]>,
        most: usize,
    ) -> Result<Vec<(Vec<u8>, Cells)>, StateError> {
        use std::ops::Bound;
        let after = key.map_or(Bound::Unbounded, |key| Bound::Excluded(stored(key)));
        let from = (after, Bound::Unbounded);
        let found = self.keys(task)?.range::<Vec<u8>, _>(from).take(most);
        found
            .map(|entry| {
                let (key, bytes) = entry.into_inner().map_err(failed(&self.folder))?;
                Ok((
                    key.get(1..).unwrap_or_default().to_vec(),
                    self.cells(&bytes)?,
                ))
            })
            .collect()
    }

    fn cells(&self, bytes: &[u8]) -> Result<Cells, StateError> {
        Cells::from_bytes(bytes.to_vec())
            .ok_or_else(|| failed(&self.folder)("an entry is not cells"))
    }

    pub(super) fn batch(&self, task: Task) -> SpillBatch<'_> {
        SpillBatch {
            spill: self,
            task,
            open: None,
            keys: 0,
        }
    }

    pub(super) fn own(&self, task: Task) -> Result<Vec<(i64, Vec<u8>)>, StateError> {
        let prefix = task.partition.to_be_bytes();
        let found = self.own.prefix(prefix);
        let mut own = Vec::new();
        for entry in found {
            let (key, value) = entry.into_inner().map_err(failed(&self.folder))?;
            // The seal has no such length.
            let slice = key.get(4..).and_then(|slice| slice.try_into().ok());
            own.extend(slice.map(|slice| (i64::from_be_bytes(slice), value.to_vec())));
        }
        Ok(own)
    }

    pub(super) fn put_own(&self, task: Task, own: Vec<(i64, Vec<u8>)>) -> Result<(), StateError> {
        for (slice, value) in own {
            let mut key = task.partition.to_be_bytes().to_vec();
            key.extend(slice.to_be_bytes());
            self.own.insert(key, value).map_err(failed(&self.folder))?;
        }
        Ok(())
    }

    /// Says which version's state this is, for the next start.
    pub(super) fn seal(&self, version: &str) -> Result<(), StateError> {
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(failed(&self.folder))?;
        self.own
            .insert(SEAL, version)
            .map_err(failed(&self.folder))?;
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(failed(&self.folder))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }
}

/// Writes of one task.
pub(super) struct SpillBatch<'s> {
    spill: &'s Spill,
    task: Task,
    open: Option<(Keyspace, OwnedWriteBatch)>,
    keys: usize,
}

impl SpillBatch<'_> {
    /// A key's cells; without any it is removed.
    pub(super) fn put(&mut self, key: &[u8], cells: &Cells) -> Result<(), StateError> {
        if self.open.is_none() {
            self.open = Some((self.spill.keys(self.task)?, self.spill.database.batch()));
        }
        if let Some((keyspace, batch)) = &mut self.open {
            match cells.is_empty() {
                true => batch.remove(keyspace, stored(key)),
                false => batch.insert(keyspace, stored(key), cells.as_bytes()),
            }
            self.keys += 1;
        }
        if self.keys >= BATCH_KEYS {
            self.write()?;
        }
        Ok(())
    }

    pub(super) fn commit(mut self) -> Result<(), StateError> {
        self.write()
    }

    fn write(&mut self) -> Result<(), StateError> {
        self.keys = 0;
        match self.open.take() {
            Some((_, batch)) => batch.commit().map_err(failed(&self.spill.folder)),
            None => Ok(()),
        }
    }
}

/// A store's key is not empty; a record's may be.
fn stored(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + key.len());
    stored.push(0);
    stored.extend_from_slice(key);
    stored
}
