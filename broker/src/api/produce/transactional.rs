//! Appending a batch of a transaction: while the transaction cannot end.

use std::sync::Arc;

use bytes::Bytes;
use storage::PartitionLog;
use storage::partition_log::Appended;
use tokio::time::Instant;

use super::{Refusal, elsewhere};
use crate::api::transaction_version;
use crate::coordinator_log::Written;
use crate::router::RequestContext;
use crate::transaction::TransactionCoordinator;
use crate::transaction::coordinator::{InTransaction, LONGEST_WAIT, Write};
use crate::transaction::machine::{self, Producer, TopicPartition};

type Outcome = (Result<Appended, storage::Error>, Option<Written>);

/// What a batch of this producer asks of its transaction.
pub(super) fn write_of<'a>(
    (transactional_id, producer): (&'a str, Producer),
    partition: TopicPartition,
    api_version: i16,
) -> Write<'a> {
    Write {
        transactional_id,
        producer,
        partition,
        version: transaction_version::of_produce(api_version),
    }
}

/// Appends a batch. Where the producer's last transaction is being ended it waits for that.
pub(super) async fn append(
    ctx: &RequestContext,
    log: &Arc<PartitionLog>,
    records: Bytes,
    write: Write<'_>,
) -> Result<Outcome, Refusal> {
    let deadline = Instant::now() + LONGEST_WAIT;
    let refused = |refusal| Refusal::of_transaction(refusal, ctx.api_version);
    let transactions = &ctx.broker.transactions;
    if !log.opens(&records) {
        let step = |it: &Arc<TransactionCoordinator>| it.write(&write, || log.append(&records));
        let written = transactions.when_free(write.transactional_id, deadline, step);
        return written.await.map(outcome).map_err(refused);
    }
    // The transaction is kept from ending by a thread that opens the batch, and not by one that serves
    // connections.
    loop {
        let written = open(ctx, log, &records, &write).await?;
        match written {
            Err(machine::Refusal::Concurrent) if Instant::now() < deadline => {}
            written => return written.map(outcome).map_err(refused),
        }
        let is_free = |it: &Arc<TransactionCoordinator>| it.is_free(write.transactional_id);
        let free = transactions.when_free(write.transactional_id, deadline, is_free);
        free.await.map_err(refused)?;
    }
}

async fn open(
    ctx: &RequestContext,
    log: &Arc<PartitionLog>,
    records: &Bytes,
    write: &Write<'_>,
) -> Result<Result<InTransaction<Result<Appended, storage::Error>>, machine::Refusal>, Refusal> {
    let (transactions, log) = (Arc::clone(&ctx.broker.transactions), Arc::clone(log));
    let (records, id) = (records.clone(), write.transactional_id.to_owned());
    let (producer, partition) = (write.producer, write.partition.clone());
    let version = write.version;
    let work = move || {
        let write = Write {
            transactional_id: &id,
            producer,
            partition,
            version,
        };
        transactions.write(&write, || log.append(&records))
    };
    elsewhere(ctx, work).await
}

fn outcome(written: InTransaction<Result<Appended, storage::Error>>) -> Outcome {
    (written.done, written.added)
}
