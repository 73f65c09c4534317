//! Which of a segment's files are open, and for how long.

use std::sync::Arc;

use super::{MappedFile, Segment};

impl Segment {
    /// Puts the batches on the device; the call that failed where one does.
    pub fn sync_log(&self) -> Result<(), (&'static str, std::io::Error)> {
        self.log.try_sync()
    }

    /// Opens each of its files once at most while `look` reads them: there may be very many segments,
    /// and few are looked at twice.
    pub fn look<T>(&self, look: impl FnOnce() -> T) -> T {
        self.files().for_each(MappedFile::begin_look);
        let found = look();
        self.files().for_each(MappedFile::end_look);
        found
    }

    /// Keeps files open no longer that are on the device.
    pub fn close_files(&self) {
        self.files().for_each(MappedFile::close);
    }

    /// Keeps none of its files open, whatever is on the device.
    pub fn give_up_files(&self) {
        self.files().for_each(MappedFile::give_up);
    }

    /// Some of its files are kept open.
    pub fn keeps_files(&self) -> bool {
        self.files().any(MappedFile::is_kept)
    }
}

/// A segment that is looked at until this is dropped, as with [`Segment::look`].
#[derive(Debug)]
pub(crate) struct LookedAt(Arc<Segment>);

impl LookedAt {
    /// From here on.
    pub fn new(segment: &Arc<Segment>) -> Self {
        segment.files().for_each(MappedFile::begin_look);
        Self(Arc::clone(segment))
    }
}

impl Drop for LookedAt {
    fn drop(&mut self) {
        self.0.files().for_each(MappedFile::end_look);
    }
}
