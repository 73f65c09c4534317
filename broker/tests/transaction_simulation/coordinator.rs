//! The coordinator and the partitions: the order of steps around the machine, as
//! `broker/src/transaction/{coordinator,ending,start}.rs` and `broker/src/api/produce/transactional.rs`
//! have it.

use std::collections::BTreeMap;

use broker::transaction::machine::{
    Ending, Init, Initialized, Phase, Refusal, TopicPartition, Transaction,
};
use broker::transaction::records::{State, TransactionalIdState};
use kafka_protocol::ResponseError;
use storage::batch::{EndMarker, TransactionResult};

use crate::log::{Log, StateLog, batch};
use crate::message::{Answer, Message, Partition, Request};
use crate::promises::Promises;

/// Something that is on the device when so much of it is.
#[derive(Clone, Copy, Debug)]
pub enum Durable {
    State(usize),
    Partition(Partition, usize),
}

/// An answer that waits for the device.
#[derive(Clone, Debug)]
pub struct Waiting {
    until: Vec<Durable>,
    answer: Message<Answer>,
}

/// The end of a transaction.
#[derive(Clone, Debug)]
struct Task {
    id: usize,
    stage: Stage,
    /// Who is answered when it is decided.
    asked: Option<(usize, u64)>,
}

#[derive(Clone, Debug)]
enum Stage {
    Syncing(Vec<Durable>),
    Decided(Durable),
    Marking(Vec<Partition>),
    Marked(Vec<Durable>),
    Completed(Durable, Box<Transaction>),
}

/// What is on the disk.
#[derive(Clone, Debug)]
pub struct Disk {
    pub partitions: Vec<Log>,
    pub state: StateLog,
    pub next_producer_id: i64,
}

/// What is in memory.
#[derive(Clone, Debug, Default)]
pub struct Coordinator {
    ids: BTreeMap<usize, (Transaction, usize)>,
    tasks: Vec<Task>,
    waiting: Vec<Waiting>,
    epoch: i32,
}

fn named(partition: Partition) -> TopicPartition {
    ("t".to_owned(), partition as i32)
}

fn of_name(partition: &TopicPartition) -> Partition {
    partition.1 as usize
}

impl Disk {
    pub fn new(partitions: usize) -> Self {
        Self {
            partitions: vec![Log::default(); partitions],
            state: StateLog::default(),
            next_producer_id: 1,
        }
    }

    fn is_durable(&self, what: Durable) -> bool {
        match what {
            Durable::State(end) => self.state.synced >= end,
            Durable::Partition(partition, end) => self.partitions[partition].synced >= end,
        }
    }

    fn are_durable(&self, all: &[Durable]) -> bool {
        all.iter().all(|it| self.is_durable(*it))
    }

    fn is_offsets(&self, partition: Partition) -> bool {
        partition + 1 == self.partitions.len()
    }
}

impl Coordinator {
    /// A start.
    pub fn open(disk: &mut Disk, epoch: i32, promises: &mut Promises) -> Result<Self, String> {
        let mut coordinator = Self {
            epoch,
            ..Self::default()
        };
        disk.state.synced = disk.state.entries.len();
        for (id, bytes) in &disk.state.entries {
            let state = TransactionalIdState::decode(bytes).map_err(|error| error.to_string())?;
            coordinator
                .ids
                .insert(*id, (Transaction::restore(state), 0));
        }
        for partition in 0..disk.partitions.len() {
            for open in disk.partitions[partition].producers.with_open_transaction() {
                let is_known = coordinator.ids.values().any(|(machine, _)| {
                    let stored = &machine.stored;
                    let is_open = matches!(
                        stored.state,
                        State::Ongoing | State::PrepareCommit | State::PrepareAbort
                    );
                    let is_there = stored.partitions.contains(&named(partition));
                    is_open && is_there && stored.producer_id == open.producer_id
                });
                if !is_known {
                    let marker = EndMarker {
                        producer_id: open.producer_id,
                        producer_epoch: open.epoch,
                        coordinator_epoch: epoch,
                        result: TransactionResult::Abort,
                    };
                    promises.totals.unknown_aborted += 1;
                    mark(disk, partition, &marker, promises)?;
                }
            }
        }
        for (id, (machine, _)) in &coordinator.ids {
            if machine.phase == Phase::Marking {
                let partitions = machine.stored.partitions.iter().map(of_name);
                coordinator.tasks.push(Task {
                    id: *id,
                    stage: Stage::Marking(partitions.collect()),
                    asked: None,
                });
            }
        }
        Ok(coordinator)
    }

