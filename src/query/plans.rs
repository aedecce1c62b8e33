//! Plans of statements that are answered here, by their shape: the next one of a shape is neither read nor optimised.
//!
//! A plan holds as long as the catalog does ([`crate::federation::Federation::catalog_version`]), and belongs to the
//! engine of one configuration. Its tables are not in it: each run reads their generations of now, and one that the
//! catalog lets go is gone.
//!
//! Literals that filters compare with may be others in the next statement, all that is else in the text may not. A shape
//! is learned when it comes for the second time, and only where its plan, filled with the literals of the statement at
//! hand, is the one that planning gives.

use std::sync::{Arc, Weak};

use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;

use super::shape::{Shape, Shaped};
use super::statement::parse_one;
use super::{Engine, places, tables};
use crate::federation::Reading;

/// What shapes take together, in bytes.
const SHAPE_BYTES_MAX: u64 = 8 << 20;
/// What plans take together, in bytes, as far as it can be told.
const PLAN_BYTES_MAX: u64 = 32 << 20;
/// A plan is about so many times as large as its text, ...
const PLAN_BYTES_PER_TEXT: usize = 64;
/// ... and this.
const PLAN_BYTES: usize = 4 << 10;
/// So many literals of a statement can have places; looking for each takes planning it once more.
const PLACES_MAX: usize = 8;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Plans {
    shapes: moka::sync::Cache<Shape, Arc<Places>>,
    plans: moka::sync::Cache<Key, Arc<Known>>,
}

/// Which literals of a shape can be others.
struct Places {
    version: u64,
    /// None where the shape has come once.
    open: Option<Vec<bool>>,
}

/// A shape with the literals that cannot.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    shape: Shape,
    fixed: Vec<String>,
}

struct Known {
    version: u64,
    state: State,
}

enum State {
    /// Planned once.
    Seen,
    /// To be planned each time.
    Unsuited,
    Learned(Box<Kept>),
}

/// A plan that is kept. Its tables are the catalog's: when it lets one go, nothing here keeps the rows.
struct Kept {
    /// Optimised, with places, over tables that have nothing but their columns.
    plan: LogicalPlan,
    /// In the order in which the plan is walked.
    tables: Vec<Weak<dyn TableProvider>>,
    reading: Arc<Reading>,
    reason: Arc<str>,
}

/// What planning a statement came to.
pub(super) struct Learned {
    /// Optimised.
    pub plan: LogicalPlan,
    pub reading: Arc<Reading>,
    /// Why it is answered here.
    pub reason: Arc<str>,
}

impl Plans {
    pub fn new() -> Self {
        let weigh_shape = |shape: &Shape, _: &Arc<Places>| {
            u32::try_from(2 * shape.bytes() + size_of::<Places>()).unwrap_or(u32::MAX)
        };
        let weigh_plan = |key: &Key, known: &Arc<Known>| {
            let text = key.shape.bytes() + key.fixed.iter().map(String::len).sum::<usize>();
            let plan = match known.state {
                State::Learned(_) => PLAN_BYTES_PER_TEXT * text + PLAN_BYTES,
                State::Seen | State::Unsuited => 0,
            };
            u32::try_from(text + size_of::<Known>() + plan).unwrap_or(u32::MAX)
        };
        Self {
            shapes: moka::sync::Cache::builder().max_capacity(SHAPE_BYTES_MAX).weigher(weigh_shape).build(),
            plans: moka::sync::Cache::builder().max_capacity(PLAN_BYTES_MAX).weigher(weigh_plan).build(),
        }
    }

    /// The plan of a statement, where it was learned.
    pub fn recall(&self, text: &str, version: u64) -> Option<Learned> {
        let shaped = Shaped::of(text)?;
        let places = self.shapes.get(&shaped.shape).filter(|places| places.version == version)?;
        let open = places.open.as_ref()?;
        let values = values(&shaped, open)?;
        let known = self.plans.get(&Key::of(shaped, open)).filter(|known| known.version == version)?;
        let State::Learned(kept) = &known.state else { return None };
        kept.filled(&values)
    }
}

/// The literals of the places that are open; none where one does not fit.
fn values(shaped: &Shaped<'_>, open: &[bool]) -> Option<Vec<ScalarValue>> {
    let places = shaped.literals.iter().enumerate().filter(|(at, _)| open.get(*at) == Some(&true));
    places.map(|(at, literal)| shaped.shape.value(at, literal)).collect()
}

impl Key {
    fn of(shaped: Shaped<'_>, open: &[bool]) -> Self {
        let Shaped { shape, literals } = shaped;
        let fixed = literals.into_iter().zip(open).filter(|(_, open)| !**open);
        Self { shape, fixed: fixed.map(|(literal, _)| literal.to_owned()).collect() }
    }
}

impl Kept {
    fn of(learned: Learned) -> Option<Self> {
        let Learned { plan, reading, reason } = learned;
        let (plan, tables) = tables::taken_out(plan).ok()?;
        Some(Self { plan, tables: tables.iter().map(Arc::downgrade).collect(), reading, reason })
    }

