//! A histogram with fixed buckets: values enter, counts leave. Recording takes no lock and grows nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::HistogramFn;

/// One series of a histogram.
#[derive(Debug)]
pub(super) struct Buckets {
    bounds: &'static [f64],
    /// Of each bound, and of what lies above the last.
    counts: Vec<AtomicU64>,
    /// An `f64`.
    sum: AtomicU64,
}

/// What a histogram holds at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// Upper bounds, each of its own bucket and inclusive; one bucket more stands above the last.
    pub bounds: &'static [f64],
    /// Of each bucket by itself.
    pub counts: Vec<u64>,
    pub sum: f64,
}

impl Buckets {
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }
    }

    pub fn counted(&self) -> Counted {
        Counted {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
        }
    }
}

impl Counted {
    /// All values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        // The update always gives a value: it cannot fail.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sum| {
            Some((f64::from_bits(sum) + value).to_bits())
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: &[f64] = &[1.0, 10.0, 100.0];

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let buckets = Buckets::new(BOUNDS);
        for value in [0.5, 1.0, 1.1, 100.0, 1e9, f64::NAN, f64::INFINITY] {
            buckets.record(value);
        }
        assert_eq!(buckets.counted().counts, [2, 1, 1, 2]);
    }

    proptest! {
        #[test]
        fn every_value_is_in_one_bucket(values in prop::collection::vec(-10.0f64..1e4, 0..50)) {
            let buckets = Buckets::new(BOUNDS);
            values.iter().for_each(|value| buckets.record(*value));
            let counted = buckets.counted();
            prop_assert_eq!(counted.count(), values.len() as u64);
            prop_assert!((counted.sum - values.iter().sum::<f64>()).abs() < 1e-6);
            let mut cumulative = 0;
            for (bound, count) in BOUNDS.iter().zip(&counted.counts) {
                cumulative += count;
                let below = values.iter().filter(|value| *value <= bound).count();
                prop_assert_eq!(cumulative, below as u64);
            }
        }
    }
}
