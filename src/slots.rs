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

/// What is made of bytes, and found again by them.
pub(crate) struct ByBytes<T> {
    slots: Slots<(Box<[u8]>, T)>,
    bytes_max: usize,
}

impl<T> ByBytes<T> {
    /// Of more than `bytes_max` bytes it is made each time.
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { slots: Slots::new(), bytes_max }
    }

    /// What `read` finds in what was made of `bytes` last, or else in what `make` makes of them now; what it makes nothing of
    /// is not kept.
    pub(crate) fn recall<R>(
        &self,
        bytes: &[u8],
        read: impl Fn(&T) -> Option<R>,
        make: impl FnOnce() -> Option<T>,
    ) -> Option<R> {
        if bytes.len() > self.bytes_max {
            return read(&make()?);
        }
        let hash = u64::from(crc32fast::hash(bytes));
        let known = self.slots.at(hash);
        let known = known.as_ref().filter(|known| *known.0 == *bytes);
        if let Some(found) = known.and_then(|known| read(&known.1)) {
            return Some(found);
        }
        let made = make()?;
        let found = read(&made);
        // In memory of its own: what was received is part of something larger.
        self.slots.put(hash, (bytes.into(), made));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_made_of_once() {
        static KEPT: ByBytes<usize> = ByBytes::new(4);
        let made = std::cell::Cell::new(0);
        let length = |bytes: &[u8], least: usize| {
            let make = || {
                made.set(made.get() + 1);
                (!bytes.is_empty()).then_some(bytes.len())
            };
            KEPT.recall(bytes, |length| (*length >= least).then_some(*length), make)
        };
        assert_eq!([length(b"one", 0), length(b"one", 3)], [Some(3); 2]);
        assert_eq!(made.get(), 1);
        // Nothing is found in what is kept, and nothing in what is made anew.
        assert_eq!((length(b"one", 4), made.get()), (None, 2));
        // Too long, or nothing: not kept.
        for bytes in [&b"three"[..], b""] {
            let before = made.get();
            assert_eq!(length(bytes, 0), length(bytes, 0));
            assert_eq!(made.get(), before + 2);
        }
    }

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
