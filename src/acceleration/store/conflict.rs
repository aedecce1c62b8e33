//! Which of several rows with one key stays.
//!
//! Rows whose key has a hash of its own are not looked at. The others are taken in the order in which they arrived,
//! each against those that stand until then.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::row::{RowConverter, SortField};
use datafusion::scalar::ScalarValue;

use super::budget::{Budget, Lease};
use super::chosen::Chosen;
use super::keys::{KeyIndex, Layer, Place, Positions};
use super::layout::{Key, Layout, OnConflict, Role};
use super::time::nanoseconds;
use super::{Chunk, StoreError};

/// About what a contender costs beside its encoded keys, in bytes.
const CONTENDER_BYTES: usize = 256;

/// By the position of the chunk, the rows that do not stay.
pub(super) type Lost = BTreeMap<usize, BTreeSet<u32>>;

/// The rows among which the conflicts are.
pub(super) struct Field<'a> {
    pub layout: &'a Layout,
    /// All of the next generation, in the order of arrival.
    pub chunks: &'a [Arc<Chunk>],
    /// Those among them whose rows were not settled before.
    pub fresh: &'a [&'a Arc<Chunk>],
    pub live: &'a Positions,
    /// For each key of the layout: the layers over `fresh`, and the index over the other chunks.
    pub layers: &'a [Vec<Arc<Layer>>],
    pub indexes: &'a [KeyIndex],
    pub budget: &'a Budget,
}

/// A row that shares the hash of a key with another one.
struct Contender {
    place: Place,
    time: Option<i64>,
    /// For each unique key; none where a NULL is in it.
    keys: Vec<Option<Box<[u8]>>>,
    /// Rows of the generation before that lost against this one, or against one that lost against it.
    ousted: Vec<Place>,
}

struct Contest<'a> {
    field: &'a Field<'a>,
    keys: Vec<&'a Key>,
    converters: Vec<RowConverter>,
    /// For each unique key who has it.
    holders: Vec<HashMap<Box<[u8]>, Arc<Contender>>>,
    lost: Lost,
    /// The positions of chunks that bring new rows.
    fresh: HashSet<usize>,
    bytes: usize,
    lease: Lease,
}

/// # Errors
/// [`StoreError::DuplicateKey`] and [`StoreError::NullKey`] as the layout's keys say.
pub(super) fn losers(field: &Field<'_>) -> Result<Lost, StoreError> {
    refuse_nulls(field)?;
    let places = contended(field);
    if places.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut contest = Contest::new(field)?;
    for run in places.chunk_by(|one, other| one.chunk == other.chunk) {
        contest.enter(run)?;
    }
    contest.lost.retain(|_, rows| !rows.is_empty());
    Ok(contest.lost)
}

fn refuse_nulls(field: &Field<'_>) -> Result<(), StoreError> {
    let primary = field.layout.keys().iter().filter(|key| matches!(key.role, Role::Primary { .. }));
    for key in primary {
        let has_nulls = |chunk: &&&Arc<Chunk>| key.columns.iter().any(|at| chunk.columns()[*at].nulls > 0);
        if field.fresh.iter().any(|chunk| has_nulls(&chunk)) {
            let (table, key) = (field.layout.name().clone(), field.layout.key_words(key));
            return Err(StoreError::NullKey { table, key });
        }
    }
    Ok(())
}

