//! The bench's upstream: a Flight server whose answers are frames encoded beforehand, so that its own work is nearly
//! nothing. It plans nothing: what it serves reads the SQL as far as it must.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, IpcMessage, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Result;

/// Rows of one batch.
pub const BATCH_ROWS: usize = 8192;

/// What an upstream serves. `text` is a statement, or the path of a table.
pub trait Tables: Send + Sync + 'static {
    /// # Errors
    /// No such table.
    fn schema(&self, text: &str) -> Result<SchemaRef, Status>;

    /// The answer, schema first.
    ///
    /// # Errors
    /// No such table.
    fn frames(&self, text: &str) -> Result<Vec<FlightData>, Status>;

    /// A change that the bench asks for.
    ///
    /// # Errors
    /// What is not known.
    fn act(&self, action: &Action) -> Result<(), Status> {
        Err(Status::unimplemented(action.r#type.clone()))
    }
}

/// Serves until it is killed; prints its address first.
pub async fn serve(tables: impl Tables) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("flight  http://{}", listener.local_addr()?);
    serve_on(listener, tables).await
}

/// Serves for as long as it is polled.
pub async fn serve_on(listener: TcpListener, tables: impl Tables) -> Result<()> {
    let service = FlightServiceServer::new(Upstream { tables: Arc::new(tables) });
    // tonic sets it only on sockets of its own listener; without it a delayed acknowledgement is what is measured.
    let incoming = TcpListenerStream::new(listener).inspect_ok(|socket| {
        let _ = socket.set_nodelay(true);
    });
    Ok(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?)
}

/// The messages of `batches`: a schema, then one for each.
pub async fn encoded(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Vec<FlightData>> {
    let input = futures::stream::iter(batches.into_iter().map(Ok));
    Ok(FlightDataEncoderBuilder::new().with_schema(schema).build(input).try_collect().await?)
}

struct Upstream {
    tables: Arc<dyn Tables>,
}

/// The words of a descriptor: its SQL, or its path.
fn asked(descriptor: &FlightDescriptor) -> String {
    match descriptor.path.is_empty() {
        true => String::from_utf8_lossy(&descriptor.cmd).into_owned(),
        false => descriptor.path.join("."),
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl FlightService for Upstream {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let answers = futures::stream::iter([Ok(HandshakeResponse::default())]).boxed();
        let mut response = Response::new(answers);
        let token = tonic::metadata::MetadataValue::from_static("Bearer bench");
        response.metadata_mut().insert("authorization", token);
        Ok(response)
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let descriptor = request.into_inner();
        let text = asked(&descriptor);
        let schema = self.tables.schema(&text)?;
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(text));
        let info = FlightInfo::new()
            .try_with_schema(&schema)
            .map_err(|error| Status::internal(error.to_string()))?
            .with_endpoint(endpoint)
            .with_descriptor(descriptor);
        Ok(Response::new(info))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let schema = self.tables.schema(&asked(request.get_ref()))?;
        let options = arrow_ipc::writer::IpcWriteOptions::default();
        let IpcMessage(schema) = SchemaAsIpc::new(&schema, &options)
            .try_into()
            .map_err(|error: arrow::error::ArrowError| Status::internal(error.to_string()))?;
        Ok(Response::new(SchemaResult { schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let frames = self.tables.frames(&String::from_utf8_lossy(&request.get_ref().ticket))?;
        Ok(Response::new(futures::stream::iter(frames.into_iter().map(Ok)).boxed()))
    }

    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(Status::unimplemented("ListFlights"))
    }

    async fn poll_flight_info(
        &self,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented("PollFlightInfo"))
    }

    async fn do_put(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        Err(Status::unimplemented("DoPut"))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Status::unimplemented("DoExchange"))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        self.tables.act(request.get_ref())?;
        Ok(Response::new(futures::stream::empty().boxed()))
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(Status::unimplemented("ListActions"))
    }
}
