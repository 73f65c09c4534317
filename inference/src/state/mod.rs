//! What a model topic remembers of keys.
//!
//! A [`Store`] has it all for one model topic: by task, by key, the cells of its panes. What is used is in memory, up to
//! [`Store::new`]'s `max_bytes`; what has not been used for longest is written to the disk beyond that ([`spill`]). The truth is
//! the model topic's changelog alone: what is on the disk is taken up again only after a clean stop, when it is known to be
//! just what the changelog says; otherwise it is thrown away and built anew from there.
//!
//! Changes are made before they are committed. [`Change`]s leave with the record that made them, as absolute values, so that
//! a commit of some records has the state after just these. What is not committed stays in memory.
//!
//! In the changelog, a key of state is: pane `u32`, slice `i64`, then the record's key; big-endian. Pane 0 is the
//! task's own:
//!
//! | slice | value |
//! |---|---|
//! | -1 | the state's [`Definition`], JSON |
//! | -2 | stream time, ms `i64` |
//! | -3 | there is one while the state is to be built anew ([`rebuild`]) |
//! | 0 and up | a source ([`clock`]): its highest event time, ms `i64`, and the offset of its last record `i64` |
//! | -16 and down | of source -16 - slice: the offset `i64` below which records only change the state |

pub mod clock;
mod definition;
pub mod rebuild;
pub mod spill;
mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::stream_log::Task;

pub use definition::{Definition, Incompatible, PaneDefinition};
pub use task::TaskState;

use spill::Spill;

/// Longest key that state is kept for, in bytes.
pub const MAX_KEY_BYTES: usize = 32 << 10;
/// A task's own entries.
const OWN: u32 = 0;
const DEFINITION: i64 = -1;
const STREAM_TIME: i64 = -2;
const REBUILDING: i64 = -3;
const REPLAYED: i64 = -16;
const ENTRY: usize = 12;

/// A change of state: a key of the changelog, and its new value; `None` deletes.
pub type Change = (Bytes, Option<Bytes>);

