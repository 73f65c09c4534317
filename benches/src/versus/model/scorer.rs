//! Decoding, model and encoding in one thread, with the broker's own code and nothing around it: what
//! the arms `bare` and `external` run, and what all outputs are compared with.

use std::path::Path;

use anyhow::{Context, ensure};
use bytes::BytesMut;
use inference::codec::{Decoder, OutputEncoder};
use inference::model::{self, Input, LoadOptions, Model};
use inference::spec::Codec;

use super::kind::Kind;

/// A model that turns JSON records into JSON outputs.
pub struct Scorer {
    decoder: Decoder,
    model: Box<dyn Model>,
    encoder: OutputEncoder,
    batch: Input,
    value: BytesMut,
}

impl Scorer {
    /// Loads the model of a folder.
    pub fn load(kind: Kind, folder: &Path) -> anyhow::Result<Self> {
        let loaded = model::load(kind.name(), "1", folder, &LoadOptions::default())?;
        Ok(Self {
            decoder: Decoder::new(&loaded.card, Codec::Json, kind.text()?.as_ref())?,
            encoder: OutputEncoder::new(&loaded.card, Codec::Json),
            batch: loaded.card.takes().none(),
            model: loaded.model,
            value: BytesMut::new(),
        })
    }

    /// Scores a batch, and gives the output of each record, in order, to `each`. A record that can't be
    /// read is an error of the whole batch.
    pub fn score<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a [u8]>,
        mut each: impl FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.batch.clear();
        for record in records {
            let decoded = self.decoder.decode(record, &mut self.batch);
            decoded.context("a record")?;
        }
        let logits = self.model.infer(&self.batch)?;
        ensure!(logits.len() == self.batch.len(), "a record has no logits");
        for row in 0..logits.len() {
            self.value.clear();
            self.encoder.encode(logits.row(row), &mut self.value);
            each(row, &self.value)?;
        }
        Ok(())
    }
}
