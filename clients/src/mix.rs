//! `produce`, `consume`, and both at once on one topic.
//!
//! In a mix the consumers have their partitions before the first record is produced, start at the
//! end that the topic had then, and are done when each group has read as many records as were
//! acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::args::{
    Bounds, Consume, Consuming, From, Load, Mix, Output, Produce, Producing, Target,
};
use crate::clock::seconds_to_us;
use crate::consumer::{Group, Groups, Until};
use crate::error::Result;
use crate::payload::Payloads;
use crate::producer::Producer;
use crate::progress::Progress;
use crate::run::{Measured, Run};
use crate::settings::{self, TRANSACTIONAL_ID};
use crate::share::{Share, produce};
use crate::topic::Topic;
use crate::transactions::Transactional;

/// Runs `produce`.
pub fn run_produce(arguments: &Produce, payloads: Payloads) -> Result<Measured> {
    let Produce {
        target,
        bounds,
        load,
        producing,
        output,
    } = arguments;
    Both {
        target,
        bounds,
        load,
        producing,
        consuming: None,
        output,
    }
    .run(payloads)
}

/// Runs `mix`.
pub fn run_mix(arguments: &Mix, payloads: Payloads) -> Result<Measured> {
    let Mix {
        target,
        bounds,
        load,
        producing,
        consuming,
        output,
    } = arguments;
    Both {
        target,
        bounds,
        load,
        producing,
        consuming: Some(consuming),
        output,
    }
    .run(payloads)
}

/// Runs `consume`.
pub fn run_consume(arguments: &Consume) -> Result<Measured> {
    let (target, bounds) = (&arguments.target, &arguments.bounds);
    let patience = settings::patience(bounds.timeout_seconds);
    let topic = Topic::prepare(target, patience)?;
    let isolation = arguments.consuming.isolation_level;
    let offsets = topic.start(target, arguments.from, isolation, patience)?;
    let mut run = Run::new();
    run.begin(0);
    let until = Until {
        records: bounds.records,
        bytes: bounds.bytes,
        seconds: bounds.seconds_or_default(),
    };
    let groups = Groups::spawn(
        &mut run,
        target,
        &arguments.consuming,
        &topic,
        &offsets,
        until,
    )?;
    let progress = Progress::new(&arguments.output, bounds, groups.groups.len());
    Ok(run.watch(patience, progress))
}

/// Producers, and consumers where there are any.
struct Both<'a> {
    target: &'a Target,
    bounds: &'a Bounds,
    load: &'a Load,
    producing: &'a Producing,
    consuming: Option<&'a Consuming>,
    output: &'a Output,
}

impl Both<'_> {
    fn run(self, payloads: Payloads) -> Result<Measured> {
        let transactional = Transactional::of(self.target, self.load, self.producing)?;
        let patience = settings::patience(self.bounds.timeout_seconds);
        let topic = Topic::prepare(self.target, patience)?;
        let mut run = Run::new();
        let producers = self.connect(&mut run, &topic, transactional.as_ref(), patience)?;
        let groups = match self.consuming {
            Some(consuming) => {
                let isolation = consuming.isolation_level;
                let offsets = topic.start(self.target, From::Latest, isolation, patience)?;
                let until = Until::default();
                let groups =
                    Groups::spawn(&mut run, self.target, consuming, &topic, &offsets, until)?;
                run.wait_until(patience, || groups.joined())?;
                groups.groups
            }
            None => Vec::new(),
        };
        run.begin(seconds_to_us(self.load.warmup_seconds));
        let payloads = Arc::new(payloads);
        let delivered = Arc::new(Delivered {
            records: AtomicU64::new(0),
            producers: AtomicUsize::new(producers.len()),
            groups,
        });
        let count = producers.len();
        for (index, producer) in producers.into_iter().enumerate() {
            let (payloads, delivered) = (Arc::clone(&payloads), Arc::clone(&delivered));
            let share = Share {
                index,
                producers: count,
                bounds: self.bounds.clone(),
                load: self.load.clone(),
                producing: self.producing.clone(),
                transaction: transactional.as_ref().map(|plan| plan.duration),
            };
            run.spawn(format!("producer {index}"), move || {
                delivered.by_one_producer(produce(producer, &payloads, &share)?);
                Ok(())
            })?;
        }
        let patience = patience.max(self.load.between());
        let progress = Progress::new(self.output, self.bounds, 1);
        Ok(run.watch(patience, progress))
    }

    fn connect(
        &self,
        run: &mut Run,
        topic: &Topic,
        transactional: Option<&Transactional>,
        patience: Duration,
    ) -> Result<Vec<Producer>> {
        let Producing {
            linger_ms,
            in_flight,
            ..
        } = *self.producing;
        let (target, load) = (self.target, self.load);
        let config = settings::producer(target, load, linger_ms, in_flight, transactional)?;
        (1..=self.producing.producers)
            .map(|number| {
                let lane = run.producer_lane();
                let mut config = config.clone();
                if let Some(plan) = transactional {
                    config.set(TRANSACTIONAL_ID, plan.id(number));
                }
                Producer::connect(&config, run.shared(), lane, &topic.name, patience)
            })
            .collect()
    }
}

/// What all producers have delivered; the last one to end tells the groups.
struct Delivered {
    records: AtomicU64,
    producers: AtomicUsize,
    groups: Vec<Arc<Group>>,
}

impl Delivered {
    fn by_one_producer(&self, records: u64) {
        let total = self.records.fetch_add(records, Ordering::SeqCst) + records;
        if self.producers.fetch_sub(1, Ordering::SeqCst) == 1 {
            for group in &self.groups {
                group.set_target(total);
            }
        }
    }
}
