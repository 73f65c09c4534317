//! JoinGroup: who may join, and when joining starts a rebalance.

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::{
    Effect, Group, JoinAnswer, JoinTimer, JoinedMember, Member, Millis, Protocol, State, Stored,
    Ticket, subscription_bytes,
};

/// A member that wants to join.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Names the answer.
    pub ticket: Ticket,
    /// Empty for a member that has no id yet.
    pub member_id: String,
    /// The id to give it then.
    pub new_member_id: String,
    /// A static member's own name.
    pub instance_id: Option<String>,
    /// A member without an id is told one first, and joins with it (version 4 and up).
    pub requires_known_member_id: bool,
    /// The client knows `skip_assignment` (version 9 and up).
    pub supports_skip_assignment: bool,
    /// The client's name for itself.
    pub client_id: String,
    /// The address it joins from.
    pub client_host: String,
    /// How long it may take to rejoin.
    pub rebalance_timeout_ms: Millis,
    /// How long it may be silent.
    pub session_timeout_ms: Millis,
    /// Such as `consumer`.
    pub protocol_type: String,
    /// What it can do, best first.
    pub protocols: Vec<Protocol>,
}

impl Group {
    /// A member joins; the ticket is answered now or when the rebalance completes.
    pub fn join(&mut self, now: Millis, mut request: JoinRequest, effects: &mut Vec<Effect>) {
        drop_repeated_protocols(&mut request.protocols);
        let mut refuse = |error, member_id: &str| {
            effects.push(Effect::Join(
                request.ticket,
                JoinAnswer::refused(error, member_id),
            ));
        };
        if self.state == State::Dead {
            refuse(ResponseError::CoordinatorNotAvailable, &request.member_id);
        } else if !self.has_room_for(&request.member_id) {
            refuse(ResponseError::GroupMaxSizeReached, "");
            // Nobody waits for it any more.
            self.pending.remove(&request.member_id);
            self.remove_member(&request.member_id, effects);
            self.complete_if_all_joined(now, effects);
        } else if !self.holds(&request) {
            refuse(ResponseError::GroupMaxSizeReached, &request.member_id);
        } else if !self.supports(&request) {
            refuse(ResponseError::InconsistentGroupProtocol, &request.member_id);
        } else if request.member_id.is_empty() {
            self.join_new(now, request, effects);
        } else {
            self.join_known(now, request, effects);
        }
    }

