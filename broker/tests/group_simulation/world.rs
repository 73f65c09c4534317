//! One history: a group's machine as the coordinator runs it, its clients, the network between
//! them and the log underneath, all driven by one queue of events.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use broker::group::machine::{Group, Millis, State, Stored, Ticket};
use broker::group::records::GroupMetadataValue;
use bytes::Bytes;
use kafka_protocol::ResponseError;

use crate::client::{Client, Phase};
use crate::message::{Answer, Body, Request, Timer, told};
use crate::plan::{Faults, NO_FAULTS, Plan};
use crate::promises::Promises;
use crate::random::Random;

/// What was promised and is not so.
pub type Violation = String;

#[derive(Clone, Debug)]
pub enum Event {
    Request(Request),
    Answer {
        client: usize,
        incarnation: u32,
        id: u64,
        answer: Answer,
    },
    Timer {
        client: usize,
        incarnation: u32,
        timer: Timer,
    },
    Tick,
    Written(usize),
    Incident,
}

/// An event of the broker belongs to one life of it: at a restart connections break, and with them
/// goes whatever is on its way.
pub struct Due {
    at: Millis,
    order: u64,
    pub life: Option<u32>,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A write that is under way.
pub struct Write {
    /// The records below this are durable when it is.
    pub end: usize,
    pub then: Then,
    pub result: Result<(), ResponseError>,
}

pub enum Then {
    Machine(Stored),
    /// The group is deleted.
    Removed,
}

/// Who waits for a ticket.
pub struct Waiting {
    pub client: usize,
    pub incarnation: u32,
    pub id: u64,
    /// The member id that it sent.
    pub member_id: String,
    /// And the generation, with a sync.
    pub generation: i32,
    /// What it said about itself, with a join.
    pub metadata: Bytes,
    /// When it came.
    pub since: Millis,
    /// The event that it came with.
    pub event: u64,
}

pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub faults: Faults,
    pub now: Millis,
    pub group: Group,
    pub clients: Vec<Client>,
    pub promises: Promises,
    pub waiting: HashMap<Ticket, Waiting>,
    /// When the group came to its state.
    pub state_since: Millis,
    /// The member that leaves in this step.
    pub leaves: Option<String>,
    /// Every record that was appended; `None` is a tombstone.
    pub log: Vec<Option<GroupMetadataValue>>,
    /// So many of them survive whatever happens.
    pub durable: usize,
    pub writes: Vec<Option<Write>>,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub life: u32,
    tickets: Ticket,
    pub requests: u64,
    pub ids: u64,
    pub broker_paused_until: Millis,
    pub trace: Option<Vec<String>>,
}

impl World {
    pub fn new(plan: Plan, random: Random, traced: bool) -> Self {
        let mut world = Self {
            group: Group::new(plan.limits),
            faults: plan.faults,
            plan,
            random,
            now: 1_000,
            clients: Vec::new(),
            promises: Promises::default(),
            waiting: HashMap::new(),
            state_since: 0,
            leaves: None,
            log: Vec::new(),
            durable: 0,
            writes: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            life: 0,
            tickets: 0,
            requests: 0,
            ids: 0,
            broker_paused_until: 0,
            trace: traced.then(Vec::new),
        };
        for client in 0..world.plan.clients {
            let new = Client::draw(client, &world.plan, &mut world.random);
            world.clients.push(new);
            let delay = world.random.between(0, 5_000);
            world.after(delay, client, Timer::Start);
        }
        let first = world
            .random
            .between(1, world.faults.incidents_every_ms.max(1));
        world.push(world.now.saturating_add(first), None, Event::Incident);
        world
    }

    /// Lets things go wrong for a while, then lets the group settle, within `patience_ms`.
    pub fn run(&mut self, patience_ms: Millis) -> Result<(), Violation> {
        let trouble_ends = self.now + self.plan.trouble_ms;
        while self.next_event_by(trouble_ends)? {}
        self.now = trouble_ends;
        self.note(|_| "the trouble is over".to_owned());
        self.faults = NO_FAULTS;
        self.broker_paused_until = self.now;
        for client in &mut self.clients {
            client.paused_until = client.paused_until.min(trouble_ends);
        }
        let deadline = trouble_ends + patience_ms;
        let mut look = trouble_ends;
        loop {
            look += 1_000;
            while self.next_event_by(look)? {}
            self.now = look;
            let Err(reason) = self.settled() else {
                self.promises.totals.settled += 1;
                return Ok(());
            };
            if look > deadline {
                return Err(format!("the group does not settle: {reason}"));
            }
            self.look_at_topics();
        }
    }

    /// A leader that sees partitions without an owner rejoins. A static cooperative member that
    /// gives some up, and starts again before it says so, leaves such behind: in Kafka too.
    pub fn look_at_topics(&mut self) {
        let leader = self.group.leader().unwrap_or_default();
        let mut clients = self.clients.iter();
        let leader = clients.position(|it| it.member_id == leader && it.phase == Phase::Stable);
        let owned: BTreeSet<u16> = self
            .clients
            .iter()
            .flat_map(|it| &it.owned)
            .copied()
            .collect();
        if let Some(leader) = leader
            && self.group.state() == State::Stable
            && owned.len() < usize::from(self.plan.partitions)
            && self.group.len() == self.clients.iter().filter(|it| it.is_up()).count()
        {
            self.start_join(leader);
        }
    }

