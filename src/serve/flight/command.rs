//! What a descriptor or ticket asks for: SQL, as it is or in a Flight SQL command, or what there is to ask.
//!
//! A dispatch over arrow-flight's own [`Command`] stands in the place of its `FlightSqlService`: that one refuses what
//! is no `Any`, and here raw SQL, paths and streams of rows come through the same calls.

use arrow_flight::FlightData;
use arrow_flight::sql::{Any, Command};
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::handle::{Handle, Kind};
use super::metadata::Metadata;
use crate::name::DatasetName;
use crate::query::Request;
use crate::serve::access::Identity;

/// Every Flight SQL command begins so; an `Any` without it is not one.
const FLIGHT_SQL_TYPES: &str = "type.googleapis.com/arrow.flight.protocol.sql.";

/// The keys of the two fields of an `Any`, one of which it begins with.
const ANY_BEGINS: [u8; 2] = [0x0a, 0x12];

/// See the module.
pub(super) enum Asked {
    /// A statement with its parameters, as it is run and as a ticket holds it.
    Statement { handle: Handle, request: Box<Request> },
    /// What there is to ask, under the command that asked for it.
    Metadata { metadata: Metadata, command: Bytes },
}

/// Reads a command or ticket of `identity`.
///
/// # Errors
/// INVALID_ARGUMENT for bytes that are neither SQL nor a command, and for handles that are not this caller's;
/// UNIMPLEMENTED for other commands.
pub(super) async fn asked(bytes: &Bytes, identity: &Identity) -> Result<Asked, Status> {
    let handle = match flight_sql(bytes) {
        None => raw(bytes)?,
        Some(any) => match Command::try_from(any).map_err(|_| malformed(bytes))? {
            Command::CommandStatementQuery(query) if query.transaction_id.is_some() => {
                return Err(Status::unimplemented("transactions are not supported: sidewing only reads"));
            }
            Command::CommandStatementQuery(query) => Handle::new(query.query),
            Command::TicketStatementQuery(ticket) => {
                Handle::open(&ticket.statement_handle, Kind::Ticket, identity)?
            }
            Command::CommandPreparedStatementQuery(query) => {
                Handle::open(&query.prepared_statement_handle, Kind::Prepared, identity)?
            }
            other => {
                let metadata = Metadata::of(other).map_err(|other| unsupported(&other))?;
                return Ok(Asked::Metadata { metadata, command: bytes.clone() });
            }
        },
    };
    if handle.sql.trim().is_empty() {
        return Err(Status::invalid_argument("the statement is empty: send SQL, for example SELECT 1"));
    }
    let request = Box::new(handle.request(identity).await?);
    Ok(Asked::Statement { handle, request })
}

fn raw(bytes: &[u8]) -> Result<Handle, Status> {
    let sql = std::str::from_utf8(bytes).map_err(|_| {
        Status::invalid_argument("the command is neither SQL in UTF-8 nor a Flight SQL command")
    })?;
    Ok(Handle::raw(sql.to_owned()))
}

/// The Flight SQL command that the bytes hold; none where they are something else.
pub(super) fn flight_sql(bytes: &[u8]) -> Option<Any> {
    // Of SQL that is read as protobuf the error alone takes longer than this look at the first field's key.
    if !bytes.first().is_some_and(|first| ANY_BEGINS.contains(first)) {
        return None;
    }
    Any::decode(bytes).ok().filter(|any| any.type_url.starts_with(FLIGHT_SQL_TYPES))
}

/// The Flight SQL command that the first message of a stream is for.
pub(super) fn of_first(first: Option<&FlightData>) -> Option<Any> {
    flight_sql(&first?.flight_descriptor.as_ref()?.cmd)
}

/// The command's name without where it is from.
pub(super) fn name(any: &Any) -> &str {
    any.type_url.trim_start_matches(FLIGHT_SQL_TYPES)
}

fn malformed(bytes: &[u8]) -> Status {
    let url = flight_sql(bytes).map(|any| any.type_url).unwrap_or_default();
    Status::invalid_argument(format!("`{url}` cannot be decoded"))
}

fn unsupported(command: &Command) -> Status {
    let name = command.type_url().trim_start_matches(FLIGHT_SQL_TYPES);
    let instead = match command {
        Command::CommandStatementUpdate(_) | Command::CommandPreparedStatementUpdate(_) => {
            "SQL only reads: put rows into a dataset with `access: read_write` by CommandStatementIngest"
        }
        Command::CommandStatementSubstraitPlan(_) => "Substrait plans are not read: send SQL",
        _ => "send the SQL as raw bytes or as CommandStatementQuery",
    };
    Status::unimplemented(format!("Flight SQL {name} is not supported: {instead}"))
}

/// `SELECT * FROM` a path: one part is a name as a spicepod writes it, several parts are exact.
pub(super) fn select_all(path: &[String]) -> String {
    let name = match path {
        [whole] => whole.parse::<DatasetName>().ok(),
        _ => None,
    };
    match name {
        Some(name) => select_exactly(name.schema().into_iter().chain([name.table()])),
        None => select_exactly(path),
    }
}

