//! What the machine promises, checked from the outside after every step.

use std::collections::{HashMap, HashSet};

use broker::group::machine::{JoinAnswer, ShownMember, State, SyncAnswer, Ticket};
use bytes::Bytes;
use kafka_protocol::ResponseError;

use crate::client::{Phase, decode_assignment};
use crate::world::{Violation, Waiting, World};

/// The broker halts for no longer than this, and its timers are late by that much.
pub const LONGEST_HALT_MS: u64 = 20_000;

/// And a write takes no longer than this.
pub const LONGEST_WRITE_MS: u64 = 12_000;

/// What was answered so far in the life of a group.
#[derive(Default)]
pub struct Promises {
    /// Member ids whose join was answered once.
    known: HashSet<String>,
    /// Member id to the client that it was given to.
    holders: HashMap<String, (usize, u32)>,
    /// Member ids with generations that they were told to have joined.
    told: HashSet<(String, i32)>,
    /// Members with an assignment: its generation, and when they were heard of.
    alive: HashMap<String, (i32, u64)>,
    /// Everybody that the leader of a generation was told of.
    listed: (i32, HashSet<String>),
    /// What they said about themselves when they joined it.
    said: HashMap<(String, i32), Bytes>,
    /// The latest id that was answered for each instance id.
    latest: HashMap<String, String>,
    /// Generation and partition to the member that it was given to: an instance id, where it has one.
    owners: HashMap<(i32, u16), String>,
    /// The newest generation whose assignment was answered.
    synced: i32,
    pub totals: Totals,
}

/// How much happened, so that a simulation in which nothing does can't pass.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub events: u64,
    pub syncs: u64,
    pub commits: u64,
    pub refused_commits: u64,
    pub kills: u64,
    pub leaves: u64,
    pub restarts: u64,
    pub deletions: u64,
    pub failed_writes: u64,
    pub fenced: u64,
    pub stuck: u64,
    pub replaced: u64,
    pub handed_over: u64,
    pub settled: u64,
}

impl Totals {
    pub fn all(&self) -> [(&'static str, u64); 14] {
        [
            ("events", self.events),
            ("syncs", self.syncs),
            ("commits", self.commits),
            ("refused commits", self.refused_commits),
            ("kills", self.kills),
            ("leaves", self.leaves),
            ("restarts", self.restarts),
            ("deletions", self.deletions),
            ("failed writes", self.failed_writes),
            ("fenced members", self.fenced),
            ("stuck members", self.stuck),
            ("replaced static members", self.replaced),
            ("partitions handed over", self.handed_over),
            ("settled groups", self.settled),
        ]
    }

    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.syncs += other.syncs;
        self.commits += other.commits;
        self.refused_commits += other.refused_commits;
        self.kills += other.kills;
        self.leaves += other.leaves;
        self.restarts += other.restarts;
        self.deletions += other.deletions;
        self.failed_writes += other.failed_writes;
        self.fenced += other.fenced;
        self.stuck += other.stuck;
        self.replaced += other.replaced;
        self.handed_over += other.handed_over;
        self.settled += other.settled;
    }
}

impl Promises {
    /// The group was removed: generations begin anew. Ids don't.
    pub fn group_is_new(&mut self) {
        self.told.clear();
        self.said.clear();
        self.owners.clear();
        self.latest.clear();
        self.synced = 0;
    }
}

fn promise(is_kept: bool, broken: impl FnOnce() -> String) -> Result<(), Violation> {
    if is_kept { Ok(()) } else { Err(broken()) }
}

impl World {
    pub fn check_step(&self, before: (State, i32)) -> Result<(), Violation> {
        let group = &self.group;
        let (state, generation) = (group.state(), group.generation());
        promise(generation >= before.1, || {
            format!("the generation goes from {} back to {generation}", before.1)
        })?;
        let has_moved = match (before.0, state) {
            (before, now) if before == now => true,
            (_, State::Empty | State::CompletingRebalance) => generation > before.1,
            _ => generation == before.1,
        };
        promise(has_moved, || {
            format!("from {before:?} to {:?}", (state, generation))
        })?;
        if before != (state, generation) {
            self.check_members(state, generation)?;
        }
        if state == State::CompletingRebalance && generation > before.1 {
            let leader = group.leader().unwrap_or_default().to_owned();
            promise(
                self.promises.told.contains(&(leader.clone(), generation)),
                || format!("{leader:?} leads {generation}, and has not joined it"),
            )?;
        }
        promise(group.is_empty() || group.state() != State::Empty, || {
            "an empty group has members".to_owned()
        })?;
        let leader = group.leader();
        promise(
            leader.map_or(group.is_empty(), |leader| group.has_member(leader)),
            || format!("the leader {leader:?} is not a member"),
        )?;
        promise(group.pending() <= self.plan.limits.max_pending, || {
            format!("{} ids are given out", group.pending())
        })?;
        let has_static = self.plan.static_members > 0;
        let joined = matches!(group.state(), State::CompletingRebalance | State::Stable);
        let size = group.len();
        promise(
            has_static || !joined || size <= self.plan.limits.max_size,
            || format!("the group has {size} members"),
        )
    }

