//! A real Flight upstream in the test's own process: DataFusion behind gRPC, on port 0, with a memory of
//! every call and a talent for failing on request.
//!
//! Its answers come from DataFusion directly, so [`Upstream::query`] is the reference for any answer
//! that went through the sidecar. A panic in it, or a call that nobody should make, fails the test when
//! the upstream is dropped.
//!
//! ```ignore
//! let upstream = Upstream::builder().table("orders", batches).tls(pki.server("localhost")).api_key("k");
//! let upstream = upstream.start().await;
//! upstream.inject(Method::DoGet, 2, Fault::Status(Status::unavailable("busy")));
//! ```

mod exchange;
mod faults;
mod server;
mod service;
mod socket;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::execution::context::SessionContext;
use datafusion::prelude::SessionConfig;
use sidewing::task::Scope;
use tokio::net::TcpListener;

use super::pki::ServerTls;
use super::port::ClosedPort;
pub use faults::{Fault, Method};

/// How long a stopped upstream's tasks may take to end.
const STOP_MAX: Duration = Duration::from_secs(5);

/// One call as it arrived, faults included.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    /// The statement, for GetFlightInfo, GetSchema and DoGet, or the table of a DoExchange; absent where a fault
    /// below Flight came first.
    pub sql: Option<String>,
    /// What the first message of a DoExchange carried beside its descriptor.
    pub app_metadata: Bytes,
    /// All request headers that are text.
    pub metadata: BTreeMap<String, String>,
    /// Counts from 0 in order of acceptance.
    pub connection: usize,
}

/// A running (or stopped) upstream.
pub struct Upstream {
    addr: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    state: Arc<State>,
    running: Option<Scope>,
    /// Kept for a restart while nothing runs.
    port: Option<ClosedPort>,
}

/// What an upstream will be.
pub struct Builder {
    session: SessionContext,
    tls: Option<ServerTls>,
    settings: Settings,
    ip: Ipv4Addr,
    port: u16,
}

/// How an upstream sends the rows that are pushed to its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Of2024,
    /// `ring`: how many updates a subscriber may be behind.
    Of2026 {
        ring: usize,
    },
}

struct Settings {
    login: Login,
    flight_sql_only: bool,
    whole_messages: bool,
    token_lifetime: Option<Duration>,
    /// None: DoExchange is a call that nobody should make.
    form: Option<Form>,
    snapshot_lag: Duration,
    write_lag: Duration,
}

/// Who may call.
enum Login {
    /// Everybody; the handshake gives a token that nobody asks for, or none.
    Anonymous { token: bool },
    /// Those who have shaken hands; without a token the later calls cannot be told apart and are let in.
    Basic { username: String, password: String, token: bool },
    /// Everybody; the handshake is not implemented.
    Unimplemented,
}

/// What outlives a restart.
struct State {
    session: SessionContext,
    settings: Settings,
    calls: Mutex<Vec<(CallId, Call)>>,
    next_call: AtomicU64,
    problems: Mutex<Vec<String>>,
    injections: faults::Injections,
    tokens: Mutex<Tokens>,
    promised_schema: Mutex<Option<SchemaRef>>,
    endpoints: Mutex<Vec<Vec<String>>>,
    running: Mutex<HashMap<Method, Running>>,
    feeds: exchange::Feeds,
    /// Told to every open connection.
    cuts: tokio::sync::broadcast::Sender<()>,
    /// Told to the listener and to every open connection: no further call.
    goodbyes: tokio::sync::broadcast::Sender<()>,
    /// Connections that are open now.
    open_connections: AtomicUsize,
    /// Connections that were open when this was raised are dark.
    blackholes: AtomicUsize,
    connections: AtomicUsize,
    reset_every: AtomicUsize,
    goaway_every: AtomicUsize,
}

/// Calls of one method whose answer has not begun.
#[derive(Default)]
struct Running {
    now: usize,
    most: usize,
    /// These, and those whose answer has not been sent to its end.
    open: usize,
}

#[derive(Default)]
struct Tokens {
    issued: usize,
    valid: HashSet<String>,
    born: BTreeMap<String, Instant>,
}

/// Names a call between the socket and the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CallId(u64);

