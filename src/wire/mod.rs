//! How answers travel: which types leave in which layout, and messages of rows that are handed on as they came.
//!
//! Nothing is sent or received here.

mod encode;
mod envelope;
mod frame;
mod grpc;
mod layout;

pub use encode::{Encoder, MESSAGE_BYTES_MAX};
pub use envelope::Malformed;
pub use frame::{Frame, Kind, Part, decoded, message_bytes};
pub use grpc::{CONTENT_TYPE, DO_GET, Message, Messages, Unreadable, framed};
pub use layout::{batch, schema, view_text_bytes};

pub(crate) use encode::frames;
pub(crate) use frame::can_pass;

/// Said in `app_metadata` of a FlightInfo: whoever sends SQL may send it as a ticket too, without asking for one.
pub const SQL_TICKETS: &[u8] = b"sidewing:sql-tickets";
