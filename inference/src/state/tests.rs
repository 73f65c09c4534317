use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::*;
use crate::feature::aggregate::{Parts, Value};
use crate::feature::cells::Cells;
use crate::feature::pane::Pane;
use crate::feature::plan::StreamTime;
use crate::feature::window::Window;
use crate::random::Random;
use crate::spec::Aggregate;

const TASK: Task = Task { partition: 3 };
const TTL_MS: i64 = 2_000;
/// Looks that see every key, though places change while they look.
const ALL: usize = 1_000;
const TIMES: usize = 3;

fn panes() -> Vec<Pane> {
    let windows = [
        Window::Sliced {
            slice_ms: 100,
            slices: 3,
            grace_ms: 50,
        },
        Window::Session {
            gap_ms: 80,
            grace_ms: 0,
        },
        Window::Count { records: 3 },
        Window::All,
    ];
    let pane = |(id, window): (u32, Window)| Pane {
        id: id + 1,
        window,
        parts: Parts::of(Aggregate::Sum),
        needs_before: false,
    };
    (0..).zip(windows).map(pane).collect()
}

fn store(panes: &[Pane], max_bytes: u64, folder: Option<&Path>) -> Store {
    let definition = Definition::new(None, 4, panes.iter().map(|pane| (pane, "$.amount")));
    let idle_timeout = Duration::from_secs(3600);
    let folder = folder.map(Path::to_owned);
    Store::new(definition, idle_timeout, max_bytes, folder)
}

/// Of a key, by pane and slice.
type Values = BTreeMap<(u32, i64), Vec<u8>>;

/// A store with its changelog, as far as that is committed.
struct Kept {
    store: Store,
    changelog: BTreeMap<Bytes, Bytes>,
}

impl Kept {
    fn new(mut store: Store) -> Self {
        store.begin(TASK, 1, false).unwrap();
        let mut kept = Self {
            changelog: BTreeMap::new(),
            store,
        };
        let defined = kept.store.define(TASK);
        kept.commit(defined.into_iter().collect());
        kept
    }

    fn see(&mut self, panes: &[Pane], offset: i64, key: &[u8], time_ms: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        let (state, spill) = self.store.task_and_spill(TASK, 1).unwrap();
        let stream = state.see((0, offset), time_ms, Instant::now(), &mut changes);
        let observe = |cells: &mut Cells, touched: &mut Vec<(u32, i64)>| {
            for pane in panes {
                let mut slices = Vec::new();
                let value = Some(Value::Number(offset as f64));
                pane.observe(cells, moment(time_ms, stream), value, &mut slices);
                touched.extend(slices.into_iter().map(|slice| (pane.id, slice)));
            }
        };
        state.change(spill, key, &mut changes, observe).unwrap();
        changes
    }

    fn sweep(&mut self, panes: &[Pane], looks: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        let (state, spill) = self.store.task_and_spill(TASK, 1).unwrap();
        state
            .sweep(spill, looks, panes, TTL_MS, 0, &mut changes)
            .unwrap();
        changes
    }

    fn commit(&mut self, changes: Vec<Change>) {
        for (key, value) in changes {
            match value {
                Some(value) => self.changelog.insert(key, value),
                None => self.changelog.remove(&key),
            };
        }
        let state = self.store.task(TASK, 1).unwrap();
        state.committed(state.changes());
        self.store.fit().unwrap();
    }

