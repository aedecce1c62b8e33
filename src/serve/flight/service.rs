//! The calls of the Flight protocol over a [`Door`].

use std::pin::Pin;

use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use futures::stream::{self, Stream, StreamExt};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use super::command::{self, Asked};
use super::counted::Counted;
use super::exchange::Exchanges;
use super::handle::Handle;
use super::outgoing::{self, Frames};
use super::put::Puts;
use super::{actions, bind, decode};
use crate::query::{self, Answer, CacheWishes, Cached, Parameters, QueryError};
use crate::serve::access::{self, Access, Identity};
use crate::serve::{Door, caching, status, trace};
use crate::telemetry::Traceparent;
use crate::wire::{self, Malformed};

pub(super) type Reply<T> = Result<Response<T>, Status>;
pub(super) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Names the query in an answer's metadata.
const QUERY_ID: &str = "x-query-id";
/// Names the configuration that answered.
const CONFIG: &str = "x-sidewing-config";

/// Answers Flight calls.
pub(super) struct Service<D> {
    door: D,
    access: Access,
    exchanges: Exchanges,
    puts: Puts,
}

impl<D: Door> Service<D> {
    pub(super) fn new(door: D, access: Access, exchanges: Exchanges, puts: Puts) -> Self {
        Self { door, access, exchanges, puts }
    }

    /// The ticket for what a descriptor asks for, and the schema that its answer travels in. A path is a table.
    async fn plan(
        &self,
        descriptor: &FlightDescriptor,
        identity: &Identity,
        caller: Option<Traceparent>,
    ) -> Result<(Schema, Ticket), Status> {
        match descriptor.r#type() {
            DescriptorType::Cmd => match command::asked(&descriptor.cmd, identity).await? {
                Asked::Statement { handle, request } => {
                    let request = query::Request { caller, ..*request };
                    let schema = self.door.schema(request).await.map_err(refusal)?;
                    Ok((wire::schema(&schema), Ticket::new(handle.ticket(identity))))
                }
                // It is looked up anew with its ticket: it tells what then is.
                Asked::Metadata { metadata, command } => {
                    Ok((metadata.schema().as_ref().clone(), Ticket::new(command)))
                }
            },
            DescriptorType::Path if descriptor.path.is_empty() => {
                Err(Status::invalid_argument("the path is empty: name a dataset"))
            }
            DescriptorType::Path => {
                let schema = self.door.table_schema(&descriptor.path).await.map_err(refusal)?;
                Ok((wire::schema(&schema), table_ticket(command::select_all(&descriptor.path), identity)))
            }
            DescriptorType::Unknown => Err(Status::invalid_argument(
                "the descriptor needs a type: CMD with SQL, or PATH with a table",
            )),
        }
    }

    /// The schema alone. Of a statement whose parameters are not bound yet it is the best guess.
    async fn schema(
        &self,
        descriptor: &FlightDescriptor,
        identity: &Identity,
        caller: Option<Traceparent>,
    ) -> Result<Schema, Status> {
        if descriptor.r#type() == DescriptorType::Cmd
            && let Asked::Statement { request, .. } = command::asked(&descriptor.cmd, identity).await?
            && matches!(request.parameters, Parameters::None)
        {
            let request = query::Request { caller, ..*request };
            let prepared = self.door.prepare(request).await.map_err(refusal)?;
            return Ok(wire::schema(&prepared.schema));
        }
        Ok(self.plan(descriptor, identity, caller).await?.0)
    }

    async fn info(&self, request: Request<FlightDescriptor>) -> Result<FlightInfo, Status> {
        let identity = access::of_call(&request)?;
        let caller = trace::of_metadata(request.metadata());
        let descriptor = request.into_inner();
        let is_sql =
            descriptor.r#type() == DescriptorType::Cmd && command::flight_sql(&descriptor.cmd).is_none();
        let (schema, ticket) = self.plan(&descriptor, &identity, caller).await?;
        let info = info(&schema, ticket, descriptor)?;
        Ok(if is_sql { info.with_app_metadata(wire::SQL_TICKETS) } else { info })
    }

    /// DoGet: the messages of an answer.
    pub(super) async fn frames(&self, request: Request<Ticket>) -> Reply<Frames> {
        let _counted = Counted::ticket("DoGet", &request.get_ref().ticket);
        let cache = wishes(request.metadata())?;
        let identity = access::of_call(&request)?;
        let caller = trace::of_metadata(request.metadata());
        let answer = self.answer(request.get_ref(), &identity, cache, caller).await?;
        let (id, cached, config) = (answer.id.to_string(), answer.cached.clone(), answer.config.clone());
        let mut response = Response::new(outgoing::frames(answer));
        if let Ok(id) = MetadataValue::try_from(id) {
            response.metadata_mut().insert(QUERY_ID, id);
        }
        if let Some(config) = config.and_then(|config| MetadataValue::try_from(&*config).ok()) {
            response.metadata_mut().insert(CONFIG, config);
        }
        if let Some(cached) = &cached {
            tell(response.metadata_mut(), cached);
        }
        Ok(response)
    }

    /// What a ticket asks for.
    async fn answer(
        &self,
        ticket: &Ticket,
        identity: &Identity,
        cache: CacheWishes,
        caller: Option<Traceparent>,
    ) -> Result<Answer, Status> {
        match command::asked(&ticket.ticket, identity).await? {
            Asked::Statement { request, .. } => {
                self.door.run(query::Request { cache, caller, ..*request }).await.map_err(refusal)
            }
            Asked::Metadata { metadata, .. } => {
                let batch = metadata.batch(&self.door).await?;
                let (schema, batches) = (batch.schema(), stream::iter([Ok(batch)]).boxed());
                Ok(Answer::new(schema, batches))
            }
        }
    }
}

