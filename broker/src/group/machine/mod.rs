//! The classic consumer group protocol as a pure state machine, one per group.
//!
//! Time (milliseconds on a clock that never goes back), new member ids and what became of a write
//! are passed in; what is to be done comes out as [`Effect`]s, in order. The machine does no I/O,
//! reads no clock and draws no random number, so a history can be replayed from a seed.
//!
//! ```text
//!             join                  all joined, or timer          leader's sync stored
//! Empty ─────────────> PreparingRebalance ─────────────> CompletingRebalance ─────────────> Stable
//!   ^                    │    ^    ^                         │                                │
//!   └─ nobody is left ───┘    │    └── join, leave, expiry ──┘                                │
//!                             └──────── join, leave, expiry, a changed protocol ──────────────┘
//! ```
//!
//! What holds:
//! - A ticket given to [`Group::join`] or [`Group::sync`] is answered exactly once.
//! - The generation grows with every completed rebalance, and never otherwise.
//! - An assignment is answered only after the record that holds it was stored.
//! - A member keeps its id for as long as it is a member; only a static member gets a new one, when
//!   it comes back without the old one, and the old one is fenced.
//!
//! Sources: KIP-62 (rebalance timeout), KIP-134 (initial delay), KIP-345 (static members), KIP-389
//! (group size), KIP-394 (member ids), KIP-559 (protocol checks in SyncGroup), KIP-814 (skipped
//! assignment).

mod join;
mod membership;
mod rebalance;
mod show;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::ResponseError;

pub use join::JoinRequest;
pub use membership::{Committer, Leaver};
pub use show::ShownMember;
pub use sync::SyncRequest;

use super::records::{GroupMetadataValue, MemberMetadata};

/// Names a join or sync that waits for its answer. Never used twice.
pub type Ticket = u64;

/// Milliseconds on a clock that never goes back.
pub type Millis = u64;

/// What holds for every group of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `group.max.size`: the largest number of members.
    pub max_size: usize,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members.
    pub initial_rebalance_delay_ms: Millis,
    /// A member that has not seen its first join answered is dropped after this long.
    pub new_member_join_timeout_ms: Millis,
    /// The most ids that are given out and not used yet. One more takes the place of the one that
    /// would expire first: its client is told that it is unknown, and asks for another.
    pub max_pending: usize,
    /// The most bytes that the members of a group may say about themselves, all together.
    pub max_subscription_bytes: usize,
}

/// Where a group stands. The names are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No members.
    Empty,
    /// Waits for the members to join.
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
    /// Gone; a new group of that name is another one.
    Dead,
}

/// One of the protocols that a member offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Such as `range` or `cooperative-sticky`.
    pub name: String,
    /// The member's subscription, opaque.
    pub metadata: Bytes,
}

/// A member, as the leader is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// A static member's own name.
    pub instance_id: Option<String>,
    /// Its subscription under the chosen protocol.
    pub metadata: Bytes,
}

/// The answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    /// `None` where the member has joined.
    pub error: Option<ResponseError>,
    /// -1 with an error.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// The member's own id.
    pub member_id: String,
    /// For the leader: everybody.
    pub members: Vec<JoinedMember>,
    /// For the leader: the assignment stands, don't compute another.
    pub skip_assignment: bool,
}

impl JoinAnswer {
    /// A refusal.
    pub fn refused(error: ResponseError, member_id: &str) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member_id: member_id.to_owned(),
            members: Vec::new(),
            skip_assignment: false,
        }
    }
}

/// The answer to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncAnswer {
    /// `None` where there is an assignment.
    pub error: Option<ResponseError>,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The member's assignment, opaque.
    pub assignment: Bytes,
}

impl SyncAnswer {
    /// A refusal.
    pub fn refused(error: ResponseError) -> Self {
        Self {
            error: Some(error),
            protocol_type: None,
            protocol: None,
            assignment: Bytes::new(),
        }
    }
}

