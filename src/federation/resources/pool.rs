//! The policy by which memory is given out.
//!
//! DataFusion has two pools. The greedy one lets whoever comes first take everything: a sort that could spill then
//! starves a join that cannot. The fair one gives each its part, but checks no sum: what was given before others came
//! is not taken back, and all together may hold several times the limit, which ends with the kernel's killer. This
//! one keeps two promises: all that is asked for together stays within the limit, and of work that can spill only who
//! holds less than its fair part takes from the last fifth. Accelerated data reserve as consumers that cannot spill: nobody makes
//! them go, and what they leave is divided among queries.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::common::human_readable_size;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// One part in so many of what data and builds leave is kept from work that can spill: for those that cannot, and for
/// those that come late.
const KEPT_SHARE: usize = 5;

/// See the module.
#[derive(Debug)]
pub(super) struct SharedPool {
    limit: usize,
    used: Mutex<Used>,
}

/// What is given out, in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Used {
    /// Consumers that can spill.
    spillers: usize,
    spillable: usize,
    fixed: usize,
}

/// A request for memory.
#[derive(Debug, Clone, Copy)]
struct Wish {
    can_spill: bool,
    /// What the reservation holds already.
    held: usize,
    more: usize,
}

impl Used {
    fn sum(self) -> usize {
        self.spillable.saturating_add(self.fixed)
    }

    fn admits(self, wish: Wish, limit: usize) -> bool {
        // What was grown without asking may have passed the limit; nothing more is not too much.
        if wish.more == 0 {
            return true;
        }
        if self.sum().saturating_add(wish.more) > limit {
            return false;
        }
        let left = limit.saturating_sub(self.fixed);
        let kept = left / KEPT_SHARE;
        let fair = left / self.spillers.max(1);
        !wish.can_spill
            || self.spillable.saturating_add(wish.more) <= left - kept
            || wish.held.saturating_add(wish.more) <= fair
    }

    fn part(&mut self, can_spill: bool) -> &mut usize {
        if can_spill { &mut self.spillable } else { &mut self.fixed }
    }
}

impl SharedPool {
    /// A pool of so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: Mutex::default() }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryPool for SharedPool {
    fn name(&self) -> &str {
        "shared"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.used().spillers += usize::from(consumer.can_spill());
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut used = self.used();
        used.spillers = used.spillers.saturating_sub(usize::from(consumer.can_spill()));
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let mut used = self.used();
        let part = used.part(reservation.consumer().can_spill());
        *part = part.saturating_add(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut used = self.used();
        let part = used.part(reservation.consumer().can_spill());
        *part = part.saturating_sub(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let can_spill = reservation.consumer().can_spill();
        let wish = Wish { can_spill, held: reservation.size(), more: additional };
        let mut used = self.used();
        if used.admits(wish, self.limit) {
            *used.part(can_spill) += additional;
            return Ok(());
        }
        let Used { spillable, fixed, .. } = *used;
        // Operators take this kind of error as the word to spill: it is not always the end of a query.
        Err(DataFusionError::ResourcesExhausted(format!(
            "{} holds {} and asked for {} more; of {}, other data and joins hold {} and sorts and aggregates {}",
            reservation.consumer().name(),
            human_readable_size(reservation.size()),
            human_readable_size(additional),
            human_readable_size(self.limit),
            human_readable_size(fixed),
            human_readable_size(spillable),
        )))
    }

    fn reserved(&self) -> usize {
        self.used().sum()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for SharedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", human_readable_size(self.reserved()), human_readable_size(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1_000;

    fn pool() -> Arc<dyn MemoryPool> {
        Arc::new(SharedPool::new(LIMIT))
    }

    fn consumer(pool: &Arc<dyn MemoryPool>, can_spill: bool) -> MemoryReservation {
        MemoryConsumer::new("test").with_can_spill(can_spill).register(pool)
    }

    #[test]
    fn a_sort_leaves_room_for_who_comes_later() {
        let pool = pool();
        let (first, second) = (consumer(&pool, true), consumer(&pool, true));
        first.try_grow(800).unwrap();
        assert!(first.try_grow(1).is_err());
        second.try_grow(100).unwrap();
        let join = consumer(&pool, false);
        join.try_grow(100).unwrap();
        let refused = join.try_grow(1).unwrap_err();
        assert!(matches!(&refused, DataFusionError::ResourcesExhausted(_)));
        insta::assert_snapshot!(refused.strip_backtrace(), @"Resources exhausted: test holds 100.0 B and asked for 1.0 B more; of 1000.0 B, other data and joins hold 100.0 B and sorts and aggregates 900.0 B");
        drop(first);
        join.try_grow(700).unwrap();
        join.grow(LIMIT);
        join.try_grow(0).unwrap();
    }

    #[test]
    fn data_may_take_everything_and_stay() {
        let pool = pool();
        let data = consumer(&pool, false);
        data.try_grow(LIMIT).unwrap();
        let sort = consumer(&pool, true);
        assert!(sort.try_grow(1).is_err());
        assert_eq!(data.size(), LIMIT);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Come { can_spill: bool },
        Grow { who: usize, bytes: usize },
        Shrink { who: usize, bytes: usize },
        Leave { who: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        let (who, bytes) = (0usize..8, 0usize..400);
        prop_oneof![
            any::<bool>().prop_map(|can_spill| Step::Come { can_spill }),
            (who.clone(), bytes.clone()).prop_map(|(who, bytes)| Step::Grow { who, bytes }),
            (who.clone(), bytes).prop_map(|(who, bytes)| Step::Shrink { who, bytes }),
            who.prop_map(|who| Step::Leave { who }),
        ]
    }

    proptest! {
        /// Never above the limit, always the sum of what is held; nothing is left when all have gone; and who
        /// cannot spill, or holds less than its fair part, is refused only by the limit.
        #[test]
        fn the_limit_and_the_fair_part_hold(steps in prop::collection::vec(step(), 0..60)) {
            let pool = pool();
            let mut all: Vec<MemoryReservation> = Vec::new();
            for step in steps {
                match step {
                    Step::Come { can_spill } => all.push(consumer(&pool, can_spill)),
                    Step::Grow { who, bytes } => {
                        let Some(reservation) = all.get(who) else { continue };
                        let spillers = all.iter().filter(|other| other.consumer().can_spill()).count();
                        let fixed: usize = all.iter().filter(|other| !other.consumer().can_spill()).map(MemoryReservation::size).sum();
                        let fair = (LIMIT - fixed) / spillers.max(1);
                        let owed = reservation.consumer().can_spill() && reservation.size() + bytes <= fair;
                        let fits = pool.reserved() + bytes <= LIMIT;
                        let fixed = !reservation.consumer().can_spill();
                        let given = reservation.try_grow(bytes).is_ok();
                        prop_assert!(fits || !given);
                        prop_assert!(given || !fits || !(owed || fixed));
                    }
                    Step::Shrink { who, bytes } => {
                        let Some(reservation) = all.get(who) else { continue };
                        reservation.shrink(bytes.min(reservation.size()));
                    }
                    Step::Leave { who } => {
                        if who < all.len() {
                            all.swap_remove(who);
                        }
                    }
                }
                let held: usize = all.iter().map(MemoryReservation::size).sum();
                prop_assert_eq!(pool.reserved(), held);
                prop_assert!(held <= LIMIT);
            }
            all.clear();
            prop_assert_eq!(pool.reserved(), 0);
        }
    }
}
