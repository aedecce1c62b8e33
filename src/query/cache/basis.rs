//! What a result was computed from, so that it is never answered for anything else.
//!
//! Two things can change under a statement whose text stays: a name may come to mean another table, which planning
//! finds out, and a table that is kept here may publish another generation.

use std::sync::{Arc, Weak};

use datafusion::catalog::TableProvider;

use super::reading::Reading;
use crate::acceleration::Reads;

/// Tables by identity, in the order of the plan, and the generations that were read. It keeps none of them alive.
#[derive(Debug, Clone)]
pub(super) struct Basis {
    tables: Vec<Weak<dyn TableProvider>>,
    reads: Reads,
}

impl Basis {
    /// Of a run that begins now: what it reads will be as new as this, or newer.
    pub fn now(reading: &Reading) -> Self {
        let tables = reading.providers.iter().map(Arc::downgrade).collect();
        Self { tables, reads: Reads::now(&reading.tables) }
    }

    /// The same tables, with the generations that the run has read in truth.
    pub fn having_read(self, reads: Reads) -> Self {
        Self { reads, ..self }
    }

    /// Whether a run that begins now with this reading would be the same again, as far as what is kept here goes.
    pub fn holds_for(&self, reading: &Reading) -> bool {
        let is_same = |(table, provider): (&Weak<dyn TableProvider>, &Arc<dyn TableProvider>)| {
            std::ptr::addr_eq(table.as_ptr(), Arc::as_ptr(provider))
        };
        self.tables.len() == reading.providers.len()
            && self.tables.iter().zip(&reading.providers).all(is_same)
            && self.is_current()
    }

    /// Whether no generation that was read is outdated.
    pub fn is_current(&self) -> bool {
        self.reads.are_current()
    }

    /// Whether it may ever hold again.
    pub fn is_alive(&self) -> bool {
        self.is_current() && self.tables.iter().all(|table| table.strong_count() > 0)
    }
}

impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(a, b): (&Weak<dyn TableProvider>, &Weak<dyn TableProvider>)| {
            std::ptr::addr_eq(a.as_ptr(), b.as_ptr())
        };
        self.tables.len() == other.tables.len()
            && self.tables.iter().zip(&other.tables).all(is_same)
            && self.reads == other.reads
    }
}