/// The rows of which another one may have the key, in the order of arrival.
fn contended(field: &Field<'_>) -> Vec<Place> {
    let mut places = Vec::new();
    let keys = field.layout.keys().iter().zip(field.layers).zip(field.indexes);
    for ((_, layers), index) in keys.filter(|((key, _), _)| key.is_unique()) {
        for (at, layer) in layers.iter().enumerate() {
            for (hash, run) in layer.runs() {
                let before = places.len();
                places.extend(index.candidates(hash, field.live));
                // More than one layer only where a table has more than four billion rows.
                let siblings = layers.iter().enumerate().filter(|(other, _)| *other != at);
                places.extend(siblings.flat_map(|(_, other)| other.candidates(hash, field.live)));
                if places.len() > before || run.len() > 1 {
                    places.extend(run.iter().filter_map(|entry| layer.place(*entry, field.live)));
                }
            }
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

impl<'a> Contest<'a> {
    fn new(field: &'a Field<'a>) -> Result<Self, StoreError> {
        let keys: Vec<&Key> = field.layout.keys().iter().filter(|key| key.is_unique()).collect();
        let kind = |at: &usize| SortField::new(field.layout.schema().field(*at).data_type().clone());
        let converter = |key: &&Key| RowConverter::new(key.columns.iter().map(kind).collect());
        let converters = keys.iter().map(converter).collect::<Result<_, _>>();
        let converters = converters.map_err(StoreError::arrow(field.layout.name()))?;
        let holders = keys.iter().map(|_| HashMap::new()).collect();
        let lease = field.budget.empty();
        let fresh = field.fresh.iter().filter_map(|chunk| field.live.get(&chunk.id()).copied()).collect();
        Ok(Self { field, fresh, keys, converters, holders, lost: BTreeMap::new(), bytes: 0, lease })
    }

    /// Takes rows of one chunk.
    fn enter(&mut self, places: &[Place]) -> Result<(), StoreError> {
        for contender in self.contenders(places)? {
            self.settle(contender)?;
        }
        Ok(())
    }

    fn contenders(&mut self, places: &[Place]) -> Result<Vec<Contender>, StoreError> {
        let layout = self.field.layout;
        let chunk = &self.field.chunks[places[0].chunk];
        let rows = UInt32Array::from_iter_values(places.iter().map(|place| place.row));
        let column = |at: usize| take(chunk.plain(at), &rows, None).map_err(StoreError::arrow(layout.name()));
        let time = layout.time().map(|time| nanoseconds(layout, time, &column(time.column)?)).transpose()?;
        let mut contenders: Vec<Contender> = places
            .iter()
            .enumerate()
            .map(|(at, place)| Contender {
                place: *place,
                time: time.as_ref().and_then(|times| times.is_valid(at).then(|| times.value(at))),
                keys: Vec::with_capacity(self.keys.len()),
                ousted: Vec::new(),
            })
            .collect();
        for (key, converter) in self.keys.iter().zip(&self.converters) {
            let columns = key.columns.iter().map(|at| column(*at)).collect::<Result<Vec<ArrayRef>, _>>()?;
            let encoded = converter.convert_columns(&columns).map_err(StoreError::arrow(layout.name()))?;
            self.bytes += encoded.size() + contenders.len() * CONTENDER_BYTES;
            for (at, contender) in contenders.iter_mut().enumerate() {
                let whole = columns.iter().all(|column| column.is_valid(at));
                contender.keys.push(whole.then(|| encoded.row(at).as_ref().into()));
            }
        }
        self.lease.resize(self.bytes)?;
        Ok(contenders)
    }

    fn settle(&mut self, contender: Contender) -> Result<(), StoreError> {
        let holder = |(at, key): (usize, &Option<Box<[u8]>>)| {
            Some((at, Arc::clone(self.holders[at].get(key.as_ref()?)?)))
        };
        let rivals: Vec<(usize, Arc<Contender>)> =
            contender.keys.iter().enumerate().filter_map(holder).collect();
        for (_, rival) in &rivals {
            if self.same(rival.place, contender.place)? {
                self.lose(contender.place);
                return Ok(());
            }
        }
        if let Some((key, _)) = rivals.iter().find(|(key, _)| self.keys[*key].on_conflict().is_none()) {
            return Err(self.duplicate(*key, contender.place));
        }
        let yields = |(key, rival): &(usize, Arc<Contender>)| match self.keys[*key].on_conflict() {
            Some(OnConflict::Upsert) => contender.time < rival.time,
            Some(OnConflict::Drop) => contender.time >= rival.time,
            None => true,
        };
        if rivals.iter().any(yields) {
            self.lose(contender.place);
            return Ok(());
        }
        self.oust(contender, &rivals)
    }

    /// The contender takes the keys of its rivals. When it is the very row that held them before, sent again after an
    /// older one, that row stays where it is: nothing has changed.
    fn oust(
        &mut self,
        mut contender: Contender,
        rivals: &[(usize, Arc<Contender>)],
    ) -> Result<(), StoreError> {
        for (_, rival) in rivals {
            self.lose(rival.place);
            self.hold(rival, |holders, key| drop(holders.remove(key)));
            contender.ousted.extend(&rival.ousted);
            if !self.fresh.contains(&rival.place.chunk) {
                contender.ousted.push(rival.place);
            }
        }
        let mut back = None;
        for (at, place) in contender.ousted.iter().enumerate() {
            if self.same(*place, contender.place)? {
                back = Some(at);
                break;
            }
        }
        if let Some(back) = back {
            let held = contender.ousted.swap_remove(back);
            self.lose(contender.place);
            if let Some(rows) = self.lost.get_mut(&held.chunk) {
                rows.remove(&held.row);
            }
            contender.place = held;
        }
        let contender = Arc::new(contender);
        self.hold(&contender, |holders, key| drop(holders.insert(key.into(), Arc::clone(&contender))));
        Ok(())
    }

    fn hold(
        &mut self,
        contender: &Contender,
        change: impl Fn(&mut HashMap<Box<[u8]>, Arc<Contender>>, &[u8]),
    ) {
        for (holders, key) in self.holders.iter_mut().zip(&contender.keys) {
            if let Some(key) = key {
                change(holders, key);
            }
        }
    }

    fn lose(&mut self, place: Place) {
        self.lost.entry(place.chunk).or_default().insert(place.row);
    }

    /// Whether two rows are equal in every column, bit for bit.
    fn same(&self, one: Place, other: Place) -> Result<bool, StoreError> {
        let layout = self.field.layout;
        let row = |place: Place| {
            let row = Chosen::At(UInt32Array::from(vec![place.row]));
            self.field.chunks[place.chunk].all_of(&row).map_err(StoreError::arrow(layout.name()))
        };
        Ok(row(one)?.columns() == row(other)?.columns())
    }

    fn duplicate(&self, key: usize, place: Place) -> StoreError {
        let (layout, key) = (self.field.layout, self.keys[key]);
        let chunk = &self.field.chunks[place.chunk];
        let value = |at: &usize| match ScalarValue::try_from_array(chunk.plain(*at), place.row as usize) {
            Ok(value) => value.to_string().chars().take(64).collect(),
            Err(_) => "?".to_owned(),
        };
        let values: Vec<String> = key.columns.iter().map(value).collect();
        let key = format!("{} = ({})", layout.key_words(key), values.join(", "));
        StoreError::DuplicateKey { table: layout.name().clone(), key }
    }
}
