//! The faults that a fake upstream commits on request, and which call is next to suffer one.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tonic::Status;

use super::lock;

/// The calls of the Flight service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Handshake,
    ListFlights,
    GetFlightInfo,
    PollFlightInfo,
    GetSchema,
    DoGet,
    DoPut,
    DoExchange,
    DoAction,
    ListActions,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The call is answered with this status, metadata included.
    Status(Status),
    /// A load balancer in front answers HTTP 503 with a page of HTML.
    Http503,
    /// The call is answered late.
    Delay(Duration),
    /// The call is never answered; the connection lives.
    Hang,
    /// The connection dies as the call arrives.
    Reset,
    /// DoGet or DoExchange sends so many batches, then ends with this status.
    BreakAfter { batches: usize, status: Status },
    /// DoGet or DoExchange sends so many batches, and then nothing more; the connection lives.
    StallAfter { batches: usize },
    /// So many bytes of the answer arrive, and the connection dies: before, after, or in the middle of a message.
    ResetAfter { bytes: usize },
}

/// Faults waiting for their calls.
#[derive(Default)]
pub(super) struct Injections(Mutex<VecDeque<Injection>>);

struct Injection {
    method: Method,
    left: usize,
    fault: Fault,
}

/// A status that a call is to be answered with after its SQL was recorded: travels with the request to the
/// service.
#[derive(Debug, Clone)]
pub(super) struct Refusal(pub Status);

/// How a stream that was told to break does so: travels like a [`Refusal`].
#[derive(Debug, Clone)]
pub(super) struct Break {
    pub batches: usize,
    pub status: Status,
}

/// How many batches a stream that stalls sends: travels like a [`Refusal`].
#[derive(Debug, Clone)]
pub(super) struct Stall(pub usize);

impl Method {
    /// From the path of a gRPC request.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let method = match path.strip_prefix("/arrow.flight.protocol.FlightService/")? {
            "Handshake" => Self::Handshake,
            "ListFlights" => Self::ListFlights,
            "GetFlightInfo" => Self::GetFlightInfo,
            "PollFlightInfo" => Self::PollFlightInfo,
            "GetSchema" => Self::GetSchema,
            "DoGet" => Self::DoGet,
            "DoPut" => Self::DoPut,
            "DoExchange" => Self::DoExchange,
            "DoAction" => Self::DoAction,
            "ListActions" => Self::ListActions,
            _ => return None,
        };
        Some(method)
    }
}

impl Injections {
    pub(super) fn add(&self, method: Method, times: usize, fault: Fault) {
        lock(&self.0).push_back(Injection { method, left: times, fault });
    }

    /// The fault for a call that has just arrived.
    pub(super) fn take(&self, method: Method) -> Option<Fault> {
        let mut waiting = lock(&self.0);
        let injection = waiting.iter_mut().find(|i| i.method == method && i.left > 0)?;
        injection.left -= 1;
        let fault = injection.fault.clone();
        waiting.retain(|i| i.left > 0);
        Some(fault)
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}