impl Builder {
    /// Adds a table; `name` is read as SQL reads it: `orders`, `sales.orders`, `"Mixed Case"`.
    pub fn table(self, name: &str, batches: Vec<RecordBatch>) -> Self {
        let reference = TableReference::from(name);
        if let Some(schema) = reference.schema() {
            let catalog = self.session.catalog("datafusion").expect("the default catalog");
            if catalog.schema(schema).is_none() {
                let _ = catalog
                    .register_schema(schema, Arc::new(MemorySchemaProvider::new()))
                    .expect("a schema added");
            }
        }
        let schema = batches.first().expect("at least one batch, be it empty").schema();
        let table = MemTable::try_new(schema, vec![batches]).expect("batches of one schema");
        let _ = self.session.register_table(reference, Arc::new(table)).expect("a table added");
        self
    }

    /// Adds several tables.
    pub fn tables<'a>(self, tables: impl IntoIterator<Item = (&'a str, Vec<RecordBatch>)>) -> Self {
        tables.into_iter().fold(self, |builder, (name, batches)| builder.table(name, batches))
    }

    /// Speaks TLS and nothing else.
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Wants a handshake with an empty user and this password, as Spice.ai runtimes do.
    pub fn api_key(self, key: &str) -> Self {
        self.login("", key)
    }

    /// Wants a handshake with this user and password.
    pub fn login(mut self, username: &str, password: &str) -> Self {
        self.settings.login =
            Login::Basic { username: username.to_owned(), password: password.to_owned(), token: true };
        self
    }

    /// The handshake succeeds without a token.
    pub fn without_token(mut self) -> Self {
        match &mut self.settings.login {
            Login::Basic { token, .. } | Login::Anonymous { token } => *token = false,
            Login::Unimplemented => {}
        }
        self
    }

    /// The handshake is not implemented; everybody may call.
    pub fn without_handshake(mut self) -> Self {
        self.settings.login = Login::Unimplemented;
        self
    }

    /// Tokens are good for so long.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.token_lifetime = Some(lifetime);
        self
    }

    /// Raw SQL as a command is refused, as pure Flight SQL servers do.
    pub fn flight_sql_only(mut self) -> Self {
        self.settings.flight_sql_only = true;
        self
    }

    /// Every answer is one batch in one message, however large.
    pub fn whole_messages(mut self) -> Self {
        self.settings.whole_messages = true;
        self
    }

    /// A fixed port: for upstreams that appear after the sidecar.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Another address of this machine.
    pub fn ip(mut self, ip: Ipv4Addr) -> Self {
        self.ip = ip;
        self
    }

    /// Listens on 127.0.0.1, or where it was told to, and serves.
    pub async fn start(self) -> Upstream {
        let state = State {
            session: self.session,
            settings: self.settings,
            calls: Mutex::default(),
            next_call: AtomicU64::new(0),
            problems: Mutex::default(),
            injections: faults::Injections::default(),
            tokens: Mutex::default(),
            promised_schema: Mutex::default(),
            endpoints: Mutex::new(vec![Vec::new()]),
            running: Mutex::default(),
            feeds: exchange::Feeds::default(),
            cuts: tokio::sync::broadcast::channel(64).0,
            goodbyes: tokio::sync::broadcast::channel(64).0,
            open_connections: AtomicUsize::new(0),
            blackholes: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            reset_every: AtomicUsize::new(0),
            goaway_every: AtomicUsize::new(0),
        };
        let addr = SocketAddr::from((self.ip, self.port));
        let tls = self.tls.map(|tls| tls.server_config());
        let mut upstream = Upstream { addr, tls, state: Arc::new(state), running: None, port: None };
        upstream.restart().await;
        upstream
    }
}

impl Upstream {
    /// An upstream without tables that lets everybody in.
    pub fn builder() -> Builder {
        // One partition: answers without ORDER BY come in one order.
        let config = SessionConfig::new().with_target_partitions(1);
        Builder {
            session: SessionContext::new_with_config(config),
            tls: None,
            settings: Settings {
                login: Login::Anonymous { token: true },
                flight_sql_only: false,
                whole_messages: false,
                token_lifetime: None,
                form: None,
                snapshot_lag: Duration::ZERO,
                write_lag: Duration::ZERO,
            },
            ip: Ipv4Addr::LOCALHOST,
            port: 0,
        }
    }

    /// Where it listens (or listened).
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`, or `https://localhost:PORT` with TLS.
    pub fn url(&self) -> String {
        match self.tls {
            None => format!("http://{}", self.addr),
            Some(_) => format!("https://localhost:{}", self.addr.port()),
        }
    }