    /// None where a table is gone, or where a value cannot be computed with: planning says what is wrong with it.
    fn filled(&self, values: &[ScalarValue]) -> Option<Learned> {
        let tables: Option<Vec<_>> = self.tables.iter().map(Weak::upgrade).collect();
        let plan = tables::put_back(filled(&self.plan, values)?, tables?).ok()?;
        let (reading, reason) = (Arc::clone(&self.reading), Arc::clone(&self.reason));
        Some(Learned { plan, reading, reason })
    }
}

fn filled(plan: &LogicalPlan, values: &[ScalarValue]) -> Option<LogicalPlan> {
    match values.is_empty() {
        true => Some(plan.clone()),
        false => places::filled(plan, values).ok(),
    }
}

impl Engine {
    /// Remembers a statement that is answered here. Its plan is not optimised, and the same in every run; `version` was
    /// the catalog's before it was planned.
    pub(super) async fn learn(&self, text: &str, version: u64, planned: Learned) {
        let Some(shaped) = Shaped::of(text) else { return };
        let Plans { shapes, plans } = &self.plans;
        let places = shapes.get(&shaped.shape).filter(|places| places.version == version);
        let (open, is_new) = match places.as_ref().map(|places| &places.open) {
            None => {
                shapes.insert(shaped.shape, Arc::new(Places { version, open: None }));
                return;
            }
            Some(Some(open)) => (open.clone(), false),
            Some(None) => {
                let open = self.find_places(&shaped).await;
                let places = Places { version, open: Some(open.clone()) };
                shapes.insert(shaped.shape.clone(), Arc::new(places));
                (open, true)
            }
        };
        let key = Key::of(shaped.clone(), &open);
        let state = match plans.get(&key).filter(|known| known.version == version) {
            None if !is_new => State::Seen,
            Some(known) if !matches!(known.state, State::Seen) => return,
            _ => match self.learned(&shaped, &open, planned).await {
                Some(kept) => State::Learned(Box::new(kept)),
                None => State::Unsuited,
            },
        };
        plans.insert(key, Arc::new(Known { version, state }));
    }

    async fn learned(&self, shaped: &Shaped<'_>, open: &[bool], planned: Learned) -> Option<Kept> {
        let state = self.federation.context().state();
        let wanted = state.optimize(&planned.plan).ok()?;
        if !open.contains(&true) {
            return Kept::of(Learned { plan: wanted, ..planned });
        }
        let plan = self.marked_plan(shaped, open).await?;
        let plan = state.optimize(&plan).ok()?;
        let is_same = filled(&plan, &values(shaped, open)?)? == wanted;
        Kept::of(Learned { plan, ..planned }).filter(|_| is_same)
    }

    /// Which literals a plan can have places for.
    async fn find_places(&self, shaped: &Shaped<'_>) -> Vec<bool> {
        let count = shaped.literals.len();
        let mut open = vec![false; count];
        // One that a filter does not compare with may keep the others from being planned.
        for at in 0..count.min(PLACES_MAX) {
            open[at] = true;
            open[at] = self.marked_plan(shaped, &open).await.is_some();
        }
        open
    }

    /// The plan of the statement with these places open; none where it has no plan, or one of them cannot be.
    async fn marked_plan(&self, shaped: &Shaped<'_>, open: &[bool]) -> Option<LogicalPlan> {
        let (_, marks) = shaped.shape.marked();
        let literals = marks.iter().zip(open).zip(&shaped.literals);
        let literals = literals.map(|((mark, is_open), own)| if *is_open { mark.as_str() } else { *own });
        let statement = parse_one(&shaped.shape.with(literals)).ok()?;
        self.federation.check(&statement).ok()?;
        let plan = self.logical(statement).await.ok()?;
        let values = marks.iter().enumerate().filter(|(at, _)| open.get(*at) == Some(&true));
        let values: Option<Vec<_>> = values.map(|(at, mark)| shaped.shape.value(at, mark)).collect();
        places::opened(plan, &values?).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn a_kept_plan_keeps_no_table() {
        let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..9));
        let rows = RecordBatch::try_from_iter([("a", rows)]).unwrap();
        let context = SessionContext::new();
        for name in ["t", "u"] {
            let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap();
            context.register_table(name, Arc::new(table)).unwrap();
        }
        let sql = "SELECT t.a FROM t JOIN u ON t.a = u.a WHERE t.a > (SELECT min(a) + 5 FROM u) AND t.a IN (SELECT a FROM t)";
        let state = context.state();
        let read = state.create_logical_plan(sql).await.unwrap();
        let plan = state.optimize(&read).unwrap();
        let learned = Learned { plan: plan.clone(), reading: Arc::default(), reason: "".into() };
        let kept = Kept::of(learned).unwrap();
        // The subquery is asked on both sides of the join.
        assert_eq!(kept.tables.len(), 5);
        let again = kept.filled(&[]).unwrap().plan;
        assert_eq!(again, plan);
        let physical = state.query_planner().create_physical_plan(&again, &state).await.unwrap();
        let found = datafusion::physical_plan::collect(physical, context.task_ctx()).await.unwrap();
        assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
        drop((read, plan, again, found));
        context.deregister_table("u").unwrap();
        assert!(kept.filled(&[]).is_none());
        assert_eq!(kept.tables.iter().filter(|table| table.strong_count() == 0).count(), 3);
    }
}
