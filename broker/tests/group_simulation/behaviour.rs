//! What clients do in the world, when answers and timers come.

use broker::group::machine::{JoinAnswer, Millis, SyncAnswer};
use kafka_protocol::ResponseError;

use crate::client::{Client, Phase, STUCK_ON, assign, decode_assignment};
use crate::message::{Answer, Body, Timer};
use crate::plan::Plan;
use crate::random::Random;
use crate::world::{Violation, World};

const HEARTBEAT_MS: Millis = 3_000;
const REQUEST_TIMEOUT_MS: Millis = 10_000;

/// Longer than the coordinator may let a member take.
const STUCK_MS: Millis = 150_000;

impl Client {
    pub fn draw(index: usize, plan: &Plan, random: &mut Random) -> Self {
        let is_static = random.chance(plan.static_members);
        Self {
            kind: *random.pick(&plan.kinds),
            instance_id: is_static.then(|| format!("i{index}")),
            requires_known_member_id: random.chance(800),
            supports_skip_assignment: random.chance(600),
            session_timeout_ms: random.between(6_000, 12_000),
            rebalance_timeout_ms: random.between(5_000, plan.rebalance_timeout_ms),
            is_stuck: false,
            has_lost: false,
            phase: Phase::Down,
            incarnation: 0,
            member_id: String::new(),
            generation: -1,
            owned: Default::default(),
            owned_since: -1,
            waits_for: 0,
            heartbeat: 0,
            subscription: 0,
            paused_until: 0,
        }
    }
}

impl World {
    pub fn start_join(&mut self, client: usize) {
        let at = &mut self.clients[client];
        if !at.is_cooperative() {
            at.owned.clear();
        }
        at.phase = Phase::Joining;
        at.is_stuck = false;
        let body = Body::Join {
            member_id: at.member_id.clone(),
            protocols: at.protocols(),
        };
        let patience = at.rebalance_timeout_ms + 5_000;
        let id = self.send(client, body);
        self.clients[client].waits_for = id;
        self.after(patience, client, Timer::TimedOut(id));
    }

    pub fn take_timer(&mut self, client: usize, timer: Timer) {
        let at = &mut self.clients[client];
        match timer {
            Timer::Start if at.phase == Phase::Down => {
                at.phase = Phase::Idle;
                self.note(|_| format!("client {client} starts"));
                self.start_join(client);
            }
            Timer::Freed => at.is_stuck = false,
            Timer::Rejoin if at.phase == Phase::Idle => self.start_join(client),
            Timer::TimedOut(id) if at.waits_for == id => match at.phase {
                Phase::Joining | Phase::Syncing => self.start_join(client),
                _ => {}
            },
            Timer::Heartbeat(generation) if at.beats() && at.generation == generation => {
                let (member_id, generation) = (at.member_id.clone(), at.generation);
                // Who has no assignment has nothing to commit.
                let commits = at.phase == Phase::Stable && self.random.chance(300);
                let body = if commits {
                    Body::Commit {
                        member_id: member_id.clone(),
                        generation,
                    }
                } else {
                    Body::Heartbeat {
                        member_id,
                        generation,
                    }
                };
                let id = self.send(client, body);
                self.clients[client].heartbeat = id;
                self.after(HEARTBEAT_MS, client, Timer::Heartbeat(generation));
            }
            _ => {}
        }
    }

