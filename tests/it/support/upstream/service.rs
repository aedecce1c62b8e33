//! The Flight service of a fake upstream: raw SQL and Flight SQL commands enter, DataFusion's own answers
//! leave.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command, CommandGetTables, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::faults::{Break, Refusal, Stall};
use super::{CallId, Login, State, exchange};

/// The answers; all its memory is the shared [`State`].
#[derive(Clone)]
pub(super) struct Fake(pub(super) Arc<State>);

pub(super) type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Batches = Pin<Box<dyn Stream<Item = Result<RecordBatch, FlightError>> + Send>>;

/// What a descriptor or a ticket asks for.
enum Asked {
    Sql { text: String, flight_sql: bool },
    Tables(CommandGetTables),
}

/// Which share of an answer one endpoint serves.
#[derive(Clone, Copy)]
struct Part {
    index: usize,
    of: usize,
}

#[tonic::async_trait]
impl FlightService for Fake {
    type HandshakeStream = Items<HandshakeResponse>;
    type ListFlightsStream = Items<FlightInfo>;
    type DoGetStream = Items<FlightData>;
    type DoPutStream = Items<PutResult>;
    type DoExchangeStream = Items<FlightData>;
    type DoActionStream = Items<arrow_flight::Result>;
    type ListActionsStream = Items<ActionType>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let token = match &self.0.settings.login {
            Login::Unimplemented => return Err(Status::unimplemented("no handshake here")),
            Login::Anonymous { token } => *token,
            Login::Basic { username, password, token } => {
                let expected = format!("Basic {}", BASE64.encode(format!("{username}:{password}")));
                if authorization(request.metadata()) != Some(expected.as_str()) {
                    return Err(Status::unauthenticated("Invalid credentials"));
                }
                *token
            }
        };
        let answer: Self::HandshakeStream = stream::once(async { Ok(HandshakeResponse::default()) }).boxed();
        let mut response = Response::new(answer);
        if token {
            let bearer = format!("Bearer {}", self.0.new_token());
            let value = bearer.parse().map_err(|_| Status::internal("a token that is no header value"))?;
            response.metadata_mut().insert("authorization", value);
        }
        Ok(response)
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.authorize(request.metadata())?;
        let asked = self.asked(&request, &request.get_ref().cmd)?;
        let schema = self.promise(self.schema_of(&asked).await?);
        let mut info = FlightInfo::new()
            .try_with_schema(&schema)
            .map_err(|e| Status::internal(e.to_string()))?
            .with_descriptor(request.get_ref().clone())
            .with_total_records(-1)
            .with_total_bytes(-1);
        let endpoints = self.0.endpoints();
        for (index, locations) in endpoints.iter().enumerate() {
            let ticket = asked.ticket(Part { index, of: endpoints.len() });
            let endpoint = FlightEndpoint::new().with_ticket(ticket);
            let endpoint = locations.iter().fold(endpoint, |e, location| e.with_location(location));
            info = info.with_endpoint(endpoint);
        }
        Ok(Response::new(info))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        self.authorize(request.metadata())?;
        let path = &request.get_ref().path;
        let schema = match path.is_empty() {
            false => {
                refuse(&request)?;
                self.table(path.join(".")).await?.schema()
            }
            true => {
                let asked = self.asked(&request, &request.get_ref().cmd)?;
                self.schema_of(&asked).await?
            }
        };
        let schema = self.promise(schema);
        let result = SchemaAsIpc::new(&schema, &IpcWriteOptions::default())
            .try_into()
            .map_err(|e: arrow::error::ArrowError| Status::internal(e.to_string()))?;
        Ok(Response::new(result))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.authorize(request.metadata())?;
        let (part, ticket) = Part::split_off(&request.get_ref().ticket);
        let asked = self.asked(&request, ticket)?;
        let (schema, batches) = self.answer(&asked, part).await?;
        let batches = match request.extensions().get::<Break>() {
            None => batches,
            Some(fault) => break_after(batches, fault.clone()),
        };
        let batches = match request.extensions().get::<Stall>() {
            None => batches,
            Some(Stall(sent)) => batches.take(*sent).chain(stream::pending()).boxed(),
        };
        Ok(Response::new(self.encode(schema, batches)))
    }

    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.unexpected("ListFlights")
    }

    async fn poll_flight_info(
        &self,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        self.unexpected("PollFlightInfo")
    }

    async fn do_put(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        self.unexpected("DoPut")
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.authorize(request.metadata())?;
        match self.0.settings.form {
            Some(form) => Ok(Response::new(exchange::subscribe(&self.0, form, request).await?)),
            None => self.unexpected("DoExchange"),
        }
    }

    async fn do_action(&self, _request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        self.unexpected("DoAction")
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        self.unexpected("ListActions")
    }
}

