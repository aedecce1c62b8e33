//! One attempt at a call: a channel with its token enters, Flight requests with the right metadata leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo, SchemaResult, Ticket};
use bytes::Bytes;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};

use super::auth::Greeting;
use super::call;
use super::channel::{Channel, Wire};
use super::error::{ErrorKind, Step, UpstreamError};
use super::messages::{self, Incoming};
use super::node::{Node, Seat};
use super::single_flight::Held;
use super::status::Doing;
use crate::telemetry::{Context, Traceparent};

#[derive(Clone)]
pub(super) struct Session {
    pub channel: Arc<Channel>,
    wire: Wire,
    /// Kept to the end of the last stream.
    seat: Arc<Seat>,
    greeting: Held<Greeting>,
    limit: u64,
    step: Step,
    /// On whose behalf, where that is known.
    caller: Option<Traceparent>,
    /// Set when the upstream said UNAUTHENTICATED.
    rejected: Arc<AtomicBool>,
}

impl Session {
    /// Takes a seat and makes sure of a token; connects where needed.
    pub async fn open(channel: &Arc<Channel>, limit: u64, step: Step) -> Result<Self, UpstreamError> {
        Self::at_seat(channel, channel.seat().await?, limit, step).await
    }

    /// The same at a seat that is taken already.
    pub async fn at_seat(
        channel: &Arc<Channel>,
        seat: Seat,
        limit: u64,
        step: Step,
    ) -> Result<Self, UpstreamError> {
        let greeting = channel.greeting(&seat.node).await?;
        let wire = Wire { channel: Arc::clone(channel), node: Arc::clone(&seat.node) };
        let (seat, rejected) = (Arc::new(seat), Arc::new(AtomicBool::new(false)));
        let caller = Context::current().and_then(|current| current.traceparent());
        Ok(Self { channel: Arc::clone(channel), wire, seat, greeting, limit, step, caller, rejected })
    }

    /// Where its calls go.
    pub fn node(&self) -> Arc<Node> {
        Arc::clone(&self.seat.node)
    }

    /// The same call at another place.
    pub async fn at(&self, channel: &Arc<Channel>) -> Result<Self, UpstreamError> {
        let caller = self.caller.clone();
        Ok(Self { caller, ..Self::open(channel, self.limit, self.step).await? })
    }

    /// Whether a new token may help; the old one is forgotten.
    pub fn renew_token(&self) -> bool {
        let may_help = self.rejected.load(Ordering::Relaxed) && self.greeting.value.token.is_some();
        if may_help {
            self.seat.node.greeting.invalidate(self.greeting.generation);
        }
        may_help
    }

    pub async fn flight_info(&self, command: Bytes) -> Result<FlightInfo, UpstreamError> {
        let request = self.request(FlightDescriptor::new_cmd(command.clone()))?;
        let info = self.established("GetFlightInfo", self.client().get_flight_info(request)).await?;
        self.channel.learn_tickets(&command, &info);
        Ok(info)
    }

    pub async fn schema(&self, command: Bytes) -> Result<SchemaResult, UpstreamError> {
        let request = self.request(FlightDescriptor::new_cmd(command))?;
        self.established("GetSchema", self.client().get_schema(request)).await
    }

    pub async fn do_get(&self, ticket: Ticket) -> Result<Incoming, UpstreamError> {
        let (request, wire) = (self.request(ticket)?, self.wire.clone());
        let answer = messages::do_get(wire, request, self.decoded_max()).await;
        answer.map_err(|status| self.error("DoGet", &status, false))
    }

    fn client(&self) -> FlightServiceClient<Wire> {
        FlightServiceClient::new(self.wire.clone()).max_decoding_message_size(self.decoded_max())
    }

    /// The largest message that is read, in bytes.
    fn decoded_max(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// Opens an exchange whose request is one message and then ends.
    pub async fn do_exchange(&self, first: FlightData) -> Result<Streaming<FlightData>, UpstreamError> {
        let request = self.request(futures::stream::iter([first]))?;
        let answer = self.client().do_exchange(request).await;
        Ok(answer.map_err(|status| self.error("DoExchange", &status, false))?.into_inner())
    }

    /// The answer of a call that runs nothing, and therefore has to come soon. The first answer of DoGet may take as
    /// long as the statement does: whether its connection lives is told by pings.
    async fn established<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, UpstreamError> {
        let patience = self.channel.limits.establishment;
        match tokio::time::timeout(patience, call).await {
            Ok(answer) => Ok(answer.map_err(|status| self.error(method, &status, false))?.into_inner()),
            Err(_) => {
                // Perhaps it is the connection: the next call gets another one.
                self.seat.node.link.clear();
                let message = format!("{method} had no answer for {} s", patience.as_secs_f64());
                let help = "the upstream hangs, is overloaded or cannot be reached any more; for one that is slow by \
                            nature raise runtime.params.upstream_establishment_timeout";
                Err(self.protocol(ErrorKind::Unavailable, message).with_help(help))
            }
        }
    }

    /// A stream that had begun has ended with `error`: not told by the end of its call.
    pub fn broke(&self, error: &UpstreamError) {
        self.channel.health.broke(self.seat.node.address, error);
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, UpstreamError> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        if let Some(token) = &self.greeting.value.token {
            metadata.insert("authorization", token.clone());
        }
        if let Some(app) = &self.channel.id.app {
            metadata.insert("spiceai-org", self.ascii(&app.org)?);
            metadata.insert("spiceai-app", self.ascii(&app.app)?);
        }
        if let Some(caller) = &self.caller {
            call::say(caller, metadata);
        }
        Ok(request)
    }

    fn ascii(&self, text: &str) -> Result<MetadataValue<Ascii>, UpstreamError> {
        text.parse().map_err(|_| {
            let message =
                format!("InvalidMetadataValue: `{text}` cannot be sent as org or app: it is not ASCII");
            self.protocol(ErrorKind::Refused, message)
        })
    }

    /// A failed call.
    pub fn error(&self, method: &'static str, status: &Status, is_streaming: bool) -> UpstreamError {
        if status.code() == Code::Unauthenticated {
            self.rejected.store(true, Ordering::Relaxed);
        }
        let doing = Doing { step: self.step, method, limit: self.limit, is_streaming };
        let token = Some(&self.greeting.value.token);
        self.channel.translate(token, |origin| origin.error(status, doing))
    }

    /// An answer that is not what the protocol promises.
    pub fn protocol(&self, kind: ErrorKind, message: impl Into<String>) -> UpstreamError {
        let token = Some(&self.greeting.value.token);
        let message = self.channel.translate(token, |origin| origin.clean(&message.into()));
        UpstreamError::new(kind, self.step, self.channel.endpoint(), message)
    }
}