/// A ticket for a statement of our own about a table.
fn table_ticket(sql: String, identity: &Identity) -> Ticket {
    Ticket::new(Handle::raw(sql).ticket(identity))
}

/// Tells an error to the client and, where a person should know, to the log.
pub(super) fn refusal(error: QueryError) -> Status {
    if matches!(error, QueryError::Internal { .. }) {
        tracing::error!(%error, "query failed");
    }
    status::grpc(&error)
}

/// What a call says of the results cache.
fn wishes(metadata: &MetadataMap) -> Result<CacheWishes, Status> {
    let control = metadata.get_all(caching::CACHE_CONTROL).iter().map(|value| value.to_str().ok());
    let key = metadata.get(caching::CLIENT_KEY).map(|value| value.to_str().ok());
    caching::wishes(control, key).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Says how an answer came about.
fn tell(metadata: &mut MetadataMap, cached: &Cached) {
    metadata.insert(caching::STATUS, MetadataValue::from_static(caching::status(cached.status)));
    if let Some(x_cache) = caching::x_cache(cached.status) {
        metadata.insert(caching::X_CACHE, MetadataValue::from_static(x_cache));
    }
}

/// One endpoint without location: the client asks here again, with the ticket.
fn info(schema: &Schema, ticket: Ticket, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(ticket);
    FlightInfo::new()
        .try_with_schema(schema)
        .map(|info| info.with_descriptor(descriptor).with_endpoint(endpoint))
        .map_err(|error| Status::internal(format!("the schema cannot be encoded: {error}")))
}

#[tonic::async_trait]
impl<D: Door> FlightService for Service<D> {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;
    type DoExchangeStream = Messages<FlightData>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Reply<Self::HandshakeStream> {
        let _counted = Counted::plain("Handshake");
        let headers = request.metadata().clone().into_headers();
        let session = self.access.open_session(&headers).map_err(|_| access::unauthenticated())?;
        let bearer = MetadataValue::try_from(format!("Bearer {session}"))
            .map_err(|_| Status::internal("the session token is not a header"))?;
        let payload = HandshakeResponse { protocol_version: 0, payload: session.into() };
        let mut response = Response::new(stream::iter([Ok(payload)]).boxed());
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Reply<Self::ListFlightsStream> {
        let _counted = Counted::plain("ListFlights");
        if !request.get_ref().expression.is_empty() {
            return Err(Status::invalid_argument("ListFlights takes no criteria: send an empty expression"));
        }
        let (door, identity) = (self.door.clone(), access::of_call(&request)?);
        let listed = stream::iter(self.door.datasets()).filter_map(move |dataset| {
            let (door, identity) = (door.clone(), identity.clone());
            async move {
                let path = match dataset.name.schema() {
                    Some(schema) => vec![schema.to_owned(), dataset.name.table().to_owned()],
                    None => vec![dataset.name.table().to_owned()],
                };
                match door.table_schema(&path).await {
                    Ok(schema) => {
                        // Two parts are exact; one part would be read as a name, so it is quoted here.
                        let ticket = table_ticket(command::select_exactly(&path), &identity);
                        Some(info(&wire::schema(&schema), ticket, FlightDescriptor::new_path(path)))
                    }
                    // It has no schema yet; the others are listed all the same.
                    Err(error) if status::of(&error).passes => None,
                    Err(error) => {
                        tracing::debug!(dataset = %dataset.name, %error, "not listed");
                        None
                    }
                }
            }
        });
        Ok(Response::new(listed.boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<FlightInfo> {
        let _counted = Counted::descriptor("GetFlightInfo", request.get_ref());
        self.info(request).await.map(Response::new)
    }

    /// Complete at once: a query begins with DoGet.
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<PollInfo> {
        let _counted = Counted::descriptor("PollFlightInfo", request.get_ref());
        let info = self.info(request).await?;
        Ok(Response::new(
            PollInfo::new()
                .with_info(info)
                .try_with_progress(1.0)
                .map_err(|error| Status::internal(format!("the progress cannot be told: {error}")))?,
        ))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Reply<SchemaResult> {
        let _counted = Counted::descriptor("GetSchema", request.get_ref());
        let identity = access::of_call(&request)?;
        let caller = trace::of_metadata(request.metadata());
        let schema = self.schema(request.get_ref(), &identity, caller).await?;
        SchemaAsIpc::new(&schema, &IpcWriteOptions::default())
            .try_into()
            .map(Response::new)
            .map_err(|error| Status::internal(format!("the schema cannot be encoded: {error}")))
    }

    /// For clients that want their answers compressed; the others are answered by [`Service::frames`] itself.
    async fn do_get(&self, request: Request<Ticket>) -> Reply<Self::DoGetStream> {
        let frames = self.frames(request).await?;
        let broken = |error: Malformed| Status::internal(error.to_string());
        Ok(frames.map(|frames| frames.map(move |frame| frame?.flight_data().map_err(broken)).boxed()))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoPutStream> {
        let _counted = Counted::plain("DoPut");
        let (identity, may_write) = (access::of_call(&request)?, access::may_write(&request));
        let mut messages = request.into_inner();
        let first = messages.message().await.map_err(|status| decode::broken(status).status())?;
        // Who only reads binds parameters too.
        if let Some(handle) = bind::target(first.as_ref()) {
            let messages = stream::iter(first.map(Ok)).chain(messages);
            let bound = bind::bind(&handle, &identity, messages).await?;
            return Ok(Response::new(stream::iter([Ok(bound)]).boxed()));
        }
        may_write?;
        let answer = self.puts.answer(&self.door, first, messages).await?;
        Ok(Response::new(answer))
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoExchangeStream> {
        let _counted = Counted::plain("DoExchange");
        self.exchanges.open(&self.door, request.into_inner()).await
    }

    async fn do_action(&self, request: Request<Action>) -> Reply<Self::DoActionStream> {
        let _counted = Counted::action(request.get_ref());
        let identity = access::of_call(&request)?;
        let bodies = actions::act(&self.door, &identity, request.get_ref()).await?;
        let results = bodies.into_iter().map(|body| Ok(arrow_flight::Result { body }));
        Ok(Response::new(stream::iter(results).boxed()))
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Reply<Self::ListActionsStream> {
        let _counted = Counted::plain("ListActions");
        Ok(Response::new(stream::iter(actions::list().map(Ok)).boxed()))
    }
}
