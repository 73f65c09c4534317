//! Raw records: little-endian f32s, nothing around them.

/// Why a record is no row.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RawError {
    /// It has another length than a row.
    #[error("{found} bytes, but a row of {width} f32s has {}", width * 4)]
    Length {
        /// In bytes.
        found: usize,
        /// Numbers in a row.
        width: usize,
    },
    /// A number of it is NaN or infinite.
    #[error("number {index} of the row is {value}")]
    NotFinite {
        /// From 0.
        index: usize,
        /// NaN or infinite.
        value: f32,
    },
}

/// Appends a record's row; on error `row` is as it was.
pub fn decode_raw(record: &[u8], width: usize, row: &mut Vec<f32>) -> Result<(), RawError> {
    let (numbers, rest) = record.as_chunks::<4>();
    if numbers.len() != width || !rest.is_empty() {
        return Err(RawError::Length {
            found: record.len(),
            width,
        });
    }
    let before = row.len();
    for (index, bytes) in numbers.iter().enumerate() {
        let value = f32::from_le_bytes(*bytes);
        if !value.is_finite() {
            row.truncate(before);
            return Err(RawError::NotFinite { index, value });
        }
        row.push(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rows_of_one_width_only() {
        let bytes = |values: &[f32]| -> Vec<u8> {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        };
        let mut row = vec![7.0];
        decode_raw(&bytes(&[1.5, -2.0]), 2, &mut row).unwrap();
        assert_eq!(row, [7.0, 1.5, -2.0]);
        for record in [&bytes(&[1.0])[..], &bytes(&[1.0; 3]), &[0; 7], &[0; 9], &[]] {
            let error = decode_raw(record, 2, &mut row).unwrap_err();
            assert_eq!(
                error,
                RawError::Length {
                    found: record.len(),
                    width: 2
                }
            );
        }
        let error = decode_raw(&bytes(&[1.0, f32::NAN]), 2, &mut row).unwrap_err();
        assert_eq!(error.to_string(), "number 1 of the row is NaN");
        assert_eq!(row.len(), 3);
    }
}
