//! The rows of a chunk that pass filters, chosen before the columns that only they need are read.
//!
//! Each filter reads its own columns, of the rows that the filters before it left. Of a column that is kept as codes
//! it is asked once for each text, not for each row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{cast, concat, is_null, or, prep_null_mask_filter, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{Column, DynamicFilterTracking};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr_common::physical_expr::{snapshot_generation, snapshot_physical_expr};
use datafusion::physical_plan::PhysicalExpr;

use super::Chunk;
use super::bits::in_bits;
use super::chosen::Chosen;

type Expr = Arc<dyn PhysicalExpr>;

/// A filter that need not be applied is watched over this many rows, ...
const WATCHED_ROWS: usize = 64 * 1024;
/// ... left alone where it keeps more than three quarters of them, ...
const WORTH: (usize, usize) = (3, 4);
/// ... and watched again after as many rows: later ones may be others.
const IGNORED_ROWS: usize = 1024 * 1024;

/// A condition on rows of a table.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// Over all columns of the table.
    predicate: Arc<dyn PhysicalExpr>,
    /// Over those that it reads.
    narrow: Arc<dyn PhysicalExpr>,
    /// Their positions in the table.
    columns: Vec<usize>,
    schema: SchemaRef,
    /// Whether another node makes it while the plan runs, and applies it anyway.
    is_dynamic: bool,
}

/// Filters on their way through the chunks of one partition.
#[derive(Debug)]
pub(super) struct Sieve(Vec<Mesh>);

/// One of them.
#[derive(Debug)]
struct Mesh {
    filter: Filter,
    tally: Tally,
    /// What a dynamic filter was when its own generation was this.
    now: Option<(u64, Expr)>,
}

/// What a dynamic filter was worth lately.
#[derive(Debug, Default)]
struct Tally {
    seen: usize,
    passed: usize,
    /// Rows for which it is not asked.
    ignored: usize,
}

impl Filter {
    /// `predicate` names columns by their positions in `table`.
    ///
    /// # Errors
    /// When it names one that there is not.
    pub(super) fn try_new(table: &SchemaRef, predicate: Arc<dyn PhysicalExpr>) -> Result<Self> {
        let mut columns: Vec<usize> = collect_columns(&predicate).iter().map(Column::index).collect();
        columns.sort_unstable();
        columns.dedup();
        let schema = Arc::new(table.project(&columns)?);
        let narrow = moved(&predicate, |at| columns.iter().position(|column| *column == at))?;
        let is_dynamic = DynamicFilterTracking::classify(&predicate).contains_dynamic_filter();
        let narrow = if is_dynamic { narrow } else { in_bits(narrow)? };
        Ok(Self { predicate, narrow, columns, schema, is_dynamic })
    }

    /// The same for one that another node makes true or false while the plan runs, and applies anyway.
    ///
    /// # Errors
    /// As [`Filter::try_new`].
    pub(super) fn advice(table: &SchemaRef, predicate: Arc<dyn PhysicalExpr>) -> Result<Self> {
        Ok(Self { is_dynamic: true, ..Self::try_new(table, predicate)? })
    }

    /// The same for a predicate over the output of a scan that reads `columns` of the table.
    ///
    /// # Errors
    /// As [`Filter::try_new`].
    pub(super) fn over(
        table: &SchemaRef,
        columns: &[usize],
        predicate: &Arc<dyn PhysicalExpr>,
    ) -> Result<Self> {
        Self::try_new(table, moved(predicate, |at| columns.get(at).copied())?)
    }

    pub(super) fn predicate(&self) -> &Arc<dyn PhysicalExpr> {
        &self.predicate
    }

    pub(super) fn is_dynamic(&self) -> bool {
        self.is_dynamic
    }

    /// Which of the chosen rows pass; never NULL. None: all of them.
    fn passing(&self, narrow: &Expr, chunk: &Chunk, chosen: &Chosen) -> Result<Option<BooleanArray>> {
        if let [column] = self.columns.as_slice()
            && let Some(mask) = self.by_texts(narrow, chunk.stored(*column), chosen)?
        {
            return Ok(Some(mask));
        }
        asked(narrow, &chunk.read(&self.schema, &self.columns, chosen)?)
    }

