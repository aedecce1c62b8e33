//! Which group a whole number has, by a place for each number that there may be.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int32Type, Int64Type, UInt32Type};
use datafusion::error::{DataFusionError, Result};

/// What the places of one partition may take: 32 MiB.
const PLACES_MAX: u64 = 1 << 23;

/// Groups in the order in which their keys were first seen.
#[derive(Debug)]
pub(super) struct Places {
    least: i64,
    /// The group of each number from `least` on, counted from 1; 0 where there is none yet.
    places: Vec<u32>,
    /// Of numbers that nobody expected: what is known of a column is no promise.
    others: HashMap<i64, u32>,
    /// Counted from 1.
    null: Option<u32>,
    /// By group; 0 for NULL.
    keys: Vec<i64>,
}

impl Places {
    /// How many there are for the numbers from `least` to `greatest`; none where they are too many.
    pub(super) fn count(least: i64, greatest: i64) -> Option<usize> {
        let span = greatest.wrapping_sub(least) as u64;
        (least <= greatest && span < PLACES_MAX).then(|| span as usize + 1)
    }

    pub(super) fn new(least: i64, greatest: i64) -> Self {
        let places = vec![0; Self::count(least, greatest).unwrap_or_default()];
        Self { least, places, others: HashMap::new(), null: None, keys: Vec::new() }
    }

    /// How many groups there are.
    pub(super) fn groups(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn size(&self) -> usize {
        let others = self.others.capacity() * size_of::<(i64, u64)>();
        self.places.capacity() * size_of::<u32>() + self.keys.capacity() * size_of::<i64>() + others
    }

    /// Appends the group of each of `keys`, counted from 0.
    ///
    /// # Errors
    /// A type that is no whole number; more groups than 32 bits count.
    pub(super) fn groups_of(&mut self, keys: &ArrayRef, groups: &mut Vec<usize>) -> Result<()> {
        match keys.data_type() {
            DataType::Int32 => self.of_rows::<Int32Type>(keys.as_primitive(), groups),
            DataType::Int64 => self.of_rows::<Int64Type>(keys.as_primitive(), groups),
            DataType::UInt32 => self.of_rows::<UInt32Type>(keys.as_primitive(), groups),
            other => return Err(DataFusionError::Internal(format!("groups of {other}"))),
        }
        match u32::try_from(self.keys.len()) {
            Ok(_) => Ok(()),
            Err(_) => Err(DataFusionError::ResourcesExhausted("more than 4 billion groups".to_owned())),
        }
    }

    fn of_rows<T: ArrowPrimitiveType<Native: Into<i64>>>(
        &mut self,
        keys: &PrimitiveArray<T>,
        groups: &mut Vec<usize>,
    ) {
        groups.reserve(keys.len());
        match keys.null_count() {
            0 => groups.extend(keys.values().iter().map(|key| self.group((*key).into()))),
            _ => groups.extend(keys.iter().map(|key| match key {
                Some(key) => self.group(key.into()),
                None => self.group_of_null(),
            })),
        }
    }

    fn group(&mut self, key: i64) -> usize {
        let at = key.wrapping_sub(self.least) as u64 as usize;
        let place = match self.places.get_mut(at) {
            Some(place) => place,
            None => self.others.entry(key).or_insert(0),
        };
        if *place == 0 {
            self.keys.push(key);
            *place = self.keys.len() as u32;
        }
        *place as usize - 1
    }

    fn group_of_null(&mut self) -> usize {
        let keys = &mut self.keys;
        let null = self.null.get_or_insert_with(|| {
            keys.push(0);
            keys.len() as u32
        });
        *null as usize - 1
    }

    /// The keys of all groups, of type `kind`, and no group is left.
    ///
    /// # Errors
    /// A type that is no whole number.
    pub(super) fn take(&mut self, kind: &DataType) -> Result<ArrayRef> {
        let keys = std::mem::take(&mut self.keys);
        for key in &keys {
            if let Some(place) = self.places.get_mut(key.wrapping_sub(self.least) as u64 as usize) {
                *place = 0;
            }
        }
        self.others.clear();
        let nulls = self.null.take().map(|null| {
            let null = null as usize - 1;
            NullBuffer::from_iter((0..keys.len()).map(|group| group != null))
        });
        Ok(match kind {
            DataType::Int32 => array::<Int32Type>(keys.into_iter().map(|key| key as i32), nulls),
            DataType::Int64 => Arc::new(PrimitiveArray::<Int64Type>::new(keys.into(), nulls)),
            DataType::UInt32 => array::<UInt32Type>(keys.into_iter().map(|key| key as u32), nulls),
            other => return Err(DataFusionError::Internal(format!("groups of {other}"))),
        })
    }
}

/// Keys that were of the type before.
fn array<T: ArrowPrimitiveType>(
    keys: impl Iterator<Item = T::Native>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(keys.collect(), nulls))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, UInt32Array};
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Option<i64>> {
        prop_oneof![
            8 => (-20_i64..60).prop_map(Some),
            2 => any::<i64>().prop_map(Some),
            1 => prop::sample::select(vec![i64::MIN, i64::MAX, 0]).prop_map(Some),
            1 => Just(None),
        ]
    }

    fn batch(keys: &[Option<i64>], kind: &DataType) -> ArrayRef {
        match kind {
            DataType::Int32 => {
                Arc::new(Int32Array::from_iter(keys.iter().map(|key| key.map(|key| key as i32))))
            }
            DataType::UInt32 => {
                Arc::new(UInt32Array::from_iter(keys.iter().map(|key| key.map(|key| key as u32))))
            }
            _ => Arc::new(Int64Array::from_iter(keys.iter().copied())),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a list of keys, over several batches and several times taken.
        #[test]
        fn each_key_has_one_group(
            runs in prop::collection::vec(prop::collection::vec(prop::collection::vec(key(), 0..30), 1..4), 1..4),
            least in -30_i64..30, span in -1_i64..90,
            kind in prop::sample::select(vec![DataType::Int32, DataType::Int64, DataType::UInt32]),
        ) {
            let mut places = Places::new(least, least + span);
            for run in runs {
                let (mut known, mut rows) = (Vec::new(), Vec::new());
                for keys in run {
                    let keys = batch(&keys, &kind);
                    let mut groups = Vec::new();
                    places.groups_of(&keys, &mut groups).unwrap();
                    prop_assert_eq!(groups.len(), keys.len());
                    for (row, group) in groups.into_iter().enumerate() {
                        let key = keys.slice(row, 1);
                        let expected = known.iter().position(|other| *other == key).unwrap_or_else(|| {
                            known.push(Arc::clone(&key));
                            known.len() - 1
                        });
                        prop_assert_eq!(group, expected);
                        rows.push(group);
                    }
                    prop_assert_eq!(places.groups(), known.len());
                }
                let keys = places.take(&kind).unwrap();
                prop_assert_eq!(keys.data_type(), &kind);
                let of_groups: Vec<ArrayRef> = (0..keys.len()).map(|group| keys.slice(group, 1)).collect();
                prop_assert_eq!(of_groups, known);
                prop_assert_eq!(places.groups(), 0);
            }
        }
    }

    #[test]
    fn places_are_as_many_as_numbers_or_none() {
        assert_eq!(Places::count(5, 5), Some(1));
        assert_eq!(Places::count(-3, 4), Some(8));
        assert_eq!(Places::count(4, 3), None);
        assert_eq!(Places::count(i64::MIN, i64::MAX), None);
        assert_eq!(Places::count(0, 1 << 23), None);
    }
}