impl Fake {
    /// A call that sidewing has no reason to make: the test fails, whatever sidewing does with the answer.
    fn unexpected<T>(&self, method: &str) -> Result<T, Status> {
        self.0.problem(format!("an unexpected call of {method}"));
        Err(Status::unimplemented(format!("{method} is not implemented")))
    }

    fn authorize(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Login::Basic { token: true, .. } = &self.0.settings.login else { return Ok(()) };
        match authorization(metadata).and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) if self.0.knows_token(token) => Ok(()),
            Some(_) => Err(Status::unauthenticated("Invalid credentials: the token is unknown or expired")),
            None => Err(Status::unauthenticated("Invalid credentials: no bearer token")),
        }
    }

    /// Decodes a command and records its SQL with the call, which may then have to suffer.
    fn asked<T>(&self, request: &Request<T>, command: &[u8]) -> Result<Asked, Status> {
        let asked = Asked::decode(command)?;
        if let (Some(call), Asked::Sql { text, .. }) = (request.extensions().get::<CallId>(), &asked) {
            self.0.record_sql(*call, text);
        }
        refuse(request)?;
        if self.0.settings.flight_sql_only && matches!(&asked, Asked::Sql { flight_sql: false, .. }) {
            return Err(Status::invalid_argument("expected a Flight SQL command"));
        }
        Ok(asked)
    }

    fn promise(&self, schema: SchemaRef) -> SchemaRef {
        self.0.promised_schema().unwrap_or(schema)
    }

    async fn schema_of(&self, asked: &Asked) -> Result<SchemaRef, Status> {
        match asked {
            Asked::Sql { text, .. } => {
                let plan = self.plan(text).await.map_err(|e| Status::invalid_argument(e.to_string()))?;
                Ok(Arc::new(plan.schema().as_arrow().clone()))
            }
            Asked::Tables(command) => Ok(command.clone().into_builder().schema()),
        }
    }

    async fn plan(&self, sql: &str) -> Result<DataFrame, DataFusionError> {
        // A statement that writes must never come this far; the fake refuses it as a real upstream would.
        let only_reading =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        self.0.session.sql_with_options(sql, only_reading).await
    }

    async fn table(&self, name: String) -> Result<Arc<dyn TableProvider>, Status> {
        let found = self.0.session.table_provider(TableReference::parse_str(&name)).await;
        found.map_err(|_| Status::not_found("Table not found"))
    }

    async fn answer(&self, asked: &Asked, part: Option<Part>) -> Result<(SchemaRef, Batches), Status> {
        let (schema, batches) = match asked {
            Asked::Sql { text, .. } => self.run(text).await.map_err(|e| status_of(&e))?,
            Asked::Tables(command) => {
                let batch = self.list_tables(command).await?;
                (batch.schema(), stream::once(async { Ok(batch) }).boxed() as Batches)
            }
        };
        if part.is_none() && !self.0.settings.whole_messages {
            return Ok((schema, batches));
        }
        let all: Vec<_> = batches.try_collect().await.map_err(Status::from)?;
        let all = concat_batches(&schema, &all).map_err(|e| Status::internal(e.to_string()))?;
        let share = match part {
            None => all,
            Some(part) => part.of_batch(&all),
        };
        Ok((schema, stream::once(async { Ok(share) }).boxed()))
    }

    async fn run(&self, sql: &str) -> Result<(SchemaRef, Batches), DataFusionError> {
        let batches = self.plan(sql).await?.execute_stream().await?;
        let schema = batches.schema();
        let batches = batches.map_err(|error| FlightError::Tonic(Box::new(status_of(&error))));
        Ok((schema, batches.boxed()))
    }

    async fn list_tables(&self, command: &CommandGetTables) -> Result<RecordBatch, Status> {
        let mut tables = command.clone().into_builder();
        for catalog in self.0.session.catalog_names() {
            for schema in self.0.session.catalog(&catalog).map(|c| c.schema_names()).unwrap_or_default() {
                for name in self.0.table_names(&catalog, &schema) {
                    let reference = TableReference::full(catalog.as_str(), schema.as_str(), name.as_str());
                    let provider = self.0.session.table_provider(reference).await;
                    let table = provider.map_err(|e| status_of(&e))?.schema();
                    let row = tables.append(&catalog, &schema, &name, "TABLE", &table);
                    row.map_err(|e| Status::internal(e.to_string()))?;
                }
            }
        }
        tables.build().map_err(|e| Status::internal(e.to_string()))
    }

    fn encode(&self, schema: SchemaRef, batches: Batches) -> Items<FlightData> {
        let mut encoder = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_dictionary_handling(arrow_flight::encode::DictionaryHandling::Resend);
        if self.0.settings.whole_messages {
            encoder = encoder.with_max_flight_data_size(usize::MAX);
        }
        let state = Arc::clone(&self.0);
        let messages = AssertUnwindSafe(encoder.build(batches)).catch_unwind();
        let messages = messages.map(move |message| match message {
            Ok(message) => message.map_err(Status::from),
            Err(_) => {
                state.problem("an answer panicked in mid-stream".to_owned());
                Err(Status::internal("the fake upstream panicked"))
            }
        });
        messages.boxed()
    }
}

