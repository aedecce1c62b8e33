//! The tools: their schemas leave for the client, a call with its arguments enters, rows and states leave.
//!
//! What goes wrong with a call is its result too ([`Failure`]): an agent reads it and asks anew.

use std::time::SystemTime;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::rows::{self, Column, ROWS_MAX, Rows};
use super::{Descriptions, names};
use crate::query::{DatasetState, DatasetStatus, Principal, Protocol, QueryError, Request};
use crate::serve::{Door, http, status};
use crate::telemetry::Traceparent;

/// Rows of a sample, when the call does not say.
const SAMPLE_ROWS: usize = 10;
const SAMPLE_ROWS_MAX: usize = 100;
/// Tables whose columns are told in one call.
const TABLES_MAX: usize = 20;

/// What can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sql,
    ListDatasets,
    TableSchema,
    SampleData,
    GetReadiness,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SqlArguments {
    /// One SQL statement that reads, for example SELECT city, count(*) AS n FROM orders GROUP BY city ORDER BY n DESC.
    query: String,
    /// At most so many rows are answered; 1000 when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TableSchemaArguments {
    /// Names of datasets and views, as list_datasets shows them.
    #[serde(alias = "table")]
    tables: OneOrMore,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMore {
    More(Vec<String>),
    One(String),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SampleDataArguments {
    /// The name of a dataset or view, as list_datasets shows it.
    table: String,
    /// At most so many rows are answered; 10 when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    limit: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Datasets {
    datasets: Vec<Dataset>,
}

/// A dataset or view, as list_datasets and its resource show it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Dataset {
    /// The name, as SQL takes it.
    name: String,
    /// dataset or view.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Where its rows come from.
    from: String,
    /// Initializing, Ready, Disabled, Error, Refreshing or ShuttingDown.
    state: &'static str,
    /// Why it is not ready, or older than it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Whether its rows are kept here: queries over them are fast.
    accelerated: bool,
    /// How many rows are kept here; absent where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Tables {
    tables: Vec<TableSchema>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TableSchema {
    name: String,
    columns: Vec<Column>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Readiness {
    /// Whether every dataset and view can be asked.
    ready: bool,
    /// What GET /v1/ready?verbose=true says: a line for each.
    report: String,
}

/// What a tool found.
struct Found {
    text: String,
    structured: Value,
}

/// What tools ask, and for whom.
pub(super) struct Asker<'a, D> {
    pub door: &'a D,
    pub principal: &'a Principal,
    /// The span of who asks, where they say.
    pub caller: Option<Traceparent>,
    pub descriptions: &'a Descriptions,
}

impl Kind {
    pub const ALL: [Self; 5] =
        [Self::Sql, Self::ListDatasets, Self::TableSchema, Self::SampleData, Self::GetReadiness];

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::ListDatasets => "list_datasets",
            Self::TableSchema => "table_schema",
            Self::SampleData => "sample_data",
            Self::GetReadiness => "get_readiness",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Sql => "Ask SQL",
            Self::ListDatasets => "List datasets",
            Self::TableSchema => "Show columns",
            Self::SampleData => "Show some rows",
            Self::GetReadiness => "Show readiness",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Sql => {
                "Runs one SQL statement (Apache DataFusion's dialect, close to PostgreSQL's) over the datasets and views, \
                 and returns its rows. Only reading statements are run. At most 1000 rows and 1 MiB are returned, with a \
                 note where there are more: aggregate and filter in SQL. Names that are not lower case, or that hold \
                 other characters than letters, digits and _, go in double quotes."
            }
            Self::ListDatasets => {
                "Lists the datasets and views that can be asked, with what they hold, their states, whether their rows are \
                 kept here, and how many. Begin here."
            }
            Self::TableSchema => {
                "Shows the columns of one or more datasets or views: names, Arrow types, whether they may be null. Ask it \
                 before writing SQL."
            }
            Self::SampleData => {
                "Returns some rows of one dataset or view, in no order, to see what its values look like."
            }
            Self::GetReadiness => {
                "Says for each dataset and view whether it can be asked now, and if not, why."
            }
        }
    }

    /// The tool as the client is shown it.
    pub fn tool(self) -> Tool {
        let (input, output) = match self {
            Self::Sql => (schema::<SqlArguments>(false), schema::<Rows>(true)),
            Self::ListDatasets => (schema::<NoArguments>(false), schema::<Datasets>(true)),
            Self::TableSchema => (schema::<TableSchemaArguments>(false), schema::<Tables>(true)),
            Self::SampleData => (schema::<SampleDataArguments>(false), schema::<Rows>(true)),
            Self::GetReadiness => (schema::<NoArguments>(false), schema::<Readiness>(true)),
        };
        // Not open: nothing is asked but the datasets of the spicepod.
        let hints = ToolAnnotations::with_title(self.title())
            .read_only(true)
            .destructive(false)
            .idempotent(true)
            .open_world(false);
        Tool::new(self.name(), self.description(), input)
            .with_title(self.title())
            .with_raw_output_schema(output.into())
            .with_annotations(hints)
    }
}

