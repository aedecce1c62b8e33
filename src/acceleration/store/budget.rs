//! Memory of one table, asked from DataFusion's pool before it is kept.
//!
//! Whatever holds rows or index entries holds a [`Lease`] beside them, so that the pool's figure falls when the last
//! generation and the last query that share them let go.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

use crate::name::DatasetName;

use super::StoreError;

/// The account of one table in the pool, for all its generations. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    table: DatasetName,
    pool: Arc<dyn MemoryPool>,
    /// Always empty: the registration that leases share.
    root: MemoryReservation,
    bytes: AtomicUsize,
}

/// Some bytes of a [`Budget`], given back when dropped.
pub(crate) struct Lease {
    account: Arc<Account>,
    reservation: MemoryReservation,
}

impl Budget {
    #[must_use]
    pub(crate) fn new(table: DatasetName, pool: &Arc<dyn MemoryPool>) -> Self {
        let root = MemoryConsumer::new(format!("dataset {table}")).register(pool);
        let account = Account { table, pool: Arc::clone(pool), root, bytes: AtomicUsize::new(0) };
        Self { account: Arc::new(account) }
    }

    /// Bytes leased in all: every generation that is still held, and what is being built.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.account.bytes.load(Ordering::Relaxed)
    }

    /// A lease to grow by and by.
    pub(super) fn empty(&self) -> Lease {
        Lease { account: Arc::clone(&self.account), reservation: self.account.root.new_empty() }
    }

    /// # Errors
    /// [`StoreError::Memory`] when the pool refuses.
    pub(crate) fn lease(&self, bytes: usize) -> Result<Lease, StoreError> {
        let lease = self.empty();
        lease.resize(bytes)?;
        Ok(lease)
    }
}

impl Lease {
    /// # Errors
    /// [`StoreError::Memory`] when it would grow and the pool refuses; it keeps its size then.
    pub(super) fn resize(&self, bytes: usize) -> Result<(), StoreError> {
        let before = self.reservation.size();
        self.reservation.try_resize(bytes).map_err(|_| self.account.refusal(bytes.saturating_sub(before)))?;
        match bytes >= before {
            true => self.account.bytes.fetch_add(bytes - before, Ordering::Relaxed),
            false => self.account.bytes.fetch_sub(before - bytes, Ordering::Relaxed),
        };
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.reservation.size(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.reservation.size())
    }
}

impl Account {
    fn refusal(&self, asked: usize) -> StoreError {
        let limit = match self.pool.memory_limit() {
            MemoryLimit::Finite(limit) => Some(limit),
            MemoryLimit::Infinite | MemoryLimit::Unknown => None,
        };
        let needed = self.bytes.load(Ordering::Relaxed).saturating_add(asked);
        StoreError::Memory { table: self.table.clone(), needed, limit, in_use: self.pool.reserved() }
    }
}
