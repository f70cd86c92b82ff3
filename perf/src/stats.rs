//! Medians with their spread.

use serde::{Deserialize, Serialize};

/// Median, least and greatest of a few rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Middle value; the mean of the two middle ones for an even number.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
    /// How many values.
    pub n: usize,
}

impl Spread {
    /// Of the finite ones among `values`; `None` if there is none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let (&min, &max) = (values.first()?, values.last()?);
        let median = if n % 2 == 1 {
            values[n / 2]
        } else {
            f64::midpoint(values[n / 2 - 1], values[n / 2])
        };
        Some(Self {
            median,
            min,
            max,
            n,
        })
    }

    /// Of the ratios of two series measured side by side: round by round, so that what disturbed
    /// both in a round cancels out.
    #[must_use]
    pub fn of_ratios(above: &[Option<f64>], below: &[Option<f64>]) -> Option<Self> {
        let pairs = above.iter().zip(below);
        Self::of(pairs.filter_map(|(a, b)| Some((*a)? / (*b)?)))
    }
}

/// The value at `quantile` (0 to 1) of sorted values.
#[must_use]
pub fn quantile<T: Copy>(sorted: &[T], quantile: f64) -> Option<T> {
    let last = sorted.len().checked_sub(1)?;
    let at = (last as f64 * quantile).round();
    // A rounded product of an index and a number up to one is an index.
    sorted.get(at as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_number_is_the_middle_one() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_ones() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }

    #[test]
    fn values_that_are_not_finite_do_not_count() {
        assert_eq!(Spread::of([f64::NAN, 1.0, f64::INFINITY]).unwrap().n, 1);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let spread = Spread::of_ratios(
            &[Some(1.0), Some(4.0), None],
            &[Some(2.0), Some(4.0), Some(1.0)],
        )
        .unwrap();
        assert_eq!((spread.n, spread.min, spread.max), (2, 0.5, 1.0));
    }

    #[test]
    fn a_round_without_denominator_is_left_out() {
        assert_eq!(Spread::of_ratios(&[Some(1.0)], &[None]), None);
        assert_eq!(Spread::of_ratios(&[Some(1.0)], &[Some(0.0)]), None);
    }

    #[test]
    fn quantiles_come_from_the_sorted_values() {
        let values: Vec<u32> = (0..=100).collect();
        assert_eq!(quantile(&values, 0.5), Some(50));
        assert_eq!(quantile(&values, 0.99), Some(99));
        assert_eq!(quantile::<u32>(&[], 0.5), None);
    }
}
