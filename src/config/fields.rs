//! Every field of a spicepod, once: names, kinds, words, and whether sidewing acts on it yet.
//!
//! Fields that are known but not built are here so that they are refused by name instead of being
//! ignored, and so that a misspelling inside them is still found.

use super::schema::Kind::{
    Any, Bind, BindOrSocket, Bool, Choice, Cron, Duration, Fields, FieldsOrList, Int, List, MapOf, Number,
    OnOff, OneOf, OpenFields, Params, Scalar, Size, Text, TextOrList,
};
use super::schema::{Field, Kind, Zero};

/// The whole document.
pub(super) static SPICEPOD: &[Field] = &[
    Field::required("version", OneOf(&["v1", "v1beta1"]), "Version of the spicepod format."),
    Field::required("kind", OneOf(&["Spicepod"]), "Always `Spicepod`."),
    Field::required("name", Text, "Name of this spicepod."),
    Field::built("runtime", Fields(RUNTIME), "Process-wide settings."),
    Field::built("secrets", List(&Fields(SECRET_STORE)), "Secret stores; the last one is searched first."),
    Field::built("metadata", MapOf(&Any), "Notes for people and tools; sidewing does not act on them."),
    Field::built("datasets", List(&Fields(DATASET)), "Tables that live on an upstream."),
    Field::built("views", List(&Fields(VIEW)), "SQL views over datasets and other views."),
    Field::not_yet("extensions", MapOf(&Any), "Extensions of the runtime."),
    Field::not_yet("catalogs", List(&Fields(CATALOG)), "Catalogs whose tables appear by themselves."),
    Field::not_yet("models", List(&Any), "Models."),
    Field::not_yet("embeddings", List(&Any), "Embedding models."),
    Field::not_yet("tools", List(&Any), "Tools for models."),
    Field::not_yet("evals", List(&Any), "Evaluations of models."),
    Field::not_yet("workers", List(&Any), "Workers over models."),
    Field::not_yet("functions", List(&Any), "User-defined functions."),
    Field::not_yet("memory", Any, "Memory of models."),
    Field::not_yet("snapshots", Any, "Snapshots of acceleration files."),
    Field::not_yet("dependencies", List(&Text), "Other spicepods."),
];

static RUNTIME: &[Field] = &[
    Field::built("http", Fields(HTTP), "The HTTP front end."),
    Field::built("flight", Fields(FLIGHT), "The Arrow Flight front end, and Flight messages."),
    Field::built(
        "metrics",
        FieldsOrList(METRICS, METRIC),
        "The Prometheus endpoint; the list form is not supported yet.",
    ),
    Field::built("query", Fields(QUERY), "How queries run."),
    Field::built(
        "dataset_load_parallelism",
        Int(1),
        "How many datasets are verified at a time when the runtime starts.",
    ),
    Field::renamed("num_of_parallel_loading_at_start_up", "dataset_load_parallelism"),
    Field::built(
        "shutdown_timeout",
        Duration(Zero::Allowed),
        "How long running queries may take to finish when the runtime stops.",
    ),
    Field::built(
        "output_level",
        OneOf(&["info", "verbose", "very_verbose"]),
        "How much is logged; `RUST_LOG` wins.",
    ),
    Field::built("auth", Fields(AUTH), "Who may ask."),
    Field::built("caching", Fields(CACHING), "Caches of answers."),
    Field::toggled("results_cache", RESULTS_CACHE, "The older name of `caching.sql_results`."),
    Field::toggled(
        "tls",
        TLS,
        "TLS of the HTTP and Flight front ends where they listen on an address; sockets need none.",
    ),
    Field::not_yet("tracing", Fields(TRACING), "Traces sent to Zipkin."),
    Field::toggled("telemetry", TELEMETRY, "What is sent outward: nothing but what `otel_exporter` says."),
    Field::built("params", OpenFields(RUNTIME_PARAMS, &Scalar), "Free parameters of the runtime."),
    Field::toggled("task_history", TASK_HISTORY, "The table `runtime.task_history` of what was run."),
    Field::toggled("cors", CORS, "Which web pages may ask."),
    Field::not_yet("cpu", Fields(CPU), "Processor limits."),
    Field::built("mcp", Fields(MCP), "The Model Context Protocol front end."),
    Field::only(
        "ready_state",
        OneOf(&["on_load", "on_registration"]),
        &["on_load"],
        "When the runtime counts as ready.",
    ),
    Field::not_yet("scheduler", MapOf(&Any), "The scheduler of a cluster."),
    Field::not_yet("source_rate_control", MapOf(&Any), "Limits on requests to sources."),
];

