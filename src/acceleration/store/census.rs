//! How often each row of a table is there, by hashes of 128 bits of whole rows or of their keys.
//!
//! Kept only while rows may arrive that are here already and nothing marks them; what it takes is leased.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use datafusion::common::hash_utils::QualityRandomState;

use super::budget::Lease;
use super::{Budget, Layout, StoreError};

/// About what a slot of a set costs beside its value: a control byte, and the slots that stay free.
const SLOT_BYTES: usize = size_of::<RowHash>() + 1;

/// Equal for rows that are equal bit by bit, and for no others that will ever meet.
pub(crate) type RowHash = u128;

/// Hashes rows of one layout; hashes of two hashers cannot be compared.
#[derive(Debug, Clone)]
pub(crate) struct RowHasher {
    layout: Arc<Layout>,
    converter: Arc<RowConverter>,
    /// The columns that count.
    columns: Vec<usize>,
    states: [QualityRandomState; 2],
}

/// A multiset of row hashes.
pub(crate) struct Census {
    once: HashSet<RowHash, BuildHasherDefault<AsItIs>>,
    /// Those that are there more than once.
    more: HashMap<RowHash, u32, BuildHasherDefault<AsItIs>>,
    rows: u64,
    lease: Lease,
}

/// Hashes are hashes already.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

impl RowHasher {
    /// Over `columns` of rows of `layout`. `seed` keeps others from choosing rows that collide.
    ///
    /// # Errors
    /// [`StoreError::Schema`] for a type whose values cannot be compared.
    pub(crate) fn try_new(layout: Arc<Layout>, columns: Vec<usize>, seed: u64) -> Result<Self, StoreError> {
        let fields = layout.schema().fields();
        let kinds = columns.iter().map(|at| SortField::new(fields[*at].data_type().clone())).collect();
        let converter = RowConverter::new(kinds).map_err(StoreError::arrow(layout.name()))?;
        let states = [seed, !seed].map(QualityRandomState::with_seed);
        Ok(Self { layout, converter: Arc::new(converter), columns, states })
    }

    /// One hash for each row of `batch`, which has the layout's columns.
    ///
    /// # Errors
    /// What Arrow meets.
    pub(crate) fn hashes(&self, batch: &RecordBatch) -> Result<Vec<RowHash>, StoreError> {
        self.rows(batch).map_err(StoreError::arrow(self.layout.name()))
    }

    fn rows(&self, batch: &RecordBatch) -> Result<Vec<RowHash>, ArrowError> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let rows = self.converter.convert_columns(&columns)?;
        let [high, low] = &self.states;
        let hash = |row: &[u8]| (u128::from(high.hash_one(row)) << 64) | u128::from(low.hash_one(row));
        Ok(rows.iter().map(|row| hash(row.data())).collect())
    }
}

impl RowHasher {
    /// The rows of `batch` that are marked; none when none is.
    ///
    /// # Errors
    /// What Arrow meets.
    pub(crate) fn chosen(
        &self,
        batch: RecordBatch,
        marked: Vec<bool>,
    ) -> Result<Option<RecordBatch>, StoreError> {
        match marked.iter().filter(|marked| **marked).count() {
            0 => Ok(None),
            all if all == batch.num_rows() => Ok(Some(batch)),
            _ => {
                let rows = filter_record_batch(&batch, &BooleanArray::from(marked));
                rows.map(Some).map_err(StoreError::arrow(self.layout.name()))
            }
        }
    }
}

impl Census {
    pub(crate) fn new(budget: &Budget) -> Self {
        Self { once: HashSet::default(), more: HashMap::default(), rows: 0, lease: budget.empty() }
    }

