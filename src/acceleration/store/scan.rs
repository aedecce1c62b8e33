//! Some rows of one generation as a DataFusion plan node.
//!
//! It holds its generation: rows and their memory stay until the last stream over them is gone.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use datafusion::scalar::ScalarValue;

use super::{Chunk, Generation};

/// Rows of one chunk.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// All of the chunk at this position.
    Whole(usize),
    Rows(usize, UInt32Array),
}

/// Reads pieces of a generation, in as many partitions as it was given.
#[derive(Debug, Clone)]
pub(super) struct ChunkScan {
    generation: Arc<Generation>,
    partitions: Vec<Vec<Piece>>,
    /// Positions of the output's columns in the table.
    columns: Arc<[usize]>,
    schema: SchemaRef,
    fetch: Option<usize>,
    /// Of all partitions, once somebody asked: planning asks again and again.
    whole: Arc<OnceLock<Arc<Statistics>>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ChunkScan {
    /// `fetch` rows of each partition are enough.
    ///
    /// # Errors
    /// When `projection` names a column that there is not.
    pub(super) fn try_new(
        generation: Arc<Generation>,
        pieces: Vec<Piece>,
        target_partitions: usize,
        projection: Option<&Vec<usize>>,
        fetch: Option<usize>,
    ) -> Result<Self> {
        let table = generation.layout().schema();
        let columns: Arc<[usize]> = match projection {
            Some(columns) => columns.as_slice().into(),
            None => (0..table.fields().len()).collect(),
        };
        let schema: SchemaRef = Arc::new(table.project(&columns)?);
        let partitions = shared_out(&generation, pieces, target_partitions);
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self {
            generation,
            partitions,
            columns,
            schema,
            fetch,
            whole: Arc::default(),
            properties,
            metrics,
        })
    }

    fn statistics(&self, partition: Option<usize>) -> Statistics {
        let pieces: Vec<&Piece> = match partition {
            Some(partition) => self.partitions.get(partition).into_iter().flatten().collect(),
            None => self.partitions.iter().flatten().collect(),
        };
        let rows = pieces.iter().map(|piece| piece.rows(&self.generation)).sum();
        let whole = |piece: &&Piece| match piece {
            Piece::Whole(at) => Some(self.generation.chunks()[*at].as_ref()),
            Piece::Rows(..) => None,
        };
        let chunks: Option<Vec<&Chunk>> = pieces.iter().map(whole).collect();
        let mut known = Statistics::new_unknown(&self.schema);
        known.num_rows = Precision::Exact(rows);
        if let Some(chunks) = chunks {
            known.column_statistics = self.columns.iter().map(|at| column_statistics(&chunks, *at)).collect();
            let bytes =
                chunks.iter().flat_map(|chunk| self.columns.iter().map(|at| chunk.columns()[*at].bytes));
            known.total_byte_size = Precision::Exact(bytes.sum());
        }
        known
    }
}

impl Piece {
    fn rows(&self, generation: &Generation) -> usize {
        match self {
            Self::Whole(at) => generation.chunks()[*at].rows(),
            Self::Rows(_, rows) => rows.len(),
        }
    }

    fn read(&self, generation: &Generation, columns: &[usize]) -> Result<RecordBatch> {
        let (at, rows) = match self {
            Self::Whole(at) => (*at, None),
            Self::Rows(at, rows) => (*at, Some(rows)),
        };
        Ok(generation.chunks()[at].read(columns, rows)?)
    }
}

/// Neighbours stay together, in at most `partitions` parts of about as many rows each; one part at least.
fn shared_out(generation: &Generation, pieces: Vec<Piece>, partitions: usize) -> Vec<Vec<Piece>> {
    let all: usize = pieces.iter().map(|piece| piece.rows(generation)).sum();
    let partitions = partitions.min(pieces.len()).max(1);
    let mut parts: Vec<Vec<Piece>> = vec![Vec::new(); partitions];
    let mut before = 0;
    for piece in pieces {
        let rows = piece.rows(generation);
        // By the middle of the piece among all rows.
        let at = (before + rows / 2) * partitions / all.max(1);
        parts[at.min(partitions - 1)].push(piece);
        before += rows;
    }
    parts
}

fn column_statistics(chunks: &[&Chunk], at: usize) -> ColumnStatistics {
    let mut known = ColumnStatistics::new_unknown();
    known.null_count = Precision::Exact(chunks.iter().map(|chunk| chunk.columns()[at].nulls).sum());
    known.byte_size = Precision::Exact(chunks.iter().map(|chunk| chunk.columns()[at].bytes).sum());
    let mut total: Option<(ScalarValue, ScalarValue)> = None;
    for chunk in chunks {
        let column = &chunk.columns()[at];
        match (&column.bounds, &mut total) {
            (None, _) if column.nulls == chunk.rows() => {}
            (None, _) => return known,
            (Some(bounds), None) => total = Some(bounds.clone()),
            (Some((least, greatest)), Some(total)) => {
                let lower = least.partial_cmp(&total.0).is_some_and(std::cmp::Ordering::is_lt);
                let higher = greatest.partial_cmp(&total.1).is_some_and(std::cmp::Ordering::is_gt);
                if lower {
                    total.0 = least.clone();
                }
                if higher {
                    total.1 = greatest.clone();
                }
            }
        }
    }
    if let Some((least, greatest)) = total {
        known.min_value = Precision::Exact(least);
        known.max_value = Precision::Exact(greatest);
    }
    known
}

impl DisplayAs for ChunkScan {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chunks: usize = self.partitions.iter().map(Vec::len).sum();
        let rows: usize = self.partitions.iter().flatten().map(|piece| piece.rows(&self.generation)).sum();
        let (table, all) = (self.generation.layout().name(), self.generation.chunks().len());
        match kind {
            DisplayFormatType::TreeRender => {
                writeln!(f, "table={table}")?;
                write!(f, "chunks={chunks} of {all}\nrows={rows}")?;
            }
            _ => write!(f, "ChunkScan: table={table}, chunks={chunks} of {all}, rows={rows}")?,
        }
        match self.fetch {
            Some(fetch) => write!(f, ", fetch={fetch}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for ChunkScan {
    fn name(&self) -> &'static str {
        "ChunkScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scan = self.clone();
        let pieces = self.partitions.get(partition).cloned().unwrap_or_default();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let mut left = self.fetch.unwrap_or(usize::MAX);
        let batches = pieces.into_iter().map_while(move |piece| {
            if left == 0 {
                return None;
            }
            let _timer = metrics.elapsed_compute().timer();
            Some(piece.read(&scan.generation, &scan.columns).map(|batch| {
                let batch = batch.slice(0, batch.num_rows().min(left));
                left -= batch.num_rows();
                metrics.record_output(batch.num_rows());
                batch
            }))
        });
        let stream = futures::stream::iter(batches);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let known = match args.partition() {
            None => Arc::clone(self.whole.get_or_init(|| Arc::new(self.statistics(None)))),
            partition => Arc::new(self.statistics(partition)),
        };
        let all = known.num_rows.get_value().copied().unwrap_or_default();
        match self.fetch {
            Some(fetch) if fetch < all => Ok(Arc::new(Arc::unwrap_or_clone(known).to_inexact())),
            _ => Ok(known),
        }
    }

    fn with_fetch(&self, fetch: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self { fetch, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }
}
