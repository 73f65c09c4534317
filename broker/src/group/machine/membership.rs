//! Heartbeats, leaving, timers, and who may commit offsets.

use kafka_protocol::ResponseError;

use super::{Effect, Group, Millis, State};

/// A member that leaves, or is made to.
#[derive(Clone, Debug)]
pub struct Leaver {
    /// Empty where only the instance id is known (an administrator removes a static member).
    pub member_id: String,
    /// A static member's own name.
    pub instance_id: Option<String>,
}

/// Who commits offsets.
#[derive(Clone, Copy, Debug)]
pub struct Committer<'a> {
    /// Empty for a client that does not use group management.
    pub member_id: &'a str,
    /// A static member's own name.
    pub instance_id: Option<&'a str>,
    /// -1 for a client that does not use group management.
    pub generation: i32,
}

impl Group {
    /// A member is alive. REBALANCE_IN_PROGRESS asks it to rejoin.
    pub fn heartbeat(
        &mut self,
        now: Millis,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        self.touch(now, member_id, effects);
        match self.state {
            State::Empty | State::Dead => Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// Members leave; one result each.
    pub fn leave(
        &mut self,
        now: Millis,
        leavers: &[Leaver],
        effects: &mut Vec<Effect>,
    ) -> Vec<Result<(), ResponseError>> {
        let members = self.members.len();
        let results = leavers
            .iter()
            .map(|leaver| self.leave_one(leaver, effects))
            .collect();
        self.after_removal(now, members, effects);
        results
    }

    fn leave_one(
        &mut self,
        leaver: &Leaver,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        let instance_id = leaver.instance_id.as_deref();
        if self.pending.remove(&leaver.member_id).is_some() {
            return Ok(());
        }
        let member_id = match instance_id {
            Some(instance) if leaver.member_id.is_empty() => self
                .static_members
                .get(instance)
                .cloned()
                .ok_or(ResponseError::UnknownMemberId)?,
            _ => leaver.member_id.clone(),
        };
        self.check_member(&member_id, instance_id)?;
        self.remove_member(&member_id, effects);
        Ok(())
    }

    /// Of the `members` that there were, or of the ids that were given out, some may be gone.
    fn after_removal(&mut self, now: Millis, members: usize, effects: &mut Vec<Effect>) {
        match self.state {
            State::CompletingRebalance | State::Stable if self.members.len() < members => {
                self.prepare_rebalance(now, effects);
            }
            State::PreparingRebalance => self.complete_if_all_joined(now, effects),
            _ => {}
        }
    }

    /// Whether this client may commit offsets now; a member's commit counts as a heartbeat.
    pub fn check_commit(
        &mut self,
        now: Millis,
        committer: Committer<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ResponseError> {
        let Committer {
            member_id,
            instance_id,
            generation,
        } = committer;
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance_id.is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        if generation >= 0 && self.is_unused() {
            return Err(ResponseError::GroupIdNotFound);
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        self.touch(now, member_id, effects);
        match self.state {
            State::CompletingRebalance => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Whether offsets may be committed for this group in a transaction. Old clients say nothing of
    /// themselves; who does has to be a member. Unlike [`Group::check_commit`] it is no heartbeat, and
    /// may come while the group rebalances (KIP-447).
    pub fn check_transactional_commit(
        &self,
        committer: Committer<'_>,
    ) -> Result<(), ResponseError> {
        let Committer {
            member_id,
            instance_id,
            generation,
        } = committer;
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        let says_nothing = generation < 0 && member_id.is_empty() && instance_id.is_none();
        if says_nothing || (generation < 0 && self.state == State::Empty) {
            return Ok(());
        }
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok(())
    }

    /// The time asked for by [`Effect::WakeAt`] has come. Too early a call does nothing.
    pub fn tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if self.state == State::Dead || self.wake_at.is_none_or(|at| now < at) {
            return;
        }
        self.wake_at = None;
        let members = self.members.len();
        self.pending.retain(|_, deadline| now < *deadline);
        let expired: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| member.expires_at().is_some_and(|deadline| deadline <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &expired {
            self.remove_member(id, effects);
        }
        self.after_removal(now, members, effects);
        if self
            .unsynced_deadline
            .is_some_and(|deadline| deadline <= now)
        {
            self.drop_unsynced(now, effects);
        }
        if self.join_timer.is_some_and(|timer| timer.deadline() <= now) {
            self.join_timer_fired(now, effects);
        }
        self.schedule_next(effects);
    }

    /// Members that joined a generation and never asked for their assignment.
    fn drop_unsynced(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.unsynced_deadline = None;
        let members = self.members.len();
        for id in std::mem::take(&mut self.unsynced) {
            self.remove_member(&id, effects);
        }
        self.after_removal(now, members, effects);
    }

    fn schedule_next(&mut self, effects: &mut Vec<Effect>) {
        let members = self.members.values().filter_map(super::Member::expires_at);
        let next = members
            .chain(self.pending.values().copied())
            .chain(self.unsynced_deadline)
            .chain(self.join_timer.map(|timer| timer.deadline()))
            .min();
        if let Some(at) = next {
            self.wake(at, effects);
        }
    }
}
