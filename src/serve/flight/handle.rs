//! Handles: what a ticket or a prepared statement stands for, sealed for the caller who got it. Nothing is remembered of
//! one here, so that it holds on every replica, for as long as the caller's key does.

use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightInfo};
use bytes::Bytes;
use futures::stream;
use prost::Message;
use tonic::Status;

use super::{bind, command};
use crate::query::{Parameters, Protocol, QueryRef, Request};
use crate::serve::access::Identity;

/// No handle is larger, in bytes: the longest statement that is read, with the most parameters.
const HANDLE_BYTES_MAX: usize = 6 << 20;

/// What a handle is for. One kind never passes for the other; the number is also the version of what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ticket = 1,
    Prepared = 2,
}

/// A statement to be run.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Handle {
    /// Of a ticket: the number by which its query is cancelled.
    #[prost(bytes = "bytes", tag = "1")]
    number: Bytes,
    #[prost(string, tag = "2")]
    pub sql: String,
    /// A schema and a batch of one row; none where nothing was bound.
    #[prost(message, repeated, tag = "3")]
    parameters: Vec<FlightData>,
    /// It was asked for as raw SQL.
    #[prost(bool, tag = "4")]
    is_raw: bool,
}

impl Handle {
    /// A statement without parameters, as Flight SQL asks for it.
    pub(super) fn new(sql: String) -> Self {
        Self { sql, ..Self::default() }
    }

    /// The same as raw SQL.
    pub(super) fn raw(sql: String) -> Self {
        Self { is_raw: true, ..Self::new(sql) }
    }

    /// The same statement with these parameters.
    pub(super) fn binding(self, parameters: Vec<FlightData>) -> Self {
        Self { parameters, ..self }
    }

    /// As bytes that `identity` alone can have opened.
    pub(super) fn seal(&self, kind: Kind, identity: &Identity) -> Vec<u8> {
        let mut payload = vec![kind as u8];
        // A vector has room.
        let _ = self.encode(&mut payload);
        identity.seal(payload)
    }

    /// What was sealed as this kind for `identity`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, whatever is wrong with it.
    pub(super) fn open(sealed: &[u8], kind: Kind, identity: &Identity) -> Result<Self, Status> {
        let payload = if sealed.len() > HANDLE_BYTES_MAX { None } else { identity.open(sealed) };
        let body = payload.and_then(|payload| payload.strip_prefix(&[kind as u8]));
        body.and_then(|body| Self::decode(body).ok()).ok_or_else(|| kind.invalid())
    }

    /// A ticket for this statement, with a number of its own.
    pub(super) fn ticket(self, identity: &Identity) -> Vec<u8> {
        let number = rand::random::<u128>().to_be_bytes().to_vec().into();
        let statement_handle = Self { number, ..self }.seal(Kind::Ticket, identity).into();
        TicketStatementQuery { statement_handle }.as_any().encode_to_vec()
    }

    /// The statement with its parameters, as `identity` asks for it.
    ///
    /// # Errors
    /// Parameters that cannot be read.
    pub(super) async fn request(&self, identity: &Identity) -> Result<Request, Status> {
        let parameters = match self.parameters.is_empty() {
            true => Parameters::None,
            false => {
                let row = bind::row(stream::iter(self.parameters.clone().into_iter().map(Ok))).await?;
                Parameters::Typed(bind::typed(&row)?)
            }
        };
        Ok(Request {
            parameters,
            principal: identity.caller.principal.clone(),
            rights: identity.caller.rights,
            protocol: if self.is_raw { Protocol::Flight } else { Protocol::FlightSql },
            ticket: self.number(),
            ..Request::new(self.sql.clone())
        })
    }

    fn number(&self) -> Option<u128> {
        <[u8; 16]>::try_from(self.number.as_ref()).ok().map(u128::from_be_bytes)
    }
}

impl Kind {
    fn invalid(self) -> Status {
        Status::invalid_argument(match self {
            Self::Ticket => "the statement handle is not valid: ask for another with GetFlightInfo",
            Self::Prepared => "the prepared statement is not valid: prepare it again",
        })
    }
}

/// The queries that were asked for by the tickets of `info`.
///
/// # Errors
/// INVALID_ARGUMENT for tickets that are not this caller's.
pub(super) fn queries(info: &FlightInfo, identity: &Identity) -> Result<Vec<QueryRef>, Status> {
    let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
    let statements = tickets.filter_map(|ticket| command::flight_sql(&ticket.ticket));
    let statements = statements.filter_map(|any| any.unpack::<TicketStatementQuery>().ok().flatten());
    let numbers = statements.map(|ticket| {
        let handle = Handle::open(&ticket.statement_handle, Kind::Ticket, identity)?;
        Ok(handle.number().map(QueryRef::Ticket))
    });
    Ok(numbers.collect::<Result<Vec<_>, Status>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::Any;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    fn opened(ticket: &[u8], identity: &Identity) -> Result<Handle, Status> {
        let any = Any::decode(ticket).unwrap();
        let ticket: TicketStatementQuery = any.unpack().unwrap().unwrap();
        Handle::open(&ticket.statement_handle, Kind::Ticket, identity)
    }

    #[test]
    fn a_ticket_has_a_number_of_its_own() {
        let identity = Identity::anonymous();
        let [one, other] = [(); 2].map(|()| Handle::new("SELECT 1".into()).ticket(&identity));
        let (one, other) = (opened(&one, &identity).unwrap(), opened(&other, &identity).unwrap());
        assert_eq!((one.sql.as_str(), other.sql.as_str()), ("SELECT 1", "SELECT 1"));
        assert!(one.number().is_some() && one.number() != other.number());
    }

    #[test]
    fn one_kind_never_passes_for_the_other() {
        let identity = Identity::anonymous();
        let sealed = Handle::new("SELECT 1".into()).seal(Kind::Prepared, &identity);
        assert!(Handle::open(&sealed, Kind::Prepared, &identity).is_ok());
        let refused = Handle::open(&sealed, Kind::Ticket, &identity).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn a_changed_byte_is_no_handle(at in 0usize..64, to: u8, cut in 0usize..64) {
            let identity = Identity::anonymous();
            let whole = Handle::new("SELECT something FROM somewhere".into()).seal(Kind::Ticket, &identity);
            let mut changed = whole.clone();
            changed[at % whole.len()] = to;
            changed.truncate(whole.len() - cut % whole.len());
            match Handle::open(&changed, Kind::Ticket, &identity) {
                Ok(_) => prop_assert_eq!(changed, whole),
                Err(status) => prop_assert_eq!(status.code(), Code::InvalidArgument),
            }
        }
    }
}
