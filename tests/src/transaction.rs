//! How an application ends its transactions with librdkafka: it asks again where an error may pass, aborts
//! where that is asked of it, and gives the producer up where there is nothing else to do.

use std::time::{Duration, Instant};

use rdkafka::bindings;
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};

use crate::PATIENCE;

/// How long one call may take before it is made again.
const CALL: Duration = Duration::from_secs(10);
/// A broker may be started again several times meanwhile.
const DEADLINE: Duration = Duration::from_secs(2 * PATIENCE.as_secs());

/// What a producer was told of its transaction's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is committed.
    Committed,
    /// It is aborted.
    Aborted,
    /// Nothing: the producer is of no more use, for this reason. The next one of the same id finds it ended, and
    /// does not learn how.
    Unknown(String),
}

/// Waits until everything that was sent is delivered or has failed, and has nothing linger. The producer's own flush
/// looks ten times a second, and leaves what lingers alone.
pub fn flush<C: ProducerContext + 'static>(producer: &ThreadedProducer<C>) {
    let deadline = Instant::now() + DEADLINE;
    while !flush_once(producer) {
        let waiting = producer.in_flight_count();
        assert!(
            Instant::now() < deadline,
            "{waiting} records are not delivered"
        );
    }
}

fn flush_once<C: ProducerContext + 'static>(producer: &ThreadedProducer<C>) -> bool {
    let client = producer.client().native_ptr();
    // SAFETY: the client is there for as long as the producer is; its thread takes the delivery reports.
    let flushed = unsafe { bindings::rd_kafka_flush(client, CALL.as_millis() as i32) };
    RDKafkaErrorCode::from(flushed) == RDKafkaErrorCode::NoError
}

/// Commits, or aborts where a commit is no longer possible.
pub fn commit<C: ProducerContext + 'static>(producer: &ThreadedProducer<C>) -> Ended {
    let deadline = Instant::now() + DEADLINE;
    loop {
        flush_once(producer);
        match producer.commit_transaction(CALL) {
            Ok(()) => return Ended::Committed,
            Err(error) => match next(&error) {
                Next::Again => assert!(Instant::now() < deadline, "it is not committed: {error}"),
                Next::Abort => return abort(producer),
                Next::GiveUp => return Ended::Unknown(error.to_string()),
            },
        }
    }
}

/// Aborts.
pub fn abort<C: ProducerContext + 'static>(producer: &ThreadedProducer<C>) -> Ended {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match producer.abort_transaction(CALL) {
            Ok(()) => return Ended::Aborted,
            Err(error) => match next(&error) {
                Next::Again | Next::Abort => {
                    assert!(Instant::now() < deadline, "it is not aborted: {error}");
                }
                Next::GiveUp => return Ended::Unknown(error.to_string()),
            },
        }
    }
}

/// Ends what earlier producers of its id have left open. The error is one that does not pass.
pub fn init<C: ProducerContext + 'static>(
    producer: &ThreadedProducer<C>,
) -> Result<(), RDKafkaError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match producer.init_transactions(CALL) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if !error.is_retriable() => return Err(error),
            Err(error) => assert!(Instant::now() < deadline, "it is not initialised: {error}"),
        }
    }
}

enum Next {
    Again,
    Abort,
    GiveUp,
}

fn next(error: &KafkaError) -> Next {
    match error {
        // Not everything is delivered yet.
        KafkaError::Flush(_) => Next::Again,
        KafkaError::Transaction(error) if error.txn_requires_abort() => Next::Abort,
        KafkaError::Transaction(error) if error.is_retriable() => Next::Again,
        _ => Next::GiveUp,
    }
}
