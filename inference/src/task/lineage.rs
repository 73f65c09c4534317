//! Where an output came from: headers of derived records and of dead letters.
//!
//! Derived records have, as UTF-8 texts, `milena.model`, `milena.model.version`, `milena.model.sha256` (of
//! the weights), `milena.config.sha256` (of the model topic's config and the model's card),
//! `milena.source.topic`, `milena.source.partition` and, last since it alone differs within a partition,
//! `milena.source.offset`. Dead letters have the original's headers, and then `stage` (`decode`, `features`,
//! `infer` or `output`), `reason`, and `source` (`topic/partition/offset`).

use std::fmt::Write;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::spec::{ModelTopicSpec, OutputHeaders};
use crate::stream_log::{Header, Headers};

/// Longest reason in a dead letter, in bytes.
const MAX_REASON_BYTES: usize = 1024;

/// Makes the headers of outputs.
pub(super) struct Lineage {
    with_headers: bool,
    inputs: Vec<Bytes>,
    model: Bytes,
    version: Bytes,
    sha256: Bytes,
    config_sha256: Bytes,
}

/// What derived records of one source have in common, and which source that is: records mostly come from the same as the
/// one before.
pub(super) type Shared = Option<(usize, i32, Arc<[Header]>)>;

impl Lineage {
    /// Without a model only dead letters have any.
    pub(super) fn new(
        spec: &ModelTopicSpec,
        engine: Option<&Engine>,
        inputs: &Arc<[String]>,
    ) -> Self {
        let text = |text: &String| Bytes::from(text.clone());
        let info = engine.map(Engine::info);
        let of_model = |part: fn(&crate::model::ModelInfo) -> &String| {
            info.map(|info| text(part(info))).unwrap_or_default()
        };
        Self {
            with_headers: spec.output.headers == OutputHeaders::Lineage,
            inputs: inputs.iter().map(text).collect(),
            model: of_model(|info| &info.name),
            version: of_model(|info| &info.version),
            sha256: of_model(|info| &info.sha256),
            config_sha256: engine
                .map(|engine| Bytes::from(config_sha256(spec, engine)))
                .unwrap_or_default(),
        }
    }

    /// What derived records of one partition of an input have in common.
    pub(super) fn shared(&self, input: usize, partition: i32, last: &mut Shared) -> Arc<[Header]> {
        match last {
            Some((of, from, shared)) if (*of, *from) == (input, partition) => Arc::clone(shared),
            _ => {
                let shared = self.make_shared(input, partition);
                *last = Some((input, partition, Arc::clone(&shared)));
                shared
            }
        }
    }

    fn make_shared(&self, input: usize, partition: i32) -> Arc<[Header]> {
        if !self.with_headers {
            return Arc::default();
        }
        [
            header("milena.model", self.model.clone()),
            header("milena.model.version", self.version.clone()),
            header("milena.model.sha256", self.sha256.clone()),
            header("milena.config.sha256", self.config_sha256.clone()),
            header("milena.source.topic", self.input(input)),
            header(
                "milena.source.partition",
                Bytes::from(partition.to_string()),
            ),
        ]
        .into()
    }

    /// Of a derived record, with what is [`Lineage::shared`]. The offset's text is written into `buffer`.
    pub(super) fn derived(
        &self,
        shared: &Arc<[Header]>,
        offset: i64,
        buffer: &mut BytesMut,
    ) -> Headers {
        if !self.with_headers {
            return Headers::default();
        }
        Headers {
            shared: Arc::clone(shared),
            own: vec![header("milena.source.offset", number(offset, buffer))],
        }
    }

    /// Of a dead letter, with its original's headers and where that was: input, partition and offset.
    pub(super) fn dead_letter(
        &self,
        (input, partition, offset): (usize, i32, i64),
        original: &[Header],
        stage: &'static str,
        reason: &str,
    ) -> Vec<Header> {
        let topic = self.input(input);
        let source = format!("{}/{partition}/{offset}", String::from_utf8_lossy(&topic));
        let reason = shortened(reason);
        let mut headers = original.to_vec();
        headers.extend([
            header("stage", Bytes::from_static(stage.as_bytes())),
            header("reason", Bytes::copy_from_slice(reason.as_bytes())),
            header("source", Bytes::from(source)),
        ]);
        headers
    }

    fn input(&self, input: usize) -> Bytes {
        self.inputs.get(input).cloned().unwrap_or_default()
    }
}

fn header(key: &'static str, value: Bytes) -> Header {
    Header {
        key: Bytes::from_static(key.as_bytes()),
        value: Some(value),
    }
}

fn shortened(reason: &str) -> &str {
    let longest = reason.len().min(MAX_REASON_BYTES);
    let end = (0..=longest)
        .rev()
        .find(|&end| reason.is_char_boundary(end));
    let end = end.unwrap_or(0);
    reason.get(..end).unwrap_or(reason)
}

fn number(number: i64, buffer: &mut BytesMut) -> Bytes {
    // A growing buffer does not fail.
    let _ = write!(buffer, "{number}");
    buffer.split().freeze()
}

/// Two model topics that would make the same of a record have the same.
fn config_sha256(spec: &ModelTopicSpec, engine: &Engine) -> String {
    let mut hash = Sha256::new();
    for part in [
        serde_json::to_vec(spec),
        serde_json::to_vec(&**engine.card()),
    ] {
        hash.update(part.unwrap_or_default());
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
