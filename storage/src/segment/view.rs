//! Looking at read-only maps of files that grow.
//!
//! What makes a map safe here: only *sealed* bytes are looked at, that is bytes below a length that
//! the writer has published after it wrote them, which never change and are never cut off while
//! the file is open. [`View`] carries that length and refuses anything beyond it, so that neither a
//! page past the end of the file (SIGBUS) nor a byte that is still being written is ever touched.
//!
//! A map lives as long as a [`Bytes`] that was cut from it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use memmap2::Advice;

use super::maps::Map;
use crate::error::{Error, Result};

/// Pages asked for in one `mincore`.
const PAGES_PER_PROBE: usize = 1024;
/// Bytes asked for in one advice: where they are more than the device reads ahead, the kernel may leave
/// some out.
const BYTES_PER_ADVICE: usize = 128 << 10;

/// What to do about pages that are not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Refuse: the caller's thread must not block.
    Probe,
    /// Bring them in.
    Load,
}

/// Why a look at a map came to nothing.
#[derive(Debug)]
pub(crate) enum Miss {
    /// The pages are not in memory, and the access was [`Access::Probe`].
    NotResident,
    /// Damage was met and is known now: whoever looks again from the start steps over it.
    Examined,
    /// An error, the same at every access.
    Failed(Error),
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The sealed bytes of a file.
#[derive(Clone, Debug)]
pub(crate) struct View {
    map: Arc<Map>,
    len: usize,
}

impl View {
    /// Of a map of at least `len` bytes, all of them sealed.
    pub(super) fn new(map: Arc<Map>, len: usize) -> Self {
        Self { map, len }
    }

    /// Sealed bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Makes sure that a look at `range` does not block, or that it has been waited for.
    pub fn ensure(&self, range: Range<usize>, access: Access) -> Result<(), Miss> {
        let range = range.start.min(self.len)..range.end.min(self.len);
        if range.is_empty() {
            return Ok(());
        }
        match access {
            Access::Probe if self.is_resident(&range) => Ok(()),
            Access::Probe => Err(Miss::NotResident),
            Access::Load => Ok(self.populate(range)?),
        }
    }

    /// `range` of the file; `None` where it is not all sealed.
    pub fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        // SAFETY: the range is inside of the map (`len <= map.len()`), and inside of the file, as
        // its first `len` bytes are sealed: written, never changed and never cut off.
        Some(unsafe {
            std::slice::from_raw_parts(self.map.raw().as_ptr().add(range.start), range.len())
        })
    }

    /// `range` of the file without a copy; empty where it is not all sealed.
    pub fn into_bytes(self, range: Range<usize>) -> Bytes {
        if range.is_empty() || range.end > self.len {
            return Bytes::new();
        }
        Bytes::from_owner(Owned { view: self, range })
    }

    fn is_resident(&self, range: &Range<usize>) -> bool {
        let page = page_size();
        let mut start = range.start / page * page;
        let mut flags = [0_u8; PAGES_PER_PROBE];
        while start < range.end {
            let len = (range.end - start).min(PAGES_PER_PROBE * page);
            let pages = len.div_ceil(page);
            // SAFETY: `start..start + len` is inside of the map and `start` is page-aligned;
            // `flags` has room for one byte per page.
            let result = unsafe {
                libc::mincore(
                    self.map.raw().as_ptr().add(start).cast_mut().cast(),
                    len,
                    flags.as_mut_ptr().cast(),
                )
            };
            if result != 0 || flags.iter().take(pages).any(|flag| flag & 1 == 0) {
                return false;
            }
            start += len;
        }
        true
    }

    /// Has the device begin to read what a reader will need next: `ahead` begins where it is.
    pub fn read_ahead(&self, ahead: Range<usize>) {
        self.will_need(self.map.to_ask(ahead));
    }

    /// Has the device begin to read `range`.
    fn will_need(&self, range: Range<usize>) {
        let end = range.end.min(self.len);
        for start in (range.start..end).step_by(BYTES_PER_ADVICE) {
            let len = (end - start).min(BYTES_PER_ADVICE);
            // It is only advice, and may fail.
            let _ = self.map.raw().advise_range(Advice::WillNeed, start, len);
        }
    }

    fn populate(&self, range: Range<usize>) -> Result<()> {
        self.will_need(range.clone());
        let error =
            match self
                .map
                .raw()
                .advise_range(Advice::PopulateRead, range.start, range.len())
            {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
        // A kernel before 5.14 does not know the advice: touch the pages one by one. Anything
        // else is the device's failure, which a touch would turn into a signal.
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(Error::io("read", "a mapped log file", &error));
        }
        for position in range.clone().step_by(page_size()).chain([range.end - 1]) {
            if let Some(bytes) = self.get(position..position + 1) {
                std::hint::black_box(bytes.first().copied());
            }
        }
        Ok(())
    }
}

/// What keeps a map alive behind a [`Bytes`].
struct Owned {
    view: View,
    range: Range<usize>,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.view.get(self.range.clone()).unwrap_or_default()
    }
}

/// The pages that `range` touches.
pub(super) fn whole_pages(range: &Range<usize>) -> Range<usize> {
    let page = page_size();
    range.start / page * page
        ..range
            .end
            .checked_next_multiple_of(page)
            .unwrap_or(range.end)
}

fn page_size() -> usize {
    static PAGE_SIZE: OnceLock<usize> = OnceLock::new();
    *PAGE_SIZE.get_or_init(|| {
        // SAFETY: `sysconf` only reads its argument.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size)
            .ok()
            .filter(|size| size.is_power_of_two())
            .unwrap_or(4096)
    })
}
