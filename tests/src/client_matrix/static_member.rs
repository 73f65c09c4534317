//! A static member (KIP-345) is back before its session is over.

use std::collections::BTreeSet;

use super::Setup;
use super::alone;
use super::client::{Client, ConsumerOptions, Feature};
use super::record::Record;
use super::reference;
use super::report::{Case, Outcome};

const PARTITIONS: i32 = 4;

/// It has the partitions again that it had, goes on where it was, and the other member is left alone.
pub fn run(setup: &Setup, client: &Client) -> Case {
    if let Some(why) = client.lacks(Feature::StaticMembers) {
        return Ok(Outcome::Lacking(why));
    }
    let topic = setup.name(client, "static");
    reference::create_topic(&setup.bootstrap, &topic, PARTITIONS)?;
    let member = |instance_id| {
        let options = ConsumerOptions {
            instance_id: Some(instance_id),
            ..ConsumerOptions::default()
        };
        client.consumer(&setup.bootstrap, &topic, &topic, options)
    };
    let all: BTreeSet<i32> = (0..PARTITIONS).collect();
    let first = member("first")?;
    first.wait_for("all partitions for the only member", |said| {
        (said.assigned == all).then_some(())
    })?;
    let second = member("second")?;
    second.wait_for("two partitions for the second member", |said| {
        (said.assigned.len() == 2 && first.look(|first| first.assigned.len() == 2)).then_some(())
    })?;
    let write = |name: &str| -> Result<(), String> {
        let records = (0..40).map(|n| Record::new(n % PARTITIONS, name, format!("{name} {n}")));
        reference::produce(
            &setup.bootstrap,
            &topic,
            "none",
            &records.collect::<Vec<_>>(),
        )
    };
    write("before")?;
    first.wait_for_records(20)?;
    second.wait_for_records(20)?;

    let changes = first.look(|said| said.changes);
    let had = second.look(|said| said.assigned.clone());
    second.stop()?;
    write("while it is away")?;
    let second = member("second")?;
    second.wait_for_records(20)?;
    first.wait_for_records(40)?;
    if second.look(|said| said.assigned.clone()) != had {
        return Err(format!(
            "it had {had:?} and now has {:?}",
            second.look(|said| said.assigned.clone())
        ));
    }
    if let Some(again) = second.look(|said| {
        said.read
            .iter()
            .find(|r| r.key.as_deref() == Some("before"))
            .cloned()
    }) {
        return Err(format!(
            "it reads a record again that it had read: {again:?}"
        ));
    }
    if first.look(|said| said.changes) != changes {
        return Err("the other member was rebalanced".to_owned());
    }
    second.stop()?;
    first.stop()?;
    alone::committed_to_the_end(setup, &topic, PARTITIONS)
}
