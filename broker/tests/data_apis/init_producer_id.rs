use std::collections::HashSet;
use std::sync::Arc;

use broker::api::init_producer_id;
use broker::producer_ids::ProducerIds;
use futures_util::future::join_all;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::support::{TestBroker, answer, idempotent};

async fn init(test: &TestBroker, request: InitProducerIdRequest) -> InitProducerIdResponse {
    answer(init_producer_id::handle(&test.context(5), request).await).await
}

#[tokio::test]
async fn ids_are_new_even_for_a_producer_that_has_one() {
    let test = TestBroker::start().await;
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let first = init(&test, request.clone()).await;
    assert_eq!((first.error_code, first.producer_epoch), (0, 0));
    let again = request
        .with_producer_id(first.producer_id)
        .with_producer_epoch(first.producer_epoch);
    let second = init(&test, again).await;
    assert_eq!((second.error_code, second.producer_epoch), (0, 0));
    assert_ne!(second.producer_id, first.producer_id);

    let stored = test
        .produce("t", idempotent((second.producer_id.0, 0), 0, &["a"]))
        .await;
    assert_eq!((stored.error_code, stored.base_offset), (0, 0));
}

#[tokio::test]
async fn no_id_is_given_twice_by_many_at_once_nor_after_a_restart() {
    let test = TestBroker::start().await;
    let mut given = HashSet::new();
    // A restart forgets what is left of a block.
    for _ in 0..3 {
        let ids = ProducerIds::new(Arc::clone(&test.broker.catalog));
        for id in join_all((0..2500).map(|_| ids.next())).await {
            assert!(given.insert(id.unwrap()));
        }
    }
}
