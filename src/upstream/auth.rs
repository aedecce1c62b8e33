//! Who asks: credentials enter, the `authorization` value of every call leaves.
//!
//! One Handshake for each connection's life, not for each query. An upstream that gives no token, or knows
//! no Handshake, is shown the key itself.

use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{HandshakeRequest, HandshakeResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Request, Status, Streaming};

use crate::secrets::Secret;

use super::error::{ErrorKind, Step, UpstreamError};
use super::target::{Credentials, Flavor};

/// Handshake answers beyond these are not read.
const HANDSHAKE_MESSAGES_MAX: usize = 16;
const AUTHORIZATION: &str = "authorization";

/// The `authorization` value of a call; `None` for an anonymous caller.
pub(super) type Token = Option<MetadataValue<Ascii>>;

/// How the upstream answered a Handshake that did not fail.
#[derive(Clone)]
pub(super) struct Greeting {
    pub token: Token,
    pub detail: &'static str,
}

/// What a Handshake met: a status of the call, or an error of ours.
pub(super) enum Refusal {
    Status(Status),
    Error(ErrorKind, String),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Exchanges credentials for a token. A Handshake is no query: an upstream that is silent for as long as `patience`
/// lets it does not do it.
pub(super) async fn handshake<W>(
    client: FlightServiceClient<W>,
    credentials: &Credentials,
    flavor: Flavor,
    patience: Duration,
) -> Result<Greeting, Refusal>
where
    W: tonic::client::GrpcService<tonic::body::Body> + Send,
    W::Future: Send,
    W::Error: Into<tonic::codegen::StdError>,
    W::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <W::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let Credentials::Basic { username, password } = credentials else {
        return Ok(Greeting { token: None, detail: "anonymous" });
    };
    let basic = value("Basic", &basic_text(username, password))?;
    let exchange = tokio::time::timeout(patience, exchange(client, basic.clone()));
    let answer = exchange.await.map_err(|_| {
        let seconds = patience.as_secs_f64();
        Refusal::Error(ErrorKind::Unavailable, format!("the Handshake had no answer for {seconds} s"))
    })?;
    match answer {
        Ok(Some(token)) => Ok(Greeting { token: Some(value("Bearer", &token)?), detail: "token received" }),
        Ok(None) => direct(password, basic, flavor, "no token returned: the credentials go with each call"),
        Err(status) if is_unimplemented(&status) => {
            direct(password, basic, flavor, "no Handshake on this server: the credentials go with each call")
        }
        Err(status) => Err(status.into()),
    }
}

/// An HTTP 404 also reads as UNIMPLEMENTED, but says that there is no Flight server at all.
fn is_unimplemented(status: &Status) -> bool {
    status.code() == Code::Unimplemented
}

/// A Spice.ai key is a bearer token by itself; user names and passwords go as Basic again.
fn direct(
    password: &Secret,
    basic: MetadataValue<Ascii>,
    flavor: Flavor,
    detail: &'static str,
) -> Result<Greeting, Refusal> {
    let token = match flavor {
        Flavor::Spice => value("Bearer", password.expose())?,
        Flavor::FlightSql { .. } => basic,
    };
    Ok(Greeting { token: Some(token), detail })
}

async fn exchange<W>(
    mut client: FlightServiceClient<W>,
    basic: MetadataValue<Ascii>,
) -> Result<Option<String>, Status>
where
    W: tonic::client::GrpcService<tonic::body::Body>,
    W::Error: Into<tonic::codegen::StdError>,
    W::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <W::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let message = HandshakeRequest { protocol_version: 0, payload: bytes::Bytes::new() };
    let mut request = Request::new(futures::stream::iter([message]));
    request.metadata_mut().insert(AUTHORIZATION, basic);
    let response = client.handshake(request).await?;
    let in_head = token(response.metadata());
    let in_trailers = drain(response.into_inner()).await?.and_then(|trailers| token(&trailers));
    Ok(in_head.or(in_trailers))
}

/// Reads the answer to its end, where a refusal may stand.
async fn drain(mut answers: Streaming<HandshakeResponse>) -> Result<Option<MetadataMap>, Status> {
    for _ in 0..HANDSHAKE_MESSAGES_MAX {
        if answers.message().await?.is_none() {
            return answers.trailers().await;
        }
    }
    Ok(None)
}

/// The token of `authorization: Bearer <token>`; a bare token is taken too.
fn token(metadata: &MetadataMap) -> Option<String> {
    let text = metadata.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let token = match text.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer ") => text[7..].trim(),
        _ if text.eq_ignore_ascii_case("bearer") => "",
        _ => text,
    };
    (!token.is_empty()).then(|| token.to_owned())
}

fn value(scheme: &str, secret: &str) -> Result<MetadataValue<Ascii>, Refusal> {
    let mut value: MetadataValue<Ascii> = format!("{scheme} {secret}").parse().map_err(|_| {
        let message = "the key holds characters that a header cannot carry".to_owned();
        Refusal::Error(ErrorKind::Auth, message)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic_text(username: &str, password: &Secret) -> String {
    STANDARD.encode(format!("{username}:{}", password.expose()))
}

/// Every text that must never be shown: the key, its encoded form, the token.
pub(super) fn secrets(credentials: &Credentials, token: Option<&Token>) -> Vec<String> {
    let mut secrets = Vec::new();
    if let Credentials::Basic { username, password } = credentials {
        secrets.push(password.expose().to_owned());
        secrets.push(basic_text(username, password));
    }
    if let Some(Some(token)) = token
        && let Ok(text) = token.to_str()
    {
        secrets.extend(text.split_once(' ').map(|(_, token)| token.to_owned()));
    }
    secrets
}

impl Refusal {
    /// An error of ours as [`UpstreamError`]; a status is the caller's to translate.
    pub fn into_error(
        self,
        endpoint: &crate::name::EndpointUrl,
        translate: impl FnOnce(&Status) -> UpstreamError,
    ) -> UpstreamError {
        match self {
            Self::Status(status) => translate(&status),
            Self::Error(kind, message) => UpstreamError::new(kind, Step::Handshake, endpoint, message),
        }
    }
}