    /// The group has come to this state.
    fn check_members(&self, state: State, generation: i32) -> Result<(), Violation> {
        for member in self.group.shown_members() {
            let id = member.member_id;
            let was_told = self.promises.told.contains(&(id.clone(), generation));
            let may_be_absent = state != State::CompletingRebalance || member.instance_id.is_some();
            promise(was_told || may_be_absent, || {
                format!("{id:?} is in {generation}, and has not joined it")
            })?;
            let (listed_in, listed) = &self.promises.listed;
            let is_listed = *listed_in == generation && listed.contains(&id);
            promise(state != State::Stable || is_listed, || {
                format!("{id:?} is in {generation}, and its leader does not know")
            })?;
        }
        Ok(())
    }

    /// Those who have left, or were replaced, are not missed.
    pub fn forget_the_gone(&mut self) {
        let group = &self.group;
        self.promises.alive.retain(|id, _| group.has_member(id));
    }

    /// A timer has run out: nobody has gone who was heard of in time.
    pub fn check_sessions(&mut self, before: (State, i32)) -> Result<(), Violation> {
        let (group, now) = (&self.group, self.now);
        let alive = self.promises.alive.iter();
        let gone: Vec<_> = alive
            .filter(|(id, (generation, _))| before.1 == *generation && !group.has_member(id))
            .map(|(id, (_, heard))| (id.clone(), now - heard))
            .collect();
        for (id, silent_ms) in gone {
            self.promises.alive.remove(&id);
            let holder = self.promises.holders.get(&id);
            let session_ms = holder.map_or(0, |(at, _)| self.clients[*at].session_timeout_ms);
            promise(before.0 != State::Stable || silent_ms >= session_ms, || {
                format!("{id:?} is dropped after {silent_ms} of {session_ms} ms")
            })?;
        }
        Ok(())
    }

    pub fn check_restored(&mut self) -> Result<(), Violation> {
        // Generations that were not stored come again, with other members, and static members
        // whose new ids were not stored have their old ones.
        self.promises.said.clear();
        self.promises.latest.clear();
        let (restored, synced) = (self.group.generation(), self.promises.synced);
        promise(restored >= synced, || {
            format!("generation {synced} was answered, {restored} came back")
        })?;
        let members = self.log.last().into_iter().flatten();
        for member in members.flat_map(|record| &record.members) {
            let (id, instance) = (&member.member_id, member.group_instance_id.as_deref());
            let mut effects = Vec::new();
            let mut group = self.group.clone();
            let heard = group.heartbeat(self.now, id, instance, restored, &mut effects);
            // Absent static members may have made it larger than it may be.
            let is_too_large = self.group.len() > self.plan.limits.max_size;
            let expected = if is_too_large {
                Err(ResponseError::RebalanceInProgress)
            } else {
                Ok(())
            };
            promise(heard == expected, || {
                format!("{id:?} was restored, and hears {heard:?}")
            })?;
        }
        Ok(())
    }

    /// Whether a join with this id is one too many.
    pub fn is_full_for(&self, id: &str) -> bool {
        let joined = matches!(
            self.group.state(),
            State::CompletingRebalance | State::Stable
        );
        let size = self.group.len();
        joined && size >= self.plan.limits.max_size && !self.group.has_member(id)
    }

    pub fn check_full(&self, is_full: bool, ticket: Ticket) -> Result<(), Violation> {
        promise(!is_full || !self.waiting.contains_key(&ticket), || {
            "a full group takes another member".to_owned()
        })
    }

    /// Nobody waits for longer than a rebalance may take, or a leader for its assignment.
    pub fn check_waiting(&self) -> Result<(), Violation> {
        let longest_ms = self.plan.rebalance_timeout_ms + LONGEST_HALT_MS + LONGEST_WRITE_MS;
        let is_assigning = self.group.state() == State::CompletingRebalance;
        promise(
            !is_assigning || self.now - self.state_since <= longest_ms,
            || format!("there is no assignment after {longest_ms} ms"),
        )?;
        let mut waiting = self.waiting.values();
        let late = waiting.find(|waiting| self.now - waiting.since > longest_ms);
        promise(late.is_none(), || {
            let id = late.map(|waiting| &waiting.member_id);
            format!("{id:?} waits for more than {longest_ms} ms")
        })
    }