static HTTP: &[Field] = &[Field::built(
    "bind_address",
    BindOrSocket,
    "Address and port of the HTTP front end, or `unix:/path` of a socket; default `127.0.0.1:8090`.",
)];

static FLIGHT: &[Field] = &[
    Field::built(
        "bind_address",
        BindOrSocket,
        "Address and port of the Flight front end, or `unix:/path` of a socket; default `127.0.0.1:50051`.",
    ),
    Field::built(
        "max_message_size",
        Size(Zero::Refused),
        "Largest gRPC message taken from an upstream; default `4MB`. A dataset's own param wins.",
    ),
    Field::not_yet("do_put_rate_limit_enabled", Bool, "Whether writes are limited in rate."),
    Field::not_yet("batch_size", Any, "Rows or bytes of a batch sent to clients."),
];

/// The mapping form of `runtime.metrics`; its list form is [`METRIC`].
static METRICS: &[Field] = &[
    Field::built(
        "bind_address",
        Bind,
        "Address and port of the Prometheus endpoint; default `127.0.0.1:9090`.",
    ),
    Field::toggled("tls", TLS, "TLS of the Prometheus endpoint; plain without, whatever `runtime.tls` says."),
];

/// The list form of `metrics`, on the runtime and on datasets.
static METRIC: &[Field] = &[
    Field::required("name", Text, "Name of a metric."),
    Field::built("enabled", Bool, "Whether it is collected."),
];

static QUERY: &[Field] = &[
    Field::built(
        "timeout",
        Duration(Zero::Refused),
        "How long a query may take, its waiting included, before it is cancelled; no limit when absent.",
    ),
    Field::built("target_partitions", Int(1), "How many partitions a local plan runs in."),
    Field::built(
        "memory_limit",
        Size(Zero::Refused),
        "Memory that all queries and accelerated data may use together; default 90 % of the machine's, or of the \
         control group's.",
    ),
    Field::built(
        "temp_directory",
        Text,
        "Where queries keep what does not fit into memory; default is the system's temporary directory.",
    ),
    Field::built(
        "spill_compression",
        OneOf(&["zstd", "lz4_frame", "uncompressed"]),
        "How that is compressed; default `uncompressed`.",
    ),
    Field::built(
        "max_concurrent_queries",
        Int(0),
        "How many queries may run at a time, others wait; default 4 per core, 0 is no bound.",
    ),
];

static RUNTIME_PARAMS: &[Field] = &[
    Field::built(
        "push_down",
        OnOff,
        "Whether joins, aggregates and whole statements are sent upstream; default `on`. With `off` only columns, \
         filters and limits of single tables are.",
    ),
    Field::built(
        "query_queue_max",
        Int(0),
        "How many queries may wait for their turn; default 1000. More are refused at once.",
    ),
    Field::built(
        "query_queue_timeout",
        Duration(Zero::Refused),
        "How long a query may wait for its turn; default `30s`.",
    ),
    Field::built(
        "query_client_timeout",
        Duration(Zero::Refused),
        "How long a client may take nothing of an answer before its query is ended; default `5m`.",
    ),
    Field::built(
        "upstream_max_concurrent_requests",
        Int(0),
        "How many calls to one endpoint may be under way whose answer has not begun; default 256, 0 is no bound. \
         Others wait.",
    ),
    Field::built(
        "upstream_establishment_timeout",
        Duration(Zero::Refused),
        "How long an upstream may take to answer a call that runs nothing: Handshake, GetSchema and GetFlightInfo; \
         default `30s`.",
    ),
    Field::built(
        "upstream_name_server",
        Bind,
        "Address and port of the name server to ask for upstreams, such as `127.0.0.1:8600`; by default those of the \
         system.",
    ),
    Field::built(
        "log_format",
        OneOf(&["human", "json"]),
        "How log lines are written: for people (default), or as one JSON object each; `SIDEWING_LOG_FORMAT` wins.",
    ),
    Field::built(
        "data_dir",
        Text,
        "Where accelerated datasets with `mode: file` have their folders, relative to the spicepod; default \
         `.sidewing/data`.",
    ),
];

