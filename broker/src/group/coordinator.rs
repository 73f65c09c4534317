//! The coordinator of every group: the machines, their clients and their log.
//!
//! Each group has one lock, held for a step of its machine and the appends that the step asks for,
//! so a group's records are in the log in the order of its steps. Nothing is awaited under it.
//! Requests take effect when the method is called; what can't be answered at once comes as an
//! [`Answer::Later`].

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use storage::Offset;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::machine::{
    Effect, Group, JoinAnswer, JoinRequest, Leaver, Limits, Millis, State, Stored, SyncAnswer,
    SyncRequest, Ticket,
};
use super::offsets::Offsets;
use super::offsets_topic::{self, OFFSETS_TOPIC, Replayed};
use super::records::{GroupMetadataValue, Key};
use super::transactional::WithPending;
use super::{GroupError, ReadOnlyGroups, removal, timers};
use crate::broker::Settings;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::coordinator_log::fields::MAX_STRING_BYTES;
use crate::coordinator_log::{self, LogError, Written};

/// Kafka's `group.new.member.join.timeout.ms`.
const NEW_MEMBER_JOIN_TIMEOUT_MS: Millis = 5 * 60 * 1000;

/// A group has at most this many ids given out that are not used yet; with a small
/// `group.max.size`, and with a large one.
const MIN_PENDING_IDS: usize = 100;
const MAX_PENDING_IDS: usize = 10_000;

/// The most bytes of subscriptions that a group holds. Far above what fits into a record of
/// `__consumer_offsets` (`max.message.bytes`), beyond which no assignment can be stored.
const MAX_SUBSCRIPTION_BYTES: usize = 16 * 1024 * 1024;

/// A member id begins with at most this much of the client's or the instance's name.
const MEMBER_ID_PREFIX_CHARS: usize = 255;

/// An answer, now or when it is there.
#[derive(Debug)]
pub enum Answer<T> {
    /// The answer.
    Now(T),
    /// It comes; not at all where the broker stops first.
    Later(oneshot::Receiver<T>),
}

impl<T> Answer<T> {
    fn of(mut receiver: oneshot::Receiver<T>) -> Self {
        match receiver.try_recv() {
            Ok(answer) => Self::Now(answer),
            Err(_) => Self::Later(receiver),
        }
    }
}

/// One group, and who waits for it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) machine: Group,
    pub(super) offsets: Offsets,
    /// Wall clock, milliseconds: when the machine came to its state, where that is known.
    pub(super) state_since_ms: Option<i64>,
    /// Where the last record about the group stands that was written since the start.
    pub(super) record_at: Option<Offset>,
    /// Commits that are appended and not durable yet.
    pub(super) commits_under_way: usize,
    joins: HashMap<Ticket, oneshot::Sender<JoinAnswer>>,
    syncs: HashMap<Ticket, oneshot::Sender<SyncAnswer>>,
}

/// The coordinator of every group.
#[derive(Debug)]
pub struct GroupCoordinator {
    pub(super) catalog: Arc<Catalog>,
    pub(super) clock: Arc<dyn Clock>,
    limits: Limits,
    session_timeouts_ms: std::ops::RangeInclusive<i32>,
    offsets_topic_partitions: i32,
    pub(super) offsets_retention_ms: i64,
    /// Machines' times count from here.
    start: Instant,
    pub(super) groups: RwLock<HashMap<String, Arc<Mutex<Slot>>>>,
    /// Held for no longer than it is looked at.
    pub(super) with_pending: Mutex<WithPending>,
    tickets: AtomicU64,
    wakes: mpsc::UnboundedSender<timers::Wake>,
    read_only: OnceLock<Arc<dyn ReadOnlyGroups>>,
}