    pub fn check_join(&mut self, to: &Waiting, answer: &JoinAnswer) -> Result<(), Violation> {
        self.note(|_| {
            let (client, error) = (to.client, answer.error);
            let (id, generation) = (&answer.member_id, answer.generation);
            format!("client {client}'s join is answered: {error:?} {id:?} at {generation}")
        });
        let asked = &to.member_id;
        self.check_patience(to, asked)?;
        let answered = &answer.member_id;
        promise(
            asked.is_empty() || answered.is_empty() || asked == answered,
            || format!("{asked:?} is told that it is {answered:?}"),
        )?;
        if asked.is_empty() && !answered.is_empty() {
            let holder = (to.client, to.incarnation);
            let given = *self
                .promises
                .holders
                .entry(answered.clone())
                .or_insert(holder);
            promise(given == holder, || {
                format!("{answered:?} is given to {holder:?}, and belongs to {given:?}")
            })?;
        }
        if let Some(error) = answer.error {
            return self.check_refused(to, error);
        }
        self.promises.known.insert(answered.clone());
        promise(!answered.is_empty(), || "a member has no id".to_owned())?;
        promise(self.group.has_member(answered), || {
            format!("{answered:?} has joined, and is no member")
        })?;
        let is_this = answer.generation == self.group.generation();
        promise(is_this, || {
            format!("{answered:?} joined {}", answer.generation)
        })?;
        if let Some(instance) = &self.clients[to.client].instance_id {
            let latest = self
                .promises
                .latest
                .insert(instance.clone(), answered.clone());
            if latest.is_some_and(|latest| latest != *answered) {
                self.promises.totals.replaced += 1;
            }
        }
        if !answer.members.is_empty() {
            let listed = answer.members.iter().map(|member| member.member_id.clone());
            self.promises.listed = (answer.generation, listed.collect());
        }
        let told = (answered.clone(), answer.generation);
        let said = self.promises.said.entry(told.clone());
        let said = said.or_insert_with(|| to.metadata.clone()).clone();
        promise(said == to.metadata, || {
            format!("{answered:?} says something new, and {} goes on", told.1)
        })?;
        self.promises.told.insert(told);
        if self.group.state() == State::Stable {
            self.check_durable(answered, None)?;
        }
        Ok(())
    }

    pub fn check_sync(&mut self, to: &Waiting, answer: &SyncAnswer) -> Result<(), Violation> {
        self.note(|_| {
            let (client, error) = (to.client, answer.error);
            format!("client {client}'s sync is answered: {error:?}")
        });
        if let Some(error) = answer.error {
            return self.check_refused(to, error);
        }
        let id = &to.member_id;
        let generation = self.group.generation();
        promise(to.generation == generation, || {
            format!("a sync at {} is answered in {generation}", to.generation)
        })?;
        self.check_accepted("sync", to.client, id, generation)?;
        promise(self.group.state() == State::Stable, || {
            format!("{id:?} has an assignment of a group that is not stable")
        })?;
        self.check_durable(id, Some(&answer.assignment))?;
        self.promises.synced = self.promises.synced.max(generation);
        let heard = (generation, self.now);
        self.promises.alive.insert(id.clone(), heard);
        let instance = self.clients[to.client].instance_id.clone();
        let owner = instance.unwrap_or_else(|| id.clone());
        for partition in decode_assignment(answer.assignment.clone()) {
            let owners = &mut self.promises.owners;
            let first = owners
                .entry((generation, partition))
                .or_insert(owner.clone());
            promise(*first == owner, || {
                format!("partition {partition} is {first:?}'s and {owner:?}'s in {generation}")
            })?;
        }
        Ok(())
    }

    /// Somebody who waited is refused.
    fn check_refused(&self, to: &Waiting, error: ResponseError) -> Result<(), Violation> {
        let waited = to.event != self.promises.totals.events;
        if !waited || error != ResponseError::UnknownMemberId {
            return Ok(());
        }
        let id = &to.member_id;
        let is_known = self.promises.known.contains(id);
        promise(!is_known || self.leaves.as_ref() == Some(id), || {
            format!("{id:?} is dropped while it waits")
        })
    }

