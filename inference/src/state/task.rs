//! The state of one task.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use indexmap::IndexMap;

use super::clock::Clock;
use super::spill::Spill;
use super::{
    Change, DEFINITION, Definition, OWN, REPLAYED, STREAM_TIME, StateError, put_key, split_key,
};
use crate::feature::cells::Cells;
use crate::feature::pane::Pane;
use crate::feature::plan::StreamTime;
use crate::stream_log::Task;

/// What an entry takes beside its key and its cells, in bytes, about.
const ENTRY_BYTES: usize = 112;
/// What the buffer of changes grows by.
const BUFFER_BYTES: usize = 64 << 10;

/// What is remembered of a key.
#[derive(Debug, Default)]
struct Entry {
    cells: Cells,
    /// The number of the change that it had last.
    changed: u64,
    /// It is not on the disk as it is.
    is_dirty: bool,
    /// It was used since it was last looked at for room.
    is_used: bool,
}

/// The state of one task.
#[derive(Debug)]
pub struct TaskState {
    task: Task,
    generation: u64,
    keys: IndexMap<Box<[u8]>, Entry, foldhash::quality::RandomState>,
    bytes: usize,
    clock: Clock,
    definition: Option<Definition>,
    /// By source: records below this offset only change the state, as their outputs are there.
    replayed: BTreeMap<i64, i64>,
    /// Of the last change.
    changes: u64,
    /// All changes up to this one are committed.
    committed: u64,
    /// Where the next look for room, and the next for keys to forget, begin.
    hand: usize,
    sweep: usize,
    /// The key on the disk after which the next look for keys to forget goes on; from the first without one.
    sweep_disk: Option<Vec<u8>>,
    buffer: BytesMut,
}

