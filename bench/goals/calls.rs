//! A Flight client that reads messages and leaves Arrow alone: what all ways to an answer have in common.

use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use crate::Result;

pub type Client = FlightServiceClient<Channel>;

/// What a reader of gigabytes allows to be on its way.
const WINDOW: u32 = 8 << 20;
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// What gRPC puts before each message.
const PREFIX_BYTES: usize = 5;

/// What one DoGet brought.
#[derive(Default)]
pub struct Read {
    pub messages: usize,
    /// Of the bodies.
    pub body_bytes: usize,
    /// Of whole messages with gRPC's prefix.
    pub wire_bytes: usize,
    /// The first eight bytes of the last body: of a table that begins with whole numbers its last batch's first.
    pub first: Option<i64>,
}

/// A connection of its own.
pub async fn channel(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let wide = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(2 * WINDOW);
    Ok(wide.connect().await?)
}

pub async fn connect(address: &str) -> Result<Client> {
    let client = FlightServiceClient::new(channel(address).await?);
    Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// DoGet with the statement as its ticket, to the last message.
pub async fn read(client: &mut Client, sql: &str) -> Result<Read> {
    let mut messages = client.do_get(Ticket::new(sql.to_owned())).await?.into_inner();
    let mut read = Read::default();
    while let Some(message) = messages.message().await? {
        read.messages += 1;
        read.body_bytes += message.data_body.len();
        read.wire_bytes += PREFIX_BYTES + message.encoded_len();
        let first = message.data_body.first_chunk().copied().map(i64::from_le_bytes);
        read.first = first.or(read.first);
    }
    Ok(read)
}
