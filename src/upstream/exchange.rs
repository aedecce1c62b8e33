//! Append streams: the name of a table and a first word enter, DoExchange messages leave, one by one and in order.
//!
//! Knows the wire and nothing of what the messages mean: operations, positions and repairs are the subscriber's. It
//! makes one call and never repeats it, and no time limit ends it: a server that has nothing to say is
//! healthy, and one that is gone is found by the connection's pings.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use arrow::array::RecordBatch;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use tonic::Streaming;

use crate::wire;

use super::channel::Calls;
use super::client::{Upstream, is_ping_complaint};
use super::error::{ErrorKind, Step, UpstreamError};
use super::session::Session;
use super::table::RemoteTableName;
use super::target::Flavor;

const METHOD: &str = "DoExchange";

/// An append stream that the upstream has accepted. Dropping it cancels the call.
pub struct Subscription {
    /// Ends after its first error, or when the upstream ends the stream without one.
    pub messages: Pin<Box<dyn Stream<Item = Result<ExchangeMessage, UpstreamError>> + Send>>,
}

/// One message of an append stream.
#[derive(Debug, Clone)]
pub struct ExchangeMessage {
    /// What the upstream wrote beside the data.
    pub app_metadata: Bytes,
    /// None in messages that carry a schema, a dictionary or no data at all. The schema is that of the Schema message
    /// before it, which may come again and may be another one each time.
    pub batch: Option<RecordBatch>,
    /// Headers, body and metadata as they came, in bytes.
    pub bytes: usize,
}

impl Upstream {
    /// Subscribes to the rows that `table` takes: DoExchange with one message, whose descriptor names the
    /// table and whose `app_metadata` is `hello`, after which the request ends. Stock servers of 2024 and 2026 read
    /// that one message, ignore its `app_metadata`, and go on sending when the request has ended.
    ///
    /// Returns when the upstream has accepted the call. Nothing is retried but for a token that has expired and a
    /// server that complains about pings.
    ///
    /// # Errors
    /// [`ErrorKind::Unimplemented`] for an upstream without append streams, otherwise what the call met.
    pub async fn subscribe(
        &self,
        table: &RemoteTableName,
        hello: Bytes,
    ) -> Result<Subscription, UpstreamError> {
        if let Flavor::FlightSql { .. } = self.flavor() {
            let message = "Flight SQL has no append streams";
            let error = UpstreamError::new(ErrorKind::Unimplemented, Step::Query, self.endpoint(), message);
            return Err(error.with_help("name a time_column, so that new rows are asked for"));
        }
        self.count(Calls::Requests, METHOD);
        let path = vec![table.reference()];
        let open = |session: Session| {
            let first = FlightData::new()
                .with_descriptor(FlightDescriptor::new_path(path.clone()))
                .with_app_metadata(hello.clone());
            async move {
                let messages = session.do_exchange(first).await?;
                Ok((session, messages))
            }
        };
        match self.attempt(Step::Query, &open).await {
            Ok((session, messages)) => {
                Ok(Subscription { messages: Exchange::new(session, messages).stream() })
            }
            Err(error) => {
                self.count_error(METHOD, &error);
                Err(error)
            }
        }
    }
}

/// An open call.
struct Exchange {
    session: Session,
    messages: Streaming<FlightData>,
    decoder: Decoder,
    received: metrics::Counter,
    has_batches: bool,
}

impl Exchange {
    fn new(session: Session, messages: Streaming<FlightData>) -> Self {
        let endpoint = session.channel.endpoint().to_string();
        let received = metrics::counter!("upstream_received_bytes", "endpoint" => endpoint);
        Self { session, messages, decoder: Decoder::new(), received, has_batches: false }
    }

