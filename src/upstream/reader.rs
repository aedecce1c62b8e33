//! The data of a FlightInfo: its endpoints enter, batches of one schema leave, in order; or the messages themselves, for a
//! client that takes them as they are.
//!
//! Tolerates repeated Schema messages; never retries; dropping it cancels the call upstream.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightEndpoint, FlightInfo, IpcMessage, Ticket};
use futures::{FutureExt, Stream, StreamExt};

use crate::name::EndpointUrl;
use crate::wire::{self, Kind, Malformed, Message, Part};

use super::channel::Channel;
use super::error::{ErrorKind, Step, UpstreamError};
use super::fit::{self, Fit};
use super::messages::Incoming;
use super::session::Session;
use super::travels;

/// More endpoints of one result are not taken.
const ENDPOINTS_MAX: usize = 10_000;
/// `the data is where you asked` (Flight.proto, Location).
const REUSE_CONNECTION: &str = "arrow-flight-reuse-connection";

/// Batches as they arrive. The first one is already here: nothing is retried any more.
pub struct RemoteStream {
    pub schema: SchemaRef,
    /// How many rows FlightInfo said there are; `None` where it does not know.
    pub total_records: Option<u64>,
    /// Grows while batches are read.
    pub received: Received,
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch, UpstreamError>> + Send>>,
}

/// The same for a client that takes messages: those that can be handed on are not decoded.
pub struct Passage {
    pub schema: SchemaRef,
    pub total_records: Option<u64>,
    pub received: Received,
    pub parts: Pin<Box<dyn Stream<Item = Result<Part, UpstreamError>> + Send>>,
}

/// What is to be read.
pub(super) struct Asked {
    pub info: FlightInfo,
    /// What was promised of the statement before, where it is not in `info`.
    pub promised: Option<SchemaRef>,
    /// Whether messages are handed on where they can be.
    pub hands_on: bool,
}

/// What has arrived of one answer, over all of its endpoints. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Received(Arc<AtomicUsize>);

impl Received {
    /// Bytes of Flight messages as they came.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one message of so many bytes.
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The schema that a FlightInfo promises; `None` when it says nothing.
pub(super) fn promised(session: &Session, info: &FlightInfo) -> Result<Option<Schema>, UpstreamError> {
    if info.schema.is_empty() {
        return Ok(None);
    }
    let schema = Schema::try_from(IpcMessage(info.schema.clone())).map_err(|error| {
        session.protocol(ErrorKind::Protocol, format!("the schema in GetFlightInfo cannot be read: {error}"))
    })?;
    Ok(Some(schema))
}

/// Reads until the first rows or the end of all endpoints.
pub(super) async fn open(session: Session, asked: Asked) -> Result<Passage, UpstreamError> {
    let Asked { info, promised: known, hands_on } = asked;
    if info.endpoint.len() > ENDPOINTS_MAX {
        let message =
            format!("the result has {} endpoints; at most {ENDPOINTS_MAX} are read", info.endpoint.len());
        return Err(session.protocol(ErrorKind::Protocol, message));
    }
    let promised = promised(&session, &info)?.map(Arc::new).or(known);
    let total_records = known_total(info.total_records);
    let received = Received::default();
    let mut reader = Reader {
        session,
        promised,
        received: received.clone(),
        // The messages of several endpoints need not fit together.
        hands_on: hands_on && info.endpoint.len() == 1,
        left: info.endpoint.into(),
        current: None,
        schema: None,
        has_batches: false,
    };
    let first = reader.next().await?;
    let schema = reader.schema()?;
    let Some(first) = first else {
        let parts = futures::stream::empty().boxed();
        return Ok(Passage { schema, total_records, received, parts });
    };
    let rest = futures::stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|part| (part, reader)))
    });
    let parts = futures::stream::iter([Ok(first)]).chain(rest).boxed();
    Ok(Passage { schema, total_records, received, parts })
}

/// A total of FlightInfo. Servers that never count leave it at 0, others say -1.
pub(super) fn known_total(total: i64) -> Option<u64> {
    u64::try_from(total).ok().filter(|total| *total > 0)
}