static AUTH: &[Field] = &[
    Field::toggled("api-key", API_KEY, "API keys, of which clients must present one."),
    Field::toggled("api_key", API_KEY, "Another spelling of `api-key`."),
];

static API_KEY: &[Field] = &[
    Field::built("enabled", Bool, "Whether keys are asked for; default `true`."),
    Field::built(
        "keys",
        List(&Text),
        "The keys, each `key` or `key:ro` to read, `key:rw` to write as well; better as `${secrets:NAME}`, where the \
         secret may end so, or the reference be followed by it.",
    ),
];

static CACHING: &[Field] = &[
    Field::toggled("sql_results", SQL_RESULTS, "Cache of query results."),
    Field::switch("search_results", CACHE, true, "Cache of search results."),
    Field::switch("embeddings", CACHE, true, "Cache of embeddings."),
];

const CACHE_ENABLED: Field = Field::built("enabled", Bool, "Whether the cache is used.");
const CACHE_MAX_SIZE: Field = Field::built("max_size", Size(Zero::Allowed), "Memory of the cache.");
const CACHE_TTL: Field = Field::built("item_ttl", Duration(Zero::Allowed), "How long an item is kept.");
const CACHE_EVICTION: Field = Field::built(
    "eviction_policy",
    OneOf(&["lru", "tiny_lfu"]),
    "Which item goes first when there is no room: the one not used for longest (default), or the one used least.",
);
const CACHE_HASHING: Field = Field::built(
    "hashing_algorithm",
    OneOf(&["xxh3", "xxh32", "xxh64", "xxh128", "siphash", "ahash", "blake3"]),
    "Taken from other spicepods; keys are compared whole here, however they are hashed.",
);

static CACHE: &[Field] = &[CACHE_ENABLED, CACHE_MAX_SIZE, CACHE_TTL, CACHE_EVICTION, CACHE_HASHING];

const RESULTS_ENABLED: Field = Field::built(
    "enabled",
    Bool,
    "When absent, results of accelerated data alone are cached, which is exact; `true` also caches statements that \
     read an upstream, for `item_ttl`; `false` caches nothing.",
);
const RESULTS_TTL: Field = Field::built(
    "item_ttl",
    Duration(Zero::Allowed),
    "How long a result that came from an upstream is fresh; default `1s`. Results of accelerated data stay as long as \
     they are exact.",
);

static SQL_RESULTS: &[Field] = &[
    RESULTS_ENABLED,
    Field::built("max_size", Size(Zero::Allowed), "Memory of the cache, at most; default `128MiB`."),
    RESULTS_TTL,
    CACHE_EVICTION,
    CACHE_HASHING,
    Field::built(
        "cache_key_type",
        OneOf(&["plan", "sql"]),
        "What makes two statements the same: their plan (default), or their text.",
    ),
    Field::only("encoding", OneOf(&["none", "zstd"]), &["none"], "How results are stored."),
    Field::built(
        "stale_while_revalidate_ttl",
        Duration(Zero::Allowed),
        "How long after `item_ttl` a result is still answered while it is fetched anew; default `0s`.",
    ),
];

static RESULTS_CACHE: &[Field] = &[
    RESULTS_ENABLED,
    Field::built("cache_max_size", Size(Zero::Allowed), "Memory of the cache, at most; default `128MiB`."),
    RESULTS_TTL,
    CACHE_EVICTION,
];

