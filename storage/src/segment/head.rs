//! The header of a batch that is on disk already, read without the batch's records.

use crate::Offset;
use crate::batch::layout;

/// What a header says, checked as far as a walk over batches needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHead {
    /// The first record's offset, `>= 0`.
    pub base_offset: Offset,
    /// The last record's offset, `>= base_offset`.
    pub last_offset: Offset,
    /// The whole batch in bytes, `>= 61`.
    pub size: u64,
    /// The epoch that it was appended under.
    pub leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// The largest timestamp, milliseconds since the epoch; -1 where there is none.
    pub max_timestamp: i64,
}

impl BatchHead {
    /// The offset after the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset + 1
    }

    /// Why a batch's base offset cannot be right that leaves offsets out, where `following` is the
    /// batch behind it: because that one has them.
    pub fn leaps_over(&self, following: Option<Self>, next_offset: Offset) -> Option<String> {
        let following = following?.base_offset;
        let leaps = (next_offset..self.next_offset()).contains(&following);
        leaps.then(|| format!("offset {} before {following}", self.base_offset))
    }

    /// Reads the 61 bytes of a header; says what is wrong with it otherwise.
    pub fn parse(header: &[u8; layout::RECORDS]) -> Result<Self, String> {
        let magic = header[layout::MAGIC];
        if magic != 2 {
            return Err(format!("magic is {magic}, not 2"));
        }
        let length = i32::from_be_bytes(field(header, layout::BATCH_LENGTH));
        let size = u64::try_from(length)
            .map(|length| length + layout::LOG_OVERHEAD as u64)
            .ok()
            .filter(|size| *size >= layout::RECORDS as u64)
            .ok_or_else(|| format!("impossible batch length {length}"))?;
        let base_offset = i64::from_be_bytes(field(header, layout::BASE_OFFSET));
        let delta = i32::from_be_bytes(field(header, layout::LAST_OFFSET_DELTA));
        let last_offset = base_offset
            .checked_add(i64::from(delta))
            .filter(|last| base_offset >= 0 && *last >= base_offset && *last < i64::MAX)
            .ok_or_else(|| format!("impossible base offset {base_offset} and delta {delta}"))?;
        Ok(Self {
            base_offset,
            last_offset,
            size,
            leader_epoch: i32::from_be_bytes(field(header, layout::PARTITION_LEADER_EPOCH)),
            crc: u32::from_be_bytes(field(header, layout::CRC)),
            max_timestamp: i64::from_be_bytes(field(header, layout::MAX_TIMESTAMP)),
        })
    }

    /// As [`BatchHead::parse`] for a slice, which must be 61 bytes.
    pub fn parse_slice(header: &[u8]) -> Result<Self, String> {
        match header.try_into() {
            Ok(header) => Self::parse(header),
            Err(_) => Err(format!("{} bytes are no header", header.len())),
        }
    }
}

fn field<const N: usize>(header: &[u8; layout::RECORDS], position: usize) -> [u8; N] {
    std::array::from_fn(|index| header[position + index])
}
