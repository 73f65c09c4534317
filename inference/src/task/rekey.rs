//! Records on their way to where the others of their key are: through a repartition topic.
//!
//! A repartitioned record has the key of the state as its key, and its original's value, timestamp and headers; after these
//! one header more, [`HEADER`], says where it came from: version `u8` = 0, input `u16`, partition `i32`, offset `i64`,
//! then the original's key, if it had one, after a byte that is 1 (0 where it had none); big-endian.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::stream_log::{Header, InputRecord};

/// Where the records of a repartition topic come from.
#[derive(Clone)]
pub struct Origins {
    /// The model topic's inputs.
    pub inputs: Arc<[String]>,
    /// How many partitions each has now.
    pub partitions: Arc<dyn Fn() -> Vec<i32> + Send + Sync>,
}

impl std::fmt::Debug for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origins")
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

/// The header that says where a repartitioned record came from.
pub const HEADER: &str = "milena.origin";

/// Where a repartitioned record came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The model topic's input.
    pub(super) input: usize,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// What its state is kept by.
    pub(super) state_key: Option<Bytes>,
}

impl Origin {
    /// What tells its source from others.
    pub(super) fn source(&self) -> i64 {
        source(self.input, self.partition)
    }
}

/// The partition of an input, as a clock's source.
pub fn source(input: usize, partition: i32) -> i64 {
    ((input as i64) << 32) | i64::from(partition)
}

/// The headers of a repartitioned record.
pub(super) fn headers(record: &InputRecord, input: usize, partition: i32) -> Vec<Header> {
    let mut origin = BytesMut::with_capacity(16 + record.key.as_ref().map_or(0, Bytes::len));
    origin.put_u8(0);
    origin.put_u16(input as u16);
    origin.put_i32(partition);
    origin.put_i64(record.offset);
    origin.put_u8(u8::from(record.key.is_some()));
    origin.extend_from_slice(record.key.as_deref().unwrap_or_default());
    let mut headers = record.headers.clone();
    headers.push(Header {
        key: Bytes::from_static(HEADER.as_bytes()),
        value: Some(origin.freeze()),
    });
    headers
}

/// Takes what repartitioning has added off a record.
pub(super) fn restore(record: &mut InputRecord) -> Option<Origin> {
    let header = record.headers.pop()?;
    if header.key != HEADER.as_bytes() {
        record.headers.push(header);
        return None;
    }
    let mut origin = header.value?;
    if origin.try_get_u8().ok()? != 0 {
        return None;
    }
    let input = usize::from(origin.try_get_u16().ok()?);
    let partition = origin.try_get_i32().ok()?;
    let offset = origin.try_get_i64().ok()?;
    let has_key = origin.try_get_u8().ok()? == 1;
    let state_key = std::mem::replace(&mut record.key, has_key.then_some(origin));
    Some(Origin {
        input,
        partition,
        offset,
        state_key,
    })
}
