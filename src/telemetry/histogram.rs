//! Log-linear histogram of durations: one array of cells, one writer, merged by adding arrays.
//!
//! Values are nanoseconds. Below 32 ns each has its own cell; above, every power of two is cut in
//! 32 cells (5 bits of mantissa), so a cell is at most 1/32 of its value wide. Longer durations than
//! `LONGEST_NS` count as that long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::counters::Counter;

const MANTISSA_BITS: u32 = 5;
const CELLS_PER_OCTAVE: usize = 1 << MANTISSA_BITS;

/// Highest value told apart: 137 s, above every time limit of the program.
const LONGEST_NS: u64 = (1 << 37) - 1;

const CELLS: usize = cell_of(LONGEST_NS) + 1;

/// Cell a value falls in.
const fn cell_of(ns: u64) -> usize {
    if ns < CELLS_PER_OCTAVE as u64 {
        #[expect(clippy::cast_possible_truncation, reason = "below 32 by the condition")]
        return ns as usize;
    }
    let octave = (63 - ns.leading_zeros() - MANTISSA_BITS) as usize;
    #[expect(clippy::cast_possible_truncation, reason = "32..64 after the shift")]
    let mantissa = (ns >> octave) as usize - CELLS_PER_OCTAVE;
    (octave + 1) * CELLS_PER_OCTAVE + mantissa
}

/// Highest value of a cell.
const fn highest_of(cell: usize) -> u64 {
    if cell < CELLS_PER_OCTAVE {
        return cell as u64;
    }
    let octave = cell / CELLS_PER_OCTAVE - 1;
    let mantissa = (cell % CELLS_PER_OCTAVE + CELLS_PER_OCTAVE) as u64;
    ((mantissa + 1) << octave) - 1
}

/// Durations seen by one shard. One writer.
pub struct Histogram {
    cells: Box<[AtomicU64; CELLS]>,
    sum_ns: Counter,
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram")
            .field("sum_ns", &self.sum_ns.get())
            .finish_non_exhaustive()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            cells: Box::new([const { AtomicU64::new(0) }; CELLS]),
            sum_ns: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let cell = &self.cells[cell_of(ns.min(LONGEST_NS))];
        cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.sum_ns.add(ns);
    }
}

/// Sum of several histograms, ready to be printed.
#[derive(Clone, Debug)]
pub struct Merged {
    cells: Vec<u64>,
    sum_ns: u64,
}

impl Default for Merged {
    fn default() -> Self {
        Self {
            cells: vec![0; CELLS],
            sum_ns: 0,
        }
    }
}

impl Merged {
    /// Adds what `histogram` holds now.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, cell) in self.cells.iter_mut().zip(histogram.cells.iter()) {
            *sum += cell.load(Ordering::Relaxed);
        }
        self.sum_ns = self.sum_ns.wrapping_add(histogram.sum_ns.get());
    }

    /// How many durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// Their sum.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// For each bound (ascending), how many durations do not exceed it. Durations of the one cell
    /// that straddles a bound count above it: at most 1/32 of the bound is misplaced.
    #[must_use]
    pub fn cumulative(&self, bounds: &[Duration]) -> Vec<u64> {
        let mut counts = Vec::with_capacity(bounds.len());
        let mut cells = self.cells.iter().enumerate().peekable();
        let mut total = 0;
        for bound in bounds {
            while let Some((_, n)) =
                cells.next_if(|(cell, _)| u128::from(highest_of(*cell)) <= bound.as_nanos())
            {
                total += n;
            }
            counts.push(total);
        }
        counts
    }

    /// Smallest cell bound below which at least `fraction` of the durations lie; zero when empty.
    #[must_use]
    pub fn quantile(&self, fraction: f64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts stay far below 2^52 and the product is within 0..=count"
        )]
        let rank = ((self.count() as f64 * fraction).ceil() as u64).max(1);
        let mut seen = 0;
        for (cell, n) in self.cells.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Duration::from_nanos(highest_of(cell));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(histogram: &Histogram) -> Merged {
        let mut merged = Merged::default();
        merged.add(histogram);
        merged
    }

    #[test]
    fn cells_tile_the_range_without_gap_or_overlap() {
        let mut lowest = 0;
        for cell in 0..CELLS {
            assert_eq!(cell_of(lowest), cell);
            assert_eq!(cell_of(highest_of(cell)), cell);
            assert!(highest_of(cell) - lowest <= lowest / 32);
            lowest = highest_of(cell) + 1;
        }
        assert_eq!(lowest, LONGEST_NS + 1);
    }

    #[test]
    fn quantiles_agree_with_hdrhistogram_within_one_cell() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let ours = Histogram::default();
        let mut oracle = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1 << 37, 3).unwrap();
        for _ in 0..20_000 {
            // Spread over all magnitudes, as latencies are.
            let magnitude = random.u32(1..37);
            let ns = random.u64(1..1 << magnitude);
            ours.record(Duration::from_nanos(ns));
            oracle.record(ns).unwrap();
        }
        let ours = merged(&ours);
        assert_eq!(ours.count(), oracle.len());
        for fraction in [0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let expected = oracle.value_at_quantile(fraction) as f64;
            let found = ours.quantile(fraction).as_nanos() as f64;
            assert!(
                (found - expected).abs() <= expected / 30.0 + 1.0,
                "seed {seed}, {fraction}: {found} against {expected}"
            );
        }
    }

    #[test]
    fn cumulative_counts_agree_with_a_plain_list() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let ours = Histogram::default();
        let values: Vec<u64> = (0..5_000).map(|_| random.u64(0..1 << 34)).collect();
        for ns in &values {
            ours.record(Duration::from_nanos(*ns));
        }
        let bounds = [0.000_1, 0.01, 0.5, 1.0, 20.0].map(Duration::from_secs_f64);
        for (bound, found) in bounds.iter().zip(merged(&ours).cumulative(&bounds)) {
            let below = |limit: u128| values.iter().filter(|ns| u128::from(**ns) <= limit).count();
            let (low, high) = (bound.as_nanos() * 31 / 32, bound.as_nanos());
            let range = below(low) as u64..=below(high) as u64;
            assert!(
                range.contains(&found),
                "seed {seed}: {found} not in {range:?}"
            );
        }
    }

    #[test]
    fn histograms_merge_by_addition() {
        let (left, right) = (Histogram::default(), Histogram::default());
        left.record(Duration::from_millis(1));
        right.record(Duration::from_millis(3));
        right.record(Duration::from_secs(1_000));
        let mut both = merged(&left);
        both.add(&right);
        assert_eq!(both.count(), 3);
        assert_eq!(both.sum(), Duration::from_millis(1_000_004));
        assert_eq!(both.cumulative(&[Duration::from_millis(2)]), [1]);
        assert_eq!(both.quantile(1.0), Duration::from_nanos(LONGEST_NS));
    }

    #[test]
    fn empty_histogram_has_no_quantile() {
        assert_eq!(Merged::default().quantile(0.99), Duration::ZERO);
    }
}