    /// The reference answer to `sql`, without any wire and without being recorded.
    pub async fn query(&self, sql: &str) -> Vec<RecordBatch> {
        let plan = self.state.session.sql(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        plan.collect().await.unwrap_or_else(|e| panic!("{sql}\n{e}"))
    }

    /// The rows of a table from now on; its columns may be others too.
    pub fn replace(&self, name: &str, batches: Vec<RecordBatch>) {
        let schema = batches.first().expect("at least one batch, be it empty").schema();
        let table = MemTable::try_new(schema, vec![batches]).expect("batches of one schema");
        let _ = self.state.session.deregister_table(name).expect("a table removed");
        let _ = self.state.session.register_table(name, Arc::new(table)).expect("a table added");
    }

    /// The same for a table whose columns stay: a statement that runs meanwhile reads the old rows or the new ones.
    pub async fn swap(&self, name: &str, batches: Vec<RecordBatch>) {
        let table = self.state.session.table_provider(name).await.expect("a table");
        let table = table.downcast_ref::<MemTable>().expect("a table in memory");
        *table.batches[0].write().await = batches;
    }

    /// Every call since the start or the last [`Upstream::clear`], in order of arrival.
    pub fn received(&self) -> Vec<Call> {
        lock(&self.state.calls).iter().map(|(_, call)| call.clone()).collect()
    }

    /// How many calls of `method` arrived.
    pub fn count(&self, method: Method) -> usize {
        self.received().iter().filter(|call| call.method == method).count()
    }

    /// The statements that were run (DoGet), in order of arrival.
    pub fn statements(&self) -> Vec<String> {
        let calls = self.received().into_iter();
        calls.filter(|call| call.method == Method::DoGet).filter_map(|call| call.sql).collect()
    }

    /// The most calls of `method` that were being answered at one moment.
    pub fn most_at_once(&self, method: Method) -> usize {
        lock(&self.state.running).get(&method).map_or(0, |running| running.most)
    }

    /// The calls of `method` that are not over: answers to those who went away are.
    pub fn open(&self, method: Method) -> usize {
        lock(&self.state.running).get(&method).map_or(0, |running| running.open)
    }

    /// Connections accepted so far, as far as HTTP/2.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Forgets the calls, not the faults.
    pub fn clear(&self) {
        lock(&self.state.calls).clear();
    }

    /// The next statements that it is asked to plan are refused so many times, whether a ticket is asked for first or not.
    pub fn refuse(&self, times: usize, status: &tonic::Status) {
        for method in [Method::GetFlightInfo, Method::DoGet] {
            self.inject(method, times, Fault::Status(status.clone()));
        }
    }

    /// The next `times` calls of `method` suffer `fault`. Faults of one method queue up.
    pub fn inject(&self, method: Method, times: usize, fault: Fault) {
        self.state.injections.add(method, times, fault);
    }

    /// Takes back the faults that have not happened yet.
    pub fn heal(&self) {
        self.state.injections.clear();
        self.reset_every(0);
        self.goaway_every(0);
    }

    /// A connection dies as its request number `requests + 1` arrives; 0 stops that. Connections accepted
    /// from now on die without a FIN.
    pub fn reset_every(&self, requests: usize) {
        self.state.reset_every.store(requests, Ordering::Relaxed);
    }

    /// A connection says GOAWAY as its request number `requests + 1` arrives, which is still answered.
    pub fn goaway_every(&self, requests: usize) {
        self.state.goaway_every.store(requests, Ordering::Relaxed);
    }

    /// Every open connection dies.
    pub fn cut(&self) {
        // Perhaps none is open.
        let _ = self.state.cuts.send(());
    }

    /// Nothing passes over any open connection any more, and none is closed; those made later work.
    pub fn blackhole(&self) {
        self.state.blackholes.fetch_add(1, Ordering::SeqCst);
    }

    /// GetFlightInfo and GetSchema promise this schema, whatever the data are.
    pub fn promise_schema(&self, schema: Option<SchemaRef>) {
        *lock(&self.state.promised_schema) = schema;
    }

    /// Every answer is split over so many endpoints, each with its locations; none means "here".
    pub fn set_endpoints(&self, locations: Vec<Vec<String>>) {
        assert!(!locations.is_empty(), "an answer has at least one endpoint");
        *lock(&self.state.endpoints) = locations;
    }

    /// No token given so far is good any more.
    pub fn expire_tokens(&self) {
        lock(&self.state.tokens).valid.clear();
    }

    /// Closes the listener, lets calls end, and stops: as a server does that is asked to end.
    pub async fn drain(&mut self) {
        // Perhaps nothing runs.
        let _ = self.state.goodbyes.send(());
        let drained = async {
            while self.state.open_connections.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(STOP_MAX, drained).await.expect("calls that end");
        self.stop().await;
    }

    /// Closes the listener and kills every connection.
    pub async fn stop(&mut self) {
        if let Some(scope) = self.running.take() {
            scope.shutdown(STOP_MAX).await.expect("the fake upstream's tasks end");
            self.state.feeds.close();
            self.port = Some(ClosedPort::at(self.addr));
        }
    }

    /// Listens again, on the same port; data, calls, tokens and faults are kept.
    pub async fn restart(&mut self) {
        self.stop().await;
        let listener = TcpListener::bind(self.addr).await.expect("a free port for the fake upstream");
        self.addr = listener.local_addr().expect("a bound address");
        self.port = None;
        let scope = Scope::new();
        let accept = server::accept_loop(listener, self.tls.clone(), Arc::clone(&self.state), scope.clone());
        scope.spawn("fake upstream", accept);
        self.running = Some(scope);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(scope) = self.running.take() {
            scope.cancel();
        }
        let problems = std::mem::take(&mut *lock(&self.state.problems));
        // A test that fails already says why; a panic within a panic would hide it.
        assert!(problems.is_empty() || std::thread::panicking(), "the fake upstream saw: {problems:#?}");
    }
}

impl State {
    fn problem(&self, what: String) {
        lock(&self.problems).push(what);
    }

    fn record(&self, method: Method, headers: &http::HeaderMap, connection: usize) -> CallId {
        let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            Some((name.to_string(), value.to_str().ok()?.to_owned()))
        };
        let metadata = headers.iter().filter_map(text).collect();
        let id = CallId(self.next_call.fetch_add(1, Ordering::Relaxed));
        let call = Call { method, sql: None, app_metadata: Bytes::new(), metadata, connection };
        lock(&self.calls).push((id, call));
        id
    }

    /// Counts a call until the answer is dropped.
    fn begin(&self, method: Method) -> impl Drop + use<'_> {
        let mut running = lock(&self.running);
        let running = running.entry(method).or_default();
        running.now += 1;
        running.most = running.most.max(running.now);
        Ending { state: self, method }
    }

