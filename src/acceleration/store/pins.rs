//! The generations that one query reads.
//!
//! A plan may scan a table more than once, and every scan must see the same rows. The query's session carries the pins;
//! the first scan of a table adds its generation, the others find it. What was read can be told from what is there now
//! for as long as somebody keeps its [`Reads`].

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::prelude::SessionConfig;

use super::{Generation, Table};

/// Put one, new, into the session of each query ([`Pins::into_config`]) before it is planned.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    taken: Mutex<Vec<(Arc<Table>, Arc<Generation>)>>,
    /// What tables outside of memory were pinned to, by the address of what they pin from.
    others: Mutex<Vec<(usize, Arc<dyn Any + Send + Sync>)>>,
}

/// Tables by identity, each with the number of one of its generations. It keeps neither alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads(Vec<(Weak<Table>, u64)>);

impl Pins {
    /// A session's config for one query, and its pins.
    pub(crate) fn into_config(config: SessionConfig) -> (SessionConfig, Arc<Self>) {
        let pins = Arc::new(Self::default());
        (config.with_extension(Arc::clone(&pins)), pins)
    }

    /// What the query has read so far: the tables and their generations. A result that nothing else went into depends
    /// on these alone.
    pub(crate) fn taken(&self) -> Vec<(Arc<Table>, Arc<Generation>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same without holding them.
    pub(crate) fn reads(&self) -> Reads {
        let taken = self.taken();
        Reads(taken.iter().map(|(table, generation)| (Arc::downgrade(table), generation.number())).collect())
    }

    /// The generation of `table` for the query of this session; none before the first load. Without pins in the
    /// session each call answers for itself.
    pub(super) fn pin(config: &SessionConfig, table: &Arc<Table>) -> Option<Arc<Generation>> {
        let Some(pins) = config.get_extension::<Self>() else { return table.pin() };
        let mut taken = pins.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, generation)) = taken.iter().find(|(other, _)| Arc::ptr_eq(other, table)) {
            return Some(Arc::clone(generation));
        }
        let generation = table.pin()?;
        taken.push((Arc::clone(table), Arc::clone(&generation)));
        Some(generation)
    }

    /// The same for a table that is no [`Table`]: what `now` gives at the first call of this session for `from`, whose
    /// address tells it from others and which its plan keeps alive.
    pub(crate) fn pin_other<F, T: Send + Sync + 'static>(
        config: &SessionConfig,
        from: &Arc<F>,
        now: impl FnOnce() -> Option<Arc<T>>,
    ) -> Option<Arc<T>> {
        let Some(pins) = config.get_extension::<Self>() else { return now() };
        let key = Arc::as_ptr(from).addr();
        let mut others = pins.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pinned)) = others.iter().find(|(other, _)| *other == key) {
            return Arc::clone(pinned).downcast().ok();
        }
        let pinned = now()?;
        others.push((key, Arc::clone(&pinned) as Arc<dyn Any + Send + Sync>));
        Some(pinned)
    }
}

impl Reads {
    /// What a query of `tables` would read if it began now.
    pub(crate) fn now<'a>(tables: impl IntoIterator<Item = &'a Arc<Table>>) -> Self {
        Self(tables.into_iter().map(|table| (Arc::downgrade(table), number(table))).collect())
    }

    /// Whether no generation was published since: a query that began now would read the same.
    pub(crate) fn are_current(&self) -> bool {
        self.0.iter().all(|(table, read)| table.upgrade().is_some_and(|table| number(&table) == *read))
    }
}

impl PartialEq for Reads {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|((a, read), (b, other))| a.ptr_eq(b) && read == other)
    }
}

/// Of the generation of now; 0 before the first.
fn number(table: &Table) -> u64 {
    table.pin().map_or(0, |generation| generation.number())
}
