//! The broker's side of the world, as the coordinator does it.

use std::collections::VecDeque;

use broker::group::machine::{
    Committer, Effect, Group, JoinRequest, Leaver, Millis, SyncRequest, Ticket,
};
use broker::group::records::GroupMetadataValue;
use kafka_protocol::ResponseError;

use crate::message::{Answer, Body, Request, told};
use crate::promises::LONGEST_WRITE_MS;
use crate::world::{Event, Then, Violation, Waiting, World, Write};

impl World {
    /// As the coordinator does.
    pub fn serve(&mut self, request: Request) -> Result<(), Violation> {
        let (client, incarnation, id) = (request.client, request.incarnation, request.id);
        if id == 0 && self.is_outdated(&request) {
            return Ok(());
        }
        let instance_id = self.clients[client].instance_id.clone();
        self.note(|_| {
            let again = if id == 0 { " again" } else { "" };
            format!("client {client}'s {} arrives{again}", told(&request.body))
        });
        match &request.body {
            Body::Join {
                member_id,
                protocols,
            } => {
                self.ids += 1;
                let at = &self.clients[client];
                let name = instance_id.as_deref().unwrap_or("c");
                let join = JoinRequest {
                    ticket: 0,
                    member_id: member_id.clone(),
                    new_member_id: format!("{name}-{}", self.ids),
                    requires_known_member_id: at.requires_known_member_id,
                    supports_skip_assignment: at.supports_skip_assignment,
                    client_id: format!("client-{client}"),
                    client_host: "/127.0.0.1".to_owned(),
                    rebalance_timeout_ms: at.rebalance_timeout_ms,
                    session_timeout_ms: at.session_timeout_ms,
                    protocol_type: "consumer".to_owned(),
                    protocols: protocols.clone(),
                    instance_id,
                };
                let ticket = self.ticket(&request, member_id, -1);
                let join = JoinRequest { ticket, ..join };
                let is_full = self.is_full_for(member_id);
                self.step(|group, now, effects| group.join(now, join, effects))?;
                self.check_full(is_full, ticket)
            }
            Body::Sync {
                member_id,
                generation,
                assignments,
            } => {
                let ticket = self.ticket(&request, member_id, *generation);
                let sync = SyncRequest {
                    ticket,
                    member_id: member_id.clone(),
                    instance_id,
                    generation: *generation,
                    protocol_type: Some("consumer".to_owned()),
                    protocol: None,
                    assignments: assignments.clone(),
                };
                self.step(|group, now, effects| group.sync(now, sync, effects))
            }
            Body::Heartbeat {
                member_id,
                generation,
            } => {
                let instance = instance_id.as_deref();
                let replaced = self.is_replaced(instance, member_id);
                let result = self.step(|group, now, effects| {
                    group.heartbeat(now, member_id, instance, *generation, effects)
                })?;
                if result.is_ok() {
                    self.check_accepted("heartbeat", client, member_id, *generation)?;
                }
                self.check_fenced(replaced, member_id, result)?;
                self.answer(client, incarnation, id, Answer::Heartbeat(result));
                Ok(())
            }
            Body::Commit {
                member_id,
                generation,
            } => {
                let committer = Committer {
                    member_id,
                    instance_id: instance_id.as_deref().filter(|_| *generation >= 0),
                    generation: *generation,
                };
                let result =
                    self.step(|group, now, effects| group.check_commit(now, committer, effects))?;
                if result.is_ok() {
                    self.promises.totals.commits += 1;
                    self.check_accepted("commit", client, member_id, *generation)?;
                    self.check_commit(*generation)?;
                } else {
                    self.promises.totals.refused_commits += 1;
                }
                let answer = Answer::Commit(result, *generation);
                self.answer(client, incarnation, id, answer);
                Ok(())
            }
            Body::Leave { member_id } => {
                self.leaves = Some(member_id.clone());
                let leaver = Leaver {
                    member_id: member_id.clone(),
                    instance_id,
                };
                self.step(|group, now, effects| group.leave(now, &[leaver], effects))?;
                self.leaves = None;
                Ok(())
            }
        }
    }

