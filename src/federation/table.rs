//! One remote table as DataFusion sees it: its schema, which filters it takes, and the SELECT of a scan.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;

use crate::name::DatasetName;
use crate::upstream::{Flavor, RemoteTableName, Upstream, UpstreamError};

use super::filter::{Prover, quoted, unqualified};
use super::rows::RowCount;
use super::scan::{Keys, Place, RemoteScan, Shape};

/// A dataset that lives on an upstream.
pub(super) struct RemoteTable {
    pub name: DatasetName,
    pub upstream: Arc<Upstream>,
    pub remote: RemoteTableName,
    schema: SchemaRef,
    prover: Arc<Prover>,
    rows: Arc<RowCount>,
}

/// The SELECT of a scan.
struct Select {
    sql: String,
    shape: Shape,
    /// Where keys would go.
    place: Place,
    is_filtered: bool,
}

impl RemoteTable {
    /// `planner` proves filters for upstreams of the DataFusion family.
    ///
    /// # Errors
    /// A schema with two columns of one name.
    pub fn try_new(
        name: DatasetName,
        upstream: Arc<Upstream>,
        remote: RemoteTableName,
        schema: SchemaRef,
        planner: &Arc<SessionState>,
    ) -> Result<Self> {
        let family = speaks_datafusion(upstream.flavor()).then(|| Arc::clone(planner));
        let prover = Arc::new(Prover::try_new(&schema, family)?);
        Ok(Self { name, upstream, remote, schema, prover, rows: Arc::default() })
    }

    /// Shares the row count of a dataset, which outlives its schemas.
    pub fn counted_by(mut self, rows: Arc<RowCount>) -> Self {
        self.rows = rows;
        self
    }

    /// About how many rows the table has, where that is known.
    pub fn rows(&self) -> Option<u64> {
        self.rows.get()
    }

    /// About how many rows a scan yields: a filter keeps `selectivity` percent of them.
    fn estimate(&self, select: &Select, limit: Option<usize>, selectivity: u8) -> Option<usize> {
        let rows = usize::try_from(self.rows()?).ok()?;
        let kept = match select.is_filtered {
            true => rows.saturating_mul(usize::from(selectivity)).div_ceil(100),
            false => rows,
        };
        Some(limit.map_or(kept, |limit| kept.min(limit)))
    }

    fn select(&self, projection: &[usize], filters: &[Expr], limit: Option<usize>) -> Select {
        let columns: Vec<String> =
            projection.iter().map(|at| quoted(self.schema.field(*at).name())).collect();
        let (columns, shape) = match columns.is_empty() {
            true => ("count(*)".to_owned(), Shape::Count { limit }),
            false => (columns.join(", "), Shape::Rows),
        };
        let mut sql = format!("SELECT {columns} FROM {}", remote_sql(&self.remote));
        let wheres: Vec<String> =
            filters.iter().filter_map(|filter| self.prover.push(filter)).map(|pushed| pushed.sql).collect();
        let mut place = Place::Where;
        if !wheres.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&wheres.join(" AND "));
            place = Place::And;
        }
        if let (Some(limit), Shape::Rows) = (limit, shape) {
            sql.push_str(&format!(" LIMIT {limit}"));
            // Keys choose among the rows that the limit left; they must not choose those rows.
            place = Place::Around;
        }
        Select { sql, shape, place, is_filtered: !filters.is_empty() }
    }

    fn read(
        &self,
        session: &dyn Session,
        projection: &[usize],
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<RemoteScan> {
        let select = self.select(projection, filters, limit);
        let selectivity = session.config_options().optimizer.default_filter_selectivity;
        let rows = self.estimate(&select, limit, selectivity);
        let schema: SchemaRef = Arc::new(self.schema.project(projection)?);
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        let (datasets, upstream) = (vec![self.name.clone()], Arc::clone(&self.upstream));
        let mut scan = RemoteScan::new(datasets, upstream, select.sql, select.shape, schema).with_rows(rows);
        if select.shape == Shape::Rows {
            scan = scan.with_keys(Keys::new(names, Arc::clone(&self.prover), select.place));
        }
        if !select.is_filtered && limit.is_none() {
            scan = scan.counted_by(Arc::clone(&self.rows));
        }
        Ok(scan)
    }

    /// A filter was taken and then changed by the optimizer, so that it cannot be proved any more: nobody
    /// else applies it, and it is applied here. The limit counts what is left and stays with the caller.
    fn read_filtered(
        &self,
        session: &dyn Session,
        projection: &[usize],
        filters: &[Expr],
        unsent: Expr,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let unsent = unqualified(unsent)?;
        let mut columns = projection.to_vec();
        for column in unsent.column_refs() {
            let at = self.schema.index_of(&column.name)?;
            if !columns.contains(&at) {
                columns.push(at);
            }
        }
        let rows = self.read(session, &columns, filters, None)?;
        let schema = DFSchema::try_from(rows.schema())?;
        let predicate = session.create_physical_expr(unsent, &schema)?;
        let filter = FilterExecBuilder::new(predicate, Arc::new(rows));
        let shown = (0..projection.len()).collect();
        Ok(Arc::new(filter.apply_projection(Some(shown))?.build()?))
    }
}

/// Whether whole statements and proved filters may be sent.
pub(super) fn speaks_datafusion(flavor: Flavor) -> bool {
    matches!(flavor, Flavor::Spice | Flavor::FlightSql { datafusion: true })
}

/// Asks the upstream for the schema of a table.
///
/// # Errors
/// What the call met.
pub(super) async fn remote_schema(
    upstream: &Upstream,
    table: &RemoteTableName,
) -> Result<SchemaRef, UpstreamError> {
    upstream.table_schema(table, &format!("SELECT * FROM {}", remote_sql(table))).await
}

/// The statement that counts a table's rows.
pub(super) fn count_sql(table: &RemoteTableName) -> String {
    format!("SELECT count(*) FROM {}", remote_sql(table))
}

/// The same under an `alias` for its column: an upstream that caches results by their plans has none for an alias that
/// was never used.
pub(super) fn count_as_sql(table: &RemoteTableName, alias: &str) -> String {
    format!("SELECT count(*) AS {} FROM {}", quoted(alias), remote_sql(table))
}

/// The upstream's name of a table, every part quoted.
pub(super) fn remote_sql(table: &RemoteTableName) -> String {
    table.parts.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".")
}

impl fmt::Debug for RemoteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteTable({} at {})", self.name, self.upstream.endpoint())
    }
}

#[async_trait]
impl TableProvider for RemoteTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize>;
        let projection = match projection {
            Some(projection) => projection,
            None => {
                all = (0..self.schema.fields().len()).collect();
                &all
            }
        };
        let unsent = filters.iter().filter(|filter| self.prover.push(filter).is_none()).cloned();
        match conjunction(unsent) {
            None => Ok(Arc::new(self.read(session, projection, filters, limit)?)),
            Some(unsent) => self.read_filtered(session, projection, filters, unsent),
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let decide = |filter: &&Expr| match self.prover.push(filter) {
            Some(pushed) if pushed.exact => TableProviderFilterPushDown::Exact,
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(decide).collect())
    }
}
