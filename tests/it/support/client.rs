//! A downstream Flight client, and the comparison of answers.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{Any, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, FlightInfo, HandshakeRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::Status;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

/// A client of one Flight server; sends raw SQL commands, with the token it was given.
pub struct Client {
    inner: FlightServiceClient<Channel>,
    token: Option<String>,
}

/// What came back: the schema of the stream, which is there even if no row is.
#[derive(Debug)]
pub struct Answer {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

/// How two answers must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Row by row.
    Kept,
    /// As multisets.
    Any,
}

impl Client {
    /// Connects in plain text to `host:port`.
    pub async fn connect(addr: impl std::fmt::Display) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("a URL");
        let channel = endpoint.connect().await.unwrap_or_else(|e| panic!("Flight at {addr}: {e}"));
        // tonic's own default would do; it is written down because a test about message sizes relies on it.
        let inner = FlightServiceClient::new(channel).max_decoding_message_size(4 << 20);
        Self { inner, token: None }
    }

    /// Accepts larger messages than the usual 4 MiB.
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.inner = self.inner.max_decoding_message_size(bytes);
        self
    }

    /// Basic handshake; keeps the bearer token for the calls that follow.
    pub async fn login(&mut self, username: &str, password: &str) -> Result<(), Status> {
        let basic = format!("Basic {}", BASE64.encode(format!("{username}:{password}")));
        let mut request = tonic::Request::new(stream::iter([HandshakeRequest::default()]));
        let value = MetadataValue::try_from(basic).expect("ASCII");
        request.metadata_mut().insert("authorization", value);
        let response = self.inner.handshake(request).await?;
        let header = response.metadata().get("authorization").and_then(|value| value.to_str().ok());
        self.token = header.map(str::to_owned);
        let _: Vec<_> = response.into_inner().try_collect().await?;
        Ok(())
    }

    /// The `authorization` value of the last login.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// GetFlightInfo of a raw SQL command.
    pub async fn flight_info(&mut self, sql: &str) -> Result<FlightInfo, Status> {
        self.flight_info_of(FlightDescriptor::new_cmd(sql.to_owned())).await
    }

    /// GetFlightInfo of any descriptor.
    pub async fn flight_info_of(&mut self, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        let request = self.request(descriptor);
        Ok(self.inner.get_flight_info(request).await?.into_inner())
    }

    /// GetSchema of a raw SQL command.
    pub async fn schema_of_sql(&mut self, sql: &str) -> Result<Schema, Status> {
        self.schema(FlightDescriptor::new_cmd(sql.to_owned())).await
    }

    /// GetSchema of a table.
    pub async fn schema_of_table(&mut self, path: &[&str]) -> Result<Schema, Status> {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        self.schema(FlightDescriptor::new_path(path)).await
    }

    /// GetFlightInfo and DoGet of every endpoint, in order.
    pub async fn query(&mut self, sql: &str) -> Result<Answer, Status> {
        let info = self.flight_info(sql).await?;
        self.fetch(info).await
    }

    /// The same with Flight SQL's CommandStatementQuery.
    pub async fn flight_sql(&mut self, sql: &str) -> Result<Answer, Status> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let info = self.flight_info_of(command_descriptor(&command)).await?;
        self.fetch(info).await
    }

    /// DoGet of every endpoint of `info`, in order, on this connection.
    pub async fn fetch(&mut self, info: FlightInfo) -> Result<Answer, Status> {
        let mut schema = None;
        let mut batches = Vec::new();
        for endpoint in info.endpoint {
            let ticket = endpoint.ticket.ok_or_else(|| Status::data_loss("an endpoint without a ticket"))?;
            let request = self.request(ticket);
            let messages = self.inner.do_get(request).await?.into_inner();
            let messages = messages.map_err(|e| FlightError::Tonic(Box::new(e)));
            let mut stream = FlightRecordBatchStream::new_from_flight_data(messages);
            while let Some(batch) = stream.next().await {
                batches.push(batch.map_err(Status::from)?);
            }
            schema = stream.schema().cloned().or(schema);
        }
        let schema = schema.ok_or_else(|| Status::data_loss("a stream without a schema"))?;
        Ok(Answer { schema, batches })
    }

    /// For calls that this client has no method for.
    pub fn inner(&mut self) -> &mut FlightServiceClient<Channel> {
        &mut self.inner
    }

    async fn schema(&mut self, descriptor: FlightDescriptor) -> Result<Schema, Status> {
        let request = self.request(descriptor);
        let result = self.inner.get_schema(request).await?.into_inner();
        Schema::try_from(&result).map_err(|e| Status::data_loss(e.to_string()))
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            let value = MetadataValue::try_from(token).expect("a token that was a header already");
            request.metadata_mut().insert("authorization", value);
        }
        request
    }
}

impl Answer {
    /// As a table, for messages and snapshots.
    pub fn pretty(&self) -> String {
        pretty(&self.batches)
    }

    pub fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// A Flight SQL command as a descriptor.
pub fn command_descriptor(command: &impl ProstMessageExt) -> FlightDescriptor {
    let any: Any = command.as_any();
    FlightDescriptor::new_cmd(any.encode_to_vec())
}

/// Batches as a table.
pub fn pretty(batches: &[RecordBatch]) -> String {
    pretty_format_batches(batches).expect("batches that can be shown").to_string()
}

/// Fails with both answers if they differ in column names or rows. Types may differ where the values are
/// the same (a string view against a string); floats agree in ten digits.
pub fn assert_same(what: &str, actual: &[RecordBatch], expected: &[RecordBatch], order: Order) {
    if let Some(difference) = difference(actual, expected, order) {
        panic!("{what}\n{difference}");
    }
}

/// What [`assert_same`] fails with: both answers, if they differ.
pub fn difference(actual: &[RecordBatch], expected: &[RecordBatch], order: Order) -> Option<String> {
    if rows(actual, order) != rows(expected, order) {
        let (actual, expected) = (pretty(&head(actual)), pretty(&head(expected)));
        return Some(format!("--- answer\n{actual}\n--- expected\n{expected}"));
    }
    let (actual, expected) = (names(&actual.first()?.schema()), names(&expected.first()?.schema()));
    (actual != expected).then(|| format!("column names {actual:?}, expected {expected:?}"))
}

/// The rows as text, one cell after the other; sorted if order does not count.
fn rows(batches: &[RecordBatch], order: Order) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = batches.iter().flat_map(batch_rows).collect();
    if order == Order::Any {
        rows.sort();
    }
    rows
}

fn batch_rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("∅");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).expect("a type that can be shown"))
        .collect();
    let is_float = |column: usize| batch.column(column).data_type().is_floating();
    let cell = |row: usize, column: usize| {
        let text = columns[column].value(row).to_string();
        match text.parse::<f64>() {
            Ok(number) if is_float(column) => format!("{number:.9e}"),
            _ => text,
        }
    };
    (0..batch.num_rows()).map(|row| (0..columns.len()).map(|column| cell(row, column)).collect()).collect()
}

fn names(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// Enough to see what is wrong.
fn head(batches: &[RecordBatch]) -> Vec<RecordBatch> {
    let mut left = 20_usize;
    let take = |batch: &RecordBatch| {
        let rows = left.min(batch.num_rows());
        left -= rows;
        batch.slice(0, rows)
    };
    batches.iter().map(take).collect()
}

/// A table of one batch from named columns.
pub fn batch<'a>(columns: impl IntoIterator<Item = (&'a str, arrow::array::ArrayRef)>) -> Vec<RecordBatch> {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    vec![RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")]
}