/// What waits for a [`Effect::Store`]; handed back to [`Group::stored`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The assignment of a generation.
    Assignment {
        /// The leader's sync that it came with.
        ticket: Ticket,
    },
    /// A static member's new id in a stable group.
    StaticMember {
        /// The generation that goes on.
        generation: i32,
        /// The member.
        member_id: String,
        /// The join to answer.
        ticket: Ticket,
        /// The leader that clients without `skip_assignment` are told.
        previous_leader: String,
        /// The client knows `skip_assignment`.
        supports_skip_assignment: bool,
    },
    /// Nobody waits: the group became empty.
    Nothing,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer a join.
    Join(Ticket, JoinAnswer),
    /// Answer a sync.
    Sync(Ticket, SyncAnswer),
    /// Call [`Group::tick`] at this time. Earlier calls for the same group stay due.
    WakeAt(Millis),
    /// Write the group's record, and call [`Group::stored`] when it is durable or has failed.
    Store(GroupMetadataValue, Stored),
}

#[derive(Clone, Debug)]
struct Member {
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout_ms: Millis,
    rebalance_timeout_ms: Millis,
    /// In the member's order of preference, no name twice.
    protocols: Vec<Protocol>,
    assignment: Bytes,
    /// Its first join is not answered yet: it may be gone without anybody noticing.
    is_new: bool,
    deadline: Millis,
    join: Option<Ticket>,
    sync: Option<Ticket>,
}

impl Member {
    /// What it holds of memory, about: what clients choose freely.
    fn subscription_bytes(&self) -> usize {
        let instance = self.instance_id.as_ref().map_or(0, String::len);
        instance + self.client_id.len() + subscription_bytes(&self.protocols)
    }

    fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|offered| offered.name == protocol)
            .map_or_else(Bytes::new, |offered| offered.metadata.clone())
    }

    fn restored(stored: MemberMetadata, protocol: &str) -> Self {
        Self {
            instance_id: stored.group_instance_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            session_timeout_ms: stored.session_timeout_ms.max(0) as Millis,
            rebalance_timeout_ms: stored.rebalance_timeout_ms.max(0) as Millis,
            protocols: vec![Protocol {
                name: protocol.to_owned(),
                metadata: stored.subscription,
            }],
            assignment: stored.assignment,
            is_new: false,
            deadline: 0,
            join: None,
            sync: None,
        }
    }

    /// When the member is given up. A member that waits for an answer can't send heartbeats.
    fn expires_at(&self) -> Option<Millis> {
        let waits = self.join.is_some() || self.sync.is_some();
        (self.is_new || !waits).then_some(self.deadline)
    }
}

fn subscription_bytes(protocols: &[Protocol]) -> usize {
    protocols
        .iter()
        .map(|protocol| protocol.name.len() + protocol.metadata.len())
        .sum()
}

#[derive(Clone, Copy, Debug)]
enum JoinTimer {
    /// An empty group's first members wait for more, in steps of the initial delay, until
    /// `remaining_ms` is used up or a step passes without a new member.
    Initial {
        deadline: Millis,
        delay_ms: Millis,
        remaining_ms: Millis,
        joined_meanwhile: bool,
    },
    /// Members that have not joined by then are dropped.
    Rebalance { deadline: Millis },
}

impl JoinTimer {
    fn deadline(&self) -> Millis {
        match *self {
            Self::Initial { deadline, .. } | Self::Rebalance { deadline } => deadline,
        }
    }
}

/// One group.
#[derive(Clone, Debug)]
pub struct Group {
    limits: Limits,
    state: State,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Instance id to member id.
    static_members: BTreeMap<String, String>,
    /// How many members offer each protocol.
    offered: BTreeMap<String, usize>,
    /// What the members say about themselves, bytes.
    subscription_bytes: usize,
    /// Ids that were given out by MEMBER_ID_REQUIRED, until they are used or expire.
    pending: BTreeMap<String, Millis>,
    /// Members that have joined this generation and have not synced.
    unsynced: BTreeSet<String>,
    unsynced_deadline: Option<Millis>,
    join_timer: Option<JoinTimer>,
    /// The leader's assignment while it is being stored, and the sync that it came with.
    assignments: Option<(Ticket, BTreeMap<String, Bytes>)>,
    wake_at: Option<Millis>,
    /// A record about the group was stored, or is being stored.
    has_record: bool,
}

