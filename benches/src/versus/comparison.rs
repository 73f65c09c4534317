//! One arm of Milena beside another arm, in one figure.

use super::results::RowResults;
use super::scenario::Better;
use crate::statistics::{median, range, ratios};

/// A difference that is none, however often it is seen.
const NOTHING: f64 = 0.01;

/// What the rounds say of two arms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The median of each round's ratio, ours to the other's.
    pub ratio: f64,
    /// The least and the greatest of them.
    pub range: (f64, f64),
}

/// How ours stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Better than the other.
    Ahead,
    /// Worse, by no more than the spread.
    Level,
    /// Worse by more than the spread.
    Behind,
}

impl Comparison {
    /// Of two arms in a row; none where no round has both.
    pub fn of(row: &RowResults, ours: &str, other: &str, figure: &str) -> Option<Self> {
        let ratios = ratios(&row.figure(ours, figure), &row.figure(other, figure));
        (!ratios.is_empty()).then(|| Self {
            ratio: median(&ratios),
            range: range(&ratios),
        })
    }

    /// Behind is what is worse than the other by more than half of the range of the rounds' ratios, and
    /// by more than 1 %.
    pub fn standing(&self, better: Better) -> Standing {
        let worse_by = match better {
            Better::More => 1.0 - self.ratio,
            Better::Less => self.ratio - 1.0,
        };
        let spread = ((self.range.1 - self.range.0) / 2.0).max(NOTHING);
        if worse_by <= 0.0 {
            Standing::Ahead
        } else if worse_by <= spread {
            Standing::Level
        } else {
            Standing::Behind
        }
    }
}

/// Whether the arm is Milena in one of its settings.
pub fn is_ours(arm: &str) -> bool {
    is(arm, "milena")
}

/// Whether the arm is a bare loop.
pub fn is_bare(arm: &str) -> bool {
    is(arm, "bare")
}

fn is(arm: &str, first_word: &str) -> bool {
    arm.split(' ').next() == Some(first_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_is_more_than_the_spread() {
        let comparison = |ratio, range| Comparison { ratio, range };
        let rate = |ratio, range| comparison(ratio, range).standing(Better::More);
        let cost = |ratio, range| comparison(ratio, range).standing(Better::Less);
        assert_eq!(rate(1.1, (0.9, 1.2)), Standing::Ahead);
        assert_eq!(rate(0.95, (0.9, 1.1)), Standing::Level);
        assert_eq!(rate(0.995, (0.995, 0.995)), Standing::Level);
        assert_eq!(rate(0.8, (0.75, 0.85)), Standing::Behind);
        assert_eq!(cost(0.8, (0.7, 1.3)), Standing::Ahead);
        assert_eq!(cost(1.2, (0.9, 1.6)), Standing::Level);
        assert_eq!(cost(1.2, (1.1, 1.3)), Standing::Behind);
    }

    #[test]
    fn arms_are_known_by_their_first_word() {
        assert!(is_ours("milena") && is_ours("milena page cache") && !is_ours("milenas"));
        assert!(is_bare("bare sendfile") && !is_bare("kafka"));
    }
}