    /// Handles a request. The answer comes now, or when it is on the device.
    pub fn handle(
        &mut self,
        disk: &mut Disk,
        id: usize,
        now_ms: i64,
        message: Message<Request>,
    ) -> Option<Message<Answer>> {
        let (client, attempt) = (message.client, message.attempt);
        let outcome = self.try_handle(disk, id, now_ms, &message);
        let answer = |body| Message {
            client,
            attempt,
            body,
        };
        match outcome {
            Ok(None) => None,
            Ok(Some((until, body))) => {
                self.waiting.push(Waiting {
                    until,
                    answer: answer(body),
                });
                None
            }
            Err(Refusal::Error(error)) => Some(answer(Err(error))),
            Err(Refusal::Concurrent | Refusal::NeedsProducerId) => {
                Some(answer(Err(ResponseError::ConcurrentTransactions)))
            }
        }
    }

    fn try_handle(
        &mut self,
        disk: &mut Disk,
        id: usize,
        now_ms: i64,
        message: &Message<Request>,
    ) -> Result<Option<(Vec<Durable>, Answer)>, Refusal> {
        let unknown = Refusal::Error(ResponseError::InvalidProducerIdMapping);
        match &message.body {
            Request::Init(init) => self.init(disk, id, now_ms, *init).map(Some),
            Request::Add {
                producer,
                partition,
            } => {
                let (machine, added) = self.ids.get_mut(&id).ok_or(unknown)?;
                let version = broker::transaction::records::TransactionVersion::V1;
                if let Some(next) = machine.add(now_ms, *producer, &[named(*partition)], version)? {
                    *added = disk.state.append(id, &next.stored);
                    *machine = next;
                }
                Ok(Some((vec![Durable::State(*added)], Ok(None))))
            }
            Request::Write {
                producer,
                partition,
                sequence,
                tag,
                version,
                durable,
            } => {
                let (machine, added) = self.ids.get_mut(&id).ok_or(unknown)?;
                if version.raises_epoch() {
                    let next = machine.add(now_ms, *producer, &[named(*partition)], *version)?;
                    if let Some(next) = next {
                        *added = disk.state.append(id, &next.stored);
                        *machine = next;
                    }
                } else {
                    machine.verify(*producer, &named(*partition))?;
                }
                let sequence = (!disk.is_offsets(*partition)).then_some(*sequence);
                let bytes = batch(producer.id, producer.epoch, sequence);
                let end = disk.partitions[*partition].append(bytes, *tag);
                let end = end.map_err(|error| Refusal::Error(code_of(&error)))?;
                let mut until = vec![Durable::State(*added)];
                until.extend(durable.then_some(Durable::Partition(*partition, end)));
                Ok(Some((until, Ok(None))))
            }
            Request::End(end) => {
                let (machine, _) = self.ids.get_mut(&id).ok_or(unknown)?;
                let fresh = Some(disk.next_producer_id);
                disk.next_producer_id += 1;
                let asked = Some((message.client, message.attempt));
                let stage = match machine.end(now_ms, *end, fresh)? {
                    Ending::Done(producer) => return Ok(Some((Vec::new(), Ok(Some(producer))))),
                    Ending::SyncFirst(next) => {
                        *machine = next;
                        let partitions = machine.stored.partitions.iter().map(of_name);
                        let ends = partitions
                            .map(|it| Durable::Partition(it, disk.partitions[it].entries.len()));
                        Stage::Syncing(ends.collect())
                    }
                    Ending::Decide(next) => {
                        let end = disk.state.append(id, &next.stored);
                        *machine = next;
                        Stage::Decided(Durable::State(end))
                    }
                };
                self.tasks.push(Task { id, stage, asked });
                Ok(None)
            }
        }
    }

    fn init(
        &mut self,
        disk: &mut Disk,
        id: usize,
        now_ms: i64,
        init: Init,
    ) -> Result<(Vec<Durable>, Answer), Refusal> {
        let fresh = disk.next_producer_id;
        disk.next_producer_id += 1;
        let entry = self.ids.entry(id);
        let (machine, _) = entry.or_insert_with(|| (Transaction::new(fresh, now_ms), 0));
        match machine.init(now_ms, init, Some(fresh))? {
            Initialized::As(next) => {
                let end = disk.state.append(id, &next.stored);
                *machine = next;
                let producer = machine.producer();
                Ok((vec![Durable::State(end)], Ok(Some(producer))))
            }
            Initialized::AbortFirst(next) => {
                self.abort(disk, id, next);
                Err(Refusal::Concurrent)
            }
        }
    }

