//! A few things that are made again and again of the same, kept where they were made last. Bounded, without a lock, and
//! never wrong: whoever looks compares.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

/// So many are kept at most.
const SLOTS: usize = 64;

/// Each has one place, by its hash, and takes it from whatever was there.
pub(crate) struct Slots<T>([ArcSwapOption<T>; SLOTS]);

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self([const { ArcSwapOption::const_empty() }; SLOTS])
    }

    /// What stands at the place of `hash`, which may be another.
    pub(crate) fn at(&self, hash: u64) -> Guard<Option<Arc<T>>> {
        self.slot(hash).load()
    }

    pub(crate) fn put(&self, hash: u64, value: T) {
        self.slot(hash).store(Some(Arc::new(value)));
    }

    fn slot(&self, hash: u64) -> &ArcSwapOption<T> {
        // The upper bits of a multiplied hash depend on all of it: that of an address ends with zeros.
        &self.0[(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_of_a_place_is_there() {
        static SLOTS: Slots<u64> = Slots::new();
        assert!(SLOTS.at(7).is_none());
        (0..1_000).for_each(|value| SLOTS.put(value, value));
        assert!((0..1_000).any(|value| SLOTS.at(value).as_deref() == Some(&value)));
        SLOTS.put(7, 7);
        assert_eq!(SLOTS.at(7).as_deref(), Some(&7));
    }

    #[test]
    fn addresses_are_spread() {
        let places = (0..1_000_u64).map(|nth| (nth * 64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
        assert!(places.collect::<std::collections::HashSet<_>>().len() > 60);
    }
}
