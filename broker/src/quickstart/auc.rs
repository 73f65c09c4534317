//! The area under the ROC curve: how well a number tells fraud from the rest, whatever the threshold.

/// The probability that a fraudulent transaction has a higher score than another one, ties counting
/// half (the Mann-Whitney statistic). `None` where one of the classes is missing or a score is NaN.
pub fn auc(scores: &[f32], fraud: &[bool]) -> Option<f64> {
    if scores.len() != fraud.len() || scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    let mut pairs: Vec<(f32, bool)> = scores.iter().copied().zip(fraud.iter().copied()).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = fraud.iter().filter(|&&fraud| fraud).count();
    let negatives = fraud.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut wins = 0.0;
    let mut negatives_below = 0usize;
    for tie in pairs.chunk_by(|a, b| a.0 == b.0) {
        let positives = tie.iter().filter(|(_, fraud)| *fraud).count();
        let negatives = tie.len() - positives;
        wins += positives as f64 * (negatives_below as f64 + negatives as f64 / 2.0);
        negatives_below += negatives;
    }
    Some(wins / (positives as f64 * negatives as f64))
}

/// The best AUC that a threshold on one column alone reaches, in either direction, and the column.
/// `rows` holds rows of `width` numbers.
pub fn best_single_column(rows: &[f32], width: usize, fraud: &[bool]) -> Option<(usize, f64)> {
    let mut best: Option<(usize, f64)> = None;
    for column in 0..width {
        let values: Vec<f32> = rows.iter().skip(column).step_by(width).copied().collect();
        let area = auc(&values, fraud)?;
        let area = area.max(1.0 - area);
        if best.is_none_or(|(_, highest)| area > highest) {
            best = Some((column, area));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_pairs_and_halves_ties() {
        let fraud = [false, true, false, true];
        assert_eq!(auc(&[0.1, 0.2, 0.3, 0.4], &fraud), Some(0.75));
        assert_eq!(auc(&[0.5; 4], &fraud), Some(0.5));
        assert_eq!(auc(&[1.0, 2.0, 1.0, 1.0], &fraud), Some(0.75));
        // -0 and 0 are one value.
        assert_eq!(auc(&[0.0, -0.0], &[false, true]), Some(0.5));
        assert_eq!(auc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(auc(&[f32::NAN, 0.2], &[true, false]), None);
    }

    #[test]
    fn looks_at_columns_in_both_directions() {
        let fraud = [true, true, false, false];
        let rows = [1.0, 9.0, 2.0, 8.0, 1.0, 2.0, 3.0, 1.0];
        assert_eq!(best_single_column(&rows, 2, &fraud), Some((1, 1.0)));
        let rows: Vec<f32> = rows.iter().map(|value| -value).collect();
        assert_eq!(best_single_column(&rows, 2, &fraud), Some((1, 1.0)));
    }
}