static TLS: &[Field] = &[
    Field::built("enabled", Bool, "Whether TLS is spoken; default `true`."),
    Field::built("certificate", Text, "Certificate chain, PEM; may be `${secrets:NAME}`."),
    Field::built("certificate_file", Text, "File of the certificate chain; read again when it changes."),
    Field::built("key", Text, "Private key, PEM; better as `${secrets:NAME}`."),
    Field::built("key_file", Text, "File of the private key; read again when it changes."),
    Field::built(
        "client_auth_mode",
        OneOf(&["none", "request", "required"]),
        "Whether clients present a certificate: never (default), if they have one, or always.",
    ),
    Field::built("client_auth_ca", Text, "CA of client certificates, PEM; may be `${secrets:NAME}`."),
    Field::built("client_auth_ca_file", Text, "File of that CA; read again when it changes."),
];

static TRACING: &[Field] = &[
    Field::only("zipkin_enabled", Bool, &["false"], "Whether traces are sent."),
    Field::built("zipkin_endpoint", Text, "Where traces are sent."),
];

static TELEMETRY: &[Field] = &[
    Field::built(
        "enabled",
        Bool,
        "Whether anything is sent, whatever the environment says of a collector; default `true`.",
    ),
    Field::only(
        "user_agent_collection",
        OneOf(&["full", "disabled"]),
        &["disabled"],
        "Whether user agents are counted.",
    ),
    Field::built(
        "properties",
        MapOf(&Scalar),
        "What collectors are told of this process, as resource attributes.",
    ),
    Field::not_yet("metric_prefix", Text, "Prefix of all metric names."),
    Field::toggled(
        "otel_exporter",
        OTEL_EXPORTER,
        "A collector that traces and metrics are sent to by OTLP.",
    ),
];

static OTEL_EXPORTER: &[Field] = &[
    Field::built("enabled", Bool, "Whether it is used; default `true`."),
    Field::built(
        "endpoint",
        Text,
        "The collector: `http://host:4317`, or `https://`; `OTEL_EXPORTER_OTLP_ENDPOINT` when absent.",
    ),
    Field::built(
        "protocol",
        OneOf(&["grpc", "http"]),
        "How it is spoken to: gRPC (default), or HTTP with protobuf to `/v1/traces` and `/v1/metrics`.",
    ),
    Field::built("push_interval", Duration(Zero::Refused), "How often metrics are sent; default `60s`."),
    Field::built("metrics", List(&Text), "Which metrics are sent; all when absent."),
    Field::built("headers", MapOf(&Scalar), "Headers of each request; keys better as `${secrets:NAME}`."),
];

static TASK_HISTORY: &[Field] = &[
    Field::built("enabled", Bool, "Whether tasks are recorded; default `true`."),
    Field::built(
        "captured_output",
        OneOf(&["none", "truncated"]),
        "How much of an answer is recorded: nothing (default), or its first three rows.",
    ),
    Field::only(
        "captured_plan",
        OneOf(&["none", "explain", "explain analyze"]),
        &["none"],
        "Which plan is recorded.",
    ),
    Field::built(
        "min_sql_duration",
        Duration(Zero::Allowed),
        "Shorter queries are not recorded; default `0s`.",
    ),
    Field::not_yet(
        "min_plan_duration",
        Duration(Zero::Allowed),
        "Plans of shorter queries are not recorded.",
    ),
    Field::built(
        "retention_period",
        Duration(Zero::Refused),
        "How long tasks are kept, as long as there are not too many; default `8h`.",
    ),
    Field::built(
        "retention_check_interval",
        Duration(Zero::Refused),
        "How often old tasks are removed; default `15m`. They are not shown any more before that.",
    ),
];

static CORS: &[Field] = &[
    Field::built("enabled", Bool, "Whether web pages of other origins may ask; default `false`."),
    Field::built(
        "allowed_origins",
        List(&Text),
        "Which origins, such as `https://app.example.com`; default `*`, which is all.",
    ),
];

static CPU: &[Field] = &[Field::built("cores", Number, "How many cores are used.")];

