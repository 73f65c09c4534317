//! Every system call that changed a disk, in order, and the images between them.

use std::sync::Arc;

use crate::image::{DataChange, Image, NameChange};

/// What one system call changed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A file was made, under the number of files there were.
    NewFile {
        dir: usize,
        name: NameChange,
    },
    /// As `NewFile`.
    NewDir {
        dir: usize,
        name: NameChange,
    },
    Data {
        file: usize,
        change: DataChange,
    },
    Names {
        dir: usize,
        change: NameChange,
    },
    /// From one folder to another.
    Move {
        from: (usize, NameChange),
        to: (usize, NameChange),
    },
    SyncFile {
        file: usize,
        changes: u64,
    },
    SyncDir {
        dir: usize,
    },
    /// It changed nothing that a crash could show.
    Nothing,
}

impl Image {
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::NewFile { dir, name } => {
                self.add_file();
                self.change_names(*dir, name.clone());
            }
            Change::NewDir { dir, name } => {
                self.add_dir();
                self.change_names(*dir, name.clone());
            }
            Change::Data { file, change } => self.change_data(*file, change.clone()),
            Change::Names { dir, change } => self.change_names(*dir, change.clone()),
            Change::Move { from, to } => {
                self.change_names(to.0, to.1.clone());
                self.change_names(from.0, from.1.clone());
            }
            Change::SyncFile { file, changes } => self.sync_file(*file, *changes),
            Change::SyncDir { dir } => self.sync_dir(*dir),
            Change::Nothing => {}
        }
    }
}

/// One system call.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The call and its file, to be shown.
    pub what: String,
    pub(crate) change: Change,
}

/// The system calls since [`crate::FaultyDisk::record`], and what was there before them.
#[derive(Clone, Debug)]
pub struct Journal {
    pub(crate) before: Image,
    pub(crate) entries: Arc<[Entry]>,
}

impl Journal {
    /// How many system calls.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The disk before the first call and after each, with the call that led there.
    pub fn images(&self) -> Images<'_> {
        Images {
            journal: self,
            image: self.before.clone(),
            next: 0,
        }
    }
}

/// Walks through a journal; see [`Journal::images`].
#[derive(Debug)]
pub struct Images<'a> {
    journal: &'a Journal,
    image: Image,
    next: usize,
}

impl Images<'_> {
    /// After how many calls, the last of them, and the disk then.
    #[expect(clippy::should_implement_trait, reason = "lends what it steps over")]
    pub fn next(&mut self) -> Option<(usize, &str, &Image)> {
        let calls = self.next;
        let what = match calls.checked_sub(1) {
            None => "before the first call",
            Some(last) => {
                let entry = self.journal.entries.get(last)?;
                self.image.apply(&entry.change);
                &entry.what
            }
        };
        self.next += 1;
        Some((calls, what, &self.image))
    }
}
