//! SyncGroup: the leader's assignment, stored and handed out.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::{Effect, Group, Millis, State, Stored, SyncAnswer, Ticket};

/// A member that wants its assignment.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Names the answer.
    pub ticket: Ticket,
    /// The member.
    pub member_id: String,
    /// A static member's own name.
    pub instance_id: Option<String>,
    /// The generation it joined.
    pub generation: i32,
    /// What it takes the protocol type to be, where it says (version 5 and up).
    pub protocol_type: Option<String>,
    /// What it takes the protocol to be, where it says.
    pub protocol: Option<String>,
    /// From the leader: an assignment for each member.
    pub assignments: Vec<(String, Bytes)>,
}

impl Group {
    /// A member asks for its assignment; the ticket is answered now or when there is one.
    pub fn sync(&mut self, now: Millis, request: SyncRequest, effects: &mut Vec<Effect>) {
        if let Err(error) = self.check_sync(&request) {
            effects.push(Effect::Sync(request.ticket, SyncAnswer::refused(error)));
            return;
        }
        self.touch(now, &request.member_id, effects);
        self.unsynced.remove(&request.member_id);
        if self.state == State::Stable {
            let answer = self.synced(&request.member_id);
            effects.push(Effect::Sync(request.ticket, answer));
            return;
        }
        let Some(member) = self.members.get_mut(&request.member_id) else {
            return;
        };
        if let Some(ticket) = member.sync.replace(request.ticket) {
            let answer = SyncAnswer::refused(ResponseError::RebalanceInProgress);
            effects.push(Effect::Sync(ticket, answer));
        }
        if self.leader.as_deref() == Some(&request.member_id) && self.assignments.is_none() {
            let mut given: BTreeMap<String, Bytes> = request.assignments.into_iter().collect();
            given.retain(|member_id, _| self.members.contains_key(member_id));
            let ticket = request.ticket;
            let then = Stored::Assignment { ticket };
            self.store(self.record(Some(&given)), then, effects);
            self.assignments = Some((ticket, given));
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty | State::Dead => Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// A [`Effect::Store`] is durable, or has failed.
    pub fn stored(
        &mut self,
        now: Millis,
        then: Stored,
        result: Result<(), ResponseError>,
        effects: &mut Vec<Effect>,
    ) {
        match then {
            Stored::Assignment { ticket } => {
                // A rebalance that began meanwhile has answered everybody.
                let waits = self.assignments.as_ref().map(|(ticket, _)| *ticket);
                if self.state == State::CompletingRebalance && waits == Some(ticket) {
                    match result {
                        Ok(()) => self.hand_out_assignments(now, effects),
                        Err(error) => {
                            self.fail_syncs(now, error, effects);
                            self.prepare_rebalance(now, effects);
                        }
                    }
                }
            }
            Stored::StaticMember { .. } => self.static_member_stored(now, then, result, effects),
            Stored::Nothing => {}
        }
    }

    fn hand_out_assignments(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let Some((_, mut assignments)) = self.assignments.take() else {
            return;
        };
        self.state = State::Stable;
        let mut waiting = Vec::new();
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
            if let Some(ticket) = member.sync.take() {
                waiting.push((id.clone(), ticket));
            }
        }
        for (id, ticket) in waiting {
            effects.push(Effect::Sync(ticket, self.synced(&id)));
            self.touch(now, &id, effects);
        }
    }

    fn synced(&self, member_id: &str) -> SyncAnswer {
        SyncAnswer {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self
                .members
                .get(member_id)
                .map_or_else(Bytes::new, |member| member.assignment.clone()),
        }
    }
}
