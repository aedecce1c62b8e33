//! The keys of a join's build side: gathered as they go by, asked by a scan of its probe side.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;

use super::bits::Bits;

/// Keys of a build side, once all of it was read.
#[derive(Debug)]
pub(super) struct Keys {
    /// What the join calls them.
    name: String,
    /// What the asking column lies between: others are asked of nobody.
    least: i64,
    greatest: i64,
    seen: OnceLock<Seen>,
}

/// The room is given back with them.
#[derive(Debug)]
struct Seen {
    bits: Bits,
    _room: MemoryReservation,
}

impl Keys {
    /// None where a bit for each number is too much.
    pub(super) fn between(name: &str, least: i64, greatest: i64) -> Option<Self> {
        let fits = Bits::bytes(least, greatest).is_some();
        fits.then(|| Self { name: name.to_owned(), least, greatest, seen: OnceLock::new() })
    }

    fn gather(self: &Arc<Self>, column: usize, context: &TaskContext) -> Option<Gathering> {
        let room = MemoryConsumer::new("JoinKeys").register(context.memory_pool());
        room.try_grow(Bits::bytes(self.least, self.greatest)?).ok()?;
        Some(Gathering { keys: Arc::clone(self), column, bits: Bits::none(self.least, self.greatest)?, room })
    }
}

/// Keys of one column on their way.
struct Gathering {
    keys: Arc<Keys>,
    column: usize,
    bits: Bits,
    room: MemoryReservation,
}

impl Gathering {
    /// Of a second run of the same plan the first one's rows are as good.
    fn publish(self) {
        let _ = self.keys.seen.set(Seen { bits: self.bits, _room: self.room });
    }
}

/// Hands on its input, and shows the keys that went by.
#[derive(Debug, Clone)]
pub(super) struct KeyTap {
    input: Arc<dyn ExecutionPlan>,
    /// By the column of the input that they are in.
    taps: Vec<(usize, Arc<Keys>)>,
}

impl KeyTap {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, taps: Vec<(usize, Arc<Keys>)>) -> Self {
        Self { input, taps }
    }
}

/// Takes what it needs of each batch; with the last one all keys are known, with an error none.
fn gathered(
    input: SendableRecordBatchStream,
    gatherings: Vec<Gathering>,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    let (mut input, mut gatherings) = (input, gatherings);
    futures::stream::poll_fn(move |context| {
        let next = std::task::ready!(input.poll_next_unpin(context));
        match &next {
            Some(Ok(batch)) => {
                gatherings.retain_mut(|gathering| gathering.bits.add(batch.column(gathering.column)));
            }
            Some(Err(_)) => gatherings.clear(),
            None => gatherings.drain(..).for_each(Gathering::publish),
        }
        Poll::Ready(next)
    })
}

impl DisplayAs for KeyTap {
    fn fmt_as(&self, _kind: DisplayFormatType, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.taps.iter().map(|(_, keys)| keys.name.as_str()).collect();
        write!(out, "KeyTap: keys={}", names.join(" "))
    }
}

impl ExecutionPlan for KeyTap {
    fn name(&self) -> &'static str {
        "KeyTap"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("KeyTap has one input".to_owned()))?;
        Ok(Arc::new(Self { input, taps: self.taps.clone() }))
    }

    /// Nobody asks for keys of the run before: scans forget them.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self { input: Arc::clone(&self.input), taps: Vec::new() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let gatherings =
            self.taps.iter().filter_map(|(column, keys)| keys.gather(*column, &context)).collect();
        let input = self.input.execute(partition, context)?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(input.schema(), gathered(input, gatherings))))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// Whether a number is among keys; true while they are not known.
#[derive(Debug, Clone)]
pub(super) struct AmongKeys {
    number: Arc<dyn PhysicalExpr>,
    keys: Arc<Keys>,
}

impl AmongKeys {
    pub(super) fn new(number: Arc<dyn PhysicalExpr>, keys: Arc<Keys>) -> Self {
        Self { number, keys }
    }
}

impl PhysicalExpr for AmongKeys {
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.number.nullable(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let among = match self.keys.seen.get() {
            Some(seen) => seen.bits.of(&self.number.evaluate(batch)?.into_array(batch.num_rows())?),
            None => None,
        };
        Ok(match among {
            Some(among) => ColumnarValue::Array(Arc::new(among)),
            None => ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))),
        })
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.number]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let [number] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("AmongKeys has one child".to_owned()))?;
        Ok(Arc::new(Self { number, keys: Arc::clone(&self.keys) }))
    }

    fn fmt_sql(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for AmongKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} IN (keys {})", self.number, self.keys.name)
    }
}

impl PartialEq for AmongKeys {
    fn eq(&self, other: &Self) -> bool {
        self.number.eq(&other.number) && Arc::ptr_eq(&self.keys, &other.keys)
    }
}

impl Eq for AmongKeys {}

impl Hash for AmongKeys {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
        Arc::as_ptr(&self.keys).hash(state);
    }
}
