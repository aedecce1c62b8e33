//! Some rows of one generation as a DataFusion plan node, less those that filters drop.
//!
//! It holds its generation: rows and their memory stay until the last stream over them is gone.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::conjunction;
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, apply_expression_roots};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use datafusion::scalar::ScalarValue;

use super::direct::between;
use super::key_tap::{AmongKeys, Keys};
use super::numbered::Numbered;
use super::numbering::Numbering;
use super::reader::Reader;
use super::sieve::Filter;
use super::{Chunk, Generation, sample};
use crate::telemetry::shortened;

/// Of the text of a filter, in bytes: one with thousands of keys is no line to read.
const FILTER_SHOWN_MAX: usize = 1_000;

/// Fewer rows are joined as fast as they are sifted.
const SIFTED_MIN: usize = if cfg!(test) { 1 } else { 4_096 };

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
    pub(super) generation: Arc<Generation>,
    partitions: Vec<Vec<Piece>>,
    /// Positions of the output's columns in the table.
    pub(super) columns: Arc<[usize]>,
    pub(super) schema: SchemaRef,
    /// Columns of which numbers are read.
    pub(super) numbered: Arc<[Numbered]>,
    pub(super) filters: Vec<Filter>,
    /// Rows of each partition that are enough, of those that pass the filters.
    pub(super) fetch: Option<usize>,
    /// Of all partitions, once somebody asked: planning asks again and again.
    whole: Arc<OnceLock<Arc<Statistics>>>,
    share: Arc<OnceLock<Option<f64>>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ChunkScan {
    /// # Errors
    /// When `projection` names a column that there is not.
    pub(super) fn try_new(
        generation: Arc<Generation>,
        pieces: Vec<Piece>,
        target_partitions: usize,
        projection: Option<&Vec<usize>>,
    ) -> Result<Self> {
        let table = generation.layout().schema();
        let columns: Arc<[usize]> = match projection {
            Some(columns) => columns.as_slice().into(),
            None => (0..table.fields().len()).collect(),
        };
        let partitions = shared_out(&generation, pieces, target_partitions);
        let schema: SchemaRef = Arc::new(table.project(&columns)?);
        let properties = properties(&schema, partitions.len());
        Ok(Self {
            generation,
            partitions,
            columns,
            schema,
            numbered: Arc::default(),
            filters: Vec::new(),
            fetch: None,
            whole: Arc::default(),
            share: Arc::default(),
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The same rows, less those for which one of `filters` is not true.
    pub(super) fn filtered(mut self, filters: impl IntoIterator<Item = Filter>) -> Self {
        for filter in filters {
            if self.filters.iter().all(|held| held.predicate() != filter.predicate()) {
                self.filters.push(filter);
            }
        }
        Self { whole: Arc::default(), share: Arc::default(), ..self }
    }

    /// At most so many rows of each partition.
    pub(super) fn limited(self, fetch: Option<usize>) -> Self {
        Self { fetch, ..self }
    }

    pub(super) fn is_numbered(&self) -> bool {
        !self.numbered.is_empty()
    }

    /// The position in the table and the numbers of the output's column at `output`, where it has some.
    pub(super) fn numbering(&self, output: usize) -> Option<(usize, Arc<Numbering>)> {
        let column = *self.columns.get(output)?;
        Some((column, self.generation.numbering(column)?))
    }

    /// The same rows, as far as the output's column at `output` is among keys of a join that are yet to come, and those.
    /// None where that column is none of whole numbers near each other. A filter called `same` says no more than they do.
    pub(super) fn among_keys(
        &self,
        output: usize,
        name: &str,
        same: Option<u64>,
    ) -> Result<Option<(Self, Arc<Keys>)>> {
        let whole: Option<Vec<&Chunk>> =
            self.pieces(None).map(|piece| piece.whole(&self.generation)).collect();
        let (Some(&column), Some(chunks)) = (self.columns.get(output), whole) else { return Ok(None) };
        if self.rows(None) < SIFTED_MIN {
            return Ok(None);
        }
        let between = between(&column_statistics(&chunks, column));
        let keys = between.and_then(|(least, greatest)| Keys::between(name, least, greatest));
        let Some(keys) = keys.map(Arc::new) else { return Ok(None) };
        let table = self.generation.layout().schema();
        let number = Arc::new(Column::new(table.field(column).name(), column));
        let among = Filter::advice(table, Arc::new(AmongKeys::new(number, Arc::clone(&keys))))?;
        let mut filters = self.filters.clone();
        filters.retain(|filter| same.is_none() || filter.predicate().expression_id() != same);
        // A look at a bit is cheaper than what others say of several keys together.
        filters.insert(0, among);
        Ok(Some((Self { filters, ..self.clone() }, keys)))
    }

    /// The same with numbers in place of these columns' texts.
    pub(super) fn numbered(self, numbered: Vec<Numbered>) -> Self {
        let schema =
            numbered.iter().fold(Arc::clone(&self.schema), |schema, set| Arc::new(set.apply(&schema)));
        let properties = properties(&schema, self.partitions.len());
        Self { schema, properties, numbered: numbered.into(), whole: Arc::default(), ..self }
    }

    /// The same of the columns at these positions in the table.
    fn of_columns(&self, columns: Arc<[usize]>) -> Result<Self> {
        let schema: SchemaRef = Arc::new(self.generation.layout().schema().project(&columns)?);
        let properties = properties(&schema, self.partitions.len());
        Ok(Self {
            columns,
            schema,
            properties,
            numbered: Arc::default(),
            whole: Arc::default(),
            ..self.clone()
        })
    }

    /// A filter that a node above asks for, where rows can be judged by it alone.
    fn taken(&self, filter: &Arc<dyn PhysicalExpr>) -> Result<Option<Filter>> {
        match self.fetch.is_some() || self.is_numbered() || is_volatile(filter) {
            true => Ok(None),
            false => Filter::over(self.generation.layout().schema(), &self.columns, filter).map(Some),
        }
    }

    /// What is known of a text says nothing of its number.
    fn statistics(&self, partition: Option<usize>) -> Result<Statistics> {
        let mut known = self.of_texts(partition)?;
        for set in self.numbered.iter() {
            for (part, of_part) in set.parts().iter().zip(set.statistics()) {
                known.column_statistics[part.output] = of_part;
            }
        }
        Ok(known)
    }

    fn of_texts(&self, partition: Option<usize>) -> Result<Statistics> {
        let predicates: Vec<_> = self.filters.iter().filter(|filter| !filter.is_dynamic()).collect();
        // None pass where there are none.
        if self.filters.is_empty() || self.rows(partition) == 0 {
            return Ok(self.unfiltered(partition));
        }
        if predicates.is_empty() {
            return Ok(self.unfiltered(partition).to_inexact());
        }
        // The bounds of columns as a filter over all of them would be expected to leave them; how many by a sample.
        let table = self.of_columns((0..self.generation.layout().schema().fields().len()).collect())?;
        let table = Self { filters: Vec::new(), ..table };
        let all = Arc::new(table.unfiltered(partition));
        let predicate = conjunction(predicates.into_iter().map(|filter| Arc::clone(filter.predicate())));
        let filter = FilterExec::try_new(predicate, Arc::new(table))?;
        let left = filter.statistics_from_inputs(&[all], &StatisticsArgs::new())?;
        let mut left = Arc::unwrap_or_clone(left).project(Some(&self.columns.to_vec())).to_inexact();
        if let Some(share) = self.share() {
            let all = self.unfiltered(partition);
            left.num_rows = all.num_rows.with_estimated_selectivity(share);
            left.total_byte_size = all.total_byte_size.with_estimated_selectivity(share);
        }
        Ok(left)
    }

    /// What share of all rows passes the filters that are there before the plan runs, as a sample has it.
    fn share(&self) -> Option<f64> {
        *self.share.get_or_init(|| {
            let pieces: Vec<&Piece> = self.pieces(None).collect();
            let filters: Vec<Filter> =
                self.filters.iter().filter(|filter| !filter.is_dynamic()).cloned().collect();
            // A filter that fails here fails the query when it is read.
            sample::share(&self.generation, &pieces, &filters).ok().flatten()
        })
    }

    /// Those of one partition, or of all.
    fn pieces(&self, partition: Option<usize>) -> impl Iterator<Item = &Piece> {
        let parts = match partition {
            Some(at) => self.partitions.get(at..=at).unwrap_or_default(),
            None => &self.partitions,
        };
        parts.iter().flatten()
    }

    /// Before the filters.
    fn rows(&self, partition: Option<usize>) -> usize {
        self.pieces(partition).map(|piece| piece.rows(&self.generation)).sum()
    }

    fn unfiltered(&self, partition: Option<usize>) -> Statistics {
        let chunks: Option<Vec<&Chunk>> =
            self.pieces(partition).map(|piece| piece.whole(&self.generation)).collect();
        let mut known = Statistics::new_unknown(&self.schema);
        known.num_rows = Precision::Exact(self.rows(partition));
        if let Some(chunks) = chunks {
            known.column_statistics = self.columns.iter().map(|at| column_statistics(&chunks, *at)).collect();
            let bytes =
                chunks.iter().flat_map(|chunk| self.columns.iter().map(|at| chunk.columns()[*at].bytes));
            known.total_byte_size = Precision::Exact(bytes.sum());
        }
        known
    }
}

/// Rows that `plan` looks at to answer; 0 for what is no scan of a kept table.
pub(crate) fn rows_read(plan: &dyn ExecutionPlan) -> usize {
    plan.downcast_ref::<ChunkScan>().map_or(0, |scan| scan.rows(None))
}

impl Piece {
    pub(super) fn rows(&self, generation: &Generation) -> usize {
        match self {
            Self::Whole(at) => generation.chunks()[*at].rows(),
            Self::Rows(_, rows) => rows.len(),
        }
    }

    fn whole<'a>(&self, generation: &'a Generation) -> Option<&'a Chunk> {
        match self {
            Self::Whole(at) => Some(generation.chunks()[*at].as_ref()),
            Self::Rows(..) => None,
        }
    }
}

fn properties(schema: &SchemaRef, partitions: usize) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(Arc::clone(schema)),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
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

/// Without bytes of the column: DataFusion takes them over where a join drops most rows, and would then choose its sides by
/// them. The number of rows it does reckon.
fn column_statistics(chunks: &[&Chunk], at: usize) -> ColumnStatistics {
    let mut known = ColumnStatistics::new_unknown();
    known.null_count = Precision::Exact(chunks.iter().map(|chunk| chunk.columns()[at].nulls).sum());
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
        let (chunks, rows) = (self.pieces(None).count(), self.rows(None));
        let (table, all) = (self.generation.layout().name(), self.generation.chunks().len());
        let filters =
            self.filters.iter().map(|filter| shortened(&filter.predicate().to_string(), FILTER_SHOWN_MAX));
        let filters = filters.collect::<Vec<_>>().join(" AND ");
        let numbered =
            self.numbered.iter().flat_map(Numbered::parts).map(|part| self.schema.field(part.output));
        let numbered: Vec<&str> = numbered.map(|field| field.name().as_str()).collect();
        match kind {
            DisplayFormatType::TreeRender => {
                write!(f, "table={table}\nchunks={chunks} of {all}\nrows={rows}")?;
                if !filters.is_empty() {
                    write!(f, "\npredicate={filters}")?;
                }
            }
            _ => {
                write!(f, "ChunkScan: table={table}, chunks={chunks} of {all}, rows={rows}")?;
                if !filters.is_empty() {
                    write!(f, ", predicate={filters}")?;
                }
                if !numbered.is_empty() {
                    write!(f, ", numbered={}", numbered.join(" "))?;
                }
            }
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
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.filters.iter().map(Filter::predicate), visit)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    /// Without the filters that nodes of the run before have made.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let mut scan = Arc::unwrap_or_clone(self);
        scan.filters.retain(|filter| !filter.is_dynamic());
        Ok(Arc::new(Self { metrics: ExecutionPlanMetricsSet::new(), ..scan }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let pieces = self.partitions.get(partition).cloned().unwrap_or_default();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let mut reader = Reader::new(self, pieces, context.session_config().batch_size(), metrics);
        let stream = futures::stream::poll_fn(move |context| reader.poll_next(context));
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
        let known = match (args.partition(), self.whole.get()) {
            (None, Some(known)) => Arc::clone(known),
            (None, None) => {
                let known = Arc::new(self.statistics(None)?);
                Arc::clone(self.whole.get_or_init(|| known))
            }
            (partition, _) => Arc::new(self.statistics(partition)?),
        };
        let all = known.num_rows.get_value().copied().unwrap_or_default();
        match self.fetch {
            Some(fetch) if fetch < all => Ok(Arc::new(Arc::unwrap_or_clone(known).to_inexact())),
            _ => Ok(known),
        }
    }

    fn with_fetch(&self, fetch: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(self.clone().limited(fetch)))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    /// Columns that are only filtered by are not read any further.
    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if self.is_numbered() {
            return Ok(None);
        }
        let mut columns = Vec::with_capacity(projection.expr().len());
        for expr in projection.expr() {
            match expr.expr.downcast_ref::<Column>() {
                Some(column) if column.name() == expr.alias => columns.push(self.columns[column.index()]),
                _ => return Ok(None),
            }
        }
        Ok(Some(Arc::new(self.of_columns(columns.into())?)))
    }

    /// Filters are applied here, where they save the reading of the other columns. Whether those that joins make on the
    /// way drop a row is left to the joins: they are only asked where that pays.
    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        asked: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let mut taken = Vec::new();
        let mut answers = Vec::new();
        for asked in &asked.parent_filters {
            let filter = self.taken(&asked.filter)?;
            answers.push(match &filter {
                Some(filter) if !filter.is_dynamic() => PushedDown::Yes,
                _ => PushedDown::No,
            });
            taken.extend(filter);
        }
        let is_same = taken.is_empty();
        let propagation = FilterPushdownPropagation::with_parent_pushdown_result(answers);
        match is_same {
            true => Ok(propagation),
            false => Ok(propagation.with_updated_node(Arc::new(self.clone().filtered(taken)) as _)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_filter_is_cut_between_characters() {
        assert_eq!(shortened("a > 3", FILTER_SHOWN_MAX), "a > 3");
        let long = shortened(&format!("s IN (x{})", "ä".repeat(FILTER_SHOWN_MAX)), FILTER_SHOWN_MAX);
        assert!(long.starts_with("s IN (xää") && long.ends_with("ä…"), "{long}");
        assert!(long.len() <= FILTER_SHOWN_MAX + '…'.len_utf8());
    }
}
