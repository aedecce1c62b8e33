//! Plans of statements that are answered here, by their shape: the next one of a shape is neither read nor optimised.
//!
//! A plan holds as long as the catalog does ([`crate::federation::Federation::catalog_version`]), and belongs to the
//! engine of one configuration. What its tables hold is not in it: each run reads their generations of now.
//!
//! Literals that filters compare with may be others in the next statement, all that is else in the text may not. A shape
//! is learned when it comes for the second time, and only where its plan, filled with the literals of the statement at
//! hand, is the one that planning gives.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;

use super::shape::{Shape, Shaped};
use super::statement::parse_one;
use super::{Engine, places};
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
    Learned(Box<Learned>),
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
        let State::Learned(learned) = &known.state else { return None };
        learned.filled(&values)
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

impl Learned {
    /// None where a value cannot be computed with: planning says what is wrong with it.
    fn filled(&self, values: &[ScalarValue]) -> Option<Self> {
        let plan = match values.is_empty() {
            true => self.plan.clone(),
            false => places::filled(&self.plan, values).ok()?,
        };
        Some(Self { plan, reading: Arc::clone(&self.reading), reason: Arc::clone(&self.reason) })
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
        let state = match plans.get(&Key::of(shaped.clone(), &open)).filter(|known| known.version == version)
        {
            None if !is_new => State::Seen,
            Some(known) if !matches!(known.state, State::Seen) => return,
            _ => self
                .learned(&shaped, &open, planned)
                .await
                .map_or(State::Unsuited, |learned| State::Learned(Box::new(learned))),
        };
        plans.insert(Key::of(shaped, &open), Arc::new(Known { version, state }));
    }

    async fn learned(&self, shaped: &Shaped<'_>, open: &[bool], planned: Learned) -> Option<Learned> {
        let state = self.federation.context().state();
        let wanted = state.optimize(&planned.plan).ok()?;
        if !open.contains(&true) {
            return Some(Learned { plan: wanted, ..planned });
        }
        let plan = self.marked_plan(shaped, open).await?;
        let learned = Learned { plan: state.optimize(&plan).ok()?, ..planned };
        let filled = learned.filled(&values(shaped, open)?)?;
        (filled.plan == wanted).then_some(learned)
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
