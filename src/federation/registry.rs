//! Every dataset and view by name, each with its state, and the DataFusion session that plans over them.
//!
//! Entries are fixed when the registry is built; only their states change. A query reads states without
//! a lock.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::{TableReference, internal_datafusion_err};
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast::Query;

use crate::name::DatasetName;
use crate::upstream::{RemoteTableName, Upstream, UpstreamError};

use super::Options;
use super::decimals::DecimalsInWords;
use super::here::Here;
use super::pushdown::Planner;
use super::rows::RowCount;
use super::scan::WaitForNobody;
use super::system;

/// The catalog and schema of unqualified names, as the public runtime has them.
pub(crate) const DEFAULT_CATALOG: &str = "spice";
pub(crate) const DEFAULT_SCHEMA: &str = "public";
/// Schemas that only this process has: they are never sent upstream, and no dataset stands in them.
const LOCAL_SCHEMAS: [&str; 2] = ["information_schema", system::RUNTIME];
const SHELVES: usize = 64;

/// Build sides with more different keys are not listed, but looked up in the join's own table, which hashes each row. A
/// kept table reads a list as bits; an upstream is sent a range of so many. To list more costs more than it saves: with
/// 65,536, half of the TPC-H queries took longer.
const KEYS_LISTED_MAX: usize = 1 << 12;
/// Build sides whose keys take more memory than this, in bytes, are not listed. Counted before duplicates are
/// dropped, so it is well above what a list may have as SQL.
const KEYS_SIZE_MAX: usize = 4 << 20;
/// See [`collected`], in bytes and, where those are not known, in rows.
const COLLECTED_BYTES: usize = 192 << 20;
const COLLECTED_ROWS: usize = 4 << 20;

/// How far a dataset or view has come.
#[derive(Debug, Clone)]
pub enum State {
    /// Not reached yet.
    Initializing,
    /// Queries are answered.
    Ready { schema: SchemaRef },
    /// Something failed; healing goes on. With a schema queries are still tried.
    Error { reason: Reason, schema: Option<SchemaRef>, since: SystemTime },
}

/// Why an entry is in [`State::Error`].
#[derive(Debug, Clone)]
pub enum Reason {
    Upstream(UpstreamError),
    /// Its rows are being fetched for the first time; with a word of why that takes so long, where there is one.
    Loading {
        dataset: String,
        why: Option<String>,
    },
    /// A view that cannot be planned, or a schema that cannot be used.
    Unusable(String),
}

impl State {
    /// The schema, once it was ever known.
    #[must_use]
    pub fn schema(&self) -> Option<&SchemaRef> {
        match self {
            Self::Initializing => None,
            Self::Ready { schema } => Some(schema),
            Self::Error { schema, .. } => schema.as_ref(),
        }
    }
}

/// One dataset or view.
pub(super) struct Entry {
    pub name: DatasetName,
    /// `from:` as written; for a view the word `view`.
    pub from: String,
    pub kind: Kind,
    /// Of the remote table, or of the view.
    pub state: ArcSwap<State>,
    pub here: ArcSwap<Here>,
    /// When this process began with it.
    pub since: SystemTime,
}

pub(super) enum Kind {
    Dataset { upstream: Arc<Upstream>, remote: RemoteTableName, rows: Arc<RowCount> },
    View(View),
}

/// A view, parsed.
pub(super) struct View {
    pub sql: String,
    pub query: Box<Query>,
    /// Entries that its query names.
    pub depends: Vec<usize>,
}

impl Entry {
    pub fn reference(&self) -> TableReference {
        match self.name.schema() {
            Some(schema) => TableReference::partial(schema, self.name.table()),
            None => TableReference::bare(self.name.table()),
        }
    }
}

/// Schema and table of an entry.
type Key = (String, String);

/// Finds entries by the names that SQL uses.
#[derive(Clone, Default)]
pub(super) struct Names(HashMap<Key, usize>);

/// What a name in SQL stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Entry(usize),
    /// A table of [`LOCAL_SCHEMAS`].
    Local,
}

impl Names {
    pub fn insert(&mut self, name: &DatasetName, at: usize) {
        let schema = name.schema().unwrap_or(DEFAULT_SCHEMA).to_owned();
        self.0.insert((schema, name.table().to_owned()), at);
    }

    /// By one to three normalised parts.
    pub fn find(&self, parts: &[String]) -> Option<Named> {
        let (schema, table) = match parts {
            [table] => (DEFAULT_SCHEMA, table),
            [schema, table] => (schema.as_str(), table),
            [catalog, schema, table] if catalog == DEFAULT_CATALOG => (schema.as_str(), table),
            _ => return None,
        };
        if LOCAL_SCHEMAS.contains(&schema) {
            return Some(Named::Local);
        }
        self.0.get(&(schema.to_owned(), table.clone())).copied().map(Named::Entry)
    }
}

/// The parts of a planner's table reference.
pub(super) fn parts_of(reference: &TableReference) -> Vec<String> {
    match reference {
        TableReference::Bare { table } => vec![table.to_string()],
        TableReference::Partial { schema, table } => vec![schema.to_string(), table.to_string()],
        TableReference::Full { catalog, schema, table } => {
            vec![catalog.to_string(), schema.to_string(), table.to_string()]
        }
    }
}

