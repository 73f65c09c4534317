//! Model topics with real weights on the log in memory: one output for each input, in order, whatever fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use candle_core::{Device, Tensor};
use inference::engine::{Engine, EngineConfig};
use inference::model::{
    self, Footprint, InferError, Input, LoadOptions, LoadedModel, Model, Rows, Takes, load,
};
use inference::spec::{ModelTopicSpec, Start};
use inference::stream_log::memory::{CommitFault, MemoryLog, MemoryTopics, NewRecord};
use inference::stream_log::{
    Commit, CommitError, Error, Event, Header, Headers, InputEnd, Output, OutputTopic, Positions,
    StateSink, StreamLog, Task,
};
use inference::task::{MAX_WAITING_BYTES, Running, State, spawn};
use tokio::sync::watch;

const CARD: &str = r#"{
  "model_type": "linear", "task": "regress", "output": 1,
  "inputs": [{ "name": "amount", "path": "$.amount" }, { "path": "$.n", "default": 1.0 }]
}"#;

/// amount * 2 + n
fn model() -> LoadedModel {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), CARD).unwrap();
    let tensors = HashMap::from([
        (
            "layers.0.weight",
            Tensor::new(&[[2f32, 1.0]], &Device::Cpu).unwrap(),
        ),
        ("layers.0.bias", Tensor::new(&[0f32], &Device::Cpu).unwrap()),
    ]);
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    load("double", "7", folder.path(), &LoadOptions::default()).unwrap()
}

fn engine() -> Engine {
    Engine::start(model(), EngineConfig::default()).unwrap()
}

fn spec(more: &str) -> Arc<ModelTopicSpec> {
    #[derive(serde::Deserialize)]
    struct Config {
        model_topic: Vec<ModelTopicSpec>,
    }
    let toml = format!(
        "[[model_topic]]\nname = 'scored'\ninput = ['first', 'second']\nmodel = 'double'\n{more}"
    );
    let mut config: Config = toml::from_str(&toml).unwrap();
    Arc::new(config.model_topic.remove(0))
}

fn topics() -> MemoryTopics {
    MemoryTopics::new(&["first", "second"], 2, Start::Earliest)
}

fn start(topics: &MemoryTopics, more: &str) -> Running {
    spawn(spec(more), engine(), topics.open()).unwrap()
}

fn record(value: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        timestamp_ms: 1234,
        key: Some(Bytes::from_static(b"the key")),
        value: Some(value.into()),
        headers: Vec::new(),
    }
}