    pub fn settled(&self) -> Result<(), String> {
        if !self.waiting.is_empty() {
            return Err(format!("{} tickets are not answered", self.waiting.len()));
        }
        let live: Vec<&Client> = self.clients.iter().filter(|it| it.is_up()).collect();
        if live.is_empty() {
            let is_empty = self.group.is_empty() && self.group.state() == State::Empty;
            return is_empty.then_some(()).ok_or(format!(
                "nobody is there, and it is {:?}",
                self.group.state()
            ));
        }
        if self.group.pending() > 0 {
            return Err(format!("{} ids are given out", self.group.pending()));
        }
        if self.group.state() != State::Stable || self.group.len() != live.len() {
            let (state, members) = (self.group.state(), self.group.len());
            return Err(format!("{state:?}, {members} members, {} live", live.len()));
        }
        let mut owned: BTreeSet<u16> = BTreeSet::new();
        for client in &live {
            let knows = client.phase == Phase::Stable
                && client.generation == self.group.generation()
                && self.group.has_member(&client.member_id);
            if !knows {
                return Err(format!("{:?} is not a member of it", client.member_id));
            }
            owned.extend(&client.owned);
        }
        let missing = usize::from(self.plan.partitions) - owned.len();
        (missing == 0)
            .then_some(())
            .ok_or(format!("{missing} partitions have no owner"))
    }

    pub fn push(&mut self, at: Millis, life: Option<u32>, event: Event) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Reverse(Due {
            at,
            order,
            life,
            event,
        }));
    }

    pub fn after(&mut self, delay: Millis, client: usize, timer: Timer) {
        let incarnation = self.clients[client].incarnation;
        let event = Event::Timer {
            client,
            incarnation,
            timer,
        };
        self.push(self.now + delay, None, event);
    }

    pub fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>7} {}", self.now, what(self));
            self.trace.get_or_insert_default().push(line);
        }
    }

    /// False where there is nothing to do until then.
    pub fn next_event_by(&mut self, end: Millis) -> Result<bool, Violation> {
        match self.queue.peek() {
            Some(Reverse(due)) if due.at <= end => {}
            _ => return Ok(false),
        }
        let Some(Reverse(due)) = self.queue.pop() else {
            return Ok(false);
        };
        self.now = self.now.max(due.at);
        if due.life.is_some_and(|life| life != self.life) {
            return Ok(true);
        }
        self.promises.totals.events += 1;
        let is_brokers = matches!(
            due.event,
            Event::Request(_) | Event::Tick | Event::Written(_)
        );
        if is_brokers && self.now < self.broker_paused_until {
            self.push(self.broker_paused_until, due.life, due.event);
            return Ok(true);
        }
        match due.event {
            Event::Request(request) => self.serve(request)?,
            Event::Answer {
                client,
                incarnation,
                id,
                answer,
            } => {
                let at = &self.clients[client];
                if at.incarnation != incarnation || !at.is_up() {
                    return Ok(true);
                }
                if self.now < at.paused_until {
                    let until = at.paused_until;
                    let event = Event::Answer {
                        client,
                        incarnation,
                        id,
                        answer,
                    };
                    self.push(until, due.life, event);
                    return Ok(true);
                }
                self.take_answer(client, id, answer)?;
            }
            Event::Timer {
                client,
                incarnation,
                timer,
            } => {
                let at = &self.clients[client];
                if at.incarnation != incarnation {
                    return Ok(true);
                }
                if self.now < at.paused_until {
                    let until = at.paused_until;
                    let event = Event::Timer {
                        client,
                        incarnation,
                        timer,
                    };
                    self.push(until, None, event);
                    return Ok(true);
                }
                self.take_timer(client, timer);
            }
            Event::Tick => {
                let before = (self.group.state(), self.group.generation());
                self.forget_the_gone();
                self.step(|group, now, effects| group.tick(now, effects))?;
                self.check_sessions(before)?;
                self.check_waiting()?;
            }
            Event::Written(write) => self.written(write)?,
            Event::Incident => self.incident()?,
        }
        Ok(true)
    }

    pub fn message_delay(&mut self) -> Millis {
        if self.random.chance(self.faults.slow_messages) {
            self.random.between(1_000, 15_000)
        } else {
            self.random.between(0, 30)
        }
    }

    pub fn send(&mut self, client: usize, body: Body) -> u64 {
        self.requests += 1;
        let id = self.requests;
        let request = Request {
            client,
            incarnation: self.clients[client].incarnation,
            id,
            body,
        };
        self.note(|_| format!("client {client} sends {}", told(&request.body)));
        if self.random.chance(self.faults.repeated) {
            let again = Request {
                id: 0,
                ..request.clone()
            };
            let delay = self.random.between(0, 20_000);
            self.push(self.now + delay, Some(self.life), Event::Request(again));
        }
        if !self.random.chance(self.faults.lost_requests) {
            let delay = self.message_delay();
            self.push(self.now + delay, Some(self.life), Event::Request(request));
        }
        id
    }

    pub fn answer(&mut self, client: usize, incarnation: u32, id: u64, answer: Answer) {
        if id == 0 || self.random.chance(self.faults.lost_responses) {
            return;
        }
        let event = Event::Answer {
            client,
            incarnation,
            id,
            answer,
        };
        let delay = self.message_delay();
        self.push(self.now + delay, Some(self.life), event);
    }

    pub fn ticket(&mut self, request: &Request, member_id: &str, generation: i32) -> Ticket {
        self.tickets += 1;
        let waiting = Waiting {
            client: request.client,
            incarnation: request.incarnation,
            id: request.id,
            member_id: member_id.to_owned(),
            generation,
            metadata: request.body.metadata(),
            since: self.now,
            event: self.promises.totals.events,
        };
        self.waiting.insert(self.tickets, waiting);
        self.tickets
    }
}
