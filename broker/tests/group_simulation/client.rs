//! A client that behaves as Kafka's consumers do: what it sends, what it makes of the answers, and
//! what it believes to own.

use std::collections::{BTreeMap, BTreeSet};

use broker::group::machine::{JoinedMember, Millis, Protocol};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::plan::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its process is not there.
    Down,
    /// About to join.
    Idle,
    Joining,
    Syncing,
    /// Has an assignment.
    Stable,
}

/// What a client waits for that does not go on by itself: no request has this id.
pub const STUCK_ON: u64 = 0;

#[derive(Clone, Debug)]
pub struct Client {
    pub kind: Kind,
    pub instance_id: Option<String>,
    pub requires_known_member_id: bool,
    pub supports_skip_assignment: bool,
    pub session_timeout_ms: Millis,
    pub rebalance_timeout_ms: Millis,
    pub phase: Phase,
    /// Grows with each start of its process: what belongs to an earlier one is ignored.
    pub incarnation: u32,
    pub member_id: String,
    pub generation: i32,
    pub owned: BTreeSet<u16>,
    /// The generation that it has `owned` from.
    pub owned_since: i32,
    /// The join or sync that it waits for.
    pub waits_for: u64,
    pub heartbeat: u64,
    /// It has lost what it said it owns, and has to say so.
    pub has_lost: bool,
    /// It does not rejoin, and sends heartbeats all the same.
    pub is_stuck: bool,
    /// Changes with its subscription.
    pub subscription: u16,
    /// It does nothing until then, and then goes on as if nothing had been.
    pub paused_until: Millis,
}

impl Client {
    pub fn is_up(&self) -> bool {
        self.phase != Phase::Down
    }

    /// It sends heartbeats: it has an assignment, or is stuck before it asks for one.
    pub fn beats(&self) -> bool {
        self.phase == Phase::Stable || (self.phase == Phase::Syncing && self.waits_for == STUCK_ON)
    }

    pub fn is_cooperative(&self) -> bool {
        self.kind == Kind::Cooperative
    }

    /// The protocols that it offers, with what it owns.
    pub fn protocols(&self) -> Vec<Protocol> {
        let mut metadata = BytesMut::new();
        metadata.put_i32(self.owned_since);
        metadata.put_u16(self.subscription);
        self.owned
            .iter()
            .for_each(|partition| metadata.put_u16(*partition));
        let metadata = metadata.freeze();
        let names = self.kind.protocols().iter();
        names
            .map(|name| Protocol {
                name: (*name).to_owned(),
                metadata: metadata.clone(),
            })
            .collect()
    }

    /// Everything is lost: it was told that it is not what it takes itself for.
    pub fn lose(&mut self, keeps_id: bool) {
        self.owned.clear();
        self.owned_since = -1;
        self.generation = -1;
        self.has_lost = false;
        self.phase = Phase::Idle;
        if !keeps_id {
            self.member_id.clear();
        }
    }
}

pub fn encode_assignment(partitions: &BTreeSet<u16>) -> Bytes {
    let mut bytes = BytesMut::new();
    partitions
        .iter()
        .for_each(|partition| bytes.put_u16(*partition));
    bytes.freeze()
}

pub fn decode_assignment(mut bytes: Bytes) -> BTreeSet<u16> {
    let mut partitions = BTreeSet::new();
    while bytes.remaining() >= 2 {
        partitions.insert(bytes.get_u16());
    }
    partitions
}

/// What a leader gives to whom.
pub fn assign(protocol: &str, members: &[JoinedMember], partitions: u16) -> Vec<(String, Bytes)> {
    let mut given = members
        .iter()
        .map(|member| (member.member_id.clone(), BTreeSet::new()))
        .collect::<BTreeMap<_, _>>();
    if protocol == "range" {
        let ids: Vec<String> = given.keys().cloned().collect();
        for partition in 0..partitions {
            let id = &ids[usize::from(partition) % ids.len()];
            given.entry(id.clone()).or_default().insert(partition);
        }
    } else {
        assign_cooperatively(&mut given, members, partitions);
    }
    let given = given.iter();
    given
        .map(|(id, partitions)| (id.clone(), encode_assignment(partitions)))
        .collect()
}

/// Everybody keeps what they say they own, those with too much give up some of it, and only what
/// nobody owns is given to those with the least. What is given up is free in the next generation.
fn assign_cooperatively(
    given: &mut BTreeMap<String, BTreeSet<u16>>,
    members: &[JoinedMember],
    partitions: u16,
) {
    let mut owners = BTreeMap::<u16, (i32, String)>::new();
    for member in members {
        let mut metadata = member.metadata.clone();
        if metadata.remaining() < 6 {
            continue;
        }
        let since = metadata.get_i32();
        metadata.advance(2);
        while metadata.remaining() >= 2 {
            let claim = (since, member.member_id.clone());
            let owner = owners.entry(metadata.get_u16()).or_insert(claim.clone());
            // Of two that claim it, the one that has it from a later generation has it.
            if owner.0 < since {
                *owner = claim;
            }
        }
    }
    for (partition, (_, id)) in &owners {
        if let Some(partitions) = given.get_mut(id) {
            partitions.insert(*partition);
        }
    }
    let most = usize::from(partitions).div_ceil(given.len().max(1));
    for partitions in given.values_mut() {
        while partitions.len() > most {
            partitions.pop_last();
        }
    }
    for partition in (0..partitions).filter(|partition| !owners.contains_key(partition)) {
        let least = given.values_mut().min_by_key(|partitions| partitions.len());
        if let Some(partitions) = least {
            partitions.insert(partition);
        }
    }
}
