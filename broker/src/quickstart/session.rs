//! One run against a broker: feed, scores and display side by side, then the count.
//!
//! It knows nothing of the broker but its address, and runs on one thread of its own, as a client
//! elsewhere would.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};

use super::QuickstartError;
use super::client::{ClientError, Connection};
use super::display::Display;
use super::example::{ALERTS, DERIVED, INPUT};
use super::feed::{self, MAX_UNSCORED, Plan};
use super::scores::{self, Reader, Recount};
use super::tracker::{Alert, Counts, Latency, Tracker};

/// The model topic is given this long to appear.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(30);
/// Without a single score for this long while some are awaited, the rest counts as missing.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

const FEED_ID: &str = "quickstart-feed";
const SCORES_ID: &str = "quickstart-scores";
const COUNT_ID: &str = "quickstart-count";

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of the run.
    pub counts: Counts,
    /// Records that the run has brought to the alert topic, whoever produced what they are of.
    pub alert_records: u64,
    /// One of whom something is remembered: of the last alert, or of the last transaction.
    pub customer: Option<String>,
    /// From the first produce call to the last score.
    pub elapsed: Duration,
    /// End to end, of the whole run.
    pub latency: Option<Latency>,
    /// By another connection, which read the derived topic again; only where a number of records was
    /// asked for.
    pub recount: Option<Recount>,
}

impl Outcome {
    /// What is wrong, if anything is: transactions without a score, or with two.
    pub fn fault(&self) -> Option<String> {
        let counts = self.counts;
        let missing = counts.acknowledged - counts.scored.min(counts.acknowledged);
        if missing > 0 || counts.doubles > 0 {
            return Some(format!(
                "{missing} transactions are not scored, {} scores are doubles",
                counts.doubles
            ));
        }
        let recount = self.recount?;
        let missing = counts.acknowledged - recount.scored.min(counts.acknowledged);
        if missing > 0 || recount.doubles > 0 {
            return Some(format!(
                "counted again from the topic: {missing} transactions are not scored, {} scores are doubles",
                recount.doubles
            ));
        }
        None
    }
}

/// The topics as a run finds them.
#[derive(Debug)]
pub struct Start {
    /// End offsets of the input's partitions.
    pub input_ends: Vec<i64>,
    /// End offsets of the derived topic's partitions.
    pub derived_ends: Vec<i64>,
    /// End offsets of the alert topic's partitions.
    pub alert_ends: Vec<i64>,
}

impl Start {
    /// Transactions of earlier runs.
    pub fn earlier(&self) -> u64 {
        self.input_ends.iter().map(|&end| end.max(0) as u64).sum()
    }
}