    /// A join that says what its member no longer says. Nothing in the protocol tells it from the
    /// latest one, in Kafka neither; connections keep it from coming that late.
    fn is_outdated(&self, request: &Request) -> bool {
        let at = &self.clients[request.client];
        match &request.body {
            Body::Join {
                member_id,
                protocols,
            } => {
                !member_id.is_empty() && at.member_id == *member_id && at.protocols() != *protocols
            }
            _ => false,
        }
    }

    /// One step of the machine, and what it asks for.
    pub fn step<R>(
        &mut self,
        step: impl FnOnce(&mut Group, Millis, &mut Vec<Effect>) -> R,
    ) -> Result<R, Violation> {
        let before = (self.group.state(), self.group.generation());
        let mut effects = Vec::new();
        let result = step(&mut self.group, self.now, &mut effects);
        self.carry_out(effects)?;
        if before.0 != self.group.state() || before.1 != self.group.generation() {
            self.state_since = self.now;
        }
        self.check_step(before)?;
        if self.group.is_unused() {
            self.group = Group::new(self.plan.limits);
        }
        Ok(result)
    }

    pub fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), Violation> {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Join(ticket, answer) => {
                    let waiting = self.answered(ticket)?;
                    self.check_join(&waiting, &answer)?;
                    let (client, incarnation) = (waiting.client, waiting.incarnation);
                    self.answer(client, incarnation, waiting.id, Answer::Join(answer));
                }
                Effect::Sync(ticket, answer) => {
                    let waiting = self.answered(ticket)?;
                    self.check_sync(&waiting, &answer)?;
                    let (client, incarnation) = (waiting.client, waiting.incarnation);
                    self.answer(client, incarnation, waiting.id, Answer::Sync(answer));
                }
                Effect::WakeAt(at) => {
                    let late = self.random.between(0, 20);
                    let at = at.max(self.now) + late;
                    self.push(at, Some(self.life), Event::Tick);
                }
                Effect::Store(record, then) => {
                    let fails = self.random.chance(self.faults.failed_writes);
                    if fails && self.random.chance(500) {
                        // It can't even be appended.
                        let mut more = Vec::new();
                        let error = Err(ResponseError::CoordinatorNotAvailable);
                        self.promises.totals.failed_writes += 1;
                        self.group.stored(self.now, then, error, &mut more);
                        effects.extend(more);
                    } else {
                        self.append(Some(record), Then::Machine(then), fails);
                    }
                }
            }
        }
        Ok(())
    }

    pub fn answered(&mut self, ticket: Ticket) -> Result<Waiting, Violation> {
        let waiting = self.waiting.remove(&ticket);
        waiting.ok_or_else(|| format!("ticket {ticket} is answered twice, or was never given"))
    }

    pub fn append(&mut self, record: Option<GroupMetadataValue>, then: Then, fails: bool) {
        self.log.push(record);
        let result = if fails {
            self.promises.totals.failed_writes += 1;
            Err(ResponseError::CoordinatorNotAvailable)
        } else {
            Ok(())
        };
        let write = Write {
            end: self.log.len(),
            then,
            result,
        };
        self.writes.push(Some(write));
        let delay = if self.random.chance(self.faults.slow_writes) {
            self.random.between(100, LONGEST_WRITE_MS)
        } else {
            self.random.between(0, 10)
        };
        let event = Event::Written(self.writes.len() - 1);
        self.push(self.now + delay, Some(self.life), event);
    }

    pub fn written(&mut self, write: usize) -> Result<(), Violation> {
        let Some(write) = self.writes.get_mut(write).and_then(Option::take) else {
            return Ok(());
        };
        self.note(|_| format!("a write up to {} ends: {:?}", write.end, write.result));
        if write.result.is_ok() {
            self.durable = self.durable.max(write.end);
        }
        match write.then {
            Then::Machine(then) => {
                self.step(|group, now, effects| group.stored(now, then, write.result, effects))
            }
            Then::Removed if write.result.is_ok() => {
                let had_record = self.group.has_record();
                // There may be another record since.
                if self.log[write.end..].iter().all(Option::is_none) {
                    self.group.record_removed();
                }
                if had_record && !self.group.has_record() {
                    self.promises.group_is_new();
                    self.promises.totals.deletions += 1;
                }
                Ok(())
            }
            Then::Removed => Ok(()),
        }
    }
}