impl TaskState {
    pub(super) fn new(task: Task, generation: u64, idle_timeout: Duration) -> Self {
        Self {
            task,
            generation,
            keys: IndexMap::default(),
            bytes: 0,
            clock: Clock::new(idle_timeout),
            definition: None,
            replayed: BTreeMap::new(),
            changes: 0,
            committed: 0,
            hand: 0,
            sweep: 0,
            sweep_disk: None,
            buffer: BytesMut::new(),
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn definition(&self) -> Option<&Definition> {
        self.definition.as_ref()
    }

    pub(super) fn set_definition(&mut self, definition: Definition) {
        self.definition = Some(definition);
    }

    /// Stream time and its sources.
    pub fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// Whether the outputs of a source's record are there already.
    pub fn is_replayed(&self, source: i64, offset: i64) -> bool {
        self.replayed.get(&source).is_some_and(|end| offset < *end)
    }

    /// A record of a source: stream time is brought to it. The changes go with the record.
    pub fn see(
        &mut self,
        (source, offset): (i64, i64),
        time_ms: i64,
        now: Instant,
        changes: &mut Vec<Change>,
    ) -> StreamTime {
        let before = self.clock.stream_ms();
        let (stream_ms, _) = self.clock.see(source, offset, time_ms, now);
        if let Some(entry) = self.clock.entry(source) {
            let change = self.own(source, &entry);
            changes.push(change);
        }
        if stream_ms != before {
            let change = self.own(STREAM_TIME, &stream_ms.to_be_bytes());
            changes.push(change);
        }
        StreamTime {
            now_ms: stream_ms,
            before_ms: before,
        }
    }

    fn own(&mut self, slice: i64, value: &[u8]) -> Change {
        put_key(OWN, slice, &[], reserved(&mut self.buffer, 12));
        let key = self.buffer.split().freeze();
        reserved(&mut self.buffer, value.len()).extend_from_slice(value);
        (key, Some(self.buffer.split().freeze()))
    }

    /// What is remembered of a key, to change it; `touched` panes and slices become changes.
    pub fn change<R>(
        &mut self,
        spill: Option<&Spill>,
        key: &[u8],
        changes: &mut Vec<Change>,
        change: impl FnOnce(&mut Cells, &mut Vec<(u32, i64)>) -> R,
    ) -> Result<R, StateError> {
        let at = self.load(spill, key)?;
        let mut touched = Vec::new();
        let Some((_, entry)) = self.keys.get_index_mut(at) else {
            return Ok(change(&mut Cells::default(), &mut touched));
        };
        let before = entry.cells.capacity();
        let result = change(&mut entry.cells, &mut touched);
        entry.is_used = true;
        self.bytes = self.bytes + entry.cells.capacity() - before;
        if touched.is_empty() {
            return Ok(result);
        }
        self.changes += 1;
        entry.changed = self.changes;
        entry.is_dirty = true;
        touched.sort_unstable();
        touched.dedup();
        for (pane, slice) in touched {
            put_key(pane, slice, key, reserved(&mut self.buffer, 12 + key.len()));
            let name = self.buffer.split().freeze();
            let value = entry.cells.get(pane, slice).map(|value| {
                reserved(&mut self.buffer, value.len()).extend_from_slice(value);
                self.buffer.split().freeze()
            });
            changes.push((name, value));
        }
        Ok(result)
    }

    /// What is remembered of a key, as it is, and whether all of that is committed.
    pub fn get(
        &mut self,
        spill: Option<&Spill>,
        key: &[u8],
    ) -> Result<Option<(Cells, bool)>, StateError> {
        if let Some(entry) = self.keys.get(key) {
            let is_there = !entry.cells.is_empty();
            return Ok(is_there.then(|| (entry.cells.clone(), entry.changed <= self.committed)));
        }
        let found = match spill {
            Some(spill) => spill.get(self.task, key)?,
            None => None,
        };
        Ok(found.map(|cells| (cells, true)))
    }

    /// Forgets some of the keys that no window needs any more, looking at so many.
    pub fn sweep(
        &mut self,
        spill: Option<&Spill>,
        looks: usize,
        panes: &[Pane],
        ttl_ms: i64,
        update_ms: i64,
        changes: &mut Vec<Change>,
    ) -> Result<(), StateError> {
        let stream_ms = self.clock.stream_ms();
        // Most keys are needed for the first cell that is looked at.
        let is_over = |cells: &Cells| {
            let is_over = |cell: crate::feature::cells::Cell<'_>| {
                let pane = panes.iter().find(|pane| pane.id == cell.pane);
                let end = pane.map_or(i128::MIN, |pane| pane.ends_ms(cell, ttl_ms, update_ms));
                end <= i128::from(stream_ms)
            };
            !cells.is_empty() && cells.iter().all(is_over)
        };
        for _ in 0..looks.min(self.keys.len()) {
            if self.sweep >= self.keys.len() {
                self.sweep = 0;
            }
            let Some((key, entry)) = self.keys.get_index(self.sweep) else {
                break;
            };
            if entry.cells.is_empty() {
                if entry.changed <= self.committed && spill.is_none() {
                    self.remove(self.sweep);
                } else {
                    self.sweep += 1;
                }
                continue;
            }
            if is_over(&entry.cells) {
                let key = key.clone();
                self.forget(spill, &key, changes)?;
            }
            self.sweep += 1;
        }
        let Some(spill) = spill else {
            return Ok(());
        };
        let found = spill.after(self.task, self.sweep_disk.as_deref(), looks)?;
        self.sweep_disk = match found.last() {
            Some((key, _)) if found.len() == looks => Some(key.clone()),
            _ => None,
        };
        for (key, cells) in found {
            if !self.keys.contains_key(key.as_slice()) && is_over(&cells) {
                self.forget(Some(spill), &key, changes)?;
            }
        }
        Ok(())
    }

    fn forget(
        &mut self,
        spill: Option<&Spill>,
        key: &[u8],
        changes: &mut Vec<Change>,
    ) -> Result<(), StateError> {
        self.change(spill, key, changes, |cells, touched| {
            touched.extend(cells.iter().map(|cell| (cell.pane, cell.slice)));
            *cells = Cells::default();
        })
    }

    /// The number of the last change, to say later that it is committed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All changes up to one are committed.
    pub fn committed(&mut self, change: u64) {
        self.committed = self.committed.max(change);
    }

    pub(super) fn restore(
        &mut self,
        spill: Option<&Spill>,
        definition: &Definition,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), StateError> {
        let Some((pane, slice, key)) = split_key(key) else {
            return Err(StateError::Changelog(format!(
                "a key of {} bytes",
                key.len()
            )));
        };
        if pane == OWN {
            return self.restore_own(slice, value);
        }
        // What these features do not need. The check at the end refuses what they can't go on with.
        if !definition.has(pane) {
            return Ok(());
        }
        let at = self.load(spill, key)?;
        if let Some((_, entry)) = self.keys.get_index_mut(at) {
            let before = entry.cells.capacity();
            match value {
                Some(value) => entry.cells.set(pane, slice, value),
                None => drop(entry.cells.remove(pane, slice)),
            }
            entry.is_dirty = true;
            self.bytes = self.bytes + entry.cells.capacity() - before;
            if entry.cells.is_empty() && spill.is_none() {
                self.remove(at);
            }
        }
        Ok(())
    }

    fn restore_own(&mut self, slice: i64, value: Option<&[u8]>) -> Result<(), StateError> {
        let number = value.and_then(|value| Some(i64::from_be_bytes(*value.first_chunk()?)));
        match slice {
            DEFINITION => {
                let found = value.map(serde_json::from_slice).transpose();
                self.definition =
                    found.map_err(|error| StateError::Changelog(error.to_string()))?;
            }
            STREAM_TIME => self.clock.restore_stream(number.unwrap_or(i64::MIN)),
            0.. => self.clock.restore_source(slice, value, Instant::now()),
            ..=REPLAYED => match number {
                Some(end) => drop(self.replayed.insert(REPLAYED - slice, end)),
                None => drop(self.replayed.remove(&(REPLAYED - slice))),
            },
            _ => {}
        }
        Ok(())
    }

    /// Takes up what a clean stop has left; keys come as they are used.
    pub(super) fn resume(&mut self, spill: &Spill) -> Result<(), StateError> {
        for (slice, value) in spill.own(self.task)? {
            self.restore_own(slice, Some(&value))?;
        }
        Ok(())
    }

    /// Writes everything to the disk, the task's own entries too.
    pub(super) fn save(&mut self, spill: &Spill) -> Result<(), StateError> {
        self.shrink_to(0, spill)?;
        let mut own = self.clock.entries();
        own.push((STREAM_TIME, self.clock.stream_ms().to_be_bytes().to_vec()));
        let replayed = self.replayed.iter();
        own.extend(replayed.map(|(source, end)| (REPLAYED - source, end.to_be_bytes().to_vec())));
        if let Some(definition) = &self.definition {
            let json = serde_json::to_vec(definition);
            own.push((
                DEFINITION,
                json.map_err(|error| StateError::Changelog(error.to_string()))?,
            ));
        }
        spill.put_own(self.task, own)
    }

    /// Writes keys that are committed to the disk, those that were not used lately first, until what is in memory is no
    /// more than that.
    pub(super) fn shrink_to(&mut self, bytes: u64, spill: &Spill) -> Result<(), StateError> {
        let mut batch = spill.batch(self.task);
        // Once around to see who is used, and once to take.
        let mut looks = self.keys.len() * 2;
        while self.memory_bytes() > bytes && looks > 0 {
            looks -= 1;
            if self.hand >= self.keys.len() {
                self.hand = 0;
            }
            let committed = self.committed;
            let Some((key, entry)) = self.keys.get_index_mut(self.hand) else {
                break;
            };
            if entry.changed > committed || (entry.is_used && bytes > 0) {
                entry.is_used = false;
                self.hand += 1;
                continue;
            }
            if entry.is_dirty {
                batch.put(key, &entry.cells)?;
            }
            // The one from the end that takes its place is looked at next.
            self.remove(self.hand);
        }
        batch.commit()
    }

    /// What is in memory, in bytes, about.
    pub fn memory_bytes(&self) -> u64 {
        (self.bytes + self.keys.len() * ENTRY_BYTES) as u64
    }

    /// Keys that are in memory.
    pub fn keys_in_memory(&self) -> u64 {
        self.keys.len() as u64
    }

    /// Where a key's entry is; one is made where there is none.
    fn load(&mut self, spill: Option<&Spill>, key: &[u8]) -> Result<usize, StateError> {
        if let Some(at) = self.keys.get_index_of(key) {
            return Ok(at);
        }
        let cells = match spill {
            Some(spill) => spill.get(self.task, key)?.unwrap_or_default(),
            None => Cells::default(),
        };
        self.bytes += key.len() + cells.capacity();
        let entry = Entry {
            cells,
            ..Entry::default()
        };
        let (at, _) = self.keys.insert_full(key.into(), entry);
        Ok(at)
    }

    fn remove(&mut self, at: usize) {
        if let Some((key, entry)) = self.keys.swap_remove_index(at) {
            self.bytes -= key.len() + entry.cells.capacity();
        }
    }
}

/// With room for so much, so that many share an allocation.
fn reserved(buffer: &mut BytesMut, bytes: usize) -> &mut BytesMut {
    if buffer.capacity() < bytes {
        buffer.reserve(bytes.max(BUFFER_BYTES));
    }
    buffer
}
