//! One history: what happens next is drawn.

use kafka_protocol::ResponseError;

use crate::client::Client;
use crate::coordinator::{Coordinator, Disk};
use crate::message::{Answer, Message, Request};
use crate::promises::{Promises, Totals};
use crate::random::Random;

/// Steps in which anything may happen.
const STEPS: u64 = 1_500;
/// And then at most so many in which nothing goes wrong.
const QUIET_STEPS: u64 = 20_000;
/// After so long clients ask again.
const ASK_AGAIN_MS: i64 = 40;

pub struct World {
    random: Random,
    disk: Disk,
    coordinator: Coordinator,
    epoch: i32,
    clients: Vec<Client>,
    ids: usize,
    partitions: usize,
    requests: Vec<Message<Request>>,
    answers: Vec<Message<Answer>>,
    attempts: u64,
    now_ms: i64,
    /// How often the broker comes down, in per mille of the steps.
    trouble: u64,
    promises: Promises,
    pub trace: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let partitions = random.between(2, 4) as usize;
        let ids = random.between(1, 3) as usize;
        let mut world = Self {
            disk: Disk::new(partitions),
            coordinator: Coordinator::default(),
            epoch: 0,
            clients: Vec::new(),
            ids,
            partitions,
            requests: Vec::new(),
            answers: Vec::new(),
            attempts: 0,
            now_ms: 1_000,
            trouble: random.between(0, 8),
            promises: Promises::default(),
            trace: traced.then(Vec::new),
            random,
        };
        for id in 0..ids {
            world.start_client(id);
        }
        world
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let now_ms = self.now_ms;
            trace.push(format!("{now_ms}: {}", what()));
        }
    }

    fn start_client(&mut self, id: usize) {
        let number = self.clients.len();
        let client = Client::new(number, id, self.partitions, &mut self.random);
        self.note(|| format!("client {number} of id {id}: {client:?}"));
        self.clients.push(client);
    }

    pub fn run(&mut self) -> Result<Totals, String> {
        for _ in 0..STEPS {
            self.now_ms += self.random.between(0, 2) as i64;
            self.step()?;
        }
        self.settle()?;
        self.promises.check(&self.disk)?;
        Ok(self.promises.totals.clone())
    }

    fn step(&mut self) -> Result<(), String> {
        if self.random.chance(self.trouble) {
            return self.come_down();
        }
        match self.random.between(0, 999) {
            0..=249 => self.ask(true),
            250..=449 => self.deliver_request(),
            450..=599 => self.deliver_answer(),
            600..=749 => self.sync(),
            750..=929 => self.carry_out(),
            930..=949 => self.time_out(),
            950..=984 => self.ask_again(),
            985..=994 => self.lose(),
            _ => self.replace_client(),
        }
    }

    /// A client says what it wants next.
    fn ask(&mut self, may_begin: bool) -> Result<(), String> {
        let at = self.random.between(0, self.clients.len() as u64 - 1) as usize;
        let client = &mut self.clients[at];
        if let Some(request) = client.next(&mut self.promises, &mut self.random, may_begin) {
            self.send(at, request);
        }
        Ok(())
    }

    fn send(&mut self, client: usize, request: Request) {
        self.attempts += 1;
        let attempt = self.attempts;
        self.note(|| format!("client {client} asks {attempt}: {request:?}"));
        self.clients[client].asked = Some((attempt, request.clone(), self.now_ms));
        self.requests.push(Message {
            client,
            attempt,
            body: request,
        });
    }

    /// No answer has come for long.
    fn ask_again(&mut self) -> Result<(), String> {
        let at = self.random.between(0, self.clients.len() as u64 - 1) as usize;
        let client = &mut self.clients[at];
        let Some((attempt, request, since_ms)) = client.asked.clone() else {
            return Ok(());
        };
        if self.now_ms - since_ms < ASK_AGAIN_MS {
            return Ok(());
        }
        // Its connection is closed. Under transactions of version 1 nothing may come later than what is
        // asked after it: those have no defence.
        let stays = client.may_be_late() && self.random.chance(500);
        let before = self.requests.len();
        self.requests.retain(|it| it.attempt != attempt || stays);
        if stays && self.requests.iter().any(|it| it.attempt == attempt) {
            self.promises.totals.late += 1;
        } else if before == self.requests.len() {
            self.promises.totals.asked_again += 1;
        }
        self.answers.retain(|it| it.attempt != attempt);
        self.send(at, request);
        Ok(())
    }

    fn deliver_request(&mut self) -> Result<(), String> {
        if self.requests.is_empty() {
            return Ok(());
        }
        let at = self.random.between(0, self.requests.len() as u64 - 1) as usize;
        let message = self.requests.remove(at);
        let (client, attempt) = (message.client, message.attempt);
        let id = self.clients[client].id;
        let answer = self
            .coordinator
            .handle(&mut self.disk, id, self.now_ms, message);
        self.note(|| format!("{attempt} of client {client} is handled: {answer:?}"));
        self.answers.extend(answer);
        self.take_answers();
        Ok(())
    }

    fn take_answers(&mut self) {
        self.answers.extend(self.coordinator.answers(&self.disk));
    }

    fn deliver_answer(&mut self) -> Result<(), String> {
        if self.answers.is_empty() {
            return Ok(());
        }
        let at = self.random.between(0, self.answers.len() as u64 - 1) as usize;
        let Message {
            client,
            attempt,
            body,
        } = self.answers.remove(at);
        let asked = &mut self.clients[client].asked;
        if asked.as_ref().is_none_or(|(now, ..)| *now != attempt) {
            return Ok(());
        }
        *asked = None;
        self.note(|| format!("client {client} is told {attempt}: {body:?}"));
        self.clients[client].told(&body, &mut self.promises)
    }

    fn sync(&mut self) -> Result<(), String> {
        match self.random.between(0, self.partitions as u64) as usize {
            all if all == self.partitions => {
                self.disk.state.synced = self.disk.state.entries.len();
            }
            partition => {
                let log = &mut self.disk.partitions[partition];
                log.synced = log.entries.len();
            }
        }
        self.take_answers();
        Ok(())
    }

    fn carry_out(&mut self) -> Result<(), String> {
        if self.coordinator.tasks() == 0 {
            return Ok(());
        }
        let at = self.random.between(0, self.coordinator.tasks() as u64 - 1) as usize;
        let stepped = self
            .coordinator
            .step(&mut self.disk, at, self.now_ms, &mut self.promises)?;
        self.answers.extend(stepped);
        Ok(())
    }

    fn time_out(&mut self) -> Result<(), String> {
        let timed_out = self.coordinator.time_out(&mut self.disk, self.now_ms);
        if timed_out > 0 {
            self.note(|| "a transaction has timed out".to_owned());
        }
        self.promises.totals.timed_out += timed_out;
        Ok(())
    }

    /// A request or an answer gets lost; who waits asks again.
    fn lose(&mut self) -> Result<(), String> {
        if self.random.chance(500) {
            self.requests.pop();
        } else {
            self.answers.pop();
        }
        Ok(())
    }

    /// Another instance of a producer comes up; the one before it dies, or does not know.
    fn replace_client(&mut self) -> Result<(), String> {
        let id = self.random.between(0, self.ids as u64 - 1) as usize;
        if self.random.chance(500) {
            for client in self.clients.iter_mut().filter(|client| client.id == id) {
                client.die();
            }
        }
        self.start_client(id);
        Ok(())
    }

    /// The process is killed, or the power is cut; and it comes up again.
    fn come_down(&mut self) -> Result<(), String> {
        if self.random.chance(500) {
            self.promises.totals.kills += 1;
            self.note(|| "killed".to_owned());
        } else {
            self.promises.totals.power_cuts += 1;
            self.note(|| "the power is cut".to_owned());
            self.promises.power_cut();
            for log in &mut self.disk.partitions {
                let unsynced = log.entries.len() - log.synced;
                log.cut(self.random.between(0, unsynced as u64) as usize);
            }
            let unsynced = self.disk.state.entries.len() - self.disk.state.synced;
            let kept = self.random.between(0, unsynced as u64) as usize;
            self.disk.state.cut(kept);
        }
        // What was sent to it may come late, where that is defended against.
        let clients = &self.clients;
        self.requests.retain(|it| clients[it.client].may_be_late());
        self.answers.clear();
        self.epoch += 1;
        self.coordinator = Coordinator::open(&mut self.disk, self.epoch, &mut self.promises)?;
        Ok(())
    }

    /// From here on nothing goes wrong, and no transaction is begun.
    fn settle(&mut self) -> Result<(), String> {
        self.note(|| "nothing goes wrong from here on".to_owned());
        for _ in 0..QUIET_STEPS {
            self.now_ms += 10;
            let is_idle = self.clients.iter().all(|client| client.asked.is_none());
            if is_idle && self.requests.is_empty() && self.coordinator.is_quiet() {
                let has_more = self.clients.iter_mut().any(|client| {
                    let next = client.next(&mut self.promises, &mut self.random, false);
                    next.is_some()
                });
                if !has_more {
                    return Ok(());
                }
            }
            match self.random.between(0, 6) {
                0 => self.ask(false)?,
                1 => self.deliver_request()?,
                2 => self.deliver_answer()?,
                3 => self.sync()?,
                4 => self.carry_out()?,
                5 => self.ask_again()?,
                _ => self.time_out()?,
            }
        }
        let code = ResponseError::ConcurrentTransactions;
        Err(format!("nothing settles: somebody is told {code} for ever"))
    }
}