impl GroupCoordinator {
    /// Reads every group from `__consumer_offsets`. To be called before clients can connect;
    /// members have their session timeout from now on. Needs a tokio runtime with timers.
    pub async fn open(
        catalog: Arc<Catalog>,
        settings: &Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, GroupError> {
        let (wakes, woken) = mpsc::unbounded_channel();
        let start = clock.instant();
        let coordinator = Arc::new(Self {
            catalog: Arc::clone(&catalog),
            clock,
            limits: Limits {
                max_size: settings.group_max_size,
                initial_rebalance_delay_ms: settings.group_initial_rebalance_delay_ms,
                new_member_join_timeout_ms: NEW_MEMBER_JOIN_TIMEOUT_MS,
                max_pending: settings
                    .group_max_size
                    .clamp(MIN_PENDING_IDS, MAX_PENDING_IDS),
                max_subscription_bytes: MAX_SUBSCRIPTION_BYTES,
            },
            session_timeouts_ms: settings.group_min_session_timeout_ms
                ..=settings.group_max_session_timeout_ms,
            offsets_topic_partitions: settings.offsets_topic_num_partitions,
            offsets_retention_ms: i64::from(settings.offsets_retention_minutes) * 60 * 1000,
            start,
            groups: RwLock::default(),
            with_pending: Mutex::default(),
            tickets: AtomicU64::new(0),
            wakes,
            read_only: OnceLock::new(),
        });
        if let Some(topic) = catalog.topic(OFFSETS_TOPIC) {
            let work = move || {
                let mut replayed = offsets_topic::replay(&topic)?;
                let repairs = replayed.repair(&catalog);
                Ok::<_, GroupError>((replayed, repairs))
            };
            let (replayed, repairs) = tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| LogError::Stopping)??;
            for (group, changes) in repairs {
                coordinator
                    .write_offsets(&group, None, &changes)?
                    .wait()
                    .await?;
            }
            coordinator.take(replayed);
        }
        tokio::spawn(timers::run(Arc::downgrade(&coordinator), start, woken));
        let interval = Duration::from_millis(settings.offsets_retention_check_interval_ms);
        tokio::spawn(removal::run(Arc::downgrade(&coordinator), interval));
        Ok(coordinator)
    }

    fn take(&self, replayed: Replayed) {
        let Replayed {
            groups,
            mut offsets,
            with_pending,
        } = replayed;
        *self
            .with_pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = with_pending;
        let (count, committed) = (
            groups.len(),
            offsets.values().map(Offsets::len).sum::<usize>(),
        );
        let now = self.now();
        let mut effects = Vec::new();
        let mut slots = HashMap::new();
        for (name, record) in groups {
            let state_since_ms = record.current_state_timestamp_ms;
            let machine = Group::restore(self.limits, now, record, &mut effects);
            for effect in effects.drain(..) {
                if let Effect::WakeAt(at) = effect {
                    self.wake(at, &name);
                }
            }
            let offsets = offsets.remove(&name).unwrap_or_default();
            let mut slot = Slot::new(machine, offsets);
            slot.state_since_ms = Some(state_since_ms).filter(|ms| *ms >= 0);
            slots.insert(name, Arc::new(Mutex::new(slot)));
        }
        for (name, offsets) in offsets
            .into_iter()
            .filter(|(_, offsets)| !offsets.is_empty())
        {
            let slot = Slot::new(Group::new(self.limits), offsets);
            slots.insert(name, Arc::new(Mutex::new(slot)));
        }
        *self.groups.write().unwrap_or_else(PoisonError::into_inner) = slots;
        tracing::info!(groups = count, offsets = committed, "groups loaded");
    }

    /// Shows `groups` beside the real ones. Only the first call has an effect.
    pub fn set_read_only_groups(&self, groups: Arc<dyn ReadOnlyGroups>) {
        if self.read_only.set(groups).is_err() {
            tracing::warn!("read-only groups are set already");
        }
    }

    /// Creates `__consumer_offsets` where it does not exist.
    pub async fn ensure_offsets_topic(&self) -> Result<(), GroupError> {
        let partitions = self.offsets_topic_partitions;
        coordinator_log::ensure(&self.catalog, OFFSETS_TOPIC, partitions).await?;
        Ok(())
    }

