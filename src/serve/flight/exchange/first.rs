//! What the first message of a DoExchange asks for.

use arrow_flight::FlightData;
use tonic::Status;

use crate::proto::stream::Subscribe;

/// A longer name is no dataset's; in characters, of all parts together.
const NAME_MAX: usize = 1024;

/// A dataset to follow.
pub(super) struct Asked {
    /// The parts of its name, at least one.
    pub path: Vec<String>,
    /// Of another sidewing.
    pub subscribe: Option<Subscribe>,
}

impl Asked {
    /// # Errors
    /// INVALID_ARGUMENT in the public runtime's words.
    pub(super) fn read(first: Option<FlightData>) -> Result<Self, Status> {
        let invalid = Status::invalid_argument;
        let first = first.ok_or_else(|| {
            invalid("Need to send a FlightData message with a FlightDescriptor to subscribe to")
        })?;
        let descriptor = first
            .flight_descriptor
            .ok_or_else(|| invalid("Flight descriptor required to indicate which data to subscribe to"))?;
        let path = descriptor.path;
        if path.iter().all(String::is_empty) {
            return Err(invalid(
                "Flight descriptor needs to specify a path to indicate which data to subscribe to",
            ));
        }
        if path.iter().map(String::len).sum::<usize>() > NAME_MAX {
            return Err(invalid("the path of the Flight descriptor is too long to name a dataset"));
        }
        Ok(Self { path, subscribe: Subscribe::decode(&first.app_metadata) })
    }
}
