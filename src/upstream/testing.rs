//! Test support: a scripted Flight server on port 0, with or without TLS, certificates made on the spot,
//! and datasets without a spicepod.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use base64::Engine;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::ServiceExt;

use crate::config::{Access, Connector, Dataset, Origin, Param, ReadyState, SchemaChange, Span, Template};
use crate::secrets::{ResolvedParam, ResolvedParams, Secret};
use crate::task::Scope;

use super::{Pool, Target, Upstream};

pub const AT: Span = Span { line: 1, column: 1, len: 1 };

/// A dataset `name` with resolved params, as the rooms before this one would make it.
pub fn dataset(
    name: &str,
    connector: Connector,
    path: &str,
    params: &[(&str, &str)],
) -> (Dataset, ResolvedParams) {
    let (text, prefix) = match connector {
        Connector::SpiceAi => (format!("spice.ai:{path}"), "spiceai"),
        Connector::FlightSql => (format!("flightsql:{path}"), "flightsql"),
    };
    let from = Origin { connector, path: path.to_owned(), text, at: AT };
    let key = |name: &str| format!("{prefix}_{name}");
    let written = params.iter().enumerate().map(|(line, (name, _))| {
        let at = Span { line: line + 2, ..AT };
        ((*name).to_owned(), Param { key: key(name), value: Template { parts: Vec::new() }, at })
    });
    let dataset = Dataset {
        name: name.parse().unwrap(),
        from,
        description: None,
        metadata: BTreeMap::new(),
        params: written.collect(),
        access: Access::Read,
        time_column: None,
        acceleration: None,
        ready_state: ReadyState::OnLoad,
        on_schema_change: SchemaChange::Block,
        at: AT,
    };
    let values = params.iter().enumerate().map(|(line, (name, value))| {
        let at = Some(Span { line: line + 2, ..AT });
        let value = Secret::new((*value).to_owned());
        ((*name).to_owned(), ResolvedParam { key: key(name), value, at })
    });
    (dataset, ResolvedParams { values: values.collect() })
}

pub fn target(connector: Connector, path: &str, params: &[(&str, &str)]) -> Target {
    let (dataset, params) = dataset("t", connector, path, params);
    Target::try_new(&dataset, &params).unwrap_or_else(|problems| panic!("{problems:?}"))
}

pub fn connect(connector: Connector, path: &str, params: &[(&str, &str)]) -> Arc<Upstream> {
    Pool::new().connect(&target(connector, path, params)).unwrap()
}

/// A spice.ai dataset at `endpoint`.
pub fn spice(endpoint: &str, params: &[(&str, &str)]) -> Arc<Upstream> {
    connect(Connector::SpiceAi, endpoint, params)
}

/// How the server answers Handshake.
#[derive(Clone, Copy, PartialEq)]
pub enum Handshake {
    Token,
    NoToken,
    Unimplemented,
}

/// Locations and the SQL of a ticket, for each endpoint.
pub type Endpoints = Vec<(Vec<String>, String)>;

/// What a server does, and what it was sent.
pub struct Script {
    /// The password that is asked for; `None` for a server that lets everybody in.
    pub key: Option<String>,
    pub handshake: Handshake,
    /// So many calls are answered UNAVAILABLE.
    pub unavailable: AtomicUsize,
    pub unavailable_words: &'static str,
    /// So many calls are answered by an HTML page with this HTTP status.
    pub http: (AtomicUsize, u16),
    /// A connection is cut at its so-many-th call.
    pub cut_every: Option<usize>,
    pub repeat_schema: bool,
    pub get_schema: bool,
    /// The endpoints of each result, when not just one.
    pub endpoints: Mutex<Option<Endpoints>>,
    /// Rows are of another type than GetFlightInfo said.
    pub lies: bool,
    /// An error after the first batch.
    pub breaks: bool,
    pub handshakes: AtomicUsize,
    pub connections: AtomicUsize,
    pub calls: AtomicUsize,
    /// Open DoGet streams.
    pub open: Arc<AtomicUsize>,
    pub token: Mutex<String>,
    pub metadata: Mutex<Vec<String>>,
    pub waits: AtomicBool,
    /// No call is answered; the connection lives.
    pub hangs: AtomicBool,
    /// What each DoExchange is sent, in order, before it ends.
    pub exchange: Mutex<Vec<Sent>>,
    /// What each DoExchange was asked for.
    pub asked: Mutex<Vec<Asked>>,
    /// What GetFlightInfo and DoGet were asked for.
    pub statements: Mutex<Vec<String>>,
}

