//! Which of the rows that a stock upstream sends are new. Pure.
//!
//! Rows of the table are known by their hashes, or where a key is declared by those of their keys.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::acceleration::store::{Budget, Census, Layout, Role, RowHash, RowHasher, StoreError};

/// What is held of the table that is being filled.
pub(super) struct Ledger {
    hasher: RowHasher,
    held: Census,
    /// Rows that a query brought, whose own copies may still be on their way.
    credits: Census,
    /// Rows that were left out because one like them is held.
    unsettled: u64,
    /// What was sent since the connection began, until that is all that is held.
    replay: Option<Replay>,
}

struct Replay {
    sent: Census,
    /// Rows that are held and were sent, each as often as both.
    covered: u64,
}

/// The rows of a query, as far as they were read.
pub(super) struct Asked {
    seen: Census,
}

impl Ledger {
    /// Of an empty table.
    ///
    /// # Errors
    /// [`StoreError::Schema`] for a type whose values cannot be compared.
    pub(super) fn try_new(layout: &Arc<Layout>, budget: &Budget, seed: u64) -> Result<Self, StoreError> {
        let key = layout.keys().iter().find(|key| matches!(key.role, Role::Primary { .. }));
        let columns =
            key.map_or_else(|| (0..layout.schema().fields().len()).collect(), |key| key.columns.clone());
        Ok(Self {
            hasher: RowHasher::try_new(Arc::clone(layout), columns, seed)?,
            held: Census::new(budget),
            credits: Census::new(budget),
            unsettled: 0,
            replay: None,
        })
    }

    /// How many rows are held.
    pub(super) fn rows(&self) -> u64 {
        self.held.rows()
    }

    pub(super) fn unsettled(&self) -> u64 {
        self.unsettled
    }

    /// So many of the rows that were left out are known to be repeats.
    pub(super) fn settle(&mut self, rows: u64) {
        self.unsettled = self.unsettled.saturating_sub(rows);
    }

    /// A connection begins: what is held is to be sent again.
    pub(super) fn begin_replay(&mut self, budget: &Budget) {
        let is_empty = self.held.rows() == 0;
        self.replay = (!is_empty).then(|| Replay { sent: Census::new(budget), covered: 0 });
    }

    /// What is held is known to be there.
    pub(super) fn end_replay(&mut self) {
        self.replay = None;
    }

    pub(super) fn is_covered(&self) -> bool {
        self.replay.is_none()
    }

    /// No copy of a row that a query brought is on its way any more.
    pub(super) fn forget_credits(&mut self, budget: &Budget) {
        self.credits = Census::new(budget);
    }

    /// Rows that are in the table already, as it was found.
    pub(super) fn hold(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        self.held.lease(batch.num_rows())?;
        for hash in self.hasher.hashes(batch)? {
            self.held.add(hash);
        }
        Ok(())
    }

    /// The new ones among rows that the upstream sent.
    pub(super) fn take(&mut self, batch: RecordBatch) -> Result<Option<RecordBatch>, StoreError> {
        self.held.lease(batch.num_rows())?;
        let hashes = self.hasher.hashes(&batch)?;
        if let Some(replay) = &self.replay {
            replay.sent.lease(batch.num_rows())?;
        }
        let new: Vec<bool> = hashes.into_iter().map(|hash| self.is_new(hash)).collect();
        // Given back as soon as it is not needed.
        self.replay = self.replay.take().filter(|replay| replay.covered < self.held.rows());
        self.hasher.chosen(batch, new)
    }

    fn is_new(&mut self, hash: RowHash) -> bool {
        let is_new = self.enters(hash);
        if let Some(replay) = &mut self.replay
            && replay.sent.add(hash) <= self.held.count(hash)
        {
            replay.covered += 1;
        }
        is_new
    }

    fn enters(&mut self, hash: RowHash) -> bool {
        if self.credits.remove(hash) {
            return false;
        }
        if self.held.count(hash) == 0 {
            self.held.add(hash);
            return true;
        }
        self.unsettled += 1;
        false
    }

    /// What is missing here of the next rows of a query: those beyond the number in which they are held.
    pub(super) fn missing(
        &mut self,
        asked: &mut Asked,
        batch: RecordBatch,
    ) -> Result<Option<RecordBatch>, StoreError> {
        self.held.lease(batch.num_rows())?;
        asked.seen.lease(batch.num_rows())?;
        let hashes = self.hasher.hashes(&batch)?;
        let mut is_missing = |hash: RowHash| {
            let missing = asked.seen.add(hash) > self.held.count(hash);
            if missing {
                self.held.add(hash);
                self.credits.add(hash);
            }
            missing
        };
        let missing: Vec<bool> = hashes.into_iter().map(&mut is_missing).collect();
        self.credits.lease(0)?;
        self.hasher.chosen(batch, missing)
    }
}