    /// Of rows, not of different ones.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn count(&self, hash: RowHash) -> u32 {
        match self.more.get(&hash) {
            Some(times) => *times,
            None => u32::from(self.once.contains(&hash)),
        }
    }

    /// One more of it; how many there are now.
    pub(crate) fn add(&mut self, hash: RowHash) -> u32 {
        self.rows += 1;
        if self.once.insert(hash) {
            return 1;
        }
        let times = self.more.entry(hash).or_insert(1);
        *times = times.saturating_add(1);
        *times
    }

    /// One less, if there is one.
    pub(crate) fn remove(&mut self, hash: RowHash) -> bool {
        if let Entry::Occupied(mut more) = self.more.entry(hash) {
            match *more.get() {
                0..=2 => drop(more.remove()),
                times => *more.get_mut() = times - 1,
            }
        } else if !self.once.remove(&hash) {
            return false;
        }
        self.rows -= 1;
        true
    }

    /// Asks for the memory that it takes by now, and `more` rows.
    ///
    /// # Errors
    /// [`StoreError::Memory`].
    pub(crate) fn lease(&self, more: usize) -> Result<(), StoreError> {
        let slots = |held: usize, capacity: usize, added: usize| match held + added <= capacity {
            true => capacity,
            // It will double.
            false => (held + added).next_power_of_two() * 2,
        };
        let once = slots(self.once.len(), self.once.capacity(), more) * SLOT_BYTES;
        self.lease.resize(once + self.more.capacity() * (SLOT_BYTES + size_of::<RowHash>()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{DictionaryArray, Float64Array, StringArray, StringViewArray};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn budget() -> Budget {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        Budget::new("t".parse().unwrap(), &pool)
    }

    #[test]
    fn rows_are_told_apart_by_every_bit() {
        let fields = [("f", DataType::Float64), ("s", DataType::Utf8)];
        let fields: Vec<_> = fields.map(|(name, kind)| Field::new(name, kind, true)).into();
        let schema = Arc::new(Schema::new(fields));
        let layout = Layout::try_new("t".parse().unwrap(), Arc::clone(&schema), None, Vec::new()).unwrap();
        let hasher = RowHasher::try_new(Arc::new(layout), vec![0, 1], 7).unwrap();
        let floats =
            Float64Array::from(vec![Some(0.0), Some(-0.0), Some(f64::NAN), None, Some(0.0), Some(0.0)]);
        let texts = StringArray::from(vec![Some("a"), Some("a"), Some("a"), Some("a"), None, Some("")]);
        let batch = RecordBatch::try_new(schema, vec![Arc::new(floats), Arc::new(texts)]).unwrap();
        let hashes = hasher.hashes(&batch).unwrap();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), 6);
        assert_eq!(hasher.hashes(&batch.slice(3, 1)).unwrap(), hashes[3..4]);
    }

    #[test]
    fn a_dictionary_is_what_it_means() {
        let of = |array: ArrayRef| {
            let schema = Schema::new(vec![Field::new("s", array.data_type().clone(), true)]);
            let schema = Arc::new(schema);
            let layout =
                Layout::try_new("t".parse().unwrap(), Arc::clone(&schema), None, Vec::new()).unwrap();
            let hasher = RowHasher::try_new(Arc::new(layout), vec![0], 7).unwrap();
            hasher.hashes(&RecordBatch::try_new(schema, vec![array]).unwrap()).unwrap()
        };
        let plain = of(Arc::new(StringArray::from(vec!["x", "y"])));
        assert_eq!(of(Arc::new(StringViewArray::from(vec!["x", "y"]))), plain);
        assert_eq!(of(Arc::new(DictionaryArray::<Int32Type>::from_iter(["x", "y"]))), plain);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

        #[test]
        fn it_counts_as_a_map_does(steps in prop::collection::vec((0u128..6, any::<bool>()), 0..200)) {
            let (mut census, mut model) = (Census::new(&budget()), BTreeMap::<u128, u32>::new());
            for (hash, adds) in steps {
                match adds {
                    true => {
                        let times = model.entry(hash).or_default();
                        *times += 1;
                        prop_assert_eq!(census.add(hash), *times);
                    }
                    false => {
                        let held = model.get_mut(&hash).filter(|times| **times > 0);
                        prop_assert_eq!(census.remove(hash), held.is_some());
                        if let Some(times) = held {
                            *times -= 1;
                        }
                    }
                }
                census.lease(1).unwrap();
                prop_assert_eq!(census.rows(), model.values().map(|times| u64::from(*times)).sum::<u64>());
                for hash in 0..6 {
                    prop_assert_eq!(census.count(hash), model.get(&hash).copied().unwrap_or(0));
                }
            }
        }
    }
}
