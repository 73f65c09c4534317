//! Whether a model topic and its model go together.

use bytesize::ByteSize;

use crate::codec::CodecError;
use crate::feature::plan::{Plan, PlanError};
use crate::model::card::Card;
use crate::model::{Footprint, LargestBatch};
use crate::spec::{ModelSource, ModelTopicSpec};

/// Where a model topic's codecs and features do not fit the model's card, or its batches the model's memory.
pub fn check_fit(
    spec: &ModelTopicSpec,
    source: &ModelSource,
    card: &Card,
    footprint: Footprint,
) -> Vec<PlanError> {
    let mut faults = Plan::faults(spec, Some(card));
    if let Some(most) = source.max_memory {
        let workers = source.engine.workers;
        let largest = largest_batch(spec, card);
        let needed = footprint.bytes(workers, largest);
        if needed > most {
            let size = |bytes| ByteSize::b(bytes).display().iec();
            let reason = format!(
                "model {:?} takes {} for its weights and, with a batch of {} records and {} tokens on each of \
                 {workers} workers, {} in all: more than its limits.max_memory of {}",
                source.name,
                size(footprint.weights),
                largest.records,
                largest.tokens.max(largest.longest),
                size(needed),
                size(most),
            );
            faults.push(PlanError::from(CodecError {
                key: "batch",
                reason,
            }));
        }
    }
    faults
}

fn largest_batch(spec: &ModelTopicSpec, card: &Card) -> LargestBatch {
    let records = *spec.batch.max_records.get_ref();
    let (tokens, longest) = match card {
        Card::Tabular(_) => (0, 0),
        Card::Text(card) => {
            let given = spec.text.as_ref().and_then(|text| text.max_tokens.as_ref());
            let longest = given.map_or(card.positions, |given| *given.get_ref());
            (*spec.batch.max_tokens.get_ref(), longest)
        }
    };
    LargestBatch {
        records,
        tokens,
        longest,
    }
}
