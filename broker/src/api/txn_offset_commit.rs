//! TxnOffsetCommit (28), versions 0 to 5: offsets that are committed when the producer's transaction is.
//!
//! Until then they are pending: OffsetFetch answers what was committed before, or, where what is stable is
//! asked for, UNSTABLE_OFFSET_COMMIT. They are on the device before the answer. From version 3 on a
//! member of the group says who it is (KIP-447), and is refused where it is no longer one; from version
//! 5 on (KIP-890) the offsets become part of the transaction by this alone.

use std::ops::RangeInclusive;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestTopic;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use tokio::time::Instant;

use crate::api::group_answer::{code, owned};
use crate::api::offset_commit::{Asked, Times, new_value};
use crate::api::transaction_version;
use crate::coordinator_log::InTransaction;
use crate::group::NewOffset;
use crate::group::machine::Committer;
use crate::group::offsets_topic::OFFSETS_TOPIC;
use crate::router::{Reply, RequestContext};
use crate::transaction::coordinator::{LONGEST_WAIT, Write};
use crate::transaction::machine::{Producer, Refusal};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

/// Appends the offsets; answers when they are on the device.
pub async fn handle(
    ctx: &RequestContext,
    request: TxnOffsetCommitRequest,
) -> Reply<TxnOffsetCommitResponse> {
    let times = Times::until_expired(ctx.broker.clock.now_ms());
    let mut offsets = Vec::new();
    let topics = request.topics.iter();
    let mut topics: Vec<_> = topics
        .map(|topic| take_topic(ctx, topic, &times, &mut offsets))
        .collect();
    let result = commit(ctx, &request, &offsets).await;
    let error = code(result.err());
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        // What is wrong with a partition itself would be so at the next try too.
        if partition.error_code == 0 {
            partition.error_code = error;
        }
    }
    Reply::Now(TxnOffsetCommitResponse::default().with_topics(topics))
}

async fn commit(
    ctx: &RequestContext,
    request: &TxnOffsetCommitRequest,
    offsets: &[NewOffset],
) -> Result<(), ResponseError> {
    let (groups, transactions) = (&ctx.broker.groups, &ctx.broker.transactions);
    let group = request.group_id.as_str();
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    groups.prepare_transactional_commit(group).await?;
    let partition = groups.offsets_partition(group);
    let partition = partition.ok_or(ResponseError::CoordinatorNotAvailable)?;
    let producer = Producer {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let committer = Committer {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let transaction = InTransaction {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
    };
    let write = Write {
        transactional_id: request.transactional_id.as_str(),
        producer,
        partition: (OFFSETS_TOPIC.to_owned(), partition),
        version: transaction_version::of_request(ctx.api_version),
    };
    let append = || groups.append_transactional(group, committer, transaction, offsets);
    let deadline = Instant::now() + LONGEST_WAIT;
    let step = |it: &Arc<_>| -> Result<_, Refusal> {
        crate::transaction::TransactionCoordinator::write(it, &write, append)
    };
    let written = transactions
        .when_free(write.transactional_id, deadline, step)
        .await
        .map_err(|refusal| transaction_version::for_offsets(refusal, ctx.api_version))?;
    let appended = written.done?;
    for written in appended.into_iter().chain(written.added) {
        written.wait().await.map_err(|error| {
            tracing::error!(group, %error, "a transaction's offset commit is not durable");
            error.code()
        })?;
    }
    Ok(())
}

fn take_topic(
    ctx: &RequestContext,
    request: &TxnOffsetCommitRequestTopic,
    times: &Times,
    offsets: &mut Vec<NewOffset>,
) -> TxnOffsetCommitResponseTopic {
    let name = owned(&request.name);
    let topic = ctx.broker.catalog.topic(&name);
    let partitions = request.partitions.iter().map(|partition| {
        let index = partition.partition_index;
        let asked = Asked {
            partition: index,
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: partition.committed_metadata.as_ref(),
        };
        let value = new_value(ctx, topic.as_deref(), &asked, times);
        let error = value.as_ref().err().copied();
        offsets.extend(value.ok().map(|value| NewOffset {
            topic: name.clone(),
            partition: index,
            value,
        }));
        TxnOffsetCommitResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(code(error))
    });
    let partitions = partitions.collect();
    TxnOffsetCommitResponseTopic::default()
        .with_name(request.name.clone())
        .with_partitions(partitions)
}