    /// Counts a call until its answer is sent, or nobody wants it.
    fn open(self: &Arc<Self>, method: Method) -> Open {
        lock(&self.running).entry(method).or_default().open += 1;
        Open { state: Arc::clone(self), method }
    }

    fn record_sql(&self, id: CallId, sql: &str) {
        if let Some((_, call)) = lock(&self.calls).iter_mut().find(|(known, _)| *known == id) {
            call.sql = Some(sql.to_owned());
        }
    }

    fn record_exchange(&self, id: CallId, table: &str, app_metadata: Bytes) {
        if let Some((_, call)) = lock(&self.calls).iter_mut().find(|(known, _)| *known == id) {
            call.sql = Some(table.to_owned());
            call.app_metadata = app_metadata;
        }
    }

    fn new_token(&self) -> String {
        let mut tokens = lock(&self.tokens);
        tokens.issued += 1;
        let token = format!("token-{}-of-the-fake-upstream", tokens.issued);
        tokens.valid.insert(token.clone());
        tokens.born.insert(token.clone(), Instant::now());
        token
    }

    fn knows_token(&self, token: &str) -> bool {
        let tokens = lock(&self.tokens);
        let young = |lifetime| tokens.born.get(token).is_some_and(|born| born.elapsed() < lifetime);
        tokens.valid.contains(token) && self.settings.token_lifetime.is_none_or(young)
    }

    fn promised_schema(&self) -> Option<SchemaRef> {
        lock(&self.promised_schema).clone()
    }

    fn endpoints(&self) -> Vec<Vec<String>> {
        lock(&self.endpoints).clone()
    }

    fn table_names(&self, catalog: &str, schema: &str) -> Vec<String> {
        let schema = self.session.catalog(catalog).and_then(|catalog| catalog.schema(schema));
        let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
        names.sort();
        names
    }
}

/// A call that is being answered.
struct Ending<'a> {
    state: &'a State,
    method: Method,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.state.running).get_mut(&self.method) {
            running.now -= 1;
        }
    }
}

/// A call that is not over.
struct Open {
    state: Arc<State>,
    method: Method,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.state.running).get_mut(&self.method) {
            running.open -= 1;
        }
    }
}

/// A lock whose holder panicked still guards plain data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
