//! `versus --scenario model-text`: MiniLM's embeddings of real texts.

use std::time::Duration;

use super::arm::{ARMS, Arm};
use super::subject::{Scale, Subject};
use super::workload::Workload;

const ABOUT: &str = "all-MiniLM-L6-v2 with its real weights (f32) on JSON records `{\"id\":…,\"body\":…}`, whose texts are the thousand \
    sentences of licences in `tests/minilm/texts.txt`, of 4 to 256 tokens, in 4 partitions. Every arm has both processors for everything, and one thread for \
    the model in each process or worker; every output is `{\"embedding\":[…]}` with its record's key, 384 numbers, and a sample of them is compared with \
    what the model gives without a broker (cosine at least 0.9999).\n\n\
    - `milena`: a model topic, exactly once, with its defaults: lineage headers, batches of up to 256 tokens, no cache of answers. Its \
    `processes` are the model's `workers`.\n\
    - `external`: Milena without model topics and a Rust process with librdkafka and the same code for JSON, tokens, model and output, up to 8 records at \
    a time; at least once.\n\
    - `kafka onnxruntime`, `kafka torch`: Kafka and `benches/versus/python/scorer.py` (confluent-kafka, orjson, tokenizers; the model as \
    transformers has it, in ONNX Runtime or PyTorch, on one thread), one record at a time, which is fastest there: a batch is padded to its longest text; at least once.\n\
    - `bare`: decoding, model and encoding of records in memory in one thread, 8 at a time, without a broker.\n\n\
    Processes, `records/s`, CPU, memory, cold start and latencies are as in `model-mlp`, with outputs counted for up to 8 seconds.";

/// What is measured.
pub const SUBJECT: Subject = Subject {
    name: "model-text",
    about: ABOUT,
    row: "MiniLM, sentences in JSON, 4 partitions",
    record: "a sentence each",
    arms: &TEXT_ARMS,
    workload: Workload::text,
    scale: Scale {
        backlog: 3000,
        short_backlog: 3000,
        drain_limit: Duration::from_secs(8),
        calibration_limit: Duration::from_secs(5),
        bare: 512,
        most_per_second: 1000.0,
        first_per_second: 10.0,
        latency_seconds: 6,
    },
};

/// Headers cost nothing beside such a model.
const TEXT_ARMS: [(&str, Arm); 4] = [ARMS[0], ARMS[2], ARMS[3], ARMS[4]];