    /// Of each key that has any.
    fn all(&mut self, keys: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Values> {
        let (state, spill) = self.store.look(TASK).unwrap();
        let mut all = BTreeMap::new();
        for key in keys {
            if let Some((cells, _)) = state.get(spill, key).unwrap() {
                let cells = cells.iter();
                let values = cells.map(|cell| ((cell.pane, cell.slice), cell.value.to_vec()));
                all.insert(key.clone(), values.collect());
            }
        }
        all
    }

    fn stream_ms(&mut self) -> i64 {
        let state = self.store.task(TASK, 1).unwrap();
        state.clock().stream_ms()
    }
}

fn moment(time_ms: i64, stream: StreamTime) -> crate::feature::pane::Moment {
    crate::feature::pane::Moment {
        time_ms,
        stream_ms: stream.now_ms,
        before_ms: stream.before_ms,
        update_ms: 0,
        ttl_ms: TTL_MS,
    }
}

/// The first of them is empty.
fn keys() -> Vec<Vec<u8>> {
    (0..60).map(|n| vec![b'k'; n]).collect()
}

#[test]
fn what_is_on_the_disk_is_as_what_is_in_memory_over_stops_and_replays() {
    let (panes, keys) = (panes(), keys());
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..4 {
        let mut random = Random(seed);
        let folder = folder.path().join(seed.to_string());
        let mut in_memory = Kept::new(store(&panes, u64::MAX, None));
        let mut spilled = Kept::new(store(&panes, 4_000, Some(&folder)));
        let (mut now, mut kept_out) = (0, 0);
        for offset in 0..1_500 {
            now += random.between(0, 40);
            let key = &keys[random.below(keys.len())];
            let time_ms = now - random.between(0, 200);
            let mut changes = in_memory.see(&panes, offset, key, time_ms);
            assert_eq!(spilled.see(&panes, offset, key, time_ms), changes);
            if random.below(3) == 0 {
                // Each finds the same, and perhaps in another order.
                let all_of = |kept: &mut Kept| -> Vec<Change> {
                    (0..TIMES).flat_map(|_| kept.sweep(&panes, ALL)).collect()
                };
                let (mut swept, mut others) = (all_of(&mut in_memory), all_of(&mut spilled));
                swept.sort();
                others.sort();
                assert_eq!(others, swept, "seed {seed}, offset {offset}");
                changes.extend(swept);
            }
            in_memory.commit(changes.clone());
            spilled.commit(changes);
            assert!(spilled.store.memory_bytes() <= 4_000);
            kept_out +=
                usize::from(spilled.store.keys_in_memory() < in_memory.store.keys_in_memory());
            if offset % 100 == 77 {
                assert_eq!(
                    spilled.all(&keys),
                    in_memory.all(&keys),
                    "seed {seed}, offset {offset}"
                );
            }
            if offset % 300 == 150 {
                let changelog = spilled.changelog.clone();
                spilled = match random.below(3) {
                    0 => stopped(spilled, store(&panes, 4_000, Some(&folder))),
                    1 => replayed(changelog, store(&panes, u64::MAX, None)),
                    _ => {
                        drop(spilled);
                        replayed(changelog, store(&panes, 4_000, Some(&folder)))
                    }
                };
                assert_eq!(spilled.stream_ms(), in_memory.stream_ms());
                assert_eq!(
                    spilled.all(&keys),
                    in_memory.all(&keys),
                    "seed {seed}, offset {offset}"
                );
                spilled.store.max_bytes = 4_000;
                spilled.store.folder = Some(folder.clone());
            }
        }
        assert_eq!(spilled.changelog, in_memory.changelog);
        assert!(kept_out > 500, "{kept_out}");
    }
}

/// A clean stop, and the start after it.
fn stopped(mut before: Kept, mut store: Store) -> Kept {
    before.store.save("v").unwrap();
    let changelog = before.changelog;
    drop(before.store);
    assert!(store.resume(Some("v")).unwrap());
    store.begin(TASK, 1, true).unwrap();
    store.check(TASK).unwrap();
    assert_eq!(store.define(TASK), None);
    Kept { store, changelog }
}

/// A start that has the changelog alone.
fn replayed(changelog: BTreeMap<Bytes, Bytes>, mut store: Store) -> Kept {
    assert!(!store.resume(Some("other")).unwrap());
    store.begin(TASK, 1, false).unwrap();
    for (key, value) in &changelog {
        store.restore(TASK, key, Some(value)).unwrap();
        store.fit().unwrap();
    }
    store.check(TASK).unwrap();
    assert_eq!(store.define(TASK), None);
    Kept { store, changelog }
}

#[test]
fn every_key_is_swept_once_nothing_needs_it() {
    let (panes, keys) = (panes(), keys());
    let folder = tempfile::tempdir().unwrap();
    for (max_bytes, folder) in [(u64::MAX, None), (0, Some(folder.path()))] {
        let mut kept = Kept::new(store(&panes, max_bytes, folder));
        for (offset, key) in (0..).zip(&keys) {
            let changes = kept.see(&panes, offset, key, 1_000);
            kept.commit(changes);
        }
        assert_eq!(kept.all(&keys).len(), keys.len());
        // Another key's record, after all windows and the time to live of the others.
        let changes = kept.see(&panes, 60, b"another", 1_000 + TTL_MS);
        kept.commit(changes);
        for _ in 0..2 * keys.len() {
            let changes = kept.sweep(&panes, 2);
            kept.commit(changes);
        }
        assert_eq!(kept.all(&keys), BTreeMap::new());
        let left = kept
            .changelog
            .keys()
            .filter_map(|key| match split_key(key)? {
                (OWN, ..) => None,
                (_, _, key) => Some(key.to_vec()),
            });
        assert!(left.clone().all(|key| key == b"another") && left.count() > 0);
    }
}

#[test]
fn what_is_no_state_is_refused() {
    let panes = panes();
    let mut store = store(&panes, u64::MAX, None);
    store.begin(TASK, 1, false).unwrap();
    assert!(store.restore(TASK, b"short", Some(b"")).is_err());
    let definition = own_key(DEFINITION);
    assert!(store.restore(TASK, &definition, Some(b"{")).is_err());
    // A pane that these features do not have is passed.
    let mut key = BytesMut::new();
    put_key(99, 0, b"k", &mut key);
    store.restore(TASK, &key, Some(b"anything")).unwrap();
    assert_eq!(store.keys_in_memory(), 0);
}
