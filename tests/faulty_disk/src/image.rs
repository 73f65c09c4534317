//! What is on the device, and what is only in memory: the state of a file system as a power cut
//! would find it.
//!
//! - A file's bytes and its size are durable by `fdatasync` of that file, nothing else. What was
//!   written since may be there or not, write by write, in any order, torn at sectors, or as zeros.
//! - A folder's names (creations, renames, removals) are durable by `fsync` of that folder. Those
//!   made since may be there up to any one of them: file systems journal them in their order, but
//!   each folder is on its own here. A file whose name is lost is lost, synced or not.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use crate::random::Random;

/// Devices write this many bytes at once.
const SECTOR: usize = 512;

/// Which of the changes that are not durable a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All: what `kill -9` leaves.
    All,
    /// None of them.
    None,
    /// Some, at random by this seed.
    Some(u64),
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File(usize),
    Dir(usize),
}

/// A change of a file's content.
#[derive(Clone, Debug)]
pub(crate) enum DataChange {
    Write { position: u64, bytes: Vec<u8> },
    SetLen(u64),
}

/// A change of a folder's names.
#[derive(Clone, Debug)]
pub(crate) enum NameChange {
    Link(OsString, Node),
    Unlink(OsString),
    Rename(OsString, OsString),
}

type Names = BTreeMap<OsString, Node>;

#[derive(Clone, Debug, Default)]
struct FileState {
    durable: Vec<u8>,
    pending: Vec<DataChange>,
    /// How many changes there were before the first of `pending`.
    settled: u64,
}

#[derive(Clone, Debug, Default)]
struct DirState {
    now: Names,
    durable: Names,
    pending: Vec<NameChange>,
}

/// A file system at one moment, with what a crash at that moment may leave.
#[derive(Clone, Debug)]
pub struct Image {
    files: Vec<FileState>,
    /// The first is the root.
    dirs: Vec<DirState>,
}

/// Files by their path below the root; folders have no content.
pub type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

impl Image {
    /// Of what is in the folder `root`, all of it durable.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut image = Self {
            files: Vec::new(),
            dirs: vec![DirState::default()],
        };
        if root.exists() {
            image.load(root, 0)?;
        }
        Ok(image)
    }

    fn load(&mut self, path: &Path, dir: usize) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let node = if entry.file_type()?.is_dir() {
                let inner = self.next_dir();
                self.add_dir();
                self.load(&entry.path(), inner)?;
                Node::Dir(inner)
            } else {
                self.files.push(FileState {
                    durable: fs::read(entry.path())?,
                    ..FileState::default()
                });
                Node::File(self.files.len() - 1)
            };
            self.dirs[dir].now.insert(entry.file_name(), node);
        }
        self.dirs[dir].durable = self.dirs[dir].now.clone();
        Ok(())
    }

    /// The number that the next file gets.
    pub(crate) fn next_file(&self) -> usize {
        self.files.len()
    }

    /// The number that the next folder gets.
    pub(crate) fn next_dir(&self) -> usize {
        self.dirs.len()
    }

    pub(crate) fn add_file(&mut self) {
        self.files.push(FileState::default());
    }

    pub(crate) fn add_dir(&mut self) {
        self.dirs.push(DirState::default());
    }

    /// The files that have a name now.
    pub(crate) fn linked_files(&self) -> Vec<usize> {
        let mut files = Vec::new();
        let mut dirs = vec![0];
        while let Some(dir) = dirs.pop() {
            for node in self.dirs[dir].now.values() {
                match node {
                    Node::File(file) => files.push(*file),
                    Node::Dir(inner) => dirs.push(*inner),
                }
            }
        }
        files
    }

    /// Bytes of each file; nothing is reserved.
    pub(crate) fn sizes(&self) -> HashMap<usize, (u64, u64)> {
        let files = self.files.iter().enumerate();
        let size = |state| content(state, Keep::All, &mut Random::new(0)).len() as u64;
        files
            .map(|(file, state)| (file, (size(state), 0)))
            .collect()
    }

    /// What `path`, below the root, leads to now.
    pub(crate) fn find(&self, path: &Path) -> Option<Node> {
        let mut node = Node::Dir(0);
        for component in path.components() {
            let (Component::Normal(name), Node::Dir(dir)) = (component, node) else {
                return None;
            };
            node = *self.dirs.get(dir)?.now.get(name)?;
        }
        Some(node)
    }

    /// How many changes `file` has had.
    pub(crate) fn changes(&self, file: usize) -> u64 {
        let file = &self.files[file];
        file.settled + file.pending.len() as u64
    }

    pub(crate) fn change_data(&mut self, file: usize, change: DataChange) {
        self.files[file].pending.push(change);
    }

    pub(crate) fn change_names(&mut self, dir: usize, change: NameChange) {
        let dir = &mut self.dirs[dir];
        apply_name(&mut dir.now, &change);
        dir.pending.push(change);
    }

    /// The first `changes` of a file are durable.
    pub(crate) fn sync_file(&mut self, file: usize, changes: u64) {
        let file = &mut self.files[file];
        let count = changes.saturating_sub(file.settled) as usize;
        for change in file.pending.drain(..count) {
            apply_data(&mut file.durable, &change);
        }
        file.settled = file.settled.max(changes);
    }

    /// A folder's names are durable.
    pub(crate) fn sync_dir(&mut self, dir: usize) {
        let dir = &mut self.dirs[dir];
        dir.durable = dir.now.clone();
        dir.pending.clear();
    }

    /// What a crash now leaves.
    pub fn tree(&self, keep: Keep) -> Tree {
        let mut random = Random::new(match keep {
            Keep::Some(seed) => seed,
            Keep::All | Keep::None => 0,
        });
        let mut tree = Tree::new();
        self.collect(0, Path::new(""), keep, &mut random, &mut tree);
        tree
    }

    fn collect(&self, dir: usize, path: &Path, keep: Keep, random: &mut Random, tree: &mut Tree) {
        let state = &self.dirs[dir];
        let mut names = state.durable.clone();
        let kept = match keep {
            Keep::All => state.pending.len(),
            Keep::None => 0,
            Keep::Some(_) => random.below(state.pending.len() as u64 + 1) as usize,
        };
        for change in state.pending.iter().take(kept) {
            apply_name(&mut names, change);
        }
        for (name, node) in names {
            let path = path.join(name);
            match node {
                Node::File(file) => {
                    let content = content(&self.files[file], keep, random);
                    tree.insert(path, Some(content));
                }
                Node::Dir(inner) => {
                    tree.insert(path.clone(), None);
                    self.collect(inner, &path, keep, random, tree);
                }
            }
        }
    }
}

