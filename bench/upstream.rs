//! The bench's upstream: two tables as Flight frames, encoded once, so that its own work is nearly nothing.
//!
//! It looks for a table's name in the SQL and answers the whole table; it plans nothing.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
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
const BATCH_ROWS: usize = 8192;
/// Three 64-bit numbers, a string of 20 bytes and its offset.
const ROW_BYTES: usize = 3 * 8 + 20 + 4;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    OneRow,
    HundredMegabytes,
}

impl Table {
    const ALL: [Self; 2] = [Self::OneRow, Self::HundredMegabytes];

    pub fn name(self) -> &'static str {
        match self {
            Self::OneRow => "one_row",
            Self::HundredMegabytes => "hundred_megabytes",
        }
    }

    pub fn rows(self) -> usize {
        match self {
            Self::OneRow => 1,
            Self::HundredMegabytes => 100_000_000_usize.div_ceil(ROW_BYTES),
        }
    }

    /// The Arrow data of the whole table.
    pub fn bytes(self) -> usize {
        self.rows() * ROW_BYTES
    }
}

/// Serves until it is killed; prints its address first.
pub async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut tables = Vec::new();
    for table in Table::ALL {
        tables.push(Encoded::new(table).await?);
    }
    println!("flight  http://{}", listener.local_addr()?);
    let service = FlightServiceServer::new(Upstream { tables: tables.into() });
    // tonic sets it only on sockets of its own listener; without it a delayed acknowledgement is what is measured.
    let incoming = TcpListenerStream::new(listener).inspect_ok(|socket| {
        let _ = socket.set_nodelay(true);
    });
    Ok(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?)
}

/// A table as it goes out.
struct Encoded {
    table: Table,
    schema: SchemaRef,
    frames: Arc<[FlightData]>,
}

impl Encoded {
    async fn new(table: Table) -> Result<Self> {
        let batches: Vec<RecordBatch> = (0..table.rows())
            .step_by(BATCH_ROWS)
            .map(|first| batch(first..table.rows().min(first + BATCH_ROWS)))
            .collect::<Result<_>>()?;
        let schema = batches.first().ok_or("a table without rows")?.schema();
        let input = futures::stream::iter(batches.into_iter().map(Ok));
        let frames: Vec<_> = FlightDataEncoderBuilder::new()
            .with_schema(Arc::clone(&schema))
            .build(input)
            .try_collect()
            .await?;
        Ok(Self { table, schema, frames: frames.into() })
    }
}

fn batch(rows: std::ops::Range<usize>) -> Result<RecordBatch> {
    let ids: Vec<i64> = rows.map(i64::try_from).collect::<std::result::Result<_, _>>()?;
    let groups = Int64Array::from_iter_values(ids.iter().map(|id| id % 97));
    let values = Float64Array::from_iter_values(ids.iter().map(|id| f64::from((id % 1000) as i32) / 8.0));
    let names = StringArray::from_iter_values(ids.iter().map(|id| format!("name-{id:015}")));
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from(ids))),
        ("grp", Arc::new(groups)),
        ("value", Arc::new(values)),
        ("name", Arc::new(names)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

#[derive(Clone)]
struct Upstream {
    tables: Arc<[Encoded]>,
}

impl Upstream {
    /// The table that a statement or a path names.
    fn find(&self, text: &str) -> Result<&Encoded, Status> {
        let found = self.tables.iter().find(|encoded| text.contains(encoded.table.name()));
        found.ok_or_else(|| Status::not_found(format!("no table in: {text}")))
    }

    fn asked(&self, descriptor: &FlightDescriptor) -> Result<&Encoded, Status> {
        if descriptor.path.is_empty() {
            self.find(&String::from_utf8_lossy(&descriptor.cmd))
        } else {
            self.find(&descriptor.path.join("."))
        }
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
        let asked = self.asked(&descriptor)?;
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(asked.table.name()));
        let info = FlightInfo::new()
            .try_with_schema(&asked.schema)
            .map_err(|error| Status::internal(error.to_string()))?
            .with_endpoint(endpoint)
            .with_descriptor(descriptor);
        Ok(Response::new(info))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let asked = self.asked(request.get_ref())?;
        let options = arrow_ipc::writer::IpcWriteOptions::default();
        let IpcMessage(schema) = SchemaAsIpc::new(&asked.schema, &options)
            .try_into()
            .map_err(|error: arrow::error::ArrowError| Status::internal(error.to_string()))?;
        Ok(Response::new(SchemaResult { schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let frames = Arc::clone(&self.find(&String::from_utf8_lossy(&request.get_ref().ticket))?.frames);
        let answers = (0..frames.len()).map(move |index| Ok(frames[index].clone()));
        Ok(Response::new(futures::stream::iter(answers).boxed()))
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

    async fn do_action(&self, _request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        Err(Status::unimplemented("DoAction"))
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(Status::unimplemented("ListActions"))
    }
}
