//! `model.safetensors`: read whole, hashed, and checked tensor by tensor before any is used.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use super::card::LayerShape;
use super::load::LoadError;

/// What a file may hold beside its tensors.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// The widest dtype whose mistake is worth naming, in bytes.
const MAX_VALUE_BYTES: u64 = 8;

/// A weights file in memory.
pub(super) struct Weights {
    bytes: Vec<u8>,
    /// SHA-256 of the file, in hexadecimal.
    pub(super) sha256: String,
}

impl Weights {
    /// Reads a file that is not larger than these layers are worth.
    pub(super) fn read(path: &Path, layers: &[LayerShape]) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::Read {
            path: path.to_owned(),
            source,
        };
        let parameters: u64 = layers
            .iter()
            .map(|layer| (layer.inputs as u64 + 1) * layer.outputs as u64)
            .sum();
        let limit = parameters * MAX_VALUE_BYTES + MAX_HEADER_BYTES;
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        if length > limit {
            return Err(LoadError::TooLarge {
                path: path.to_owned(),
                length,
                limit,
            });
        }
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let sha256 = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self { bytes, sha256 })
    }

    /// The layers' weights and biases in f32.
    pub(super) fn layers(&self, layers: &[LayerShape]) -> Result<Vec<(Tensor, Tensor)>, LoadError> {
        let tensors = SafeTensors::deserialize(&self.bytes)
            .map_err(|error| LoadError::Malformed(error.to_string()))?;
        let expected: Vec<[(String, Vec<usize>); 2]> = layers
            .iter()
            .enumerate()
            .map(|(index, layer)| {
                [
                    (
                        format!("layers.{index}.weight"),
                        vec![layer.outputs, layer.inputs],
                    ),
                    (format!("layers.{index}.bias"), vec![layer.outputs]),
                ]
            })
            .collect();
        let known: BTreeSet<&str> = expected
            .iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        let extra: BTreeSet<&str> = tensors
            .names()
            .into_iter()
            .filter(|name| !known.contains(name))
            .collect();
        if let Some(name) = extra.first() {
            return Err(LoadError::Extra {
                name: (*name).to_owned(),
                expected: known.len(),
            });
        }
        expected
            .iter()
            .map(|[weight, bias]| Ok((read(&tensors, weight)?, read(&tensors, bias)?)))
            .collect()
    }
}

fn read(
    tensors: &SafeTensors<'_>,
    (name, shape): &(String, Vec<usize>),
) -> Result<Tensor, LoadError> {
    let tensor = tensors.tensor(name).map_err(|_| LoadError::Missing {
        name: name.clone(),
        expected: shape.clone(),
    })?;
    to_f32(name, shape, tensor.shape(), tensor.dtype(), tensor.data())
}

/// A tensor of a file, if it has the shape that is expected and finite numbers.
pub(super) fn to_f32(
    name: &str,
    expected: &[usize],
    shape: &[usize],
    dtype: Dtype,
    data: &[u8],
) -> Result<Tensor, LoadError> {
    let name = || name.to_owned();
    if shape != expected {
        return Err(LoadError::Shape {
            name: name(),
            expected: expected.to_vec(),
            found: shape.to_vec(),
        });
    }
    let dtype = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        found => {
            return Err(LoadError::Dtype {
                name: name(),
                found: format!("{found:?}"),
            });
        }
    };
    let failed = |error: candle_core::Error| LoadError::Malformed(format!("{}: {error}", name()));
    let tensor = Tensor::from_raw_buffer(data, dtype, shape, &Device::Cpu)
        .and_then(|tensor| tensor.to_dtype(DType::F32))
        .map_err(failed)?;
    let values = tensor
        .flatten_all()
        .and_then(|values| values.to_vec1::<f32>())
        .map_err(failed)?;
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(LoadError::NotFinite {
            name: name(),
            index,
            value: values.get(index).copied().unwrap_or(f32::NAN),
        });
    }
    Ok(tensor)
}