    fn stream(self) -> Pin<Box<dyn Stream<Item = Result<ExchangeMessage, UpstreamError>> + Send>> {
        futures::stream::unfold(Some(self), |exchange| async move {
            let mut exchange = exchange?;
            let message = exchange.next().await?;
            let left = message.is_ok().then_some(exchange);
            Some((message, left))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<ExchangeMessage, UpstreamError>> {
        let message = match self.messages.next().await? {
            Ok(message) => message,
            Err(status) => return Some(Err(self.broken(&status))),
        };
        let bytes = wire::message_bytes(&message);
        self.received.increment(bytes as u64);
        let app_metadata = message.app_metadata.clone();
        Some(match self.decoder.decode(message) {
            Ok(batch) => {
                self.has_batches |= batch.is_some();
                Ok(ExchangeMessage { app_metadata, batch, bytes })
            }
            Err(error) => {
                let message = format!("the data of {METHOD} cannot be read: {error}");
                Err(self.session.protocol(ErrorKind::Protocol, message))
            }
        })
    }

    /// The end of a stream that was accepted. What the next call needs to do better is seen to here.
    fn broken(&self, status: &tonic::Status) -> UpstreamError {
        let error = self.session.error(METHOD, status, self.has_batches);
        if !self.session.renew_token() && is_ping_complaint(&error) {
            self.session.channel.calm_down();
            return error;
        }
        self.session.broke(&error);
        error
    }
}

/// Arrow's decoder, one message at a time: it takes a stream of its own, and would swallow dictionaries and
/// refuse messages without data, whose `app_metadata` would be lost.
struct Decoder {
    /// The message that the decoder is to read next.
    slot: Arc<Mutex<Option<FlightData>>>,
    decoder: FlightDataDecoder,
}

impl Decoder {
    fn new() -> Self {
        let slot = Arc::new(Mutex::new(None));
        let taken = Arc::clone(&slot);
        // Nobody is woken: the decoder is only asked when a message is there, and never waited for.
        let messages = futures::stream::poll_fn(move |_| {
            match taken.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(message) => Poll::Ready(Some(Ok(message))),
                None => Poll::Pending,
            }
        });
        Self { slot, decoder: FlightDataDecoder::new(messages) }
    }

    /// The batch of a message that has one. Bytes that the decoder panics over are an error like any other: they come
    /// from outside.
    fn decode(&mut self, message: FlightData) -> Result<Option<RecordBatch>, FlightError> {
        if message.data_header.is_empty() {
            return Ok(None);
        }
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| self.decoder.next().now_or_never()))
            .map_err(|_| FlightError::DecodeError("the message is malformed".to_owned()))?;
        match decoded.flatten().transpose()?.map(|message| message.payload) {
            Some(DecodedPayload::RecordBatch(batch)) => Ok(Some(batch)),
            // A dictionary is kept for the batches after it, and nothing comes out.
            Some(DecodedPayload::Schema(_) | DecodedPayload::None) | None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::super::tests::exchange::{changes, messages};
    use super::*;

    /// How many rows come out until the first error.
    fn rows(messages: Vec<FlightData>) -> usize {
        let mut decoder = Decoder::new();
        let batches = messages.into_iter().map_while(|message| decoder.decode(message).ok());
        batches.flatten().map(|batch| batch.num_rows()).sum()
    }

    fn script() -> Vec<FlightData> {
        let alive = FlightData::new().with_app_metadata("alive");
        let mut all = messages(changes(&[1, 2, 3]));
        all.push(alive);
        all.extend(messages(changes(&[4, 5])));
        all
    }

    #[test]
    fn whole_messages_are_read() {
        assert_eq!(rows(script()), 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(5),
            ..ProptestConfig::with_cases(match std::env::var_os("SIDEWING_LONG") {
                Some(_) => 1_000_000,
                None => 1_000,
            })
        })]

        #[test]
        fn hostile_messages_are_errors_at_worst(
            which: prop::sample::Index, is_body: bool,
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in 0usize..200, swap: (prop::sample::Index, prop::sample::Index),
        ) {
            let mut messages = script();
            let at = which.index(messages.len());
            let part = if is_body { &mut messages[at].data_body } else { &mut messages[at].data_header };
            let mut bytes = part.to_vec();
            for (place, value) in flips.into_iter().filter(|_| !part.is_empty()) {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            if cut < 20 {
                bytes.truncate(part.len().saturating_sub(cut));
            }
            *part = bytes.into();
            let (one, other) = (swap.0.index(messages.len()), swap.1.index(messages.len()));
            messages.swap(one, other);
            // Garbage may decode to other values; it must not take the process down, nor make the decoder wait.
            let _ = rows(messages);
        }
    }
}
