//! An encoded response, ready to be written with one vectored call.
//!
//! Record bytes that a fetch reads from the log are slices of a memory map. [`FrameBuffer`] keeps
//! such slices instead of copying them: what was registered beforehand with
//! [`FrameBuffer::splice`] is recognised by its address when the codec writes it.

use std::ops::Range;

use bytes::buf::UninitSlice;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::buf::ByteBufMut;

/// Slices shorter than this are copied: a copy is cheaper than one more piece to write.
pub const MIN_SPLICE_BYTES: usize = 4096;

/// The most that a response may have beside slices of the log. Clients take no more either:
/// librdkafka's `receive.message.max.bytes` is less by default.
pub const MAX_OWN_BYTES: usize = 100 * 1024 * 1024;

/// A response on the wire: length, header and body, in pieces.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The pieces, none of them empty.
    pub chunks: Vec<Bytes>,
    /// Bytes of all pieces.
    pub len: usize,
    /// Of these, the response's own; the rest are slices of the log.
    pub own_bytes: usize,
}

/// A growing buffer for the codec that takes registered bytes as they are.
///
/// Offsets are those of the whole; the bytes written here and the spliced ones alternate. A range
/// that is written again ([`ByteBufMut::range`], gaps) must lie in bytes that were written here.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    own: BytesMut,
    /// Spliced bytes, each with the length of `own` at which they follow; ascending.
    spliced: Vec<(usize, Bytes)>,
    spliced_len: usize,
    /// What may be spliced, by address.
    known: Vec<Bytes>,
    is_over: bool,
}

impl FrameBuffer {
    /// An empty buffer.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            own: BytesMut::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// Registers bytes that are kept, not copied, when the codec writes them or a part of them.
    pub fn splice(&mut self, mut known: Vec<Bytes>) {
        known.retain(|bytes| bytes.len() >= MIN_SPLICE_BYTES);
        self.known.append(&mut known);
        self.known.sort_by_key(|bytes| bytes.as_ptr() as usize);
    }

    /// More than [`MAX_OWN_BYTES`] were written; what is beyond them is not here.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The pieces written so far.
    pub fn into_frame(self) -> Frame {
        let (len, own_bytes) = (self.offset(), self.own.len());
        let mut own = self.own.freeze();
        let mut chunks = Vec::with_capacity(self.spliced.len() * 2 + 1);
        let mut taken = 0;
        for (at, bytes) in self.spliced {
            let before = own.split_to(at - taken);
            taken = at;
            chunks.extend(
                [before, bytes]
                    .into_iter()
                    .filter(|chunk| !chunk.is_empty()),
            );
        }
        if !own.is_empty() {
            chunks.push(own);
        }
        Frame {
            chunks,
            len,
            own_bytes,
        }
    }

    /// The registered bytes that `source` is a part of.
    fn registered(&self, source: &[u8]) -> Option<Bytes> {
        if source.len() < MIN_SPLICE_BYTES || self.known.is_empty() {
            return None;
        }
        let start = source.as_ptr() as usize;
        let after = self
            .known
            .partition_point(|bytes| bytes.as_ptr() as usize <= start);
        let candidate = self.known.get(after.checked_sub(1)?)?;
        let end = candidate.as_ptr() as usize + candidate.len();
        (start + source.len() <= end).then(|| candidate.slice_ref(source))
    }

    /// Where `offset` is in `own`, and the spliced bytes before it.
    fn own_position(&self, offset: usize) -> usize {
        let mut before = 0;
        for (at, bytes) in &self.spliced {
            if at + before >= offset {
                break;
            }
            before += bytes.len();
        }
        offset.saturating_sub(before)
    }
}

// SAFETY: all of it is `BytesMut`'s own implementation; `put_slice` either hands on to it or leaves
// it alone.
unsafe impl BufMut for FrameBuffer {
    fn remaining_mut(&self) -> usize {
        self.own.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller's promise is the same one.
        unsafe { self.own.advance_mut(count) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.own.chunk_mut()
    }

    fn put_slice(&mut self, source: &[u8]) {
        match self.registered(source) {
            Some(bytes) => {
                self.spliced_len += bytes.len();
                self.spliced.push((self.own.len(), bytes));
            }
            None if self.own.len() + source.len() > MAX_OWN_BYTES => self.is_over = true,
            None => self.own.put_slice(source),
        }
    }
}

impl ByteBufMut for FrameBuffer {
    fn offset(&self) -> usize {
        self.own.len() + self.spliced_len
    }