/// Puts `tree` into the folder `root`, which is made.
pub fn write_tree(tree: &Tree, root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for (path, content) in tree {
        match content {
            None => fs::create_dir_all(root.join(path))?,
            Some(bytes) => fs::write(root.join(path), bytes)?,
        }
    }
    Ok(())
}

fn content(file: &FileState, keep: Keep, random: &mut Random) -> Vec<u8> {
    let mut content = file.durable.clone();
    for change in &file.pending {
        match keep {
            Keep::All => apply_data(&mut content, change),
            Keep::None => {}
            Keep::Some(_) => apply_some(&mut content, change, random),
        }
    }
    content
}

fn apply_name(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Link(name, node) => {
            names.insert(name.clone(), *node);
        }
        NameChange::Unlink(name) => {
            names.remove(name);
        }
        NameChange::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
    }
}

fn apply_data(content: &mut Vec<u8>, change: &DataChange) {
    match change {
        DataChange::Write { position, bytes } => write(content, *position as usize, bytes),
        DataChange::SetLen(len) => content.resize(*len as usize, 0),
    }
}

fn apply_some(content: &mut Vec<u8>, change: &DataChange, random: &mut Random) {
    match (random.below(6), change) {
        (0 | 1, _) => apply_data(content, change),
        (2, DataChange::Write { position, bytes }) => {
            write(content, *position as usize, &vec![0; bytes.len()]);
        }
        (3, DataChange::Write { position, bytes }) => {
            let position = *position as usize;
            let end = position + bytes.len();
            let mut start = position;
            while start < end {
                let next = (start / SECTOR + 1).saturating_mul(SECTOR).min(end);
                if random.below(2) == 0 {
                    write(content, start, &bytes[start - position..next - position]);
                }
                start = next;
            }
        }
        (4, DataChange::Write { position, bytes }) => {
            let kept = random.below(bytes.len() as u64 + 1) as usize;
            write(content, *position as usize, &bytes[..kept]);
        }
        _ => {}
    }
}

fn write(content: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[position..end].copy_from_slice(bytes);
}
