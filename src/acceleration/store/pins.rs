//! The generations that one query reads.
//!
//! A plan may scan a table more than once, and every scan must see the same rows. The query's session carries the pins;
//! the first scan of a table adds its generation, the others find it.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::prelude::SessionConfig;

use super::{Generation, Table};

/// Put one, new, into the session of each query ([`Pins::into_config`]) before it is planned.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    taken: Mutex<Vec<(Arc<Table>, Arc<Generation>)>>,
    /// What tables outside of memory were pinned to, by the address of what they pin from.
    others: Mutex<Vec<(usize, Arc<dyn Any + Send + Sync>)>>,
}

impl Pins {
    /// A session's config for one query, and its pins.
    pub(crate) fn into_config(config: SessionConfig) -> (SessionConfig, Arc<Self>) {
        let pins = Arc::new(Self::default());
        (config.with_extension(Arc::clone(&pins)), pins)
    }

    /// What the query has read so far: the tables and their generations. A result depends on these alone.
    pub(crate) fn taken(&self) -> Vec<(Arc<Table>, Arc<Generation>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
