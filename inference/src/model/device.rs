//! Where a model runs.
//!
//! CUDA is served where this is built with the feature `cuda`; without it the choice is refused when a model is
//! loaded, and nothing else differs.

use serde::Deserialize;

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The first CUDA device.
    Cuda,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

/// Where a model is to run.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// On the processor.
    #[default]
    Cpu,
    /// On the first CUDA device, or not at all.
    Cuda,
    /// On CUDA where there is one and the model can, otherwise on the processor.
    Auto,
}

impl DeviceChoice {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Auto => "auto",
        }
    }

    /// The device, for a model that can run on any.
    pub(super) fn open(self) -> candle_core::Result<candle_core::Device> {
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda => candle_core::Device::new_cuda(0),
            Self::Auto => candle_core::Device::cuda_if_available(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there() {
        assert!(DeviceChoice::Cpu.open().unwrap().is_cpu());
        DeviceChoice::Auto.open().unwrap();
        #[cfg(not(feature = "cuda"))]
        assert!(DeviceChoice::Cuda.open().is_err());
    }
}