    /// Names a join or a sync.
    pub fn next_ticket(&self) -> Ticket {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// An id for a new member, that begins with its client's or its instance's name as Kafka's do.
    pub fn new_member_id(&self, name: &str) -> String {
        let prefix: String = name.chars().take(MEMBER_ID_PREFIX_CHARS).collect();
        format!("{prefix}-{}", Uuid::new_v4())
    }

    /// A member joins.
    pub async fn join(self: &Arc<Self>, group: &str, request: JoinRequest) -> Answer<JoinAnswer> {
        let refused = |error| Answer::Now(JoinAnswer::refused(error, &request.member_id));
        let checked = self
            .check_group(group)
            .and_then(|()| self.check_writable(group));
        if let Err(error) = checked {
            return refused(error);
        }
        let session_timeout_ms = i32::try_from(request.session_timeout_ms).unwrap_or(i32::MAX);
        if !self.session_timeouts_ms.contains(&session_timeout_ms) {
            return refused(ResponseError::InvalidSessionTimeout);
        }
        if let Err(error) = self.ensure_offsets_topic().await {
            tracing::error!(group, %error, "a join is refused");
            return refused(error.code());
        }
        let create = request.member_id.is_empty();
        let unknown = JoinAnswer::refused(ResponseError::UnknownMemberId, &request.member_id);
        let (sender, receiver) = oneshot::channel();
        let step = move |slot: &mut Slot, now, effects: &mut Vec<Effect>| {
            slot.joins.insert(request.ticket, sender);
            slot.machine.join(now, request, effects);
        };
        match self.step(group, create, step) {
            Some(()) => Answer::of(receiver),
            None => Answer::Now(unknown),
        }
    }

    /// A member wants its assignment.
    pub fn sync(self: &Arc<Self>, group: &str, request: SyncRequest) -> Answer<SyncAnswer> {
        let (sender, receiver) = oneshot::channel();
        let step = move |slot: &mut Slot, now, effects: &mut Vec<Effect>| {
            slot.syncs.insert(request.ticket, sender);
            slot.machine.sync(now, request, effects);
        };
        match self
            .check_group(group)
            .map(|()| self.step(group, false, step))
        {
            Ok(Some(())) => Answer::of(receiver),
            Ok(None) => Answer::Now(SyncAnswer::refused(ResponseError::UnknownMemberId)),
            Err(error) => Answer::Now(SyncAnswer::refused(error)),
        }
    }

    /// A member is alive.
    pub fn heartbeat(
        self: &Arc<Self>,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ResponseError> {
        self.check_group(group)?;
        self.step(group, false, |slot, now, effects| {
            slot.machine
                .heartbeat(now, member_id, instance_id, generation, effects)
        })
        .unwrap_or(Err(ResponseError::UnknownMemberId))
    }

    /// Members leave; one result each.
    pub fn leave(
        self: &Arc<Self>,
        group: &str,
        leavers: &[Leaver],
    ) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
        self.check_group(group)?;
        let results = self.step(group, false, |slot, now, effects| {
            slot.machine.leave(now, leavers, effects)
        });
        Ok(results.unwrap_or_else(|| vec![Err(ResponseError::UnknownMemberId); leavers.len()]))
    }

    /// The time that a group asked to be woken at has come.
    pub(super) fn tick(self: &Arc<Self>, group: &str) {
        self.step(group, false, |slot, now, effects| {
            slot.machine.tick(now, effects)
        });
    }

    fn now(&self) -> Millis {
        let since = self.clock.instant().saturating_duration_since(self.start);
        Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
    }

    fn wake(&self, at: Millis, group: &str) {
        // Fails only when the runtime stops.
        let _ = self.wakes.send((at, group.to_owned()));
    }

    pub(super) fn positions(&self, group: &str) -> Option<Vec<(String, i32, i64)>> {
        self.read_only.get()?.positions(group)
    }

    pub(super) fn read_only_names(&self) -> Vec<String> {
        let groups = self.read_only.get();
        groups.map_or_else(Vec::new, |groups| groups.names())
    }

    pub(super) fn check_group(&self, group: &str) -> Result<(), ResponseError> {
        if group.is_empty() || group.len() > MAX_STRING_BYTES {
            return Err(ResponseError::InvalidGroupId);
        }
        Ok(())
    }

    pub(super) fn check_writable(&self, group: &str) -> Result<(), ResponseError> {
        if self.positions(group).is_some() {
            tracing::warn!(
                group,
                "refused: the group shows a model topic's positions, read-only"
            );
            return Err(ResponseError::GroupAuthorizationFailed);
        }
        Ok(())
    }

    pub(super) fn slot(&self, group: &str) -> Option<Arc<Mutex<Slot>>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(group).cloned()
    }

    fn slot_or_new(&self, group: &str) -> Arc<Mutex<Slot>> {
        if let Some(slot) = self.slot(group) {
            return slot;
        }
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let slot = groups.entry(group.to_owned()).or_insert_with(|| {
            Arc::new(Mutex::new(Slot::new(
                Group::new(self.limits),
                Offsets::default(),
            )))
        });
        Arc::clone(slot)
    }