impl Passage {
    /// The same as batches, where nothing was to be handed on.
    pub(super) fn into_batches(self) -> RemoteStream {
        let Self { schema, total_records, received, parts } = self;
        let (of, endpoint) = (Arc::clone(&schema), "an upstream".to_owned());
        let batches = parts.map(move |part| {
            part?.batch(&of).map_err(|error| UpstreamError {
                kind: ErrorKind::Protocol,
                step: Step::Query,
                endpoint: endpoint.clone(),
                message: error.to_string(),
                help: None,
            })
        });
        RemoteStream { schema, total_records, received, batches: batches.boxed() }
    }
}

struct Reader {
    session: Session,
    promised: Option<SchemaRef>,
    received: Received,
    hands_on: bool,
    left: VecDeque<FlightEndpoint>,
    current: Option<Current>,
    /// That of every batch that leaves; known from the first Schema message on.
    schema: Option<SchemaRef>,
    has_batches: bool,
}

/// The endpoint being read.
struct Current {
    session: Session,
    source: Source,
    fit: Option<Fit>,
}

enum Source {
    /// To be decoded, dictionaries and all.
    Decoded(FlightDataDecoder),
    /// To be handed on; the schema has been read.
    Messages(Counted),
}

impl Reader {
    fn schema(&self) -> Result<SchemaRef, UpstreamError> {
        match (&self.schema, &self.promised) {
            (Some(schema), _) | (None, Some(schema)) => Ok(Arc::clone(schema)),
            (None, None) => {
                let message = "the result has no schema, neither in GetFlightInfo nor in DoGet";
                Err(self.session.protocol(ErrorKind::Protocol, message))
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Part>, UpstreamError> {
        loop {
            let part = match &mut self.current {
                None => {
                    let Some(endpoint) = self.left.pop_front() else { return Ok(None) };
                    let opened = begin(self.session.clone(), endpoint, &self.received).await?;
                    self.current = Some(self.placed(opened).await?);
                    continue;
                }
                Some(Current { source: Source::Decoded(decoder), .. }) => match decoded(decoder).await {
                    None => None,
                    Some(Ok(message)) => match self.decoded(message.payload)? {
                        None => continue,
                        part => part,
                    },
                    Some(Err(error)) => return Err(self.failure(&error)),
                },
                Some(Current { source: Source::Messages(messages), .. }) => match messages.next().await {
                    None => None,
                    Some(Ok(Kind::Rows(frame))) => Some(Part::Frame(frame)),
                    Some(Ok(Kind::Other(data))) => match self.undecoded(&data)? {
                        None => continue,
                        part => part,
                    },
                    Some(Err(error)) => return Err(self.failure(&error)),
                },
            };
            match part {
                None => self.current = None,
                Some(part) => {
                    self.has_batches = true;
                    return Ok(Some(part));
                }
            }
        }
    }

    /// An endpoint by its first message: to be handed on where that is asked for and can be.
    async fn placed(&mut self, (session, mut messages): Opened) -> Result<Current, UpstreamError> {
        if self.hands_on {
            let first = messages.first().await.transpose().map_err(|error| self.failure(&error))?;
            let promised = self.promised.as_ref();
            if let Some(schema) = first.as_ref().and_then(|first| travels::schema(first, promised)) {
                self.schema = Some(schema);
                return Ok(Current { session, source: Source::Messages(messages), fit: None });
            }
            let first = futures::stream::iter(first.map(Ok));
            let decoder = FlightDataDecoder::new(first.chain(messages.decoded()));
            return Ok(Current { session, source: Source::Decoded(decoder), fit: None });
        }
        Ok(Current {
            session,
            source: Source::Decoded(FlightDataDecoder::new(messages.decoded())),
            fit: None,
        })
    }

    fn decoded(&mut self, payload: DecodedPayload) -> Result<Option<Part>, UpstreamError> {
        match payload {
            DecodedPayload::None => Ok(None),
            DecodedPayload::Schema(schema) => self.begin_schema(&schema).map(|()| None),
            DecodedPayload::RecordBatch(batch) => self.fitted(batch).map(|batch| Some(Part::Batch(batch))),
        }
    }

    /// A message between those that are handed on: the schema again, or rows that are not.
    fn undecoded(&self, data: &FlightData) -> Result<Option<Part>, UpstreamError> {
        let schema = self.schema()?;
        if data.data_header.is_empty() {
            return Ok(None);
        }
        if let Ok(again) = Schema::try_from(data) {
            let (again, types) = (again.fields().iter(), schema.fields().iter());
            return match again.map(|field| field.data_type()).eq(types.map(|field| field.data_type())) {
                true => Ok(None),
                false => Err(self.session.protocol(ErrorKind::Protocol, "the stream changes its schema")),
            };
        }
        let batch = wire::decoded(data, &schema);
        let batch = batch.map_err(|error| self.failure(&FlightError::from(error)))?;
        Ok(Some(Part::Batch(batch)))
    }

    /// The first Schema message settles what leaves; later ones must agree.
    fn begin_schema(&mut self, found: &SchemaRef) -> Result<(), UpstreamError> {
        let schema = match (&self.schema, &self.promised) {
            (Some(schema), _) => Arc::clone(schema),
            (None, Some(promised)) => Arc::new(fit::settled(promised, found)),
            (None, None) => Arc::clone(found),
        };
        let fit = Fit::try_new(&schema, found).map_err(|why| {
            let message = format!("the stream is not what GetFlightInfo promised: {why}");
            self.session.protocol(ErrorKind::Protocol, message)
        })?;
        if let Some(current) = &mut self.current {
            current.fit = Some(fit);
        }
        self.schema = Some(schema);
        Ok(())
    }

    fn fitted(&self, batch: RecordBatch) -> Result<RecordBatch, UpstreamError> {
        // The decoder refuses a batch before its schema, so a fit is there.
        let Some(fit) = self.current.as_ref().and_then(|current| current.fit.as_ref()) else {
            return Err(self.session.protocol(ErrorKind::Protocol, "a batch came before its schema"));
        };
        fit.apply(batch).map_err(|error| {
            let message = format!("a batch does not fit its schema: {error}");
            self.session.protocol(ErrorKind::Protocol, message)
        })
    }

    fn failure(&self, error: &FlightError) -> UpstreamError {
        let session = self.current.as_ref().map_or(&self.session, |current| &current.session);
        let FlightError::Tonic(status) = error else {
            let message = format!("the data of DoGet cannot be read: {error}");
            return session.protocol(ErrorKind::Protocol, message);
        };
        let error = session.error("DoGet", status, self.has_batches);
        // Before the first batch it is the end of the call, which tells it.
        if self.has_batches {
            session.broke(&error);
        }
        error
    }
}

/// The messages of one endpoint, counted as they come.
struct Counted {
    incoming: Incoming,
    received: Received,
    all: metrics::Counter,
}

/// An endpoint whose call is answered.
type Opened = (Session, Counted);

impl Counted {
    /// The schema message, where all is well: what it came to last time is known by its bytes, before anything is checked.
    async fn first(&mut self) -> Option<Result<FlightData, FlightError>> {
        let data = self.message().await?.and_then(|message| flight_data(&message));
        Some(data.inspect(|data| self.count(wire::message_bytes(data))))
    }

    async fn next(&mut self) -> Option<Result<Kind, FlightError>> {
        let kind = self.message().await?.and_then(|message| Kind::of(message).map_err(malformed));
        Some(kind.inspect(|kind| self.count(kind.bytes())))
    }

    async fn message(&mut self) -> Option<Result<Message, FlightError>> {
        Some(self.incoming.next().await?.map_err(FlightError::from))
    }

    fn decoded(mut self) -> impl Stream<Item = Result<FlightData, FlightError>> + Send {
        let incoming = std::mem::replace(&mut self.incoming, futures::stream::empty().boxed());
        incoming.map(move |message| {
            let data = flight_data(&message?)?;
            self.count(wire::message_bytes(&data));
            Ok(data)
        })
    }

    fn count(&self, bytes: usize) {
        self.received.add(bytes);
        self.all.increment(bytes as u64);
    }
}

fn flight_data(message: &Message) -> Result<FlightData, FlightError> {
    message.flight_data().map_err(malformed)
}

fn malformed(error: Malformed) -> FlightError {
    FlightError::ProtocolError(error.to_string())
}

/// The next message of a stream. Bytes that the decoder panics over are an error like any other: they come
/// from outside.
async fn decoded(decoder: &mut FlightDataDecoder) -> Option<Result<DecodedFlightData, FlightError>> {
    AssertUnwindSafe(decoder.next())
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Some(Err(FlightError::DecodeError("the message is malformed".to_owned()))))
}

enum Place {
    Here,
    There(Arc<Channel>),
    /// Not to be reached from here.
    Unknown,
}

fn elsewhere(channel: &Arc<Channel>, uri: &str) -> Place {
    let Some((scheme, rest)) = uri.split_once("://") else { return Place::Unknown };
    let scheme = match scheme {
        REUSE_CONNECTION => return Place::Here,
        "grpc" | "grpc+tcp" | "http" => "http",
        "grpc+tls" | "https" => "https",
        _ => return Place::Unknown,
    };
    match format!("{scheme}://{rest}").parse::<EndpointUrl>() {
        Ok(endpoint) if endpoint == *channel.endpoint() => Place::Here,
        Ok(endpoint) => channel.at(endpoint).map_or(Place::Unknown, Place::There),
        Err(_) => Place::Unknown,
    }
}

/// Opens an endpoint at its first location that answers, or else where the result was planned.
async fn begin(
    session: Session,
    endpoint: FlightEndpoint,
    received: &Received,
) -> Result<Opened, UpstreamError> {
    let Some(ticket) = endpoint.ticket else {
        let message = "an endpoint of the result has no ticket";
        return Err(session.protocol(ErrorKind::Protocol, message));
    };
    for location in &endpoint.location {
        match elsewhere(&session.channel, &location.uri) {
            Place::Here => break,
            Place::Unknown => {}
            Place::There(channel) => match get_at(&session, &channel, ticket.clone(), received).await {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    tracing::debug!(%error, "location not reachable, trying the next");
                    session.channel.avoid(channel.endpoint());
                }
            },
        }
    }
    get(session, ticket, received).await
}

async fn get_at(
    session: &Session,
    channel: &Arc<Channel>,
    ticket: Ticket,
    received: &Received,
) -> Result<Opened, UpstreamError> {
    get(session.at(channel).await?, ticket, received).await
}

async fn get(session: Session, ticket: Ticket, received: &Received) -> Result<Opened, UpstreamError> {
    let all = session.channel.received().clone();
    let incoming = session.do_get(ticket).await?;
    Ok((session, Counted { incoming, received: received.clone(), all }))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::{Int32Type, Int64Type};
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use futures::TryStreamExt;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn messages() -> Vec<FlightData> {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
            ("s", Arc::new(StringArray::from(vec!["a", "", "ccc"]))),
            ("v", Arc::new(StringViewArray::from(vec!["a view that is long enough", "", "x"]))),
            ("d", Arc::new(DictionaryArray::<Int32Type>::from_iter(["x", "y", "x"]))),
            (
                "l",
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
                    Some(vec![Some(1)]),
                    None,
                    Some(vec![Some(2), None]),
                ])),
            ),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let encoder = FlightDataEncoderBuilder::new().build(futures::stream::iter([Ok(batch)]));
        futures::executor::block_on(encoder.try_collect()).unwrap()
    }

    /// Reads a stream to its end or first error; `Err` holds the error.
    fn read(messages: Vec<FlightData>) -> Result<usize, FlightError> {
        futures::executor::block_on(async {
            let mut decoder = FlightDataDecoder::new(futures::stream::iter(messages.into_iter().map(Ok)));
            let mut rows = 0;
            while let Some(message) = decoded(&mut decoder).await {
                if let DecodedPayload::RecordBatch(batch) = message?.payload {
                    rows += batch.num_rows();
                }
            }
            Ok(rows)
        })
    }

    #[test]
    fn whole_messages_are_read() {
        assert_eq!(read(messages()).unwrap(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::with_cases(match std::env::var_os("SIDEWING_LONG") {
                Some(_) => 1_000_000,
                None => 1_000,
            })
        })]

        #[test]
        fn hostile_messages_are_errors_at_worst(
            which in 0usize..3, is_body: bool, flips in prop::collection::vec((0usize..4096, any::<u8>()), 1..6), cut in 0usize..200,
        ) {
            let mut messages = messages();
            let at = which % messages.len();
            let part = if is_body { &mut messages[at].data_body } else { &mut messages[at].data_header };
            let mut bytes = part.to_vec();
            let len = bytes.len();
            for (place, value) in flips.into_iter().filter(|_| len > 0) {
                bytes[place % len] = value;
            }
            if cut < 20 {
                bytes.truncate(len.saturating_sub(cut));
            }
            *part = bytes.into();
            // Garbage may decode to other values; it must not take the process down.
            let _ = read(messages);
        }
    }
}
