//! The folder that an input's files are written to.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder for the files of one input, gone when this is dropped: the next input would find them.
pub struct Folder(PathBuf);

impl Folder {
    /// One for each thread, in memory where there is such a place; what the last input has left is gone.
    /// It is not made yet.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let thread = format!("{:?}", std::thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let folder = parent.join(format!("milena-fuzz-{}-{number}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("removes the last input's files");
        }
        Self(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