    fn seek(&mut self, offset: usize) {
        // Backwards: what was spliced beyond goes, or is cut.
        while let Some((at, bytes)) = self.spliced.last_mut() {
            let begins = *at + self.spliced_len - bytes.len();
            if begins >= offset {
                self.spliced_len -= bytes.len();
                self.spliced.pop();
                continue;
            }
            let keep = bytes.len().min(offset - begins);
            if keep < bytes.len() {
                self.spliced_len -= bytes.len() - keep;
                bytes.truncate(keep);
            }
            break;
        }
        self.own.resize(offset - self.spliced_len, 0);
    }

    fn range(&mut self, range: Range<usize>) -> &mut [u8] {
        let start = self.own_position(range.start);
        &mut self.own[start..start + range.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(frame: &Frame) -> Vec<u8> {
        let bytes = frame.chunks.concat();
        assert_eq!(bytes.len(), frame.len);
        assert!(frame.chunks.iter().all(|chunk| !chunk.is_empty()));
        bytes
    }

    #[test]
    fn registered_bytes_are_kept_and_others_copied() {
        let log: Bytes = (0..20_000u32).map(|n| n as u8).collect::<Vec<_>>().into();
        let other = vec![7u8; 8000];
        let mut buffer = FrameBuffer::with_capacity(64);
        buffer.splice(vec![
            log.slice(10_000..20_000),
            log.slice(0..9000),
            Bytes::new(),
        ]);
        buffer.put_i32(1);
        buffer.put_slice(&log[100..9000]); // inside: kept
        buffer.put_slice(&log[0..100]); // short: copied
        buffer.put_slice(&log[8000..13_000]); // crosses what is registered: copied
        buffer.put_slice(&log[10_000..20_000]); // kept, directly followed
        buffer.put_slice(&log[10_000..15_000]); // by another
        buffer.put_slice(&other); // not registered
        let expected = [
            &1i32.to_be_bytes()[..],
            &log[100..9000],
            &log[0..100],
            &log[8000..13_000],
            &log[10_000..],
            &log[10_000..15_000],
            &other,
        ]
        .concat();
        assert_eq!(buffer.offset(), expected.len());
        let frame = buffer.into_frame();
        assert_eq!(flat(&frame), expected);
        let kept: Vec<usize> = frame
            .chunks
            .iter()
            .filter(|chunk| log.as_ptr_range().contains(&chunk.as_ptr()))
            .map(Bytes::len)
            .collect();
        assert_eq!(kept, [8900, 10_000, 5000]);
    }

    #[test]
    fn gaps_are_filled_before_and_after_spliced_bytes() {
        let log = Bytes::from(vec![9u8; 5000]);
        let mut buffer = FrameBuffer::default();
        buffer.splice(vec![log.clone()]);
        buffer.put_u8(1);
        // A gap whose end touches the spliced bytes, and one that begins after them.
        let first = buffer.put_typed_gap(gap_u16());
        buffer.put_slice(&log);
        let second = buffer.put_typed_gap(gap_u16());
        buffer.put_slice(&log[..4096]);
        let third = buffer.put_gap(3);
        buffer.fill_typed_gap(second, 0x0203);
        buffer.fill_typed_gap(first, 0x0405);
        buffer.gap_buf(third).copy_from_slice(b"end");
        let expected = [&[1, 4, 5][..], &log, &[2, 3], &log[..4096], b"end"].concat();
        assert_eq!(flat(&buffer.into_frame()), expected);
    }

    #[test]
    fn seeking_back_drops_and_cuts_spliced_bytes() {
        let log = Bytes::from(vec![9u8; 5000]);
        let mut buffer = FrameBuffer::default();
        buffer.splice(vec![log.clone()]);
        buffer.put_slice(b"ab");
        buffer.put_slice(&log);
        buffer.put_slice(b"cd");
        buffer.put_slice(&log);
        buffer.seek(5003); // after the "c"
        buffer.put_slice(b"!");
        assert_eq!(buffer.offset(), 5004);
        buffer.seek(102); // inside the first spliced bytes
        buffer.put_slice(b"?");
        buffer.seek(105);
        let expected = [&b"ab"[..], &log[..100], b"?\0\0"].concat();
        assert_eq!(flat(&buffer.into_frame()), expected);
    }

    fn gap_u16() -> impl kafka_protocol::protocol::buf::GapType<Value = u16> {
        struct U16;
        impl kafka_protocol::protocol::buf::GapType for U16 {
            type Value = u16;
            fn size(&self) -> usize {
                2
            }
            fn put(&self, mut buf: &mut [u8], value: u16) {
                buf.put_u16(value);
            }
        }
        U16
    }
}