fn amounts(range: std::ops::Range<i64>) -> Vec<NewRecord> {
    range
        .map(|amount| record(format!(r#"{{"other":[{{}}],"amount":{amount}}}"#)))
        .collect()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .is_err()
    {
        panic!("{what} did not come");
    }
}

async fn until_committed(topics: &MemoryTopics, partition: i32, input: usize, position: i64) {
    until("the position", || {
        topics.positions(Task { partition }).get(&input) == Some(&position)
    })
    .await;
}

fn texts(headers: &Headers) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    headers
        .iter()
        .map(|header| {
            (
                text(&header.key),
                header.value.as_ref().map_or("null".into(), text),
            )
        })
        .collect()
}

fn header(output: &Output, key: &str) -> String {
    texts(&output.headers)
        .into_iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value)
        .unwrap_or_else(|| panic!("no header {key} in {output:?}"))
}

fn value(output: &Output) -> String {
    String::from_utf8(output.value.clone().unwrap().to_vec()).unwrap()
}

/// Each offset of an input gave one output, in order, with the right value.
fn assert_exactly_once(outputs: &[Output], input: &str, amounts: std::ops::Range<i64>) {
    let of_input: Vec<&Output> = outputs
        .iter()
        .filter(|output| header(output, "milena.source.topic") == input)
        .collect();
    assert_eq!(of_input.len() as i64, amounts.end - amounts.start);
    for (offset, (output, amount)) in of_input.iter().zip(amounts).enumerate() {
        assert_eq!(header(output, "milena.source.offset"), offset.to_string());
        let expected = format!("{{\"value\":{:?}}}", (amount * 2 + 1) as f32);
        assert_eq!(value(output), expected);
    }
}

#[tokio::test]
async fn gives_one_output_for_each_input_with_its_lineage() {
    let topics = topics();
    topics.append(0, 0, amounts(0..3000));
    let running = start(&topics, "batch = { max_records = 100 }");
    topics.append(1, 0, amounts(500..700));
    topics.append_invisible(0, 1, 2);
    topics.append(0, 1, vec![record(r#"{"amount":1,"n":0.5}"#)]);
    until_committed(&topics, 0, 0, 3000).await;
    until_committed(&topics, 0, 1, 200).await;
    until_committed(&topics, 1, 0, 3).await;
    assert_eq!(running.status().state, State::Running);
    // The log knows of a commit before the task does.
    until("no lag", || {
        running.status().lag.values().all(|lag| *lag == 0)
    })
    .await;
    running.stop().await;

    let outputs = topics.outputs(OutputTopic::Derived, 0);
    assert_exactly_once(&outputs, "first", 0..3000);
    assert_exactly_once(&outputs, "second", 500..700);
    let outputs = topics.outputs(OutputTopic::Derived, 1);
    assert_eq!(outputs.len(), 1);
    let output = &outputs[0];
    assert_eq!(value(output), r#"{"value":2.5}"#);
    assert_eq!(output.key.as_deref(), Some(&b"the key"[..]));
    assert_eq!(output.timestamp_ms, 1234);
    let headers = texts(&output.headers);
    let sha256 = &headers[2].1;
    let config = &headers[3].1;
    assert!(sha256.len() == 64 && config.len() == 64 && sha256 != config);
    let expected = [
        ("milena.model", "double"),
        ("milena.model.version", "7"),
        ("milena.model.sha256", sha256),
        ("milena.config.sha256", config),
        ("milena.source.topic", "first"),
        ("milena.source.partition", "1"),
        ("milena.source.offset", "2"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(headers, expected);
    assert!(topics.outputs(OutputTopic::DeadLetter, 0).is_empty());
}

/// The record, the stage and something of the reason that its dead letter has.
fn bad_records() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    vec![
        (b"not json".to_vec(), "decode", "not JSON"),
        (
            br#"{"n":1}"#.to_vec(),
            "decode",
            "\"amount\": is required, but is absent",
        ),
        (
            br#"{"amount":"12"}"#.to_vec(),
            "decode",
            "not the text \"12\"",
        ),
        (
            br#"{"amount":NaN}"#.to_vec(),
            "decode",
            "\"amount\": NaN is not JSON",
        ),
        (b"\xff\xfe".to_vec(), "decode", "not JSON"),
        // It is a number, but twice as much is not.
        (
            br#"{"amount":3e38}"#.to_vec(),
            "infer",
            "the model gives inf",
        ),
        (Vec::new(), "decode", "not JSON"),
    ]
}

#[tokio::test]
async fn sends_what_fails_to_the_dead_letters_and_the_rest_on() {
    let topics = topics();
    let mut records = Vec::new();
    for (bad, _, _) in bad_records() {
        records.extend(amounts(5..7));
        let mut bad = record(bad);
        bad.headers.push(Header {
            key: Bytes::from_static(b"theirs"),
            value: None,
        });
        records.push(bad);
    }
    let mut tombstone = record("");
    tombstone.value = None;
    records.push(tombstone);
    let count = records.len() as i64;
    topics.append(1, 1, records);
    let running = start(&topics, "");
    until_committed(&topics, 1, 1, count).await;
    running.stop().await;

    let outputs = topics.outputs(OutputTopic::Derived, 1);
    let values: Vec<Option<String>> = outputs
        .iter()
        .map(|output| output.value.as_ref().map(|_| value(output)))
        .collect();
    let mut expected: Vec<Option<String>> = Vec::new();
    for _ in bad_records() {
        expected.extend([
            Some(r#"{"value":11.0}"#.into()),
            Some(r#"{"value":13.0}"#.into()),
        ]);
    }
    expected.push(None);
    assert_eq!(values, expected);
    let tombstone = outputs.last().unwrap();
    assert_eq!(tombstone.key.as_deref(), Some(&b"the key"[..]));
    assert_eq!(
        header(tombstone, "milena.source.offset"),
        (count - 1).to_string()
    );

    let dead = topics.outputs(OutputTopic::DeadLetter, 1);
    assert_eq!(dead.len(), bad_records().len());
    for (index, (dead, (bad, stage, reason))) in dead.iter().zip(bad_records()).enumerate() {
        assert_eq!(dead.value.as_deref(), Some(&bad[..]));
        assert_eq!(
            (dead.key.as_deref(), dead.timestamp_ms),
            (Some(&b"the key"[..]), 1234)
        );
        let names: Vec<String> = texts(&dead.headers)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(names, ["theirs", "stage", "reason", "source"]);
        assert_eq!(header(dead, "stage"), stage);
        assert!(
            header(dead, "reason").contains(reason),
            "{}",
            header(dead, "reason")
        );
        assert_eq!(
            header(dead, "source"),
            format!("second/1/{}", index * 3 + 2)
        );
    }
}

#[tokio::test]
async fn skips_what_it_is_told_to_skip() {
    let topics = topics();
    for (bad, _, _) in bad_records() {
        topics.append(0, 0, vec![record(bad)]);
    }
    topics.append(0, 0, amounts(1..2));
    let running = start(&topics, "on_error = { decode = 'skip', infer = 'skip' }");
    until_committed(&topics, 0, 0, bad_records().len() as i64 + 1).await;
    running.stop().await;
    assert_eq!(topics.outputs(OutputTopic::Derived, 0).len(), 1);
    assert!(topics.outputs(OutputTopic::DeadLetter, 0).is_empty());
}

#[tokio::test]
async fn halts_before_what_it_is_told_to_fail_on() {
    for (bad, on_error) in [("{}", "decode"), (r#"{"amount":3e38}"#, "infer")] {
        let topics = topics();
        topics.append(0, 0, amounts(0..10));
        topics.append(0, 0, vec![record(bad)]);
        topics.append(0, 0, amounts(0..10));
        let running = start(&topics, &format!("on_error = {{ {on_error} = 'fail' }}"));
        until("the halt", || running.status().state != State::Running).await;
        let status = running.status();
        let State::Halted { reason } = status.state else {
            panic!("it runs");
        };
        assert!(
            reason.contains("offset 10") && reason.contains(on_error),
            "{reason}"
        );
        assert_eq!(status.lag[&0], 11);
        running.stop().await;
        let task = Task { partition: 0 };
        assert_eq!(
            topics.positions(task)[&0],
            10,
            "what is before it is committed"
        );
        assert_exactly_once(&topics.outputs(OutputTopic::Derived, 0), "first", 0..10);
        // With the error dealt with, it goes on where it was.
        let running = start(&topics, "on_error = { decode = 'skip', infer = 'skip' }");
        until_committed(&topics, 0, 0, 21).await;
        running.stop().await;
        assert_eq!(topics.outputs(OutputTopic::Derived, 0).len(), 20);
    }
}

#[tokio::test]
async fn gets_over_commits_that_fail() {
    let topics = topics();
    let faults = [
        CommitFault::Retry,
        CommitFault::UnknownDone,
        CommitFault::UnknownNotDone,
        CommitFault::Retry,
        CommitFault::Retry,
        CommitFault::UnknownDone,
    ];
    let running = start(&topics, "batch = { max_records = 7 }");
    for round in 0..60 {
        let fault = faults[round as usize % faults.len()];
        if round % 3 != 2 {
            topics.fail_commit(fault);
        }
        topics.append(0, 0, amounts(round * 50..round * 50 + 50));
        topics.append(1, 0, amounts(round * 10..round * 10 + 10));
        topics.append(0, 1, amounts(round * 20..round * 20 + 20));
        if round % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    until_committed(&topics, 0, 0, 3000).await;
    until_committed(&topics, 0, 1, 600).await;
    until_committed(&topics, 1, 0, 1200).await;
    assert_eq!(running.status().state, State::Running);
    running.stop().await;
    let outputs = topics.outputs(OutputTopic::Derived, 0);
    assert_eq!(outputs.len(), 3600);
    assert_exactly_once(&outputs, "first", 0..3000);
    assert_exactly_once(&outputs, "second", 0..600);
    assert_exactly_once(&topics.outputs(OutputTopic::Derived, 1), "first", 0..1200);
}

#[tokio::test]
async fn goes_on_after_being_stopped_or_dropped_at_any_time() {
    let topics = topics();
    for round in 0..20 {
        topics.append(0, 0, amounts(round * 100..round * 100 + 100));
        topics.append(1, 1, amounts(round * 100..round * 100 + 100));
        let running = start(&topics, "batch = { max_records = 9 }");
        tokio::time::sleep(Duration::from_micros(300 * round as u64)).await;
        match round % 2 {
            0 => running.stop().await,
            _ => drop(running),
        }
    }
    let running = start(&topics, "");
    until_committed(&topics, 0, 0, 2000).await;
    until_committed(&topics, 1, 1, 2000).await;
    running.stop().await;
    assert_exactly_once(&topics.outputs(OutputTopic::Derived, 0), "first", 0..2000);
    assert_exactly_once(&topics.outputs(OutputTopic::Derived, 1), "second", 0..2000);
}

#[tokio::test]
async fn halts_visibly_where_the_log_is_lost() {
    let topics = topics();
    let running = start(&topics, "");
    topics.append(0, 0, amounts(0..5));
    until_committed(&topics, 0, 0, 5).await;
    topics.fail_commit(CommitFault::Fatal);
    topics.append(0, 0, amounts(5..9));
    until("the halt", || running.status().state != State::Running).await;
    let State::Halted { reason } = running.status().state else {
        panic!("it runs");
    };
    assert!(reason.contains("injected"), "{reason}");
    assert_eq!(running.status().lag[&0], 4);
    running.stop().await;
    assert_eq!(topics.outputs(OutputTopic::Derived, 0).len(), 5);
}

#[tokio::test]
async fn steps_over_records_that_are_gone() {
    let topics = topics();
    topics.append(0, 0, amounts(0..10));
    let running = start(&topics, "");
    until_committed(&topics, 0, 0, 10).await;
    running.stop().await;
    topics.append(0, 0, amounts(10..30));
    topics.delete_records(0, 0, 25);
    let running = start(&topics, "");
    until_committed(&topics, 0, 0, 30).await;
    running.stop().await;
    let outputs = topics.outputs(OutputTopic::Derived, 0);
    let offsets: Vec<String> = outputs[10..]
        .iter()
        .map(|output| header(output, "milena.source.offset"))
        .collect();
    assert_eq!(offsets, ["25", "26", "27", "28", "29"]);
}

#[tokio::test]
async fn reads_and_writes_raw_rows_without_headers() {
    let topics = topics();
    let row = |values: [f32; 2]| values.map(f32::to_le_bytes).concat();
    let records = [
        row([1.0, 0.25]),
        row([f32::NAN, 0.0]),
        vec![1, 2, 3],
        row([-4.0, 0.0]),
    ];
    topics.append(0, 0, records.into_iter().map(record).collect());
    let running = start(
        &topics,
        "codec = { in = 'raw', out = 'raw' }\noutput = { headers = 'none' }",
    );
    until_committed(&topics, 0, 0, 4).await;
    running.stop().await;
    let outputs = topics.outputs(OutputTopic::Derived, 0);
    let values: Vec<&[u8]> = outputs
        .iter()
        .filter_map(|output| output.value.as_deref())
        .collect();
    assert_eq!(values, [2.25f32.to_le_bytes(), (-8.0f32).to_le_bytes()]);
    assert!(
        outputs
            .iter()
            .all(|output| output.headers.iter().next().is_none())
    );
    let dead = topics.outputs(OutputTopic::DeadLetter, 0);
    assert_eq!(header(&dead[0], "reason"), "number 0 of the row is NaN");
    assert_eq!(
        header(&dead[1], "reason"),
        "3 bytes, but a row of 2 f32s has 8"
    );
}

/// Fails a whole batch for one record of it.
struct Fragile(Box<dyn Model>);

impl Model for Fragile {
    fn takes(&self) -> Takes {
        self.0.takes()
    }
    fn output_width(&self) -> usize {
        self.0.output_width()
    }
    fn device(&self) -> model::Device {
        self.0.device()
    }
    fn footprint(&self) -> Footprint {
        self.0.footprint()
    }
    fn infer(&mut self, batch: &Input) -> Result<Rows, InferError> {
        let rows = batch.as_rows()?;
        if rows.values().contains(&13.0) {
            return Err(InferError("thirteen".to_owned()));
        }
        assert!(!rows.values().contains(&14.0), "fourteen");
        self.0.infer(batch)
    }
    fn replica(&self) -> Box<dyn Model> {
        Box::new(Self(self.0.replica()))
    }
}

#[tokio::test]
async fn bisects_poison_out_of_its_batch() {
    let topics = topics();
    topics.append(0, 0, amounts(0..200));
    let mut loaded = model();
    loaded.model = Box::new(Fragile(loaded.model));
    let engine = Engine::start(loaded, EngineConfig::default()).unwrap();
    let running = spawn(spec(""), engine, topics.open()).unwrap();
    until_committed(&topics, 0, 0, 200).await;
    running.stop().await;
    let outputs = topics.outputs(OutputTopic::Derived, 0);
    let offsets: Vec<String> = outputs
        .iter()
        .map(|output| header(output, "milena.source.offset"))
        .collect();
    let expected: Vec<String> = (0..200)
        .filter(|offset| ![13, 14].contains(offset))
        .map(|offset| offset.to_string())
        .collect();
    assert_eq!(offsets, expected);
    let dead = topics.outputs(OutputTopic::DeadLetter, 0);
    let reasons: Vec<String> = dead.iter().map(|dead| header(dead, "reason")).collect();
    assert_eq!(reasons, ["thirteen", "the model panicked: fourteen"]);
}

/// Answers so many batches, and waits for more to be allowed.
struct Allowed {
    model: Box<dyn Model>,
    batches: Arc<AtomicUsize>,
}

impl Model for Allowed {
    fn takes(&self) -> Takes {
        self.model.takes()
    }
    fn output_width(&self) -> usize {
        self.model.output_width()
    }
    fn device(&self) -> model::Device {
        self.model.device()
    }
    fn footprint(&self) -> Footprint {
        self.model.footprint()
    }
    fn infer(&mut self, batch: &Input) -> Result<Rows, InferError> {
        let take = || {
            let less = |left: usize| left.checked_sub(1);
            self.batches
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
        };
        while take().is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.model.infer(batch)
    }
    fn replica(&self) -> Box<dyn Model> {
        Box::new(Self {
            model: self.model.replica(),
            batches: Arc::clone(&self.batches),
        })
    }
}

#[tokio::test]
async fn what_a_slow_model_has_done_is_committed_batch_by_batch() {
    let topics = topics();
    topics.append(0, 0, amounts(0..100));
    let batches = Arc::new(AtomicUsize::new(2));
    let mut loaded = model();
    loaded.model = Box::new(Allowed {
        model: loaded.model,
        batches: Arc::clone(&batches),
    });
    let engine = Engine::start(loaded, EngineConfig::default()).unwrap();
    let spec = spec("batch = { max_records = 10 }");
    let running = spawn(spec, engine, topics.open()).unwrap();
    until_committed(&topics, 0, 0, 20).await;
    assert_eq!(topics.outputs(OutputTopic::Derived, 0).len(), 20);
    batches.store(usize::MAX, Ordering::Release);
    until_committed(&topics, 0, 0, 100).await;
    running.stop().await;
    assert_exactly_once(&topics.outputs(OutputTopic::Derived, 0), "first", 0..100);
}

#[tokio::test]
async fn a_poll_that_takes_long_to_decode_keeps_its_turn_at_the_model() {
    let topics = topics();
    let long = format!(r#"{{"other":[{}0],"amount":1}}"#, "[],".repeat(100_000));
    let mut quick = record(r#"{"amount":2}"#);
    // Enough to be decoded on a thread of its own.
    quick.key = Some(vec![b'k'; 100_000].into());
    topics.append(0, 0, vec![record(long), quick]);
    let batches = Arc::new(AtomicUsize::new(1));
    let mut loaded = model();
    loaded.model = Box::new(Allowed {
        model: loaded.model,
        batches: Arc::clone(&batches),
    });
    let engine = Engine::start(loaded, EngineConfig::default()).unwrap();
    let running = spawn(spec("batch = { max_records = 1 }"), engine, topics.open()).unwrap();
    until_committed(&topics, 0, 0, 1).await;
    batches.store(usize::MAX, Ordering::Release);
    until_committed(&topics, 0, 0, 2).await;
    running.stop().await;
}

#[tokio::test]
async fn shares_an_engine_between_model_topics() {
    let engine = engine();
    let topics: Vec<MemoryTopics> = (0..3).map(|_| topics()).collect();
    let running: Vec<Running> = topics
        .iter()
        .map(|topics| spawn(spec(""), engine.clone(), topics.open()).unwrap())
        .collect();
    for topics in &topics {
        topics.append(0, 0, amounts(0..2000));
    }
    for (topics, running) in topics.iter().zip(running) {
        until_committed(topics, 0, 0, 2000).await;
        running.stop().await;
        assert_exactly_once(&topics.outputs(OutputTopic::Derived, 0), "first", 0..2000);
    }
}

#[tokio::test]
async fn drops_a_fenced_task_and_commits_the_others() {
    let topics = topics();
    let running = start(&topics, "");
    topics.append(0, 0, amounts(0..1));
    topics.append(0, 1, amounts(0..1));
    until_committed(&topics, 0, 0, 1).await;
    until_committed(&topics, 1, 0, 1).await;
    // While a commit of the one is tried again, work of both becomes ready, for one commit.
    for _ in 0..4 {
        topics.fail_commit(CommitFault::Retry);
    }
    topics.append(0, 1, amounts(1..2));
    tokio::time::sleep(Duration::from_millis(20)).await;
    topics.append(0, 0, amounts(1..60));
    topics.append(0, 1, amounts(2..60));
    topics.fence(Task { partition: 0 });
    until_committed(&topics, 1, 0, 60).await;
    assert_eq!(running.status().state, State::Running);
    running.stop().await;
    let outputs = topics.outputs(OutputTopic::Derived, 1);
    assert_exactly_once(&outputs, "first", 0..60);
    assert_eq!(topics.outputs(OutputTopic::Derived, 0).len(), 1);
}

/// A log whose commits wait for a gate, and which counts what was read.
struct Held {
    log: MemoryLog,
    open: watch::Receiver<bool>,
    read_bytes: Arc<AtomicUsize>,
}

impl StreamLog for Held {
    async fn poll(&self, max_bytes: usize) -> Result<Vec<Event>, Error> {
        let events = self.log.poll(max_bytes).await?;
        for event in &events {
            if let Event::Records { records, .. } = event {
                let bytes: usize = records
                    .iter()
                    .filter_map(|r| Some(r.value.as_ref()?.len()))
                    .sum();
                self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        Ok(events)
    }

    async fn restore(
        &self,
        task: Task,
        sink: &mut (dyn StateSink + Send),
    ) -> Result<Positions, Error> {
        self.log.restore(task, sink).await
    }

    async fn commit(&self, commits: Arc<[Commit]>) -> Result<(), CommitError> {
        let mut open = self.open.clone();
        let _ = open.wait_for(|open| *open).await;
        self.log.commit(commits).await
    }

    fn pause(&self, task: Task, paused: bool) {
        self.log.pause(task, paused);
    }

    fn partitions(&self, topic: OutputTopic) -> Option<i32> {
        self.log.partitions(topic)
    }

    fn ends(&self) -> Vec<InputEnd> {
        self.log.ends()
    }

    fn inputs(&self) -> Arc<[String]> {
        self.log.inputs()
    }
}

#[tokio::test]
async fn reads_no_more_than_may_wait_for_a_commit() {
    let topics = topics();
    let padding = "x".repeat(10_000);
    let records = (0..10_000)
        .map(|amount| record(format!(r#"{{"amount":{amount},"padding":"{padding}"}}"#)))
        .collect();
    topics.append(0, 0, records);
    let (gate, open) = watch::channel(false);
    let read_bytes = Arc::new(AtomicUsize::new(0));
    let log = Held {
        log: topics.open(),
        open,
        read_bytes: Arc::clone(&read_bytes),
    };
    let running = spawn(spec(""), engine(), log).unwrap();
    let read = || read_bytes.load(Ordering::Relaxed);
    until("the bound", || read() > MAX_WAITING_BYTES / 2).await;
    let mut last = 0;
    until("the end of reading", || {
        std::thread::sleep(Duration::from_millis(100));
        last == std::mem::replace(&mut last, read())
    })
    .await;
    assert!(
        last < MAX_WAITING_BYTES + (1 << 20),
        "{last} bytes were read"
    );
    assert_eq!(topics.commits(), 0);
    gate.send_replace(true);
    until_committed(&topics, 0, 0, 10_000).await;
    running.stop().await;
    assert_exactly_once(&topics.outputs(OutputTopic::Derived, 0), "first", 0..10_000);
}

#[tokio::test]
async fn waits_for_its_commit_when_it_is_stopped() {
    let topics = topics();
    topics.append(0, 0, amounts(0..10));
    let (gate, open) = watch::channel(false);
    let read_bytes = Arc::new(AtomicUsize::new(0));
    let log = Held {
        log: topics.open(),
        open,
        read_bytes: Arc::clone(&read_bytes),
    };
    let running = spawn(spec(""), engine(), log).unwrap();
    until("the records", || read_bytes.load(Ordering::Relaxed) > 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopping = running.stop();
    tokio::pin!(stopping);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut stopping).await;
    assert!(early.is_err(), "it did not wait for its commit");
    gate.send_replace(true);
    stopping.await;
    assert_exactly_once(&topics.outputs(OutputTopic::Derived, 0), "first", 0..10);
}
