//! A group's member with rdkafka, as a process of its own, so that killing it is killing it. It
//! keeps the example programs' contract: prints what it read as JSON lines, then commits; leaves on
//! SIGTERM.

use std::collections::BTreeMap;
use std::io::{Stdout, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;

/// How often positions are committed, at most; beside that before a partition is given away.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(100);

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// `BOOTSTRAP TOPIC GROUP ASSIGNOR SESSION_TIMEOUT_MS [INSTANCE_ID]`
pub fn run(arguments: &[String]) -> Result<(), String> {
    let [bootstrap, topic, group, assignor, session_ms, instance @ ..] = arguments else {
        return Err(format!("a member with {} arguments", arguments.len()));
    };
    let handler = stop as extern "C" fn(libc::c_int);
    // SAFETY: the handler only stores into an atomic.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("partition.assignment.strategy", assignor)
        .set("session.timeout.ms", session_ms)
        .set("heartbeat.interval.ms", "1000")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false");
    if let [instance] = instance {
        config.set("group.instance.id", instance);
    }
    let consumer: BaseConsumer<Member> = config
        .create_with_context(Member {
            topic: topic.clone(),
            state: Mutex::new(State {
                output: std::io::stdout(),
                uncommitted: BTreeMap::new(),
            }),
        })
        .map_err(|error| error.to_string())?;
    consumer
        .subscribe(&[topic])
        .map_err(|error| error.to_string())?;
    let mut committed = Instant::now();
    while !STOP.load(Ordering::Relaxed) {
        match consumer.poll(POLL) {
            Some(Ok(message)) => consumer.context().print(&message)?,
            // Such as a connection that broke; what is fatal ends the process.
            Some(Err(error)) => match consumer.client().fatal_error() {
                Some((_, reason)) => return Err(reason),
                None => eprintln!("{error}"),
            },
            None => {}
        }
        if committed.elapsed() >= COMMIT_EVERY {
            consumer.context().commit(&consumer);
            committed = Instant::now();
        }
    }
    consumer.context().commit(&consumer);
    // Closing alone leaves no trace where a cooperative member owns nothing: librdkafka 2.12 sends no
    // LeaveGroup then, and its group waits for the end of the session.
    consumer.unsubscribe();
    consumer.poll(POLL);
    Ok(()) // the consumer is dropped, and leaves the group
}

struct Member {
    topic: String,
    state: Mutex<State>,
}

struct State {
    /// Buffers a line at most.
    output: Stdout,
    /// The next offset of each partition whose position has moved since its last commit.
    uncommitted: BTreeMap<i32, i64>,
}

impl Member {
    fn print(&self, message: &BorrowedMessage<'_>) -> Result<(), String> {
        let (partition, offset) = (message.partition(), message.offset());
        let value = message.payload().map(String::from_utf8_lossy);
        let state = &mut *self.state.lock().expect("the member's state");
        let line = json!({"partition": partition, "offset": offset, "value": value});
        writeln!(state.output, "{line}").map_err(|error| error.to_string())?;
        state.uncommitted.insert(partition, offset + 1);
        Ok(())
    }

    fn event(&self, event: &str, partitions: &TopicPartitionList) {
        let partitions: Vec<i32> = partitions
            .elements()
            .iter()
            .map(|e| e.partition())
            .collect();
        let output = &mut self.state.lock().expect("the member's state").output;
        let line = json!({"event": event, "partitions": partitions});
        // Whoever reads it may be gone.
        let _ = writeln!(output, "{line}");
    }

    /// Commits every position.
    fn commit(&self, consumer: &BaseConsumer<Self>) {
        let positions = self.take(|_| true);
        if !self.committed(consumer, &positions) {
            let state = &mut *self.state.lock().expect("the member's state");
            for (partition, offset) in positions {
                state.uncommitted.entry(partition).or_insert(offset);
            }
        }
    }

    /// Commits where the partitions stand that go to somebody else, so that they go on from there.
    /// Where that is refused they are read again from the last commit.
    fn hand_over(&self, consumer: &BaseConsumer<Self>, given_away: &TopicPartitionList) {
        let given_away = given_away.elements();
        let positions =
            self.take(|partition| given_away.iter().any(|e| e.partition() == partition));
        self.committed(consumer, &positions);
    }

    /// Takes the uncommitted positions of the partitions that `of` takes.
    fn take(&self, of: impl Fn(i32) -> bool) -> BTreeMap<i32, i64> {
        let state = &mut *self.state.lock().expect("the member's state");
        let (taken, kept) = std::mem::take(&mut state.uncommitted)
            .into_iter()
            .partition(|&(partition, _)| of(partition));
        state.uncommitted = kept;
        taken
    }

    fn committed(&self, consumer: &BaseConsumer<Self>, positions: &BTreeMap<i32, i64>) -> bool {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in positions {
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
        }
        list.count() == 0
            || consumer
                .commit(&list, CommitMode::Sync)
                .inspect_err(|error| eprintln!("commit of {positions:?}: {error}"))
                .is_ok()
    }
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => self.event("assigned", partitions),
            Rebalance::Revoke(partitions) => {
                self.hand_over(consumer, partitions);
                self.event("revoked", partitions);
            }
            Rebalance::Error(error) => eprintln!("rebalance: {error}"),
        }
    }
}