/// Why state can't be used. The model topic halts.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The store on the disk failed.
    #[error("state store {}: {reason}", path.display())]
    Disk {
        /// Its folder.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// It was made by other features.
    #[error(transparent)]
    Incompatible(#[from] Incompatible),
    /// A changelog holds what is no state.
    #[error("changelog: {0}")]
    Changelog(String),
}

/// The state of a model topic.
#[derive(Debug)]
pub struct Store {
    definition: Definition,
    idle_timeout: Duration,
    max_bytes: u64,
    folder: Option<PathBuf>,
    spill: Option<Spill>,
    tasks: BTreeMap<Task, TaskState>,
    /// All of it is there.
    is_ready: bool,
}

impl Store {
    /// Empty, with no task. `folder` is where what does not fit goes, if there is one.
    pub fn new(
        definition: Definition,
        idle_timeout: Duration,
        max_bytes: u64,
        folder: Option<PathBuf>,
    ) -> Self {
        Self {
            definition,
            idle_timeout,
            max_bytes,
            folder,
            spill: None,
            tasks: BTreeMap::new(),
            is_ready: false,
        }
    }

    /// Whether what was committed is all there; not before it is restored.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// What was committed is all there.
    pub fn ready(&mut self) {
        self.is_ready = true;
    }

    /// Takes up what a clean stop has left, where that is the state of just this version; whether it is. What is there
    /// otherwise is removed.
    pub fn resume(&mut self, version: Option<&str>) -> Result<bool, StateError> {
        let Some(folder) = &self.folder else {
            return Ok(false);
        };
        if let Some(version) = version
            && let Some(spill) = Spill::resume(folder, version)?
        {
            self.spill = Some(spill);
            return Ok(true);
        }
        spill::remove(folder)?;
        Ok(false)
    }

    /// Begins a task anew: with what a clean stop has left of it where that was resumed, empty otherwise.
    pub fn begin(&mut self, task: Task, generation: u64, resumed: bool) -> Result<(), StateError> {
        self.is_ready = false;
        let mut state = TaskState::new(task, generation, self.idle_timeout);
        match &self.spill {
            Some(spill) if resumed => state.resume(spill)?,
            Some(spill) => spill.clear(task)?,
            None => {}
        }
        self.tasks.insert(task, state);
        Ok(())
    }

    /// Forgets a task.
    pub fn forget(&mut self, task: Task) {
        self.tasks.remove(&task);
    }

    /// A task, unless it is of another generation.
    pub fn task(&mut self, task: Task, generation: u64) -> Option<&mut TaskState> {
        let state = self.tasks.get_mut(&task);
        state.filter(|state| state.generation() == generation)
    }

    /// A task, and the disk.
    pub fn task_and_spill(
        &mut self,
        task: Task,
        generation: u64,
    ) -> Option<(&mut TaskState, Option<&Spill>)> {
        let state = self.tasks.get_mut(&task);
        let state = state.filter(|state| state.generation() == generation)?;
        Some((state, self.spill.as_ref()))
    }

    /// A task as it is, for those who ask, and the disk.
    pub fn look(&mut self, task: Task) -> Option<(&mut TaskState, Option<&Spill>)> {
        Some((self.tasks.get_mut(&task)?, self.spill.as_ref()))
    }

    /// The tasks there are.
    pub fn tasks(&self) -> impl Iterator<Item = Task> {
        self.tasks.keys().copied()
    }

    /// A committed entry of a task's, while it is restored.
    pub fn restore(
        &mut self,
        task: Task,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), StateError> {
        let Some(state) = self.tasks.get_mut(&task) else {
            return Ok(());
        };
        state.restore(self.spill.as_ref(), &self.definition, key, value)
    }

    /// Ends the restoring of a task: whether its state is one that these features can go on with.
    pub fn check(&self, task: Task) -> Result<(), StateError> {
        match self.tasks.get(&task).and_then(TaskState::definition) {
            Some(found) => Ok(self.definition.check(found)?),
            None => Ok(()),
        }
    }

    /// What has to be written once for a task that has no definition, or an older one that will do.
    pub fn define(&mut self, task: Task) -> Option<Change> {
        let definition = &self.definition;
        let state = self.tasks.get_mut(&task)?;
        if state.definition() == Some(definition) {
            return None;
        }
        state.set_definition(definition.clone());
        let json = serde_json::to_vec(definition).ok()?;
        Some((own_key(DEFINITION), Some(json.into())))
    }

    /// Brings what is in memory down to what it may take, as far as that is committed.
    pub fn fit(&mut self) -> Result<(), StateError> {
        if self.memory_bytes() <= self.max_bytes {
            return Ok(());
        }
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::create(folder)?),
        };
        let wanted = self.max_bytes / 8 * 7;
        let each = wanted / self.tasks.len().max(1) as u64;
        for state in self.tasks.values_mut() {
            state.shrink_to(each, spill)?;
        }
        Ok(())
    }

    /// Writes all to the disk, as the state of a version. Everything has to be committed.
    pub fn save(&mut self, version: &str) -> Result<(), StateError> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::create(folder)?),
        };
        for state in self.tasks.values_mut() {
            state.save(spill)?;
        }
        spill.seal(version)
    }

    /// What is in memory, in bytes, about.
    pub fn memory_bytes(&self) -> u64 {
        self.tasks.values().map(TaskState::memory_bytes).sum()
    }

    /// Keys that are in memory.
    pub fn keys_in_memory(&self) -> u64 {
        self.tasks.values().map(TaskState::keys_in_memory).sum()
    }

    /// What is on the disk, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        self.spill.as_ref().map_or(0, Spill::bytes)
    }
}

/// Of a task's own entry.
fn own_key(slice: i64) -> Bytes {
    let mut key = BytesMut::with_capacity(ENTRY);
    put_key(OWN, slice, &[], &mut key);
    key.freeze()
}

fn put_key(pane: u32, slice: i64, key: &[u8], out: &mut BytesMut) {
    out.put_u32(pane);
    out.put_i64(slice);
    out.put_slice(key);
}

/// Pane, slice and the record's key.
fn split_key(key: &[u8]) -> Option<(u32, i64, &[u8])> {
    let (pane, rest) = key.split_first_chunk()?;
    let (slice, key) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*pane), i64::from_be_bytes(*slice), key))
}

#[cfg(test)]
mod tests;