static MCP: &[Field] = &[Field::built(
    "allowed_hosts",
    List(&Text),
    "Hosts under which it answers, with or without a port; default `localhost`, `127.0.0.1` and `::1`.",
)];

static SECRET_STORE: &[Field] = &[
    Field::required(
        "from",
        Text,
        "Kind of store: `env` (the environment and `.env` files), `files:<directory>`, `kubernetes:<secret>`, \
         `hashicorp_vault:<path>`, `aws_secrets_manager:<secret>` or `azure_keyvault:<vault>`.",
    ),
    Field::required("name", Text, "How `${name:KEY}` refers to it."),
    Field::built(
        "params",
        Fields(SECRET_STORE_PARAMS),
        "Settings of the store; they may refer to stores of this machine: `${env:KEY}`.",
    ),
];

/// Of all kinds; which one has which is told by their names.
pub(super) static SECRET_STORE_PARAMS: &[Field] = &[
    Field::built("file_path", Text, "`env`: a dotenv file to read instead of `.env.local` and `.env`."),
    Field::built(
        "refresh_interval",
        Duration(Zero::Refused),
        "How often the store is read again, `1s` or more; default `1s` for `env` and `files`, `60s` for the others.",
    ),
    Field::built(
        "kubernetes_namespace",
        Text,
        "`kubernetes`: namespace of the secret; default that of the pod's service account.",
    ),
    Field::built(
        "kubernetes_api_server",
        Text,
        "`kubernetes`: `https://host:port` of the API; default `KUBERNETES_SERVICE_HOST` and `_PORT`.",
    ),
    Field::built(
        "kubernetes_token_file",
        Text,
        "`kubernetes`: file of the bearer token, read again each time; default the service account's.",
    ),
    Field::built(
        "kubernetes_ca_certificate_file",
        Text,
        "`kubernetes`: PEM file of the API's CA; default the service account's.",
    ),
    Field::built(
        "hashicorp_vault_address",
        Text,
        "`hashicorp_vault`: `https://host:port`; default `VAULT_ADDR` of the environment.",
    ),
    Field::built("hashicorp_vault_namespace", Text, "`hashicorp_vault`: namespace (Enterprise, OpenBao)."),
    Field::built(
        "hashicorp_vault_ca_certificate_file",
        Text,
        "`hashicorp_vault`: PEM file of the only CA that is trusted, instead of the system's.",
    ),
    Field::built(
        "hashicorp_vault_kv_version",
        OneOf(&["1", "2"]),
        "`hashicorp_vault`: version of the KV engine; default `2`. `1` reads the path as it is written, so that it \
         serves other engines as well.",
    ),
    Field::built(
        "hashicorp_vault_mount",
        Text,
        "`hashicorp_vault`: where the engine is mounted; default the path's first part.",
    ),
    Field::built(
        "hashicorp_vault_auth_method",
        OneOf(&["token", "approle", "kubernetes", "jwt"]),
        "`hashicorp_vault`: how to log in; default `token`.",
    ),
    Field::built(
        "hashicorp_vault_auth_mount",
        Text,
        "`hashicorp_vault`: where that method is mounted; default its own name.",
    ),
    Field::built(
        "hashicorp_vault_token",
        Text,
        "`hashicorp_vault`, `token`: the token; better as `${env:NAME}`.",
    ),
    Field::built(
        "hashicorp_vault_token_file",
        Text,
        "`hashicorp_vault`, `token`: file of the token, read again each time, such as an agent's sink.",
    ),
    Field::built("hashicorp_vault_role_id", Text, "`hashicorp_vault`, `approle`: the role's id."),
    Field::built(
        "hashicorp_vault_secret_id",
        Text,
        "`hashicorp_vault`, `approle`: the secret's id; better as `${env:NAME}`.",
    ),
    Field::built("hashicorp_vault_role", Text, "`hashicorp_vault`, `kubernetes` and `jwt`: the role."),
    Field::built(
        "hashicorp_vault_jwt_file",
        Text,
        "`hashicorp_vault`, `kubernetes` and `jwt`: file of the token to log in with, read at each login; default the \
         service account's.",
    ),
    Field::built("aws_region", Text, "`aws_secrets_manager`: region; default as the AWS SDK finds it."),
    Field::built(
        "aws_endpoint_url",
        Text,
        "`aws_secrets_manager`: another endpoint, such as a VPC's; default the region's.",
    ),
    Field::built(
        "aws_access_key_id",
        Text,
        "`aws_secrets_manager`: credentials; default the AWS SDK's chain (environment, profile, web identity, \
         container, instance).",
    ),
    Field::built(
        "aws_secret_access_key",
        Text,
        "`aws_secrets_manager`: belongs to `aws_access_key_id`; better as `${env:NAME}`.",
    ),
    Field::built("aws_session_token", Text, "`aws_secrets_manager`: of temporary credentials."),
    Field::built(
        "aws_ca_certificate_file",
        Text,
        "`aws_secrets_manager`: PEM file of the only CA that is trusted, instead of the system's.",
    ),
    Field::built(
        "azure_client_id",
        Text,
        "`azure_keyvault`: the application, or the user-assigned managed identity.",
    ),
    Field::built("azure_tenant_id", Text, "`azure_keyvault`: its tenant."),
    Field::built(
        "azure_client_secret",
        Text,
        "`azure_keyvault`: its secret, better as `${env:NAME}`; default workload identity where \
         `AZURE_FEDERATED_TOKEN_FILE` is set, else managed identity.",
    ),
    Field::built(
        "azure_authority_host",
        Text,
        "`azure_keyvault`: where to log in with a secret; default `https://login.microsoftonline.com`.",
    ),
    Field::built(
        "azure_ca_certificate_file",
        Text,
        "`azure_keyvault`: PEM file of the only CA that is trusted, instead of the system's.",
    ),
];