impl Asked {
    /// A Flight SQL message, or else the text of a statement.
    fn decode(command: &[u8]) -> Result<Self, Status> {
        match Any::decode(command).ok().and_then(|any| Command::try_from(any).ok()) {
            Some(Command::CommandStatementQuery(query)) => Ok(Self::flight_sql(query.query)),
            Some(Command::TicketStatementQuery(ticket)) => {
                let text = String::from_utf8(ticket.statement_handle.to_vec());
                text.map(Self::flight_sql).map_err(|_| Status::invalid_argument("a handle of another server"))
            }
            Some(Command::CommandGetTables(command)) => Ok(Self::Tables(command)),
            Some(Command::Unknown(_)) | None => match std::str::from_utf8(command) {
                Ok(text) => Ok(Self::Sql { text: text.to_owned(), flight_sql: false }),
                Err(_) => Err(Status::invalid_argument("neither Flight SQL nor text")),
            },
            Some(other) => Err(Status::unimplemented(format!("{} is not implemented", other.type_url()))),
        }
    }

    fn flight_sql(text: String) -> Self {
        Self::Sql { text, flight_sql: true }
    }

    fn ticket(&self, part: Part) -> Ticket {
        let command = match self {
            Self::Sql { text, flight_sql: false } => text.clone().into_bytes(),
            Self::Sql { text, flight_sql: true } => {
                TicketStatementQuery { statement_handle: text.clone().into() }.as_any().encode_to_vec()
            }
            Self::Tables(command) => command.as_any().encode_to_vec(),
        };
        Ticket::new(part.prefix(command))
    }
}

impl Part {
    /// Opaque to clients, as tickets are: `part 1/3` and a line end, then the command.
    fn prefix(self, command: Vec<u8>) -> Vec<u8> {
        match self.of {
            1 => command,
            of => [format!("part {}/{of}\n", self.index).into_bytes(), command].concat(),
        }
    }

    fn split_off(ticket: &[u8]) -> (Option<Self>, &[u8]) {
        let found = || {
            let end = ticket.iter().position(|byte| *byte == b'\n')?;
            let (index, of) =
                std::str::from_utf8(&ticket[..end]).ok()?.strip_prefix("part ")?.split_once('/')?;
            Some((Self { index: index.parse().ok()?, of: of.parse().ok()? }, &ticket[end + 1..]))
        };
        match found() {
            Some((part, command)) => (Some(part), command),
            None => (None, ticket),
        }
    }

    fn of_batch(self, all: &RecordBatch) -> RecordBatch {
        let from = all.num_rows() * self.index / self.of;
        let to = all.num_rows() * (self.index + 1) / self.of;
        all.slice(from, to - from)
    }
}

fn refuse<T>(request: &Request<T>) -> Result<(), Status> {
    match request.extensions().get::<Refusal>() {
        Some(Refusal(status)) => Err(status.clone()),
        None => Ok(()),
    }
}

fn break_after(batches: Batches, fault: Break) -> Batches {
    let end = stream::once(async { Err(FlightError::Tonic(Box::new(fault.status))) });
    batches.take(fault.batches).chain(end).boxed()
}

fn status_of(error: &DataFusionError) -> Status {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => Status::resource_exhausted(message.clone()),
        root => Status::invalid_argument(root.to_string()),
    }
}

fn authorization(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("authorization").and_then(|value| value.to_str().ok())
}
