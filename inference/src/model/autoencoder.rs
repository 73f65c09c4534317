//! An autoencoder: how badly a network reconstructs its row, as one number.
//!
//! A record's score is the mean of the squared differences, summed in f64 and in the row's order: it does not
//! depend on the batch that the record is in. Where the network overflows, the score is not finite.

use super::{Device, Footprint, InferError, Input, Mlp, Model, Rows, Takes};

/// A network that reconstructs its row.
#[derive(Clone, Debug)]
pub struct Autoencoder {
    network: Mlp,
}

impl Autoencoder {
    /// Of a network that gives as many numbers as it takes.
    pub fn new(network: Mlp) -> Self {
        Self { network }
    }
}

impl Model for Autoencoder {
    fn takes(&self) -> Takes {
        self.network.takes()
    }

    fn output_width(&self) -> usize {
        1
    }

    fn device(&self) -> Device {
        self.network.device()
    }

    fn footprint(&self) -> Footprint {
        // The reconstructions of a batch are the network's; the scores come on top.
        let network = self.network.footprint();
        Footprint {
            record: network.record + 2 * 4,
            ..network
        }
    }

    fn infer(&mut self, batch: &Input) -> Result<Rows, InferError> {
        let rows = batch.as_rows()?;
        let reconstructed = self.network.infer(batch)?;
        let mut scores = Rows::new(1);
        let score = |row| mean_squared_error(rows.row(row), reconstructed.row(row));
        scores.values_mut().extend((0..rows.len()).map(score));
        Ok(scores)
    }

    fn replica(&self) -> Box<dyn Model> {
        Box::new(self.clone())
    }
}

fn mean_squared_error(row: &[f32], reconstructed: &[f32]) -> f32 {
    let squares = row.iter().zip(reconstructed).map(|(x, y)| {
        let error = f64::from(*x) - f64::from(*y);
        error * error
    });
    (squares.sum::<f64>() / row.len() as f64) as f32
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::model::card::Activation;

    /// Three numbers through two, by ReLU.
    fn autoencoder() -> Autoencoder {
        let tensor = |values: &[f32], shape: &[usize]| {
            Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
        };
        let layers = [
            (
                tensor(&[1.0, 0.5, 0.0, 0.0, -1.0, 2.0], &[2, 3]),
                tensor(&[0.25, -0.5], &[2]),
            ),
            (
                tensor(&[1.0, 0.0, 0.5, 0.5, 0.0, 1.0], &[3, 2]),
                tensor(&[0.0, 1.0, -0.5], &[3]),
            ),
        ];
        Autoencoder::new(Mlp::new(&layers, Activation::Relu).unwrap())
    }

    #[test]
    fn scores_as_by_hand() {
        // [1, 2, 3]: hidden [1 + 1 + 0.25, -2 + 6 - 0.5] = [2.25, 3.5], reconstructed
        // [2.25, 1.125 + 1.75 + 1, 3.5 - 0.5] = [2.25, 3.875, 3], (1.25² + 1.875² + 0²) / 3 = 1.6927083.
        // [0, 0, 0]: hidden [0.25, 0], reconstructed [0.25, 1.125, -0.5], 1.578125 / 3 = 0.52604169.
        let rows = Rows::from_values(3, vec![1.0, 2.0, 3.0, 0.0, 0.0, 0.0]).unwrap();
        let scores = autoencoder().infer(&rows.into()).unwrap();
        assert_eq!(scores.width(), 1);
        assert_eq!(scores.values(), [1.692_708_4, 0.526_041_7]);
    }

    #[test]
    fn what_overflows_is_not_finite() {
        let rows = Rows::from_values(3, vec![f32::MAX, f32::MAX, 0.0, 0.0, 0.0, 0.0]).unwrap();
        let scores = autoencoder().infer(&rows.into()).unwrap();
        assert!(!scores.values()[0].is_finite(), "{scores:?}");
        assert_eq!(scores.values()[1], 0.526_041_7);
    }
}