static DATASET: &[Field] = &[
    Field::required(
        "from",
        Text,
        "Where the table lives: `spice.ai:https://host:port`, `spice.ai:<org>/<app>/datasets/<table>` \
         or `flightsql:<table>`.",
    ),
    Field::required("name", Text, "Local name: `table` or `schema.table`."),
    Field::built("description", Text, "What the table holds."),
    Field::built("metadata", MapOf(&Any), "Notes for people and tools."),
    Field::built("params", Params, "Params of the connector."),
    Field::built(
        "access",
        OneOf(&["read", "read_write"]),
        "Whether clients may write to it; default `read`. `read_write` takes rows over Flight into an accelerated \
         dataset with `refresh_mode: disabled`.",
    ),
    Field::renamed("mode", "access"),
    Field::only("has_metadata_table", Bool, &["false"], "Whether a table of metadata appears beside it."),
    Field::switch("replication", REPLICATION, false, "Replication."),
    Field::built("time_column", Text, "Column that tells the age of a row."),
    Field::built("time_format", OneOf(TIME_FORMATS), "How that column tells time; default `timestamp`."),
    Field::not_yet("time_partition_column", Text, "Column by which the source is partitioned."),
    Field::not_yet("time_partition_format", OneOf(TIME_FORMATS), "How that column tells time."),
    Field::toggled("acceleration", ACCELERATION, "A local copy of the dataset, kept fresh."),
    Field::not_yet("embeddings", List(&Any), "Embeddings of columns."),
    Field::not_yet("columns", List(&Fields(COLUMN)), "Notes and indexes of columns."),
    Field::not_yet("dependsOn", List(&Text), "Datasets that are loaded before it."),
    Field::not_yet(
        "unsupported_type_action",
        OneOf(&["error", "warn", "ignore", "string"]),
        "What happens to columns of a type that is not supported.",
    ),
    Field::built(
        "on_schema_change",
        OneOf(&["block", "fail", "append_new_columns", "sync_all_columns", "drop_and_recreate"]),
        "What happens to an accelerated dataset when the upstream's columns change; default `block`: the old rows \
         stay.",
    ),
    Field::built(
        "ready_state",
        READY_STATE,
        "When an accelerated dataset answers: `on_load`, the default, or `on_registration`, from the upstream until \
         its data is here.",
    ),
    Field::not_yet("metrics", List(&Fields(METRIC)), "Metrics of the dataset."),
    Field::not_yet("vectors", Any, "Vector index."),
    Field::not_yet("full_text_search", Any, "Text index."),
    Field::only(
        "check_availability",
        OneOf(&["auto", "disabled"]),
        &["auto"],
        "Whether the source is probed from time to time.",
    ),
    Field::not_yet("ref", Text, "A directory that holds the dataset's definition."),
];