/// Waits for both topics and looks where they end.
pub async fn look(address: SocketAddr) -> Result<Start, QuickstartError> {
    let mut connection = Connection::open(address, SCORES_ID).await?;
    let deadline = Instant::now() + TOPICS_TIMEOUT;
    loop {
        match ends(&mut connection).await {
            // Not there yet, or still being recovered.
            Err(ClientError::Refused { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return Ok(result?),
        }
    }
}

async fn ends(connection: &mut Connection) -> Result<Start, ClientError> {
    let partitions = connection.partitions(INPUT).await?;
    let derived_partitions = connection.partitions(DERIVED).await?;
    let alert_partitions = connection.partitions(ALERTS).await?;
    Ok(Start {
        alert_ends: connection.end_offsets(ALERTS, alert_partitions).await?,
        input_ends: connection.end_offsets(INPUT, partitions).await?,
        derived_ends: connection.end_offsets(DERIVED, derived_partitions).await?,
    })
}

/// Feeds, reads and shows until the records are scored or `stop` turns true and the rest is scored.
pub async fn run<W: Write>(
    address: SocketAddr,
    start: &Start,
    records: Option<u64>,
    rate: Option<u32>,
    display: &RefCell<Display<W>>,
    stop: watch::Receiver<bool>,
) -> Result<Outcome, QuickstartError> {
    let plan = Plan {
        first_index: start.earlier(),
        records,
        rate,
        partitions: start.input_ends.len() as i32,
    };
    let tracker = RefCell::new(Tracker::new(&start.input_ends)?);
    let room = Semaphore::new(MAX_UNSCORED);
    let fed = Cell::new(false);
    let (sender, receiver) = Connection::open(address, FEED_ID).await?.split(INPUT);
    let (request_sender, request_receiver) = mpsc::unbounded_channel();
    let derived = Connection::open(address, SCORES_ID).await?;
    let reader = Reader::new(derived, DERIVED, start.derived_ends.clone());
    let last_alert = Cell::new(None);
    let show = |alert: Alert| {
        last_alert.set(Some(alert.index));
        display.borrow_mut().alert(alert);
    };

    let started = Instant::now();
    let feeding = async {
        let send = feed::send(plan, sender, request_sender, &room, stop);
        let acknowledge = feed::acknowledge(receiver, request_receiver, &tracker, &room, show);
        tokio::try_join!(send, acknowledge)?;
        fed.set(true);
        Ok::<(), QuickstartError>(())
    };
    let showing = async {
        let interval = display.borrow().interval();
        loop {
            tokio::time::sleep(interval).await;
            let (counts, latency) = {
                let mut tracker = tracker.borrow_mut();
                (tracker.counts(), tracker.take_interval())
            };
            display.borrow_mut().line(counts, latency)?;
        }
    };
    tokio::select! {
        result = async {
            tokio::try_join!(feeding, watch_scores(reader, &tracker, &room, &fed, show))
        } => result?,
        result = showing => return result,
    };
    let tracker = tracker.into_inner();
    let recount = match records {
        Some(_) => Some(count_again(address, start, &tracker).await?),
        None => None,
    };
    let ended = tracker.last_scored().unwrap_or(started);
    let counts = tracker.counts();
    let last = plan.first_index + counts.scored.saturating_sub(1);
    let shown = last_alert.get().or((counts.scored > 0).then_some(last));
    let now = look(address).await?;
    let brought = now.alert_ends.iter().zip(&start.alert_ends);
    Ok(Outcome {
        counts,
        alert_records: brought
            .map(|(now, before)| (now - before).max(0) as u64)
            .sum(),
        customer: shown.map(|index| feed::transaction(index).transaction.customer_id),
        elapsed: ended.saturating_duration_since(started),
        latency: tracker.latency(),
        recount,
    })
}

/// Takes scores until all that was fed is scored, or none came for long.
async fn watch_scores(
    mut reader: Reader,
    tracker: &RefCell<Tracker>,
    room: &Semaphore,
    fed: &Cell<bool>,
    mut on_alert: impl FnMut(Alert),
) -> Result<(), QuickstartError> {
    let mut progress = Instant::now();
    loop {
        let counts = tracker.borrow().counts();
        let unscored = counts.acknowledged - counts.scored;
        if unscored == 0 {
            if fed.get() {
                return Ok(());
            }
            progress = Instant::now();
        } else if progress.elapsed() > STALL_TIMEOUT {
            // What is missing after the feed's end is for the summary to say.
            return match fed.get() {
                true => Ok(()),
                false => Err(QuickstartError::Stalled { unscored }),
            };
        }
        let scored = reader.next().await?;
        let now = Instant::now();
        for one in scored {
            let (done, alert) = tracker.borrow_mut().scored(one, now);
            if done {
                room.add_permits(1);
                progress = now;
            }
            alert.into_iter().for_each(&mut on_alert);
        }
    }
}

async fn count_again(
    address: SocketAddr,
    start: &Start,
    tracker: &Tracker,
) -> Result<Recount, QuickstartError> {
    let mut connection = Connection::open(address, COUNT_ID).await?;
    let partitions = start.derived_ends.len() as i32;
    let ends = connection.end_offsets(DERIVED, partitions).await?;
    let reader = Reader::new(connection, DERIVED, start.derived_ends.clone());
    scores::recount(reader, &ends, &tracker.offsets()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(acknowledged: u64, scored: u64, doubles: u64, recount: Option<Recount>) -> Outcome {
        Outcome {
            counts: Counts {
                acknowledged,
                scored,
                doubles,
                ..Counts::default()
            },
            alert_records: 0,
            customer: None,
            elapsed: Duration::from_secs(1),
            latency: None,
            recount,
        }
    }

    #[test]
    fn missing_scores_and_doubles_are_faults() {
        let recount = |scored, doubles| Some(Recount { scored, doubles });
        assert_eq!(outcome(5, 5, 0, None).fault(), None);
        assert_eq!(outcome(5, 5, 0, recount(5, 0)).fault(), None);
        for (bad, says) in [
            (outcome(5, 4, 0, recount(5, 0)), "1 transactions are not"),
            (outcome(5, 5, 2, recount(5, 0)), "2 scores are doubles"),
            (outcome(5, 5, 0, recount(3, 0)), "2 transactions are not"),
            (outcome(5, 5, 0, recount(5, 1)), "1 scores are doubles"),
        ] {
            let fault = bad.fault().unwrap_or_default();
            assert!(fault.contains(says), "{fault:?}");
        }
    }
}
