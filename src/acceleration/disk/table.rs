//! A table that is read from its files (`params.resident: false`).
//!
//! Each scan pins the files of one generation; DataFusion's Parquet source prunes row groups and pages by the filter
//! and decodes the rest. No file can be named from SQL: the source is given its files and a reader for them alone.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionConfig;

use crate::acceleration::store::Pins;

use super::files::{ChunkFile, Files};
use super::reader::{Pinned, Readers};

/// The generation that its folder committed last, for queries. It has the schema that it was made with.
#[derive(Debug)]
pub(crate) struct DiskTable {
    schema: SchemaRef,
    served: Arc<ArcSwapOption<Files>>,
}

impl DiskTable {
    pub(super) fn new(schema: SchemaRef, served: Arc<ArcSwapOption<Files>>) -> Self {
        Self { schema, served }
    }

    /// The files of one generation, the same for all scans of a query. None: nothing was committed yet.
    fn pin(&self, config: &SessionConfig) -> Result<Option<Arc<Files>>> {
        let files = Pins::pin_other(config, &self.served, || self.served.load_full());
        match &files {
            Some(files) if files.schema.fields() != self.schema.fields() => Err(DataFusionError::Execution(
                "the table's schema changed while the statement was planned; send it again".to_owned(),
            )),
            _ => Ok(files),
        }
    }
}

#[async_trait]
impl TableProvider for DiskTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters prune; what is left is filtered above the scan.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.pin(state.config())?;
        let files = match files {
            Some(files) if files.chunks.iter().any(|chunk| chunk.entry.rows > 0) => files,
            _ => {
                let schema = match projection {
                    Some(columns) => Arc::new(self.schema.project(columns)?),
                    None => Arc::clone(&self.schema),
                };
                return Ok(Arc::new(EmptyExec::new(schema)));
            }
        };
        let source = ParquetSource::new(Arc::clone(&self.schema))
            .with_parquet_file_reader_factory(Arc::new(Readers))
            .with_enable_page_index(true);
        // The physical optimiser gives the source its filters, this scan's and those found while it runs.
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(groups(&files, state.config().target_partitions()))
            .with_statistics(merged(&files))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// The files dealt to at most `partitions` groups of about the same size, largest first.
fn groups(files: &Files, partitions: usize) -> Vec<FileGroup> {
    let mut chunks: Vec<&Arc<ChunkFile>> = files.chunks.iter().filter(|chunk| chunk.entry.rows > 0).collect();
    chunks.sort_by_key(|chunk| std::cmp::Reverse(chunk.entry.bytes));
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = Vec::new();
    for chunk in chunks {
        let file = PartitionedFile::new(chunk.path().to_string_lossy(), chunk.entry.bytes)
            .with_extension(Pinned(Arc::clone(chunk)))
            .with_statistics(chunk.statistics());
        let room = groups.len() < partitions;
        match groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            Some((bytes, group)) if !room => {
                *bytes += chunk.entry.bytes;
                group.push(file);
            }
            _ => groups.push((chunk.entry.bytes, vec![file])),
        }
    }
    groups.into_iter().map(|(_, group)| FileGroup::new(group)).collect()
}

/// The statistics of all rows.
fn merged(files: &Files) -> Statistics {
    let chunks: Vec<Arc<Statistics>> = files.chunks.iter().map(|chunk| chunk.statistics()).collect();
    Statistics::try_merge_iter(chunks.iter().map(AsRef::as_ref), &files.schema)
        .unwrap_or_else(|_| Statistics::new_unknown(&files.schema))
}