    fn abort(&mut self, disk: &mut Disk, id: usize, next: Transaction) {
        let end = disk.state.append(id, &next.stored);
        self.ids.insert(id, (next, end));
        self.tasks.push(Task {
            id,
            stage: Stage::Decided(Durable::State(end)),
            asked: None,
        });
    }

    /// Aborts what is open for too long. Returns how many.
    pub fn time_out(&mut self, disk: &mut Disk, now_ms: i64) -> u64 {
        let ids = self.ids.iter();
        let timed_out: Vec<_> = ids
            .filter_map(|(id, (machine, _))| Some((*id, machine.timed_out(now_ms)?)))
            .collect();
        let count = timed_out.len() as u64;
        for (id, next) in timed_out {
            self.abort(disk, id, next);
        }
        count
    }

    /// Answers that are on the device by now.
    pub fn answers(&mut self, disk: &Disk) -> Vec<Message<Answer>> {
        let waiting = std::mem::take(&mut self.waiting);
        let (done, waiting): (Vec<_>, _) = waiting
            .into_iter()
            .partition(|waiting| disk.are_durable(&waiting.until));
        self.waiting = waiting;
        done.into_iter().map(|waiting| waiting.answer).collect()
    }

    /// How many ends are under way.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// One step of one end, where it can be taken.
    pub fn step(
        &mut self,
        disk: &mut Disk,
        at: usize,
        now_ms: i64,
        promises: &mut Promises,
    ) -> Result<Option<Message<Answer>>, String> {
        let task = self.tasks.remove(at);
        let (machine, _) = self.ids.get_mut(&task.id).ok_or("no such id")?;
        let mut answer = None;
        let stage = match task.stage {
            Stage::Syncing(ends) if disk.are_durable(&ends) => {
                let next = machine.synced(now_ms);
                let end = disk.state.append(task.id, &next.stored);
                *machine = next;
                Stage::Decided(Durable::State(end))
            }
            Stage::Decided(end) if disk.is_durable(end) => {
                answer = task.asked.map(|(client, attempt)| Message {
                    client,
                    attempt,
                    body: Ok(Some(machine.after_end())),
                });
                Stage::Marking(machine.stored.partitions.iter().map(of_name).collect())
            }
            Stage::Marking(mut left) => match left.pop() {
                Some(partition) => {
                    let marker = machine.marker(self.epoch).ok_or("nothing is decided")?;
                    mark(disk, partition, &marker, promises)?;
                    Stage::Marking(left)
                }
                None => {
                    let partitions = machine.stored.partitions.iter().map(of_name);
                    let ends = partitions
                        .map(|it| Durable::Partition(it, disk.partitions[it].entries.len()));
                    Stage::Marked(ends.collect())
                }
            },
            Stage::Marked(ends) if disk.are_durable(&ends) => {
                let next = machine.completed(now_ms);
                let end = disk.state.append(task.id, &next.stored);
                Stage::Completed(Durable::State(end), Box::new(next))
            }
            Stage::Completed(end, next) if disk.is_durable(end) => {
                *machine = *next;
                return Ok(None);
            }
            waits => waits,
        };
        let asked = task.asked.filter(|_| answer.is_none());
        let id = task.id;
        self.tasks.insert(at, Task { id, stage, asked });
        Ok(answer)
    }

    /// No transaction is open or being ended.
    pub fn is_quiet(&self) -> bool {
        let mut machines = self.ids.values();
        self.tasks.is_empty()
            && machines.all(|(machine, _)| {
                machine.phase == Phase::Idle && machine.stored.state != State::Ongoing
            })
    }
}

fn mark(
    disk: &mut Disk,
    partition: Partition,
    marker: &EndMarker,
    promises: &mut Promises,
) -> Result<(), String> {
    let log = &mut disk.partitions[partition];
    promises.marked(&log.open_tags(marker.producer_id), marker.result)?;
    match log.mark(marker) {
        Ok(()) | Err(storage::Error::StaleProducerEpoch { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn code_of(error: &storage::Error) -> ResponseError {
    match error {
        storage::Error::StaleProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        storage::Error::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        _ => ResponseError::UnknownServerError,
    }
}
