//! `versus --scenario model-mlp`: a small perceptron on JSON records.

use std::time::Duration;

use super::arm::ARMS;
use super::subject::{Scale, Subject};
use super::workload::Workload;

const ABOUT: &str = "A perceptron 32-64-64-1 (ReLU, sigmoid) on JSON records of 1,024 bytes with 32 floats and \
    some texts, each record different, in 4 partitions. Every arm has both processors for everything, \
    and one thread for the model in each process; every output is `{\"label\":…,\"score\":…,\"scores\":{…}}` with its record's key, \
    and a sample of them is compared with what the model gives without a broker (within 1e-5).\n\n\
    - `milena`: a model topic, exactly once, with its default of seven lineage headers on each output; \
    `milena no headers` writes what the other arms write.\n\
    - `external`: Milena without model topics and a Rust process with librdkafka and the same code for JSON, \
    model and output; at least once. The difference is what being inside is worth.\n\
    - `kafka onnxruntime`, `kafka torch`: Kafka and `benches/versus/python/scorer.py` (confluent-kafka, orjson, \
    NumPy; ONNX Runtime or PyTorch on one thread); at least once.\n\
    - `bare`: decoding, model and encoding of records in memory in one thread, in batches of 1,024, without a \
    broker.\n\n\
    The arms outside have one process for all partitions or two for half of them each, whichever was faster before \
    the first round (`processes`). They take what is there, up to 1,024 records at a time, produce with a linger of \
    1 ms and acks=all, and commit offsets every second. \
    `records/s`: a backlog is there before scoring starts; outputs are counted from the first on, for up to 6 \
    seconds. CPU and memory are of all processes that serve, broker and scorers, meanwhile; RSS has the mapped \
    pages of log files that are in the page cache, anonymous memory does not. `cold start`: from the start of \
    the process that loads the model (Milena itself, with its backlog) to the first output. `p50 ms`, `p99 ms`: \
    end to end at half of the arm's own `records/s` in the first round, but at most 100,000 a second, since the \
    load generator has the same two processors; `p99 ms same rate`: at half of what the slowest arm managed before it.";

/// What is measured.
pub const SUBJECT: Subject = Subject {
    name: "model-mlp",
    about: ABOUT,
    row: "MLP 32-64-64-1, 1 KiB JSON, 4 partitions",
    record: "1024 bytes",
    arms: &ARMS,
    workload: Workload::rows,
    scale: Scale {
        backlog: 1_500_000,
        short_backlog: 800_000,
        drain_limit: Duration::from_secs(6),
        calibration_limit: Duration::from_secs(3),
        bare: 1_500_000,
        most_per_second: 100_000.0,
        first_per_second: 200.0,
        latency_seconds: 4,
    },
};
