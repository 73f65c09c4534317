//! Reading the whole batches of a closed segment one after another, for compaction.

use std::sync::Arc;

use super::{BatchHead, Segment};
use crate::batch::layout;
use crate::disk::{self, File};
use crate::error::{Error, Result};

/// The batches of a segment from some position on; their checksums are not compared. Memory: one buffer, or the largest batch where that is larger; never more than the file has.
#[derive(Debug)]
pub(crate) struct Batches<'a> {
    segment: &'a Segment,
    file: Arc<dyn File>,
    /// Where the next batch begins in the file.
    position: u64,
    buffer: Vec<u8>,
    /// Where it begins in the buffer.
    at: usize,
    buffer_bytes: usize,
}

impl<'a> Batches<'a> {
    /// From the batch at `position` on.
    pub fn from(segment: &'a Segment, position: u64, buffer_bytes: usize) -> Result<Self> {
        Ok(Self {
            segment,
            file: segment.log.file()?,
            position,
            buffer: Vec::new(),
            at: 0,
            buffer_bytes,
        })
    }

    /// The next batch; `None` at the segment's end. `CorruptFile` where there is none.
    pub fn next(&mut self) -> Result<Option<(BatchHead, &[u8])>> {
        let position = self.position;
        let left = self.segment.size().saturating_sub(position);
        if left == 0 {
            return Ok(None);
        }
        let header = self.bytes(layout::RECORDS.min(to_usize(left)))?;
        let head = BatchHead::parse_slice(header);
        let head = match head {
            Ok(head) if head.size <= left => head,
            Ok(head) => {
                let reason = format!("batch of {} bytes, {left} are there", head.size);
                return Err(self.segment.corrupt(position, reason));
            }
            Err(reason) => return Err(self.segment.corrupt(position, reason)),
        };
        let size = to_usize(head.size);
        self.bytes(size)?;
        let from = self.at;
        self.at += size;
        self.position += head.size;
        Ok(self.buffer.get(from..self.at).map(|batch| (head, batch)))
    }

    /// The next `count` bytes, which the file has.
    fn bytes(&mut self, count: usize) -> Result<&[u8]> {
        if self.buffer.len() - self.at < count {
            self.buffer.drain(..self.at);
            self.at = 0;
            let have = self.buffer.len();
            let left = to_usize(self.segment.size() - self.position);
            self.buffer
                .resize(count.max(self.buffer_bytes).min(left).max(have), 0);
            let rest = self.buffer.get_mut(have..).unwrap_or_default();
            disk::read_exact_at(self.file.as_ref(), rest, self.position + have as u64)
                .map_err(|error| self.segment.log.io("read", &error))?;
        }
        self.buffer
            .get(self.at..self.at + count)
            .ok_or(Error::Closed)
    }
}

/// Of a length in a segment, which has less than 2^31 bytes.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