    /// Runs one step of a group under its lock, and does what it asks for. `None` where there is
    /// no such group and none is to be created.
    pub(super) fn step<R>(
        self: &Arc<Self>,
        group: &str,
        create: bool,
        step: impl FnOnce(&mut Slot, Millis, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        loop {
            let shared = if create {
                self.slot_or_new(group)
            } else {
                self.slot(group)?
            };
            let mut slot = lock(&shared);
            if slot.machine.state() == State::Dead {
                // Retired since it was looked up, and out of the map already.
                continue;
            }
            let before = (slot.machine.state(), slot.machine.generation());
            let mut effects = Vec::new();
            let result = step(&mut slot, self.now(), &mut effects);
            if slot.machine.state() != before.0 {
                // Before the record that holds it is written.
                slot.state_since_ms = Some(self.clock.now_ms());
            }
            self.carry_out(group, &mut slot, effects);
            log_change(group, before, &slot.machine);
            if slot.machine.is_unused() && slot.is_deserted() && slot.offsets.is_empty() {
                slot.machine.retire();
                self.groups
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(group);
            }
            return Some(result);
        }
    }

    fn carry_out(self: &Arc<Self>, group: &str, slot: &mut Slot, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                // A receiver that is gone is a connection that is gone.
                Effect::Join(ticket, answer) => {
                    if let Some(waiting) = slot.joins.remove(&ticket) {
                        let _ = waiting.send(answer);
                    }
                }
                Effect::Sync(ticket, answer) => {
                    if let Some(waiting) = slot.syncs.remove(&ticket) {
                        let _ = waiting.send(answer);
                    }
                }
                Effect::WakeAt(at) => self.wake(at, group),
                Effect::Store(record, then) => match self.write_group(group, slot, record) {
                    Ok(written) => {
                        slot.record_at = Some(written.offsets.start);
                        let stored = Arc::clone(self).stored(group.to_owned(), then, written);
                        tokio::spawn(stored);
                    }
                    Err(error) => {
                        error.log(group, "the group can't be stored");
                        let mut more = Vec::new();
                        let result = Err(error.code());
                        slot.machine.stored(self.now(), then, result, &mut more);
                        effects.extend(more);
                    }
                },
            }
        }
    }

    async fn stored(self: Arc<Self>, group: String, then: Stored, written: Written) {
        let result = written.wait().await.map_err(|error| {
            let error = GroupError::from(error);
            error.log(&group, "the group is not durable");
            error.code()
        });
        self.step(&group, false, |slot, now, effects| {
            slot.machine.stored(now, then, result, effects);
        });
    }

    fn write_group(
        &self,
        group: &str,
        slot: &Slot,
        mut record: GroupMetadataValue,
    ) -> Result<Written, GroupError> {
        let now_ms = self.clock.now_ms();
        record.current_state_timestamp_ms = slot.state_since_ms.unwrap_or(now_ms);
        let key = Key::Group {
            group: group.to_owned(),
        }
        .encode()?;
        let value = record.encode()?;
        offsets_topic::append(&self.catalog, group, now_ms, None, &[(key, Some(value))])
    }
}

impl Slot {
    fn new(machine: Group, offsets: Offsets) -> Self {
        Self {
            machine,
            offsets,
            state_since_ms: None,
            record_at: None,
            commits_under_way: 0,
            joins: HashMap::new(),
            syncs: HashMap::new(),
        }
    }

    /// There are no members, nobody is about to join, and nobody is about to commit.
    pub(super) fn is_deserted(&self) -> bool {
        self.machine.state() == State::Empty
            && self.machine.pending() == 0
            && self.commits_under_way == 0
    }

    /// A commit is durable, or has failed.
    pub(super) fn commit_ended(&mut self) {
        self.commits_under_way = self.commits_under_way.saturating_sub(1);
        self.settle_offsets();
    }

    /// To be called when offsets were removed.
    pub(super) fn settle_offsets(&mut self) {
        if self.commits_under_way == 0 {
            self.offsets.settle();
        }
    }
}

pub(super) fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log_change(group: &str, before: (State, i32), machine: &Group) {
    let (state, generation) = (machine.state(), machine.generation());
    if before == (state, generation) {
        return;
    }
    if before.1 != generation {
        metrics::counter!("milena_group_rebalances_total").increment(1);
    }
    let members = machine.len();
    match state {
        State::Stable | State::Empty => {
            tracing::info!(group, generation, members, ?state, "group has settled");
        }
        _ => tracing::debug!(group, generation, members, ?state, "group is rebalancing"),
    }
}