    pub fn take_answer(&mut self, client: usize, id: u64, answer: Answer) -> Result<(), Violation> {
        let at = &self.clients[client];
        match answer {
            Answer::Join(answer) if at.phase == Phase::Joining && at.waits_for == id => {
                self.take_join(client, answer)
            }
            Answer::Sync(answer) if at.phase == Phase::Syncing && at.waits_for == id => {
                self.take_sync(client, answer)
            }
            Answer::Heartbeat(Err(error)) if at.beats() && at.heartbeat == id => {
                self.take_error(client, error);
                Ok(())
            }
            Answer::Commit(Err(error), generation) if at.beats() && generation == at.generation => {
                self.take_error(client, error);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take_join(&mut self, client: usize, answer: JoinAnswer) -> Result<(), Violation> {
        if let Some(error) = answer.error {
            if error == ResponseError::MemberIdRequired {
                self.clients[client].member_id = answer.member_id;
                self.start_join(client);
            } else {
                self.take_error(client, error);
            }
            return Ok(());
        }
        let at = &mut self.clients[client];
        let missed = answer.generation > at.generation + 1;
        if at.instance_id.is_some() && missed {
            // Others may have been given what it has, while it was away.
            at.has_lost = !at.owned.is_empty();
            at.owned.clear();
        }
        at.member_id = answer.member_id.clone();
        at.generation = answer.generation;
        at.phase = Phase::Syncing;
        let mut assignments = Vec::new();
        if answer.leader == answer.member_id && !answer.skip_assignment {
            let protocol = answer.protocol.as_deref().unwrap_or_default();
            assignments = assign(protocol, &answer.members, self.plan.partitions);
        }
        let body = Body::Sync {
            member_id: answer.member_id,
            generation: answer.generation,
            assignments,
        };
        self.check_owner(client)?;
        if self.random.chance(self.faults.stuck) {
            self.note(|_| format!("client {client} is stuck"));
            self.promises.totals.stuck += 1;
            self.clients[client].waits_for = STUCK_ON;
            self.after(STUCK_MS, client, Timer::TimedOut(STUCK_ON));
            self.after(HEARTBEAT_MS, client, Timer::Heartbeat(answer.generation));
            return Ok(());
        }
        let id = self.send(client, body);
        self.clients[client].waits_for = id;
        self.after(REQUEST_TIMEOUT_MS, client, Timer::TimedOut(id));
        Ok(())
    }

    fn take_sync(&mut self, client: usize, answer: SyncAnswer) -> Result<(), Violation> {
        if let Some(error) = answer.error {
            self.take_error(client, error);
            return Ok(());
        }
        let assigned = decode_assignment(answer.assignment);
        let at = &mut self.clients[client];
        let revoked = at.owned.difference(&assigned).count();
        at.owned = assigned;
        at.owned_since = at.generation;
        at.phase = Phase::Stable;
        let generation = at.generation;
        let gives_up = at.is_cooperative() && (revoked > 0 || at.has_lost);
        at.has_lost = false;
        self.promises.totals.syncs += 1;
        self.note(|world| format!("client {client} owns {:?}", world.clients[client].owned));
        self.check_owner(client)?;
        if gives_up {
            self.promises.totals.handed_over += revoked as u64;
            self.start_join(client);
        } else {
            let delay = self.random.between(0, HEARTBEAT_MS);
            self.after(delay, client, Timer::Heartbeat(generation));
        }
        Ok(())
    }

    /// As Kafka's consumer takes errors.
    fn take_error(&mut self, client: usize, error: ResponseError) {
        self.note(|_| format!("client {client} hears {error:?}"));
        let backoff = self.random.between(50, 200);
        let at = &mut self.clients[client];
        match error {
            ResponseError::RebalanceInProgress if at.is_stuck => {}
            ResponseError::RebalanceInProgress => {
                if at.phase == Phase::Stable && self.random.chance(self.faults.stuck) {
                    self.promises.totals.stuck += 1;
                    self.clients[client].is_stuck = true;
                    // A static member that is alive is waited for, as in Kafka.
                    self.after(STUCK_MS, client, Timer::Freed);
                } else {
                    self.start_join(client);
                }
            }
            ResponseError::UnknownMemberId => {
                at.lose(false);
                self.after(backoff, client, Timer::Rejoin);
            }
            ResponseError::IllegalGeneration => {
                at.lose(true);
                self.after(backoff, client, Timer::Rejoin);
            }
            ResponseError::GroupIdNotFound => {
                at.lose(false);
                self.after(backoff, client, Timer::Rejoin);
            }
            ResponseError::FencedInstanceId
            | ResponseError::GroupMaxSizeReached
            | ResponseError::InconsistentGroupProtocol => {
                if error == ResponseError::FencedInstanceId {
                    self.promises.totals.fenced += 1;
                }
                at.lose(false);
                at.phase = Phase::Down;
                at.incarnation += 1;
            }
            _ => {
                // The coordinator is not there: it is looked for, and asked again.
                at.phase = Phase::Idle;
                self.after(backoff, client, Timer::Rejoin);
            }
        }
    }

    /// The process is gone without a word; often it is started again.
    pub fn kill(&mut self, client: usize) {
        let at = &mut self.clients[client];
        if !at.is_up() {
            return;
        }
        self.promises.totals.kills += 1;
        at.lose(false);
        at.phase = Phase::Down;
        at.incarnation += 1;
        self.note(|_| format!("client {client} dies"));
        if self.random.chance(700) {
            let longest = *self.random.pick(&[100, 15_000]);
            let delay = self.random.between(10, longest);
            self.after(delay, client, Timer::Start);
        }
    }

    pub fn start_again(&mut self, client: usize) {
        if !self.clients[client].is_up() {
            self.after(0, client, Timer::Start);
        }
    }

    /// It stops for a while, and goes on with what it knew.
    pub fn pause(&mut self, client: usize) {
        let until = self.now + self.random.between(1_000, 40_000);
        self.clients[client].paused_until = until;
        self.note(|_| format!("client {client} halts until {until}"));
    }

    /// It closes: dynamic members say so, static ones don't, and some start again.
    pub fn leave(&mut self, client: usize) {
        let at = &mut self.clients[client];
        if !at.is_up() {
            return;
        }
        let member_id = at.member_id.clone();
        let says_so =
            !member_id.is_empty() && (at.instance_id.is_none() || self.random.chance(200));
        if says_so {
            self.promises.totals.leaves += 1;
            self.send(client, Body::Leave { member_id });
        }
        let at = &mut self.clients[client];
        at.lose(false);
        at.phase = Phase::Down;
        at.incarnation += 1;
        if self.random.chance(700) {
            let delay = self.random.between(0, 10_000);
            self.after(delay, client, Timer::Start);
        }
    }

    /// Somebody asks for a member id, and is never heard of again.
    pub fn ask_for_an_id(&mut self, client: usize) {
        if self.clients[client].instance_id.is_none() {
            let body = Body::Join {
                member_id: String::new(),
                protocols: self.clients[client].protocols(),
            };
            self.send(client, body);
        }
    }
}