    /// A new member is not kept for longer than it may be.
    fn check_patience(&self, to: &Waiting, asked: &str) -> Result<(), Violation> {
        let waited_ms = self.now - to.since;
        let longest_ms = self.plan.limits.new_member_join_timeout_ms + LONGEST_HALT_MS;
        // A static member takes over from another one, who may have been known.
        let is_static = self.clients[to.client].instance_id.is_some();
        let is_new = !is_static && (asked.is_empty() || !self.promises.known.contains(asked));
        promise(!is_new || waited_ms <= longest_ms, || {
            format!("a new member waited for {waited_ms} ms")
        })
    }

    /// A durable record of this generation has the member, with its assignment.
    fn check_durable(&self, id: &str, assignment: Option<&[u8]>) -> Result<(), Violation> {
        let generation = self.group.generation();
        let durable = self.log[..self.durable].iter().rev().flatten();
        let mut records = durable.take_while(|record| record.generation >= generation);
        let is_there = records.any(|record| {
            record.generation == generation
                && record.members.iter().any(|member| {
                    let given = assignment.is_none_or(|given| given == member.assignment);
                    member.member_id == id && given
                })
        });
        promise(is_there, || {
            format!("what {id:?} is told of {generation} is not durable")
        })
    }

    /// A heartbeat, commit or sync was accepted: it came from a member of this generation.
    pub fn check_accepted(
        &mut self,
        what: &str,
        client: usize,
        id: &str,
        generation: i32,
    ) -> Result<(), Violation> {
        if generation < 0 {
            return promise(self.group.is_empty(), || {
                format!("a {what} without a generation, and the group has members")
            });
        }
        let now = self.now;
        if let Some((at, heard)) = self.promises.alive.get_mut(id)
            && *at == generation
        {
            *heard = now;
        }
        promise(
            self.promises.told.contains(&(id.to_owned(), generation)),
            || format!("a {what} of {id:?}, who was not told of {generation}"),
        )?;
        let newer = self.promises.synced;
        promise(generation >= newer, || {
            format!("a {what} at {generation}, and {newer} is assigned")
        })?;
        let instance = self.clients[client].instance_id.as_ref();
        let latest = instance.and_then(|instance| self.promises.latest.get(instance));
        promise(latest.is_none_or(|latest| latest == id), || {
            format!("a {what} of {id:?}, which {latest:?} has replaced")
        })
    }

    /// A commit with a generation was accepted.
    pub fn check_commit(&self, generation: i32) -> Result<(), Violation> {
        let waits = self.group.state() == State::CompletingRebalance;
        promise(generation < 0 || !waits, || {
            format!("a commit at {generation}, which has no assignment yet")
        })
    }

    /// Another member has this static member's place.
    pub fn is_replaced(&self, instance: Option<&str>, id: &str) -> bool {
        let is_other = |member: &ShownMember| member.member_id != id;
        instance.is_some_and(|instance| {
            let mut members = self.group.shown_members();
            let current = members.find(|it| it.instance_id.as_deref() == Some(instance));
            current.as_ref().is_some_and(is_other)
        })
    }

    pub fn check_fenced(
        &self,
        is_replaced: bool,
        id: &str,
        result: Result<(), ResponseError>,
    ) -> Result<(), Violation> {
        let is_fenced = result == Err(ResponseError::FencedInstanceId);
        promise(is_replaced == is_fenced, || {
            format!("{id:?}, replaced: {is_replaced}, hears {result:?}")
        })
    }

    /// What this client has come to own is owned by no other member of the present generation.
    pub fn check_owner(&self, client: usize) -> Result<(), Violation> {
        if !self.is_valid(client) {
            return Ok(());
        }
        let owned = &self.clients[client].owned;
        for (other, at) in self.clients.iter().enumerate() {
            if other == client || at.owned.is_disjoint(owned) || !self.is_valid(other) {
                continue;
            }
            let both: Vec<_> = at.owned.intersection(owned).collect();
            let generation = self.group.generation();
            return Err(format!(
                "clients {client} and {other} both own {both:?} in {generation}"
            ));
        }
        Ok(())
    }

    pub fn check_every_owner(&self) -> Result<(), Violation> {
        (0..self.clients.len()).try_for_each(|client| self.check_owner(client))
    }

    /// The client takes itself for a member of the present generation, and is one.
    fn is_valid(&self, client: usize) -> bool {
        let at = &self.clients[client];
        matches!(at.phase, Phase::Syncing | Phase::Stable | Phase::Joining)
            && at.generation == self.group.generation()
            && self.group.has_member(&at.member_id)
    }
}