impl<D: Door> Asker<'_, D> {
    /// The result of a call.
    pub async fn call(&self, kind: Kind, arguments: Map<String, Value>) -> CallToolResult {
        let found = match kind {
            Kind::Sql => self.sql(arguments).await,
            Kind::ListDatasets => self.list(arguments),
            Kind::TableSchema => self.schemas(arguments).await,
            Kind::SampleData => self.sample(arguments).await,
            Kind::GetReadiness => self.readiness(arguments),
        };
        match found {
            Ok(Found { text, structured }) => {
                let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
                result.structured_content = Some(structured);
                result
            }
            Err(failure) => failure.result(),
        }
    }

    async fn sql(&self, arguments: Map<String, Value>) -> Result<Found, Failure> {
        let SqlArguments { query, limit } = read(Kind::Sql, arguments)?;
        if query.trim().is_empty() {
            let message = "the statement is empty: send SQL, for example SELECT 1";
            return Err(Failure::new("EmptyStatement", message));
        }
        self.rows(query, limit.unwrap_or(ROWS_MAX)).await
    }

    async fn sample(&self, arguments: Map<String, Value>) -> Result<Found, Failure> {
        let SampleDataArguments { table, limit } = read(Kind::SampleData, arguments)?;
        let name = names::find(self.door, &table)?.name;
        let limit = limit.unwrap_or(SAMPLE_ROWS).clamp(1, SAMPLE_ROWS_MAX);
        let sql = format!("SELECT * FROM {} LIMIT {limit}", names::quoted(&name));
        self.rows(sql, limit).await
    }

    async fn rows(&self, sql: String, rows_max: usize) -> Result<Found, Failure> {
        let rows = rows::first(self.door, self.request(sql), rows_max).await?;
        Found::of(&rows)
    }

    fn request(&self, sql: String) -> Request {
        let (principal, caller) = (self.principal.clone(), self.caller.clone());
        Request { principal, caller, protocol: Protocol::Mcp, ..Request::new(sql) }
    }

    fn list(&self, arguments: Map<String, Value>) -> Result<Found, Failure> {
        let NoArguments {} = read(Kind::ListDatasets, arguments)?;
        let datasets = self.door.datasets().iter().map(|dataset| self.shown(dataset)).collect();
        Found::of(&Datasets { datasets })
    }

    /// A dataset or view as clients see it.
    pub fn shown(&self, dataset: &DatasetStatus) -> Dataset {
        let kept = dataset.acceleration.as_ref();
        let failed = match &dataset.state {
            DatasetState::Error { reason, .. } => Some(status::message(reason)),
            DatasetState::Initializing | DatasetState::Ready => None,
        };
        Dataset {
            name: names::shown(&dataset.name),
            kind: if dataset.is_view { "view" } else { "dataset" },
            description: self.descriptions.get(&dataset.name.to_string()).cloned(),
            from: dataset.from.clone(),
            state: dataset.phase().word(),
            error: failed.or_else(|| kept.and_then(|kept| kept.reason.clone())),
            accelerated: kept.is_some(),
            rows: kept.map(|kept| kept.rows),
        }
    }

    async fn schemas(&self, arguments: Map<String, Value>) -> Result<Found, Failure> {
        let TableSchemaArguments { tables } = read(Kind::TableSchema, arguments)?;
        let wanted = match tables {
            OneOrMore::One(table) => vec![table],
            OneOrMore::More(tables) => tables,
        };
        if wanted.is_empty() || wanted.len() > TABLES_MAX {
            let message = format!("`tables` names {} tables: send 1 to {TABLES_MAX}", wanted.len());
            return Err(Failure::new("InvalidArguments", message));
        }
        let mut tables = Vec::with_capacity(wanted.len());
        for table in wanted {
            let found = names::find(self.door, &table)?;
            let columns = self.columns(&found).await?;
            tables.push(TableSchema { name: names::shown(&found.name), columns });
        }
        Found::of(&Tables { tables })
    }

    /// The columns of a dataset or view.
    ///
    /// # Errors
    /// It was never reached.
    pub async fn columns(&self, dataset: &DatasetStatus) -> Result<Vec<Column>, Failure> {
        let schema = match self.door.table_schema(&names::path(&dataset.name)).await {
            // A door takes its path apart at the dots, which a name may hold too; SQL takes every name.
            Err(QueryError::NotFound { .. }) => {
                let sql = format!("SELECT * FROM {} LIMIT 0", names::quoted(&dataset.name));
                self.door.schema(self.request(sql)).await?
            }
            answered => answered?,
        };
        Ok(rows::columns(&schema))
    }

    fn readiness(&self, arguments: Map<String, Value>) -> Result<Found, Failure> {
        let NoArguments {} = read(Kind::GetReadiness, arguments)?;
        let (ready, report) = http::ready_report(&self.door.datasets(), SystemTime::now(), true);
        let found = Found::of(&Readiness { ready, report: report.clone() })?;
        Ok(Found { text: report, ..found })
    }
}

impl Found {
    /// The same as text and as data, for clients that know only one of them.
    fn of(value: &impl Serialize) -> Result<Self, Failure> {
        let structured = serde_json::to_value(value).map_err(|error| QueryError::Internal {
            message: format!("the result cannot be written: {error}"),
        })?;
        Ok(Self { text: structured.to_string(), structured })
    }
}

fn read<T: DeserializeOwned>(kind: Kind, arguments: Map<String, Value>) -> Result<T, Failure> {
    serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        let message = format!("the arguments of `{}`: {error}; see its inputSchema", kind.name());
        Failure::new("InvalidArguments", message)
    })
}

/// What JSON Schema says of a type: of what is taken, or of what is written. Its name and text are the tool's already.
fn schema<T: JsonSchema>(is_output: bool) -> JsonObject {
    let settings = SchemaSettings::draft2020_12();
    let settings = if is_output { settings.for_serialize() } else { settings };
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let mut object = schema.as_object().cloned().unwrap_or_default();
    object.remove("title");
    object.remove("description");
    // Some clients take a schema without any for a broken one.
    object.entry("properties").or_insert_with(|| json!({}));
    object
}
