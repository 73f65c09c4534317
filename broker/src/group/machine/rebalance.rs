//! From PreparingRebalance to the next generation.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use super::join::answer_waiting;
use super::{Effect, Group, JoinTimer, Member, Millis, State, Stored, SyncAnswer};

/// How often a group of which nobody is there looks again, at least: a rebalance timeout may be 0.
const MIN_ABSENCE_MS: Millis = 1_000;

impl Group {
    /// Something changed: starts a rebalance, or sees whether the one under way is complete.
    pub(super) fn rebalance_or_complete(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(now, effects);
            }
            State::PreparingRebalance => self.complete_if_all_joined(now, effects),
            State::Dead => {}
        }
    }

    pub(super) fn prepare_rebalance(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if self.state == State::CompletingRebalance {
            self.fail_syncs(now, ResponseError::RebalanceInProgress, effects);
        }
        self.unsynced.clear();
        self.unsynced_deadline = None;
        let delay_ms = self.limits.initial_rebalance_delay_ms;
        if self.state == State::Empty && delay_ms > 0 {
            self.state = State::PreparingRebalance;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms);
            self.start_initial_delay(now, delay_ms, remaining_ms, effects);
            return;
        }
        self.state = State::PreparingRebalance;
        if self.all_joined() {
            self.complete_join(now, effects);
        } else {
            self.await_joins(now, effects);
        }
    }

    /// The members that wait for an assignment get `error`; assignments are void.
    pub(super) fn fail_syncs(
        &mut self,
        now: Millis,
        error: ResponseError,
        effects: &mut Vec<Effect>,
    ) {
        self.assignments = None;
        let mut answered = Vec::new();
        for (id, member) in &mut self.members {
            member.assignment.clear();
            if let Some(ticket) = member.sync.take() {
                effects.push(Effect::Sync(ticket, SyncAnswer::refused(error)));
                answered.push(id.clone());
            }
        }
        for id in answered {
            self.touch(now, &id, effects);
        }
    }

    fn start_initial_delay(
        &mut self,
        now: Millis,
        delay_ms: Millis,
        remaining_ms: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let deadline = now.saturating_add(delay_ms);
        let joined_meanwhile = false;
        self.join_timer = Some(JoinTimer::Initial {
            deadline,
            delay_ms,
            remaining_ms,
            joined_meanwhile,
        });
        self.wake(deadline, effects);
    }

    fn await_joins(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let deadline = now.saturating_add(self.rebalance_timeout_ms());
        self.join_timer = Some(JoinTimer::Rebalance { deadline });
        self.wake(deadline, effects);
    }

    fn rebalance_timeout_ms(&self) -> Millis {
        self.members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max()
            .unwrap_or(0)
    }

    fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.join.is_some())
    }

    pub(super) fn complete_if_all_joined(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let delayed = matches!(self.join_timer, Some(JoinTimer::Initial { .. }));
        if self.state == State::PreparingRebalance && !delayed && self.all_joined() {
            self.complete_join(now, effects);
        }
    }

    /// The join timer is due.
    pub(super) fn join_timer_fired(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        match self.join_timer.take() {
            Some(JoinTimer::Initial {
                delay_ms,
                remaining_ms,
                joined_meanwhile: true,
                ..
            }) if remaining_ms > 0 => {
                let next = self.limits.initial_rebalance_delay_ms.min(remaining_ms);
                let remaining_ms = remaining_ms.saturating_sub(delay_ms);
                self.start_initial_delay(now, next, remaining_ms, effects);
            }
            Some(_) => self.complete_join(now, effects),
            None => {}
        }
    }

    /// Begins the next generation with those who have joined.
    fn complete_join(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.join_timer = None;
        // A static member may be away for as long as its session lasts.
        let absent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.join.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in absent {
            self.remove_member(&id, effects);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only absent static members are left: wait for them, or for their sessions to end.
            let deadline = now.saturating_add(self.rebalance_timeout_ms().max(MIN_ABSENCE_MS));
            self.join_timer = Some(JoinTimer::Rebalance { deadline });
            return self.wake(deadline, effects);
        }
        // Kafka's generations are never negative.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.unsynced.clear();
        self.assignments = None;
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            self.leader = None;
            return self.store(self.record(None), Stored::Nothing, effects);
        }
        self.protocol = self.select_protocol();
        self.state = State::CompletingRebalance;
        self.answer_joins(now, effects);
        let deadline = now.saturating_add(self.rebalance_timeout_ms());
        self.unsynced_deadline = Some(deadline);
        self.wake(deadline, effects);
    }

    /// Everybody is to sync from here on, absent static members too. Their sessions go on as they
    /// are (in Kafka they begin anew, and a dead one stays for as long as the others rebalance).
    fn answer_joins(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let mut members = Vec::with_capacity(self.members.len());
        for (id, member) in &mut self.members {
            member.assignment.clear();
            let ticket = member.join.take();
            member.is_new &= ticket.is_none();
            members.push((id.clone(), ticket));
        }
        for (id, ticket) in members {
            if let Some(ticket) = ticket {
                let is_leader = self.leader.as_deref() == Some(&id);
                effects.push(Effect::Join(ticket, self.joined(&id, is_leader)));
                self.touch(now, &id, effects);
            }
            self.unsynced.insert(id);
        }
    }

    /// Keeps the leader if it has joined; false where nobody has.
    fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |member: &Member| member.join.is_some();
        if self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader))
            .is_some_and(has_joined)
        {
            return true;
        }
        match self.members.iter().find(|(_, member)| has_joined(member)) {
            Some((id, _)) => {
                self.leader = Some(id.clone());
                true
            }
            None => false,
        }
    }

    /// Of the protocols that every member offers, the one that most members like best; of equals,
    /// the first by name.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let by_all = |name: &str| self.offered.get(name) == Some(&self.members.len());
        let mut votes = BTreeMap::new();
        for member in self.members.values() {
            if let Some(best) = member
                .protocols
                .iter()
                .find(|protocol| by_all(&protocol.name))
            {
                *votes.entry(best.name.as_str()).or_insert(0usize) += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes
            .iter()
            .find(|(_, count)| **count == most)
            .map(|(name, _)| (*name).to_owned())
    }

    /// Removes a member; whatever it waits for is answered with UNKNOWN_MEMBER_ID.
    pub(super) fn remove_member(&mut self, member_id: &str, effects: &mut Vec<Effect>) {
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        answer_waiting(
            &mut member,
            member_id,
            ResponseError::UnknownMemberId,
            effects,
        );
        self.count(&member, false);
        if let Some(instance) = &member.instance_id
            && self
                .static_members
                .get(instance)
                .is_some_and(|id| id == member_id)
        {
            self.static_members.remove(instance);
        }
        self.unsynced.remove(member_id);
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }
}