const READY_STATE: Kind = Choice {
    built: &["on_load", "on_registration"],
    not_yet: &["on_schema_resolved"],
    instead: "`on_registration` answers from the upstream until the data is here",
};

const TIME_FORMATS: &[&str] = &["timestamp", "timestamptz", "unix_seconds", "unix_millis", "ISO8601", "date"];

static REPLICATION: &[Field] = &[Field::built("enabled", Bool, "Whether it is replicated.")];

static COLUMN: &[Field] = &[
    Field::required("name", Text, "Name of the column."),
    Field::built("description", Text, "What it holds."),
    Field::built("type", Text, "Its type."),
    Field::built("nullable", Bool, "Whether it may be null."),
    Field::built("embeddings", List(&Any), "Embeddings of the column."),
    Field::built("full_text_search", Any, "Text index of the column."),
    Field::built("metadata", MapOf(&Any), "Notes for people and tools."),
];

/// Of datasets; views are not accelerated yet.
static ACCELERATION: &[Field] = &[
    Field::built("enabled", Bool, "Whether the dataset is accelerated; default `true`."),
    Field::built(
        "mode",
        OneOf(&["memory", "file", "file_create", "file_update"]),
        "Where the copy lives; default `memory`. The others also write it to files, and begin with what the files \
         hold, with nothing, or with the files brought up to date.",
    ),
    Field::built("engine", ENGINE, "What holds the copy; default `arrow`."),
    Field::built("refresh_mode", REFRESH_MODE, "What a refresh fetches; default `full`."),
    Field::built(
        "refresh_check_interval",
        // Only a stream takes zero.
        Duration(Zero::Allowed),
        "How long after the end of a refresh the next one begins; without it, the data is loaded once. For an append \
         stream: how often it is compared with its upstream, default `30s`; `0` for never.",
    ),
    Field::built("refresh_cron", Cron, "When it is refreshed, in UTC; instead of an interval."),
    Field::built("refresh_sql", Text, "One SELECT that says which rows and columns are copied."),
    Field::built(
        "refresh_data_window",
        Duration(Zero::Refused),
        "How old rows may be, by `time_column`, that are copied.",
    ),
    Field::built(
        "refresh_append_overlap",
        Duration(Zero::Allowed),
        "How far before the newest row an append reads again, for rows that come late; default `0s`.",
    ),
    Field::built(
        "refresh_retry_enabled",
        Bool,
        "Whether a failed refresh is tried again at once; default `true`.",
    ),
    Field::built("refresh_retry_max_attempts", Int(0), "How often it is tried again; no limit when absent."),
    Field::built(
        "refresh_on_startup",
        OneOf(&["auto", "always"]),
        "Whether a start refreshes data that its files hold: when due, or always; default `auto`.",
    ),
    Field::built("refresh_jitter_enabled", Bool, "Whether refreshes are spread in time; default `false`."),
    Field::built(
        "refresh_jitter_max",
        Duration(Zero::Allowed),
        "How far to either side; default a tenth of `refresh_check_interval`.",
    ),
    Field::built("params", OpenFields(ACCELERATION_PARAMS, &Scalar), "Params of the copy."),
    Field::built(
        "retention_period",
        Duration(Zero::Refused),
        "How old rows may become, by `time_column`, before they are removed.",
    ),
    Field::built("retention_sql", Text, "One DELETE that says which rows are removed."),
    Field::built("retention_check_interval", Duration(Zero::Refused), "How often rows are removed."),
    Field::built("retention_check_enabled", Bool, "Whether rows are removed; default `false`."),
    Field::built(
        "on_zero_results",
        OneOf(&["return_empty", "use_source"]),
        "What answers when the copy has no matching row; default `return_empty`.",
    ),
    Field::built(
        "indexes",
        MapOf(&OneOf(&["enabled", "unique"])),
        "Indexes by column, or `(a, b)`; a unique one has each key once.",
    ),
    Field::built("primary_key", Text, "Column, or `(a, b)`, that identifies a row."),
    Field::built(
        "on_conflict",
        MapOf(&ON_CONFLICT),
        "By primary key or unique index: whether a row whose key is there already is dropped or takes its place; \
         without, it fails the refresh.",
    ),
    Field::not_yet("partition_by", TextOrList, "How the copy is partitioned."),
    Field::only(
        "snapshots",
        OneOf(&["enabled", "bootstrap_only", "create_only", "disabled"]),
        &["disabled"],
        "Whether snapshots of the copy are kept.",
    ),
    Field::not_yet(
        "snapshots_trigger",
        OneOf(&["refresh_complete", "time_interval", "stream_batches"]),
        "When a snapshot is made.",
    ),
    Field::not_yet("snapshots_threshold", Scalar, "How much or how long between snapshots."),
    Field::not_yet("snapshots_compaction", Any, "Whether snapshots are compacted."),
    Field::only("disable_query_push_down", Bool, &["false"], "Whether filters stay out of the engine."),
];