impl Group {
    /// A group that nobody has joined yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            offered: BTreeMap::new(),
            subscription_bytes: 0,
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            unsynced_deadline: None,
            join_timer: None,
            assignments: None,
            wake_at: None,
            has_record: false,
        }
    }

    /// The group that a record describes. Its members have their session timeout from `now` on.
    pub fn restore(
        limits: Limits,
        now: Millis,
        record: GroupMetadataValue,
        effects: &mut Vec<Effect>,
    ) -> Self {
        let mut group = Self::new(limits);
        group.generation = record.generation;
        group.has_record = true;
        group.protocol_type = Some(record.protocol_type).filter(|name| !name.is_empty());
        if record.members.is_empty() {
            return group;
        }
        let protocol = record.protocol.unwrap_or_default();
        for stored in record.members {
            let member_id = stored.member_id.clone();
            let member = Member::restored(stored, &protocol);
            if let Some(instance) = &member.instance_id {
                let instances = &mut group.static_members;
                instances.insert(instance.clone(), member_id.clone());
            }
            group.count(&member, true);
            if let Some(twice) = group.members.insert(member_id.clone(), member) {
                group.count(&twice, false);
            }
            group.touch(now, &member_id, effects);
        }
        group.leader = record
            .leader
            .filter(|leader| group.members.contains_key(leader))
            .or_else(|| group.members.keys().next().cloned());
        group.protocol = Some(protocol);
        group.state = State::Stable;
        if group.members.len() > limits.max_size {
            // The limit was lowered: those who rejoin first stay.
            group.prepare_rebalance(now, effects);
        }
        group
    }

    /// Where the group stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The generation.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// It is a member's id.
    pub fn has_member(&self, member_id: &str) -> bool {
        self.members.contains_key(member_id)
    }

    /// There are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The chosen protocol.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The protocol type.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The leader's member id.
    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    /// Nobody is in it, nobody is expected, and nothing is stored about it.
    pub fn is_unused(&self) -> bool {
        self.state == State::Empty && !self.has_record && self.pending.is_empty()
    }

    /// A record about the group was stored, or is being stored.
    pub fn has_record(&self) -> bool {
        self.has_record
    }

    /// How many ids are given out and not used yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The group's last record was removed from the log. A group that has members again since will
    /// have another, and goes on.
    pub fn record_removed(&mut self) {
        if self.state == State::Empty {
            self.has_record = false;
            self.generation = 0;
            self.protocol_type = None;
        }
    }

    /// Ends an unused group, so that whoever still holds it looks for another.
    pub fn retire(&mut self) {
        if self.is_unused() {
            self.state = State::Dead;
        }
    }

    /// The group's record, with its members' present assignments or those given.
    fn record(&self, assignments: Option<&BTreeMap<String, Bytes>>) -> GroupMetadataValue {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| MemberMetadata {
            member_id: id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: i32::try_from(member.rebalance_timeout_ms).unwrap_or(i32::MAX),
            session_timeout_ms: i32::try_from(member.session_timeout_ms).unwrap_or(i32::MAX),
            subscription: member.metadata(protocol),
            assignment: match assignments {
                Some(assignments) => assignments.get(id).cloned().unwrap_or_default(),
                None => member.assignment.clone(),
            },
        });
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp_ms: -1,
            members: members.collect(),
        }
    }

    fn store(&mut self, record: GroupMetadataValue, then: Stored, effects: &mut Vec<Effect>) {
        self.has_record = true;
        effects.push(Effect::Store(record, then));
    }

    /// Counts a member's protocols in or out.
    fn count(&mut self, member: &Member, added: bool) {
        let bytes = member.subscription_bytes();
        self.subscription_bytes = if added {
            self.subscription_bytes.saturating_add(bytes)
        } else {
            self.subscription_bytes.saturating_sub(bytes)
        };
        for protocol in &member.protocols {
            let count = self.offered.entry(protocol.name.clone()).or_default();
            *count = if added {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
            if *count == 0 {
                self.offered.remove(&protocol.name);
            }
        }
    }

    /// A sign of life: the member's session starts anew.
    fn touch(&mut self, now: Millis, member_id: &str, effects: &mut Vec<Effect>) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.deadline = now.saturating_add(member.session_timeout_ms);
            let deadline = member.deadline;
            self.wake(deadline, effects);
        }
    }

    fn wake(&mut self, at: Millis, effects: &mut Vec<Effect>) {
        if self.wake_at.is_none_or(|scheduled| at < scheduled) {
            self.wake_at = Some(at);
            effects.push(Effect::WakeAt(at));
        }
    }

    /// That the member is who it says, and not replaced by another of the same instance id.
    fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ResponseError> {
        if let Some(instance) = instance_id {
            match self.static_members.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(current) if current != member_id => {
                    return Err(ResponseError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(ResponseError::UnknownMemberId)
        }
    }
}
