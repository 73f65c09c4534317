//! What it takes to remember many keys: memory, the rate at which they are scored, and how long a start takes after a kill
//! and after a clean stop.
//!
//! ```sh
//! cargo run --release -p benches --bin state -- [--keys 1000000] [--max-bytes 512MiB]
//! ```
//!
//! A model topic with four windowed features by key gets two records of each key, in an order that visits all keys before
//! it comes back. Every count of the second pass has to be right. Then the broker is killed, and stopped cleanly, and each time the
//! start is timed until a key's state is told over HTTP; that the state of keys is right is checked too. With a small
//! `--max-bytes` most of it is on the disk.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytesize::ByteSize;
use clap::Parser;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::{Value, json};
use tests::Milena;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: i32 = 4;
/// How many keys' states are looked at.
const LOOKS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Parser)]
struct Arguments {
    /// How many keys
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// The model topic's state.max_bytes
    #[arg(long, default_value = "512MiB")]
    max_bytes: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let keys = arguments.keys;
    let model = tempfile::tempdir()?;
    write_model(model.path());
    let mut milena = Milena::start(&config(model.path(), &arguments.max_bytes));
    for pass in 0..2 {
        let started = Instant::now();
        produce(&milena, keys, pass)?;
        let seconds = until_scored(&milena, keys * (pass + 1), started)?;
        let place = |place: &str| {
            let name =
                format!("milena_model_topic_state_bytes{{topic=\"scored\",where=\"{place}\"}}");
            ByteSize::b(milena.metric(&name) as u64)
                .display()
                .iec()
                .to_string()
        };
        let (resident, _) = milena.resident_bytes();
        println!(
            "pass {}: {:.0} records/s; state {} in memory, {} on the disk; resident {}",
            pass + 1,
            keys as f64 / seconds,
            place("memory"),
            place("disk"),
            ByteSize::b(resident).display().iec(),
        );
    }
    check(&milena, keys)?;
    milena.kill();
    start(&mut milena, keys, "kill -9")?;
    let stopping = Instant::now();
    milena.stop();
    println!("clean stop: {:.2} s", stopping.elapsed().as_secs_f64());
    start(&mut milena, keys, "clean stop")
}

fn config(model: &std::path::Path, max_bytes: &str) -> String {
    let window = "window = { sliding = '1h', slice = '6m' }";
    format!(
        "[[topic]]\nname = 'in'\npartitions = {PARTITIONS}\nevent_time = {{ field = '$.ts', format = 'unix_ms' }}\n\
         [[model]]\nname = 'm'\nsource = {model:?}\n\
         [[model_topic]]\nname = 'scored'\ninput = 'in'\nmodel = 'm'\nstate = {{ max_bytes = '{max_bytes}' }}\n\
         [[model_topic.feature]]\nname = 'n'\nagg = 'count'\n{window}\n\
         [[model_topic.feature]]\nname = 'sum'\nagg = 'sum'\npath = '$.amount'\n{window}\n\
         [[model_topic.feature]]\nname = 'mean'\nagg = 'mean'\npath = '$.amount'\n{window}\n\
         [[model_topic.feature]]\nname = 'since'\nagg = 'time_since_last'\n"
    )
}

fn write_model(folder: &std::path::Path) {
    let inputs = ["n", "sum", "mean", "since"];
    let inputs = inputs.map(|name| json!({ "name": name, "path": format!("$.{name}") }));
    let card = json!({ "model_type": "linear", "task": "regress", "output": 1, "inputs": inputs });
    tests::write_model(
        folder,
        &card,
        &[
            ("layers.0.weight", &[1, 4], &[1.0, 0.0, 0.0, 0.0]),
            ("layers.0.bias", &[1], &[0.0]),
        ],
    );
}

fn produce(milena: &Milena, keys: usize, pass: usize) -> anyhow::Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> =
        milena.client_with(&[("acks", "all"), ("linger.ms", "5")]);
    for key in 0..keys {
        let text = format!("customer-{key:08}");
        let ts = 1_700_000_000_000_u64 + 1000 * pass as u64;
        let value = format!("{{\"ts\":{ts},\"amount\":{}.5}}", key % 1000);
        let record = BaseRecord::<[u8], [u8]>::to("in")
            .partition((key % PARTITIONS as usize) as i32)
            .key(text.as_bytes())
            .payload(value.as_bytes());
        tests::send(&producer, record);
    }
    producer.flush(PATIENCE)?;
    Ok(())
}

fn until_scored(milena: &Milena, records: usize, since: Instant) -> anyhow::Result<f64> {
    loop {
        let there: i64 = milena.ends("scored").values().sum();
        if there >= records as i64 {
            return Ok(since.elapsed().as_secs_f64());
        }
        ensure!(
            since.elapsed() < PATIENCE,
            "{there} of {records} are scored:\n{}",
            milena.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two records of each key were counted, in the outputs and in the state.
fn check(milena: &Milena, keys: usize) -> anyhow::Result<()> {
    for look in 0..LOOKS {
        let key = look * (keys / LOOKS).max(1);
        let state = state(milena, key).context("no state")?;
        ensure!(state["features"]["n"] == json!(2.0), "key {key}: {state}");
    }
    Ok(())
}

fn state(milena: &Milena, key: usize) -> Option<Value> {
    let (status, body) = milena.get(&format!("/v1/state/scored/customer-{key:08}"));
    (status == 200).then(|| serde_json::from_str(&body).ok())?
}

fn start(milena: &mut Milena, keys: usize, after: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    milena.restart();
    let serving = started.elapsed();
    while state(milena, keys - 1).is_none() {
        ensure!(started.elapsed() < PATIENCE, "no state:\n{}", milena.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    println!(
        "start after {after}: serves after {:.2} s, state is there after {:.2} s (restoring took {:.2} s)",
        serving.as_secs_f64(),
        started.elapsed().as_secs_f64(),
        milena.metric("milena_model_topic_restore_seconds{topic=\"scored\"}"),
    );
    check(milena, keys)
}