    /// By one answer for each text that the chunk has, and one for NULL. None where the column is not kept as codes,
    /// where the rows are fewer than the texts, or where there is no answer for one of them: no chosen row need have it.
    fn by_texts(&self, narrow: &Expr, stored: &ArrayRef, chosen: &Chosen) -> Result<Option<BooleanArray>> {
        let kind = self.schema.field(0).data_type();
        let codes = match stored.as_any_dictionary_opt() {
            Some(codes) if stored.data_type() != kind && codes.values().len() < chosen.len() => codes,
            _ => return Ok(None),
        };
        let mut texts = cast(codes.values(), kind)?;
        let has_null = codes.keys().null_count() > 0;
        if has_null {
            texts = concat(&[&texts, &new_null_array(kind, 1)])?;
        }
        let count = texts.len();
        let answers = match asked(narrow, &RecordBatch::try_new(Arc::clone(&self.schema), vec![texts])?) {
            Ok(Some(answers)) => answers,
            Ok(None) => BooleanArray::from(vec![true; count]),
            Err(_) => return Ok(None),
        };
        let keys = chosen.of(codes.keys())?;
        let mask = take(&answers, &keys, None)?;
        let mask = certain(mask.as_boolean());
        let null_passes = has_null && answers.value(count - 1);
        Ok(Some(if null_passes { or(&mask, &is_null(&keys)?)? } else { mask }))
    }
}

/// None: all of them.
fn asked(narrow: &Expr, rows: &RecordBatch) -> Result<Option<BooleanArray>> {
    match narrow.evaluate(rows)? {
        ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))) => Ok(None),
        value => Ok(Some(certain(value.into_array(rows.num_rows())?.as_boolean()))),
    }
}

/// What is not known to be true is false.
fn certain(mask: &BooleanArray) -> BooleanArray {
    if mask.null_count() == 0 { mask.clone() } else { prep_null_mask_filter(mask) }
}

/// `expr` with its columns at the positions that `to` gives.
fn moved(expr: &Arc<dyn PhysicalExpr>, to: impl Fn(usize) -> Option<usize>) -> Result<Arc<dyn PhysicalExpr>> {
    let lost =
        |column: &Column| datafusion::common::internal_datafusion_err!("no column {column} to filter by");
    let moved = Arc::clone(expr).transform_down(|expr| match expr.downcast_ref::<Column>() {
        None => Ok(Transformed::no(expr)),
        Some(column) => {
            let at = to(column.index()).ok_or_else(|| lost(column))?;
            Ok(Transformed::yes(Arc::new(Column::new(column.name(), at)) as Arc<dyn PhysicalExpr>))
        }
    });
    moved.data()
}

impl Sieve {
    /// Those that must be applied come first.
    pub(super) fn new(filters: &[Filter]) -> Self {
        let mesh = |filter: &Filter| Mesh { filter: filter.clone(), tally: Tally::default(), now: None };
        let mut meshes: Vec<_> = filters.iter().map(mesh).collect();
        meshes.sort_by_key(|mesh| mesh.filter.is_dynamic);
        Self(meshes)
    }

    /// The rows of `chosen` that pass all filters, but for dynamic ones that are not worth asking.
    ///
    /// # Errors
    /// What a filter fails with on a row that the filters before it let pass.
    pub(super) fn sift(&mut self, chunk: &Chunk, mut chosen: Chosen) -> Result<Chosen> {
        for mesh in &mut self.0 {
            let before = chosen.len();
            if before == 0 {
                break;
            }
            if mesh.filter.is_dynamic && mesh.tally.ignores(before) {
                continue;
            }
            let passing = match mesh.passing(chunk, &chosen) {
                // It is advice: what it cannot judge is judged by whoever made it.
                Err(_) if mesh.filter.is_dynamic => None,
                passing => passing?,
            };
            let Some(mask) = passing else { continue };
            chosen = chosen.narrowed(mask)?;
            mesh.tally.count(before, chosen.len());
        }
        Ok(chosen)
    }
}

impl Mesh {
    fn passing(&mut self, chunk: &Chunk, chosen: &Chosen) -> Result<Option<BooleanArray>> {
        if !self.filter.is_dynamic {
            return self.filter.passing(&self.filter.narrow, chunk, chosen);
        }
        // Asked first: what is made of a filter that changes meanwhile is made once more.
        let generation = snapshot_generation(&self.filter.narrow);
        let now = match self.now.take() {
            Some((then, now)) if then == generation => now,
            _ => in_bits(snapshot_physical_expr(Arc::clone(&self.filter.narrow))?)?,
        };
        let (_, now) = self.now.insert((generation, now));
        self.filter.passing(now, chunk, chosen)
    }
}

impl Tally {
    fn ignores(&mut self, rows: usize) -> bool {
        let ignores = self.ignored > 0;
        self.ignored = self.ignored.saturating_sub(rows);
        ignores
    }

    fn count(&mut self, seen: usize, passed: usize) {
        self.seen += seen;
        self.passed += passed;
        if self.seen < WATCHED_ROWS {
            return;
        }
        let (part, whole) = WORTH;
        let ignored = if self.passed * whole > self.seen * part { IGNORED_ROWS } else { 0 };
        *self = Self { ignored, ..Self::default() };
    }
}
