//! What calls and connections have met, put where it belongs: an address is ejected while others are well, and the
//! endpoint's circuit counts what no other address makes good.
//!
//! A connection's failure is counted once, where it happens, whoever waits for it; an answer's at the end of its call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::addresses::{Address, Book};
use super::circuit::{Circuit, Pass};
use super::error::{ErrorKind, Step, UpstreamError};

/// The health of one endpoint, shared by all of its connections.
pub(super) struct Health {
    pub circuit: Arc<Circuit>,
    book: Mutex<Book>,
}

/// Who is to blame for the end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The upstream did its part, be it that the user's statement is wrong.
    Answered,
    AtFault,
    /// Nothing new: a connection's failure, which was counted where it happened, or the end of this process.
    Known,
}

impl Health {
    pub fn new(endpoint: String) -> Self {
        Self { circuit: Arc::new(Circuit::new(endpoint)), book: Mutex::default() }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections to these addresses could not be made, or died.
    pub fn lost(&self, addresses: &[Address], error: &UpstreamError) {
        if !self.eject(addresses) {
            self.circuit.fail(error);
        }
    }

    /// Nobody needs these addresses, which could not be connected to.
    pub fn leave(&self, addresses: &[Address]) {
        self.eject(addresses);
    }

    /// A stream that had begun has ended with `error`.
    pub fn broke(&self, address: Address, error: &UpstreamError) {
        if verdict(error) == Verdict::AtFault {
            self.lost(&[address], error);
        }
    }

    /// The end of a call that had leave; `address` where one was found.
    pub fn settle(&self, pass: Pass, address: Option<Address>, error: Option<&UpstreamError>) {
        match (error.map_or(Verdict::Answered, verdict), error) {
            (Verdict::AtFault, Some(error)) if !self.eject(address.as_slice()) => pass.failed(error),
            (Verdict::Answered, _) => {
                if let Some(address) = address {
                    self.book().succeed(address);
                }
                pass.answered();
            }
            (Verdict::AtFault | Verdict::Known, _) => {}
        }
    }

    /// Whether another address is well after that.
    fn eject(&self, addresses: &[Address]) -> bool {
        let (now, mut book) = (Instant::now(), self.book());
        for address in addresses {
            book.fail(*address, now);
        }
        book.has_well()
    }
}

fn verdict(error: &UpstreamError) -> Verdict {
    match &error.kind {
        ErrorKind::Unavailable if error.step >= Step::Handshake => Verdict::AtFault,
        ErrorKind::Unavailable
        | ErrorKind::Dns
        | ErrorKind::Connect
        | ErrorKind::Tls
        | ErrorKind::CircuitOpen
        | ErrorKind::Cancelled
        | ErrorKind::Busy
        | ErrorKind::Protocol => Verdict::Known,
        ErrorKind::Auth
        | ErrorKind::Timeout
        | ErrorKind::MessageTooLarge { .. }
        | ErrorKind::Passing
        | ErrorKind::Refused
        | ErrorKind::NotFound
        | ErrorKind::Unimplemented
        | ErrorKind::Planning
        | ErrorKind::ResourceExhausted
        | ErrorKind::Internal => Verdict::Answered,
    }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::{CircuitState, FAILURES_IN_A_ROW};
    use super::*;

    fn error(kind: ErrorKind, step: Step) -> UpstreamError {
        UpstreamError::new(kind, step, "http://a:1", "no")
    }

    fn after_many(kind: ErrorKind, step: Step) -> CircuitState {
        let health = Health::new("http://a:1".to_owned());
        for _ in 0..100 {
            let Ok(pass) = health.circuit.admit() else { break };
            health.settle(pass, None, Some(&error(kind.clone(), step)));
        }
        health.circuit.shown().state
    }

    #[test]
    fn the_users_own_errors_never_open_the_circuit() {
        assert_eq!(after_many(ErrorKind::Unavailable, Step::Query), CircuitState::Open);
        assert_eq!(after_many(ErrorKind::Unavailable, Step::Handshake), CircuitState::Open);
        for kind in [
            ErrorKind::Auth,
            ErrorKind::Timeout,
            ErrorKind::MessageTooLarge { found: None, limit: 4 },
            ErrorKind::Passing,
            ErrorKind::Refused,
            ErrorKind::NotFound,
            ErrorKind::Unimplemented,
            ErrorKind::Planning,
            ErrorKind::ResourceExhausted,
            ErrorKind::Internal,
            ErrorKind::Cancelled,
            ErrorKind::Protocol,
            ErrorKind::Busy,
        ] {
            assert_eq!(after_many(kind.clone(), Step::Query), CircuitState::Closed, "{kind:?}");
        }
    }

    #[test]
    fn while_another_address_is_well_only_the_bad_one_suffers() {
        let [bad, good] = [1, 2].map(|last| Address::Tcp(([127, 0, 0, last], 1).into()));
        let health = Health::new("http://a:1".to_owned());
        health.book().set(&[bad, good]);
        let lost = error(ErrorKind::Connect, Step::Tcp);
        for _ in 0..100 {
            health.lost(&[bad], &lost);
        }
        assert_eq!(health.circuit.shown().state, CircuitState::Closed);
        assert_eq!(health.book().order(Instant::now()), [good, bad]);
        for _ in 0..FAILURES_IN_A_ROW {
            health.lost(&[good], &lost);
        }
        assert_eq!(health.circuit.shown().state, CircuitState::Open);
    }
}