/// `SELECT * FROM` a table by the exact parts of its name.
pub(super) fn select_exactly<P: AsRef<str>>(parts: impl IntoIterator<Item = P>) -> String {
    let quote = |part: P| format!("\"{}\"", part.as_ref().replace('"', "\"\""));
    let name = parts.into_iter().map(quote).collect::<Vec<_>>().join(".");
    format!("SELECT * FROM {name}")
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{
        CommandGetTableTypes, CommandPreparedStatementQuery, CommandStatementQuery, CommandStatementUpdate,
        ProstMessageExt, TicketStatementQuery,
    };
    use futures::executor::block_on;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;
    use crate::query::Protocol;
    use crate::serve::flight::tests::fuzz;

    fn asked(bytes: impl Into<Bytes>) -> Result<Asked, Status> {
        block_on(super::asked(&bytes.into(), &Identity::anonymous()))
    }

    fn statement(bytes: impl Into<Bytes>) -> Request {
        match asked(bytes).unwrap() {
            Asked::Statement { request, .. } => *request,
            Asked::Metadata { .. } => panic!("no statement"),
        }
    }

    fn wrapped(command: &impl ProstMessageExt) -> Vec<u8> {
        command.as_any().encode_to_vec()
    }

    #[test]
    fn sql_comes_raw_or_wrapped() {
        let raw = statement("SELECT 1");
        assert_eq!((raw.sql.as_str(), raw.protocol, raw.ticket), ("SELECT 1", Protocol::Flight, None));
        let command = CommandStatementQuery { query: "SELECT 2".into(), transaction_id: None };
        let asked = statement(wrapped(&command));
        assert_eq!((asked.sql.as_str(), asked.protocol), ("SELECT 2", Protocol::FlightSql));
        let identity = Identity::anonymous();
        let ticket = statement(Handle::new("SELECT 3".into()).ticket(&identity));
        assert_eq!((ticket.sql.as_str(), ticket.protocol), ("SELECT 3", Protocol::FlightSql));
        assert!(ticket.ticket.is_some());
        let prepared_statement_handle = Handle::new("SELECT 4".into()).seal(Kind::Prepared, &identity).into();
        let prepared = statement(wrapped(&CommandPreparedStatementQuery { prepared_statement_handle }));
        assert_eq!((prepared.sql.as_str(), prepared.ticket), ("SELECT 4", None));
    }

    #[test]
    fn what_is_not_asked_for_here_is_refused_in_words() {
        let refused = |bytes: &[u8]| asked(bytes.to_vec()).map(|_| ()).unwrap_err();
        let code = |bytes: &[u8]| refused(bytes).code();
        assert_eq!(code(b""), Code::InvalidArgument);
        assert_eq!(code(b" \n"), Code::InvalidArgument);
        assert_eq!(code(b"\xff\xfe"), Code::InvalidArgument);
        assert!(asked(wrapped(&CommandGetTableTypes {})).is_ok());
        let update = CommandStatementUpdate { query: "x".into(), transaction_id: None };
        let update = refused(&wrapped(&update));
        assert_eq!(update.code(), Code::Unimplemented);
        assert!(update.message().contains("CommandStatementUpdate"), "{update}");
        let open = CommandStatementQuery { query: "SELECT 1".into(), transaction_id: Some("t".into()) };
        assert_eq!(code(&wrapped(&open)), Code::Unimplemented);
        let forged = TicketStatementQuery { statement_handle: "SELECT 3".into() };
        assert_eq!(code(&wrapped(&forged)), Code::InvalidArgument);
    }

    #[test]
    fn a_path_is_a_table() {
        let sql = |path: &[&str]| select_all(&path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        assert_eq!(sql(&["Orders"]), r#"SELECT * FROM "orders""#);
        assert_eq!(sql(&["s.t"]), r#"SELECT * FROM "s"."t""#);
        assert_eq!(sql(&["S", "a\"b"]), r#"SELECT * FROM "S"."a""b""#);
    }

    /// The type URL of any command, and of none.
    fn url() -> impl Strategy<Value = String> {
        const NAMES: &[&str] = &[
            "CommandStatementQuery",
            "CommandStatementUpdate",
            "CommandPreparedStatementQuery",
            "CommandGetTables",
            "CommandPreparedStatementUpdate",
            "CommandGetCatalogs",
            "CommandGetDbSchemas",
            "CommandGetSqlInfo",
            "CommandGetXdbcTypeInfo",
            "CommandGetPrimaryKeys",
            "CommandGetCrossReference",
            "CommandStatementIngest",
            "TicketStatementQuery",
            "ActionCreatePreparedStatementRequest",
            "Nothing",
            "",
        ];
        proptest::sample::select(NAMES).prop_map(|name| format!("{FLIGHT_SQL_TYPES}{name}"))
    }

    proptest! {
        #![proptest_config(fuzz(2_000))]

        /// Bytes as they are, in an `Any` of every kind, and as a handle that its seal lets pass.
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..96),
            type_url in url(),
            is_prepared: bool,
        ) {
            let wrapped = |value: Vec<u8>, type_url: &str| {
                Any { type_url: type_url.to_owned(), value: value.into() }.encode_to_vec()
            };
            let (kind, url) = match is_prepared {
                true => (Kind::Prepared, CommandPreparedStatementQuery::type_url()),
                false => (Kind::Ticket, TicketStatementQuery::type_url()),
            };
            let sealed = Identity::anonymous().seal([&[kind as u8][..], &bytes].concat());
            let sealed = TicketStatementQuery { statement_handle: sealed.into() }.encode_to_vec();
            let all = [bytes.clone(), wrapped(bytes, &type_url), wrapped(sealed, url)];
            for bytes in all {
                if let Err(status) = asked(bytes) {
                    prop_assert!(matches!(status.code(), Code::InvalidArgument | Code::Unimplemented), "{status:?}");
                }
            }
        }
    }
}
