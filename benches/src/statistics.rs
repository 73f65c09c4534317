//! Figures of several rounds, and what is said of them.

/// The middle one; of an even number, the mean of the two in the middle. NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (len, middle) if len % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value that `share` of them are not above (the nearest rank). NaN of none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let sorted = sorted(values);
    match sorted.len() {
        0 => f64::NAN,
        len => sorted[((len as f64 * share).ceil() as usize).clamp(1, len) - 1],
    }
}

/// The least and the greatest. NaN of none.
pub fn range(values: &[f64]) -> (f64, f64) {
    let sorted = sorted(values);
    match (sorted.first(), sorted.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ => (f64::NAN, f64::NAN),
    }
}

/// Half of the range, as a part of the median: 0.1 is "plus or minus 10 %". NaN of none.
pub fn relative_spread(values: &[f64]) -> f64 {
    let (least, greatest) = range(values);
    (greatest - least) / 2.0 / median(values).abs()
}

/// What each round's `ours` is of its `other`, where it has both.
pub fn ratios(ours: &[Option<f64>], other: &[Option<f64>]) -> Vec<f64> {
    let both = ours.iter().zip(other).filter_map(|pair| match pair {
        (Some(ours), Some(other)) if *other != 0.0 => Some(ours / other),
        _ => None,
    });
    both.collect()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 1.0), 100.0);
        assert_eq!(percentile(&[7.0], 0.0), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_spread_is_half_of_the_range_by_the_median() {
        assert_eq!(range(&[10.0, 9.0, 12.0]), (9.0, 12.0));
        assert_eq!(relative_spread(&[10.0, 9.0, 12.0]), 0.15);
        assert_eq!(relative_spread(&[5.0]), 0.0);
    }

    #[test]
    fn a_ratio_is_of_one_round() {
        let ours = [Some(1.0), None, Some(3.0), Some(4.0)];
        let other = [Some(2.0), Some(2.0), None, Some(0.0)];
        assert_eq!(ratios(&ours, &other), [0.5]);
    }
}