    fn has_room_for(&self, member_id: &str) -> bool {
        let is_member = self.members.get(member_id);
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                let waiting = self
                    .members
                    .values()
                    .filter(|member| member.join.is_some())
                    .count();
                is_member.is_some_and(|member| member.join.is_some())
                    || waiting < self.limits.max_size
            }
            State::CompletingRebalance | State::Stable => {
                is_member.is_some() || self.members.len() < self.limits.max_size
            }
        }
    }

    /// What the member says about itself fits, together with what the others say. A member that
    /// says no more than before always fits.
    fn holds(&self, request: &JoinRequest) -> bool {
        let instance = request.instance_id.as_ref();
        let id = instance
            .and_then(|instance| self.static_members.get(instance))
            .unwrap_or(&request.member_id);
        let said = self.members.get(id).map_or(0, Member::subscription_bytes);
        let says = instance.map_or(0, String::len)
            + request.client_id.len()
            + subscription_bytes(&request.protocols);
        let others = self.subscription_bytes.saturating_sub(said);
        says <= said || others.saturating_add(says) <= self.limits.max_subscription_bytes
    }

    /// There is a protocol that everybody would offer with this member in the group.
    fn supports(&self, request: &JoinRequest) -> bool {
        if self.members.is_empty() {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(&request.protocol_type)
            && request
                .protocols
                .iter()
                .any(|protocol| self.offered.get(&protocol.name) == Some(&self.members.len()))
    }

    fn join_new(&mut self, now: Millis, request: JoinRequest, effects: &mut Vec<Effect>) {
        let member_id = request.new_member_id.clone();
        if let Some(instance) = &request.instance_id {
            match self.static_members.get(instance).cloned() {
                Some(replaced) => self.replace_static(now, &replaced, request, effects),
                None => self.add_member(now, member_id, request, effects),
            }
        } else if request.requires_known_member_id {
            self.expect(now, &member_id, request.session_timeout_ms, effects);
            let answer = JoinAnswer::refused(ResponseError::MemberIdRequired, &member_id);
            effects.push(Effect::Join(request.ticket, answer));
        } else {
            self.add_member(now, member_id, request, effects);
        }
    }

    /// Gives out an id; it expires as a member's session does.
    fn expect(&mut self, now: Millis, id: &str, timeout_ms: Millis, effects: &mut Vec<Effect>) {
        if self.pending.len() >= self.limits.max_pending {
            let first = self.pending.iter().min_by_key(|(_, deadline)| **deadline);
            if let Some(first) = first.map(|(id, _)| id.clone()) {
                self.pending.remove(&first);
            }
        }
        let deadline = now.saturating_add(timeout_ms);
        self.pending.insert(id.to_owned(), deadline);
        self.wake(deadline, effects);
    }

    fn join_known(&mut self, now: Millis, request: JoinRequest, effects: &mut Vec<Effect>) {
        let member_id = request.member_id.clone();
        if self.pending.contains_key(&member_id) && request.instance_id.is_none() {
            return self.add_member(now, member_id, request, effects);
        }
        if let Err(error) = self.check_member(&member_id, request.instance_id.as_deref()) {
            let answer = JoinAnswer::refused(error, &member_id);
            effects.push(Effect::Join(request.ticket, answer));
            return;
        }
        let unchanged = self
            .members
            .get(&member_id)
            .is_some_and(|member| member.protocols == request.protocols);
        let is_leader = self.leader.as_deref() == Some(&member_id);
        // A leader that rejoins a stable group may have seen something that the protocols don't
        // show, such as new partitions; the others rejoin because an answer was lost.
        let rejoins_in_vain = match self.state {
            State::CompletingRebalance => unchanged,
            State::Stable => unchanged && !is_leader,
            _ => false,
        };
        if rejoins_in_vain {
            self.touch(now, &member_id, effects);
            let lists_members = is_leader && self.state == State::CompletingRebalance;
            let answer = self.joined(&member_id, lists_members);
            effects.push(Effect::Join(request.ticket, answer));
        } else {
            self.update_member(now, &member_id, request, effects);
            self.rebalance_or_complete(now, effects);
        }
    }

    fn add_member(
        &mut self,
        now: Millis,
        member_id: String,
        request: JoinRequest,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(JoinTimer::Initial {
            joined_meanwhile, ..
        }) = &mut self.join_timer
        {
            *joined_meanwhile = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        self.leader.get_or_insert_with(|| member_id.clone());
        self.pending.remove(&member_id);
        if let Some(instance) = &request.instance_id {
            self.static_members
                .insert(instance.clone(), member_id.clone());
        }
        // It does not know its id and can't send heartbeats; if its connection is gone, nobody
        // will tell. So it has a deadline of its own.
        let deadline = now.saturating_add(self.limits.new_member_join_timeout_ms);
        let member = Member {
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            is_new: true,
            deadline,
            join: Some(request.ticket),
            sync: None,
        };
        self.count(&member, true);
        self.members.insert(member_id, member);
        self.wake(deadline, effects);
        self.rebalance_or_complete(now, effects);
    }

    fn update_member(
        &mut self,
        now: Millis,
        member_id: &str,
        request: JoinRequest,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        self.count(&member, false);
        member.protocols = request.protocols;
        member.client_id = request.client_id;
        member.client_host = request.client_host;
        member.session_timeout_ms = request.session_timeout_ms;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        self.count(&member, true);
        // Whoever asked before on the same member's behalf has to ask again.
        answer_waiting(
            &mut member,
            member_id,
            ResponseError::RebalanceInProgress,
            effects,
        );
        member.join = Some(request.ticket);
        let is_new = member.is_new;
        self.members.insert(member_id.to_owned(), member);
        if !is_new {
            self.touch(now, member_id, effects);
        }
    }

    /// A static member comes back without its id: it gets a new one and the old one is fenced.
    fn replace_static(
        &mut self,
        now: Millis,
        replaced: &str,
        request: JoinRequest,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut member) = self.members.remove(replaced) else {
            return;
        };
        answer_waiting(
            &mut member,
            replaced,
            ResponseError::FencedInstanceId,
            effects,
        );
        if member.is_new {
            // It has its own time to hear from its first join.
            member.deadline = now.saturating_add(self.limits.new_member_join_timeout_ms);
            self.wake(member.deadline, effects);
        }
        let member_id = request.new_member_id.clone();
        if let Some(instance) = &request.instance_id {
            self.static_members
                .insert(instance.clone(), member_id.clone());
        }
        let previous_leader = self.leader.clone().unwrap_or_default();
        if previous_leader == replaced {
            self.leader = Some(member_id.clone());
        }
        if self.unsynced.remove(replaced) {
            self.unsynced.insert(member_id.clone());
        }
        self.members.insert(member_id.clone(), member);
        let (ticket, supports_skip_assignment) = (request.ticket, request.supports_skip_assignment);
        self.update_member(now, &member_id, request, effects);
        if self.state == State::Stable && self.select_protocol() == self.protocol {
            let then = Stored::StaticMember {
                generation: self.generation,
                member_id,
                ticket,
                previous_leader,
                supports_skip_assignment,
            };
            self.store(self.record(None), then, effects);
        } else {
            self.rebalance_or_complete(now, effects);
        }
    }

    /// A static member's new id is stored, or is not.
    pub(super) fn static_member_stored(
        &mut self,
        now: Millis,
        then: Stored,
        result: Result<(), ResponseError>,
        effects: &mut Vec<Effect>,
    ) {
        let Stored::StaticMember {
            generation,
            member_id,
            ticket,
            previous_leader,
            supports_skip_assignment,
        } = then
        else {
            return;
        };
        // A rebalance that began meanwhile has answered it, or will.
        if self.state != State::Stable || self.generation != generation {
            return;
        }
        match self.members.get_mut(&member_id) {
            Some(member) if member.join == Some(ticket) => member.join = None,
            _ => return,
        }
        self.touch(now, &member_id, effects);
        let answer = match result {
            Err(error) => JoinAnswer::refused(error, ""),
            Ok(()) if supports_skip_assignment => {
                let is_leader = self.leader.as_deref() == Some(&member_id);
                JoinAnswer {
                    skip_assignment: is_leader,
                    ..self.joined(&member_id, is_leader)
                }
            }
            // It must not take itself for the leader: a stable group would not hear its assignment.
            Ok(()) => JoinAnswer {
                leader: previous_leader,
                ..self.joined(&member_id, false)
            },
        };
        effects.push(Effect::Join(ticket, answer));
    }

    /// The answer that a member of the present generation gets.
    pub(super) fn joined(&self, member_id: &str, lists_members: bool) -> JoinAnswer {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self
            .members
            .iter()
            .filter(|_| lists_members)
            .map(|(id, member)| JoinedMember {
                member_id: id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(protocol),
            });
        JoinAnswer {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.to_owned(),
            members: members.collect(),
            skip_assignment: false,
        }
    }
}

fn drop_repeated_protocols(protocols: &mut Vec<Protocol>) {
    let mut seen = std::collections::BTreeSet::new();
    protocols.retain(|protocol| seen.insert(protocol.name.clone()));
}

/// Answers whatever the member waits for with `error`.
pub(super) fn answer_waiting(
    member: &mut Member,
    member_id: &str,
    error: ResponseError,
    effects: &mut Vec<Effect>,
) {
    if let Some(ticket) = member.join.take() {
        effects.push(Effect::Join(ticket, JoinAnswer::refused(error, member_id)));
    }
    if let Some(ticket) = member.sync.take() {
        effects.push(Effect::Sync(ticket, super::SyncAnswer::refused(error)));
    }
}
