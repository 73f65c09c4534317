//! The weights of a checkpoint: one safetensors file, or several with an index.
//!
//! Files are read whole and hashed. What a file says of itself is checked against its length before a
//! tensor is made, so that none takes more memory than its file is worth.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::model::load::{LoadError, WEIGHTS_FILE};
use crate::model::weights::to_f32;

/// Names the files of a checkpoint that has several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Largest index.
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// Most files of a checkpoint.
const MAX_FILES: usize = 1024;

/// A checkpoint's tensors, on the way to the model.
#[derive(Clone)]
pub(super) struct Tensors {
    files: Arc<Vec<Shard>>,
    /// In which file.
    by_name: Arc<BTreeMap<String, usize>>,
    /// Before every name; none where the checkpoint has the names as they are.
    prefix: String,
    device: Device,
    /// Numbers of all tensors that were taken.
    taken: Arc<AtomicU64>,
    /// SHA-256 of the file; of several, of their hashes in order of their names. In hexadecimal.
    pub(super) sha256: String,
}

struct Shard {
    metadata: Metadata,
    bytes: Vec<u8>,
    data_begins: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Tensors {
    /// Reads a folder's weights where they are not more than `limit` bytes.
    pub(super) fn read(folder: &Path, limit: u64, device: &Device) -> Result<Self, LoadError> {
        let single = folder.join(WEIGHTS_FILE);
        let names = match single.is_file() {
            true => vec![WEIGHTS_FILE.to_owned()],
            false => shards(folder)?,
        };
        let mut left = limit;
        let mut files = Vec::with_capacity(names.len());
        let mut hashes = Vec::with_capacity(names.len());
        let mut by_name = BTreeMap::new();
        for name in &names {
            let path = folder.join(name);
            let bytes = read(&path, left, limit)?;
            left -= bytes.len() as u64;
            hashes.push(Sha256::digest(&bytes));
            let malformed = |error: safetensors::SafeTensorError| {
                LoadError::Malformed(match names.len() {
                    1 => error.to_string(),
                    _ => format!("{name}: {error}"),
                })
            };
            let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(malformed)?;
            // Also compares what the tensors say with the length of the file.
            SafeTensors::deserialize(&bytes).map_err(malformed)?;
            for tensor in metadata.offset_keys() {
                by_name.insert(tensor, files.len());
            }
            files.push(Shard {
                metadata,
                bytes,
                // Eight bytes are the header's length.
                data_begins: header + 8,
            });
        }
        let sha256 = match hashes.as_slice() {
            [only] => *only,
            several => Sha256::digest(several.concat()),
        };
        Ok(Self {
            files: Arc::new(files),
            by_name: Arc::new(by_name),
            prefix: String::new(),
            device: device.clone(),
            taken: Arc::default(),
            sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// Some checkpoints have a model's name before each of its tensors: looks for `name` with and without.
    pub(super) fn with_prefix_of(mut self, prefix: &str, name: &str) -> Self {
        if !self.has(name) && self.has(&format!("{prefix}{name}")) {
            self.prefix = prefix.to_owned();
        }
        self
    }

    /// Whether there is one with this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(&self.full(name))
    }

    /// The same ones, under their whole names.
    pub(super) fn without_prefix(&self) -> Self {
        Self {
            prefix: String::new(),
            ..self.clone()
        }
    }

    /// In f32, of all tensors that were taken.
    pub(super) fn taken_bytes(&self) -> u64 {
        4 * self.taken.load(Ordering::Relaxed)
    }

    /// Where they go.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A tensor in f32.
    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let name = self.full(name);
        let missing = || LoadError::Missing {
            name: name.clone(),
            expected: shape.to_vec(),
        };
        let file = self
            .by_name
            .get(&name)
            .and_then(|&at| self.files.get(at))
            .ok_or_else(missing)?;
        let info = file.metadata.info(&name).ok_or_else(missing)?;
        let (begin, end) = info.data_offsets;
        let data = file
            .bytes
            .get(file.data_begins + begin..file.data_begins + end);
        let data =
            data.ok_or_else(|| LoadError::Malformed(format!("{name} ends behind its file")))?;
        let tensor = to_f32(&name, shape, &info.shape, info.dtype, data)?;
        self.taken
            .fetch_add(tensor.elem_count() as u64, Ordering::Relaxed);
        tensor
            .to_device(&self.device)
            .map_err(|error| LoadError::Malformed(format!("{name}: {error}")))
    }
}

/// The files that the index names, in order of their names.
fn shards(folder: &Path) -> Result<Vec<String>, LoadError> {
    let path = folder.join(INDEX_FILE);
    if !path.is_file() {
        // Says what is there instead, if it is a pickle.
        crate::model::load::weights_path(folder)?;
    }
    let json = read(&path, MAX_INDEX_BYTES, MAX_INDEX_BYTES)?;
    let malformed = |reason: String| LoadError::Malformed(format!("{INDEX_FILE}: {reason}"));
    let index: Index =
        serde_json::from_slice(&json).map_err(|error| malformed(error.to_string()))?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if names.is_empty() || names.len() > MAX_FILES {
        return Err(malformed(format!(
            "names {} files, not 1 to {MAX_FILES}",
            names.len()
        )));
    }
    if let Some(name) = names.iter().find(|name| !is_plain_name(name)) {
        return Err(malformed(format!(
            "{name:?} is not the name of a safetensors file beside it"
        )));
    }
    Ok(names)
}

fn is_plain_name(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains(['/', '\\']) && !name.starts_with('.')
}

/// A whole file of at most `left` bytes, of what are `limit` in all.
pub(super) fn read(path: &Path, left: u64, limit: u64) -> Result<Vec<u8>, LoadError> {
    let path: PathBuf = path.to_owned();
    let unreadable = |source| LoadError::Read {
        path: path.clone(),
        source,
    };
    let file = File::open(&path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length > left {
        return Err(LoadError::TooLarge {
            path,
            length,
            limit,
        });
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(length)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}