/// One thing that a DoExchange is sent.
#[derive(Clone)]
pub enum Sent {
    Message(FlightData),
    Status(Code, &'static str),
    /// Nothing more, without an end.
    Silence,
}

/// The request of a DoExchange, read to its end.
#[derive(Debug, PartialEq)]
pub struct Asked {
    pub path: Vec<String>,
    pub hello: Bytes,
    pub messages: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            key: None,
            handshake: Handshake::Token,
            unavailable: AtomicUsize::new(0),
            unavailable_words: "injected",
            http: (AtomicUsize::new(0), 503),
            cut_every: None,
            repeat_schema: false,
            get_schema: true,
            endpoints: Mutex::new(None),
            lies: false,
            breaks: false,
            handshakes: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            open: Arc::default(),
            token: Mutex::new("token-0".to_owned()),
            metadata: Mutex::default(),
            waits: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            exchange: Mutex::default(),
            asked: Mutex::default(),
            statements: Mutex::default(),
        }
    }
}

/// A running server; dropping it ends it with every connection.
pub struct Server {
    pub address: SocketAddr,
    pub script: Arc<Script>,
    scope: Scope,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl Server {
    pub async fn start(script: Script, tls: Option<ServerConfig>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script, tls).await
    }

    pub async fn start_at(address: SocketAddr, script: Script, tls: Option<ServerConfig>) -> Self {
        let listener = bind(address).await;
        let (scope, script) = (Scope::new(), Arc::new(script));
        let server = Self { address: listener.local_addr().unwrap(), script, scope: scope.clone() };
        let acceptor = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        let (script, inner) = (Arc::clone(&server.script), scope.clone());
        scope.spawn("fake-accept", async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                let (script, acceptor) = (Arc::clone(&script), acceptor.clone());
                script.connections.fetch_add(1, Ordering::SeqCst);
                inner.spawn("fake-connection", async move {
                    match acceptor {
                        None => serve(socket, script).await,
                        Some(acceptor) => {
                            if let Ok(socket) = acceptor.accept(socket).await {
                                serve(socket, script).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub async fn plain(script: Script) -> Self {
        Self::start(script, None).await
    }

    pub fn http(&self) -> String {
        format!("http://{}", self.address)
    }

    /// By name, as certificates carry it.
    pub fn https(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub async fn stop(self) {
        let _ = self.scope.shutdown(std::time::Duration::from_secs(5)).await;
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{address} cannot be bound");
}

/// Serves one connection until it ends or is to be cut.
async fn serve<IO>(io: IO, script: Arc<Script>)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let flight = FlightServiceServer::new(Fake(Arc::clone(&script)));
    let calls = Arc::new(AtomicUsize::new(0));
    let cut = Arc::new(tokio::sync::Notify::new());
    let cutter = Arc::clone(&cut);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (flight, script, calls, cutter) =
            (flight.clone(), Arc::clone(&script), Arc::clone(&calls), Arc::clone(&cutter));
        async move {
            script.calls.fetch_add(1, Ordering::SeqCst);
            let number = calls.fetch_add(1, Ordering::SeqCst) + 1;
            if script.cut_every.is_some_and(|every| number >= every) {
                cutter.notify_one();
                std::future::pending::<()>().await;
            }
            if script.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if take(&script.http.0) {
                let page = tonic::body::Body::new(http_body_util::Full::new(Bytes::from_static(
                    b"<html>busy</html>",
                )));
                let answer = http::Response::builder()
                    .status(script.http.1)
                    .header("content-type", "text/html")
                    .body(page)
                    .unwrap();
                return Ok::<_, Infallible>(answer);
            }
            flight.oneshot(request).await
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(io), service);
    tokio::select! {
        _ = connection => {}
        () = cut.notified() => {}
    }
}

fn take(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// The Flight service of a [`Script`].
struct Fake(Arc<Script>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub fn rows_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ]))
}

fn rows(from: i64) -> RecordBatch {
    let ids = Int64Array::from(vec![from, from + 1]);
    let names = StringArray::from(vec![Some("a"), None]);
    RecordBatch::try_new(rows_schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

/// What a statement answers: `big N` one cell of N bytes, `wide N` N batches of a megabyte, `one N` one batch, `empty` none, a count of `counted` is 7, `bad`, `broken`
/// and `missing` fail, anything else two batches.
fn answer(sql: &str) -> Result<Vec<RecordBatch>, Status> {
    let words: Vec<_> = sql.split_whitespace().collect();
    match words.as_slice() {
        ["big", bytes] => {
            let cell = vec![7u8; bytes.parse().unwrap()];
            let schema = Arc::new(Schema::new(vec![Field::new("cell", DataType::Binary, false)]));
            let column = BinaryArray::from_vec(vec![cell.as_slice()]);
            Ok(vec![RecordBatch::try_new(schema, vec![Arc::new(column)]).unwrap()])
        }
        ["wide", batches] => {
            let cell = answer("big 1000000")?;
            Ok(vec![cell[0].clone(); batches.parse().unwrap()])
        }
        ["one", from] => Ok(vec![rows(from.parse().unwrap())]),
        ["empty"] => Ok(Vec::new()),
        ["SELECT", "count(*)", "AS", alias, "FROM", "\"counted\""] => {
            let count: ArrayRef = Arc::new(Int64Array::from(vec![7]));
            Ok(vec![RecordBatch::try_from_iter([(alias.trim_matches('"'), count)]).unwrap()])
        }
        ["bad"] => Err(Status::invalid_argument("SQL error: nonsense, said hunter2-key")),
        ["broken"] => Err(Status::internal("Error during planning: no")),
        ["missing"] => Err(Status::internal("Error during planning: table 'spice.public.t' not found")),
        ["quota"] => Err(Status::resource_exhausted("no memory left")),
        ["retryable"] => {
            let mut status = Status::invalid_argument("connection reset");
            status.metadata_mut().insert("spiceai-retryable", "1".parse().unwrap());
            Err(status)
        }
        _ => Ok(vec![rows(0), rows(2)]),
    }
}

fn schema_of(batches: &[RecordBatch]) -> SchemaRef {
    batches.first().map_or_else(rows_schema, RecordBatch::schema)
}

impl Fake {
    fn enter<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let metadata = request.metadata();
        let text = |key: &str| metadata.get(key).map_or("-", |value| value.to_str().unwrap()).to_owned();
        self.0.metadata.lock().unwrap().push(format!("{} {}", text("spiceai-org"), text("spiceai-app")));
        if take(&self.0.unavailable) {
            return Err(Status::unavailable(self.0.unavailable_words));
        }
        let Some(key) = &self.0.key else { return Ok(()) };
        let token = match self.0.handshake {
            Handshake::Token => self.0.token.lock().unwrap().clone(),
            Handshake::NoToken | Handshake::Unimplemented => key.clone(),
        };
        match text("authorization") == format!("Bearer {token}") {
            true => Ok(()),
            false => Err(Status::unauthenticated("Invalid credentials")),
        }
    }

    fn sql(command: &[u8]) -> String {
        match Any::decode(command).ok().and_then(|any| Command::try_from(any).ok()) {
            Some(Command::CommandStatementQuery(statement)) => statement.query,
            Some(Command::CommandGetTables(_)) => "tables".to_owned(),
            _ => String::from_utf8(command.to_vec()).unwrap(),
        }
    }
}

#[tonic::async_trait]
impl FlightService for Fake {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let number = self.0.handshakes.fetch_add(1, Ordering::SeqCst) + 1;
        if self.0.handshake == Handshake::Unimplemented {
            return Err(Status::unimplemented("no handshake here"));
        }
        let basic = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let basic = basic.and_then(|value| {
            let encoded = value.strip_prefix("Basic ")?.to_owned();
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?).ok()
        });
        let password = basic.as_deref().and_then(|basic| basic.split_once(':')).map(|(_, password)| password);
        if self.0.key.is_some() && password != self.0.key.as_deref() {
            return Err(Status::unauthenticated(format!(
                "Invalid credentials: {}",
                password.unwrap_or("none")
            )));
        }
        let answer = HandshakeResponse { protocol_version: 0, payload: Bytes::new() };
        let mut response =
            Response::new(futures::stream::iter([Ok(answer)]).boxed() as Self::HandshakeStream);
        if self.0.handshake == Handshake::Token {
            let token = format!("token-{number}");
            response.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            *self.0.token.lock().unwrap() = token;
        }
        Ok(response)
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        self.enter(&request)?;
        if !self.0.get_schema {
            return Err(Status::unimplemented("GetSchema"));
        }
        let batches = answer(&Self::sql(&request.into_inner().cmd))?;
        let schema = schema_of(&batches);
        Ok(Response::new(SchemaAsIpc::new(&schema, &Default::default()).try_into().unwrap()))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.enter(&request)?;
        let sql = Self::sql(&request.into_inner().cmd);
        self.0.statements.lock().unwrap().push(sql.clone());
        let schema = match sql.as_str() {
            "tables" => tables().schema(),
            sql => schema_of(&answer(sql)?),
        };
        let schema = match self.0.lies {
            true => Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, false)])),
            false => schema,
        };
        let scripted = self.0.endpoints.lock().unwrap().clone();
        let endpoints = scripted.unwrap_or_else(|| vec![(Vec::new(), sql)]);
        let mut info = FlightInfo::new().try_with_schema(&schema).unwrap();
        for (locations, sql) in endpoints {
            let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(sql.into_bytes()));
            info = info.with_endpoint(locations.into_iter().fold(endpoint, FlightEndpoint::with_location));
        }
        Ok(Response::new(info))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.enter(&request)?;
        let sql = Self::sql(&request.into_inner().ticket);
        self.0.statements.lock().unwrap().push(sql.clone());
        let batches = match sql.as_str() {
            "tables" => vec![tables()],
            sql => answer(sql)?,
        };
        let schema = schema_of(&batches);
        let encode = move |batches: Vec<RecordBatch>| {
            FlightDataEncoderBuilder::new()
                .with_schema(Arc::clone(&schema))
                .with_max_flight_data_size(usize::MAX)
                .build(futures::stream::iter(batches.into_iter().map(Ok::<_, FlightError>)))
                .map_err(Status::from)
        };
        let mut stream: Self::DoGetStream = match self.0.repeat_schema {
            false => encode(batches).boxed(),
            true => futures::stream::iter(batches).flat_map(move |batch| encode(vec![batch])).boxed(),
        };
        if self.0.breaks {
            stream = stream.take(2).chain(futures::stream::iter([Err(Status::unavailable("torn"))])).boxed();
        }
        if self.0.waits.load(Ordering::SeqCst) {
            stream = stream.take(2).chain(futures::stream::pending()).boxed();
        }
        let guard = Open::enter(&self.0.open);
        Ok(Response::new(
            stream
                .inspect(move |_| {
                    let _ = &guard;
                })
                .boxed(),
        ))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.enter(&request)?;
        let messages: Vec<_> = request.into_inner().try_collect().await?;
        let path = messages[0].flight_descriptor.clone().unwrap().path;
        let hello = messages[0].app_metadata.clone();
        self.0.asked.lock().unwrap().push(Asked { path, hello, messages: messages.len() });
        let script = self.0.exchange.lock().unwrap().clone();
        let sent = futures::stream::iter(script).then(|sent| async {
            match sent {
                Sent::Message(message) => Ok(message),
                Sent::Status(code, words) => Err(Status::new(code, words)),
                Sent::Silence => std::future::pending().await,
            }
        });
        let guard = Open::enter(&self.0.open);
        let sent = sent.inspect(move |_| {
            let _ = &guard;
        });
        Ok(Response::new(sent.boxed()))
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Counts a stream while it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The answer to CommandGetTables: `t_x` matches the pattern `t_x` of SQL, and so does `tax`.
fn tables() -> RecordBatch {
    let mut builder =
        arrow_flight::sql::CommandGetTables { include_schema: true, ..Default::default() }.into_builder();
    let other = Schema::new(vec![Field::new("other", DataType::Utf8, true)]);
    builder.append("c", "s", "tax", "TABLE", &other).unwrap();
    builder.append("c", "s", "t_x", "TABLE", &rows_schema()).unwrap();
    builder.build().unwrap()
}

/// A certificate authority made for one test.
pub struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    pub dir: tempfile::TempDir,
}

/// A server's or client's certificate with its key.
pub struct Leaf {
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    pub key: KeyPair,
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { ca, dir: tempfile::tempdir().unwrap() }
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn ca_file(&self) -> String {
        self.write("ca.pem", &self.ca.pem())
    }

    pub fn leaf(&self, name: &str) -> Leaf {
        self.leaf_with(name, |_| {})
    }

    pub fn leaf_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        Leaf { pem: certificate.pem(), certificate: certificate.into(), key }
    }

    /// A certificate that signs itself and calls itself a CA, as `openssl req -x509` makes it.
    pub fn self_signed_ca(name: &str) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Leaf { pem: certificate.pem(), certificate: certificate.into(), key }
    }

    /// A client that trusts this CA and has no certificate.
    pub fn client(&self) -> ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        ClientConfig::builder_with_provider(super::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A server that asks clients for a certificate of this CA.
    pub fn mtls(&self, leaf: &Leaf) -> ServerConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = super::tls::provider();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier);
        with_leaf(builder, leaf)
    }
}

impl Leaf {
    pub fn server(&self) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(super::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        with_leaf(builder, self)
    }
}

fn with_leaf(
    builder: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
    leaf: &Leaf,
) -> ServerConfig {
    let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(vec![leaf.certificate.clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