const ENGINE: Kind = Choice {
    built: &["arrow"],
    not_yet: &["duckdb", "sqlite", "postgres", "cayenne", "turso"],
    instead: "`mode: file` keeps its data across restarts",
};

const REFRESH_MODE: Kind = Choice {
    built: &["full", "append", "disabled"],
    not_yet: &["changes", "caching", "snapshot"],
    instead: "`append` with a `time_column` fetches only what is new",
};

const ON_CONFLICT: Kind = Choice {
    built: &["drop", "upsert"],
    not_yet: &["upsert_dedup", "upsert_dedup_by_row_id"],
    instead: "rows that are equal in every column are no conflict",
};

static ACCELERATION_PARAMS: &[Field] = &[
    Field::built(
        "file_path",
        Text,
        "Folder of the files of `mode: file`, relative to the spicepod's; default `.sidewing/data/<dataset>`.",
    ),
    Field::built(
        "resident",
        Bool,
        "Whether the rows of `mode: file` are held in memory as well; default `true`. With `false` queries read the \
         files.",
    ),
    Field::built(
        "stream_retention",
        Duration(Zero::Allowed),
        "For how long subscribers may read on in what another state of the table has replaced; default `10m`. Who \
         takes longer is cut off with DATA_LOSS.",
    ),
    Field::built(
        "stream_retention_bytes",
        Size(Zero::Allowed),
        "How much is held for them at most; default `256MiB`.",
    ),
];

static VIEW: &[Field] = &[
    Field::required("name", Text, "Name of the view: `view` or `schema.view`."),
    Field::built("description", Text, "What the view holds."),
    Field::built("metadata", MapOf(&Any), "Notes for people and tools."),
    Field::built("sql", Text, "One SELECT statement."),
    Field::built("sql_ref", Text, "A file that holds it, relative to the spicepod."),
    Field::not_yet("dependsOn", List(&Text), "Datasets and views that are loaded before it."),
    Field::switch("acceleration", ACCELERATION, true, "A local copy of the view, kept fresh."),
    Field::only(
        "ready_state",
        OneOf(&["on_load", "on_registration", "on_schema_resolved"]),
        &["on_load"],
        "When the view counts as ready.",
    ),
    Field::not_yet("ref", Text, "A directory that holds the view's definition."),
];

static CATALOG: &[Field] = &[
    Field::required("from", Text, "Which catalog."),
    Field::required("name", Text, "Its local name."),
    Field::built("description", Text, "What the catalog holds."),
    Field::built("include", List(&Text), "Which tables, by glob."),
    Field::built("params", MapOf(&Scalar), "Params of the catalog."),
    Field::built("dataset_params", MapOf(&Scalar), "Params of its tables."),
];