/// Counts what changes in a catalog: a statement that is planned twice under one number means the same tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes(Arc<AtomicU64>);

impl Changes {
    /// After the change: who reads the new number sees what it stands for.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The tables of one schema. A table is replaced in one step: a query sees the old one or the new one.
#[derive(Debug)]
struct Tables {
    /// In shelves by name, because a shelf is copied with each change: all in one, thousands of tables would be copied
    /// thousands of times while they are loaded.
    shelves: Vec<ArcSwap<HashMap<String, Arc<dyn TableProvider>>>>,
    hasher: RandomState,
    changes: Changes,
}

impl Tables {
    fn new(changes: Changes) -> Self {
        let shelves = (0..SHELVES).map(|_| ArcSwap::default()).collect();
        Self { shelves, hasher: RandomState::new(), changes }
    }

    fn shelf(&self, name: &str) -> &ArcSwap<HashMap<String, Arc<dyn TableProvider>>> {
        &self.shelves[self.hasher.hash_one(name) as usize % SHELVES]
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.shelves.iter().flat_map(|shelf| shelf.load().keys().cloned().collect::<Vec<_>>()).collect()
    }

    async fn table(&self, name: &str) -> datafusion::error::Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.shelf(name).load().get(name).cloned())
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> datafusion::error::Result<Option<Arc<dyn TableProvider>>> {
        let before = self.shelf(&name).rcu(|tables| {
            let mut tables = HashMap::clone(tables);
            tables.insert(name.clone(), Arc::clone(&table));
            tables
        });
        self.changes.add();
        Ok(before.get(&name).cloned())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.shelf(name).load().contains_key(name)
    }
}

/// A session whose catalog has the schemas of `names`, empty, and nothing that reaches files.
///
/// # Errors
/// A schema that cannot be registered.
pub(super) fn session<'a>(
    names: impl Iterator<Item = &'a DatasetName>,
    options: &Options,
    changes: &Changes,
) -> datafusion::error::Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(DEFAULT_CATALOG, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    // DataFusion's own limits are made for local files, where a key saves less than a row over the network.
    let partitions = options.target_partitions.unwrap_or_else(|| config.target_partitions());
    let optimizer = &mut config.options_mut().optimizer;
    optimizer.hash_join_single_partition_threshold = collected(partitions, COLLECTED_BYTES);
    optimizer.hash_join_single_partition_threshold_rows = collected(partitions, COLLECTED_ROWS);
    optimizer.hash_join_inlist_pushdown_max_distinct_values = KEYS_LISTED_MAX;
    optimizer.hash_join_inlist_pushdown_max_size = KEYS_SIZE_MAX;
    if let Some(partitions) = options.target_partitions {
        config = config.with_target_partitions(partitions);
    }
    if !options.push_down {
        // Join keys found on the way would be sent as a filter that the statement does not have.
        config = config.set_bool("datafusion.optimizer.enable_dynamic_filter_pushdown", false);
    }
    let mut builder = SessionStateBuilder::new();
    if let Some(resources) = &options.resources {
        config = resources.configure(config);
        builder = builder.with_runtime_env(resources.runtime());
    }
    let builder = builder
        .with_config(config)
        .with_default_features()
        .with_query_planner(Arc::new(Planner))
        .with_physical_optimizer_rule(Arc::new(WaitForNobody))
        .with_physical_optimizer_rule(Arc::new(DecimalsInWords));
    let with_rule = |builder: SessionStateBuilder, rule| builder.with_physical_optimizer_rule(rule);
    let builder = options.rules.iter().cloned().fold(builder, with_rule);
    let context = SessionContext::new_with_state(builder.build());
    let catalog = MemoryCatalogProvider::new();
    for schema in names.filter_map(DatasetName::schema).chain([DEFAULT_SCHEMA]) {
        catalog.register_schema(schema, Arc::new(Tables::new(changes.clone())))?;
    }
    context.register_catalog(DEFAULT_CATALOG, Arc::new(catalog));
    Ok(context)
}

/// How large a side of a join may be for one thread to build a table of it that all share, of `most` where there are two
/// threads. Otherwise both sides are spread over the partitions by their keys, which costs each row of both more than a
/// look into the table does: what it saves is the time of the threads that wait, and these are few where partitions are.
fn collected(partitions: usize, most: usize) -> usize {
    most * 2 / partitions.max(2)
}

/// Puts a schema into the catalog of a session.
///
/// # Errors
/// A catalog that is not there, or takes no schema.
pub(super) fn add_schema(
    context: &SessionContext,
    name: &str,
    schema: Arc<dyn SchemaProvider>,
) -> datafusion::error::Result<()> {
    let catalog = context.catalog(DEFAULT_CATALOG);
    let catalog = catalog.ok_or_else(|| internal_datafusion_err!("no catalog `{DEFAULT_CATALOG}`"))?;
    catalog.register_schema(name, schema).map(|_| ())
}