impl Asked {
    /// Nothing was read yet.
    pub(super) fn new(budget: &Budget) -> Self {
        Self { seen: Census::new(budget) }
    }

    /// How many rows the upstream had.
    pub(super) fn rows(&self) -> u64 {
        self.seen.rows()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;
    use crate::acceleration::store::Key;

    type Row = (i64, i64);

    fn budget() -> Budget {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        Budget::new("t".parse().unwrap(), &pool)
    }

    fn ledger(has_key: bool) -> Ledger {
        let fields = ["k", "v"].map(|name| Field::new(name, DataType::Int64, false));
        let key = Key { columns: vec![0], role: Role::Primary { on_conflict: None } };
        let keys = if has_key { vec![key] } else { Vec::new() };
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let layout = Layout::try_new("t".parse().unwrap(), schema, None, keys).unwrap();
        Ledger::try_new(&Arc::new(layout), &budget(), 1).unwrap()
    }

    fn batch(rows: &[Row]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_from_iter([("k", keys), ("v", values)]).unwrap()
    }

    fn rows(batch: Option<RecordBatch>) -> Vec<Row> {
        let Some(batch) = batch else { return Vec::new() };
        let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().values().to_vec();
        column(0).into_iter().zip(column(1)).collect()
    }

    fn counted(rows: &[Row]) -> BTreeMap<Row, usize> {
        let mut counts = BTreeMap::new();
        rows.iter().for_each(|row| *counts.entry(*row).or_default() += 1);
        counts
    }

    #[test]
    fn a_key_that_is_held_is_left_out_whatever_comes_with_it() {
        let mut ledger = ledger(true);
        assert_eq!(rows(ledger.take(batch(&[(1, 1), (2, 2), (1, 3)])).unwrap()), [(1, 1), (2, 2)]);
        assert_eq!((ledger.rows(), ledger.unsettled()), (2, 1));
    }

    #[test]
    fn what_a_query_brought_is_expected_once_more() {
        let mut ledger = ledger(false);
        let mut asked = Asked::new(&budget());
        assert_eq!(rows(ledger.missing(&mut asked, batch(&[(1, 1), (1, 1)])).unwrap()).len(), 2);
        assert!(ledger.take(batch(&[(1, 1), (1, 1)])).unwrap().is_none());
        assert_eq!(ledger.unsettled(), 0, "their own copies");
        assert!(ledger.take(batch(&[(1, 1)])).unwrap().is_none());
        assert_eq!(ledger.unsettled(), 1, "one more than the query brought");
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(11), ..ProptestConfig::default() })]

        /// The upstream has `all`, of which the stream sends some, and some again.
        #[test]
        fn what_is_held_is_a_part_and_a_query_makes_it_whole(
            all in prop::collection::vec((0..4i64, 0..2i64), 1..30),
            sent in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut ledger = ledger(false);
            let mut held = Vec::new();
            let sent: Vec<Row> = sent.iter().map(|at| all[at.index(all.len())]).collect();
            for part in sent.chunks(7) {
                held.extend(rows(ledger.take(batch(part)).unwrap()));
            }
            let most = counted(&all);
            prop_assert!(counted(&held).iter().all(|(row, times)| times <= &most[row]));
            prop_assert_eq!(ledger.rows(), held.len() as u64);
            prop_assert_eq!(ledger.unsettled(), (sent.len() - held.len()) as u64);

            // The stream is sent anew: what is held is covered when the last of it has come.
            ledger.begin_replay(&budget());
            let first = cut.index(held.len().max(1)).min(held.len());
            let _ = ledger.take(batch(&held[..first])).unwrap();
            prop_assert_eq!(ledger.is_covered(), first == held.len());
            let _ = ledger.take(batch(&held[first..])).unwrap();
            prop_assert!(ledger.is_covered());

            let mut asked = Asked::new(&budget());
            for part in all.chunks(5) {
                held.extend(rows(ledger.missing(&mut asked, batch(part)).unwrap()));
            }
            prop_assert_eq!(counted(&held), most);
            prop_assert_eq!((asked.rows(), ledger.rows()), (all.len() as u64, all.len() as u64));
        }
    }
}
