//! What goes wrong, besides lost messages and failed writes.

use broker::group::machine::{Group, Millis, State};

use crate::client::Phase;
use crate::message::{Body, Timer};
use crate::promises::LONGEST_HALT_MS;
use crate::world::{Event, Then, Violation, World};

impl World {
    /// Something that nobody asked for.
    pub fn incident(&mut self) -> Result<(), Violation> {
        if self.faults.incidents_every_ms == Millis::MAX {
            return Ok(());
        }
        let client = self.random.between(0, self.clients.len() as u64 - 1) as usize;
        match self.random.between(0, 11) {
            0 | 1 => self.kill(client),
            2 => self.pause(client),
            3 => self.leave(client),
            4 => {
                // It reads other topics from now on.
                self.clients[client].subscription += 1;
                if self.clients[client].phase == Phase::Stable {
                    self.start_join(client);
                }
            }
            5 if self.faults.restarts => self.restart()?,
            6 if self.now > self.broker_paused_until + LONGEST_HALT_MS => {
                let until = self.now + self.random.between(100, LONGEST_HALT_MS);
                self.broker_paused_until = until;
                self.note(|_| format!("the broker halts until {until}"));
            }
            7 => self.step(|group, now, effects| group.tick(now, effects))?,
            8 => self.delete(),
            9 => {
                // A client without group management.
                let body = Body::Commit {
                    member_id: String::new(),
                    generation: -1,
                };
                self.send(client, body);
            }
            10 => self.ask_for_an_id(client),
            _ => self.start_again(client),
        }
        if self.random.chance(300) {
            self.delete();
        }
        let next = self.random.between(1, self.faults.incidents_every_ms);
        self.push(self.now + next, None, Event::Incident);
        Ok(())
    }

    /// An administrator deletes the group.
    pub fn delete(&mut self) {
        if self.group.state() == State::Empty && self.group.has_record() {
            self.note(|_| "the group is deleted".to_owned());
            self.append(None, Then::Removed, false);
        }
    }

    /// The broker dies and comes back; what was not durable may be gone.
    pub fn restart(&mut self) -> Result<(), Violation> {
        let kept = self
            .random
            .between(self.durable as u64, self.log.len() as u64) as usize;
        self.log.truncate(kept);
        self.durable = kept;
        self.life += 1;
        self.writes.clear();
        self.waiting.clear();
        self.state_since = self.now;
        self.broker_paused_until = self.now;
        self.promises.totals.restarts += 1;
        let mut effects = Vec::new();
        let limits = self.plan.limits;
        match self.log.last() {
            Some(Some(record)) => {
                let record = record.clone();
                self.group = Group::restore(limits, self.now, record, &mut effects);
            }
            is_deleted => {
                if is_deleted.is_some() {
                    self.promises.group_is_new();
                }
                self.group = Group::new(limits);
            }
        }
        self.note(|world| format!("the broker restarts at {:?}", world.group.generation()));
        self.carry_out(effects)?;
        self.check_restored()?;
        for client in 0..self.clients.len() {
            // Its connection breaks.
            let waits_for = self.clients[client].waits_for;
            let delay = self.random.between(10, 500);
            self.after(delay, client, Timer::TimedOut(waits_for));
        }
        self.check_every_owner()
    }
}
