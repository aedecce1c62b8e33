//! What a descriptor or ticket asks for: raw SQL, or a Flight SQL `Any` with a statement in it.

use arrow_flight::sql::{Any, CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
use prost::Message;
use tonic::Status;

use crate::name::DatasetName;
use crate::query::{Protocol, Request};

/// Every Flight SQL command begins so; an `Any` without it is not one.
const FLIGHT_SQL_TYPES: &str = "type.googleapis.com/arrow.flight.protocol.sql.";

/// Reads a command or ticket as the statement to run.
///
/// # Errors
/// INVALID_ARGUMENT for bytes that are neither SQL nor a command, UNIMPLEMENTED for other commands.
pub(super) fn statement(bytes: &[u8]) -> Result<Request, Status> {
    let sql = match flight_sql(bytes) {
        Some(any) => statement_of(&any)?,
        None => std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
            Status::invalid_argument("the command is neither SQL in UTF-8 nor a Flight SQL command")
        })?,
    };
    let protocol = if flight_sql(bytes).is_some() { Protocol::FlightSql } else { Protocol::Flight };
    match sql.trim().is_empty() {
        true => Err(Status::invalid_argument("the statement is empty: send SQL, for example SELECT 1")),
        false => Ok(Request { protocol, ..Request::new(sql) }),
    }
}

/// The Flight SQL command that the bytes hold; none where they are something else.
pub(super) fn flight_sql(bytes: &[u8]) -> Option<Any> {
    Any::decode(bytes).ok().filter(|any| any.type_url.starts_with(FLIGHT_SQL_TYPES))
}

/// The command's name without where it is from.
pub(super) fn name(any: &Any) -> &str {
    any.type_url.trim_start_matches(FLIGHT_SQL_TYPES)
}

fn statement_of(any: &Any) -> Result<String, Status> {
    let malformed = || Status::invalid_argument(format!("`{}` cannot be decoded", any.type_url));
    if any.type_url == CommandStatementQuery::type_url() {
        let command = CommandStatementQuery::decode(&*any.value).map_err(|_| malformed())?;
        return match command.transaction_id {
            Some(_) => Err(Status::unimplemented("transactions are not supported: sidewing only reads")),
            None => Ok(command.query),
        };
    }
    if any.type_url == TicketStatementQuery::type_url() {
        let ticket = TicketStatementQuery::decode(&*any.value).map_err(|_| malformed())?;
        return String::from_utf8(ticket.statement_handle.into()).map_err(|_| malformed());
    }
    let name = name(any);
    Err(Status::unimplemented(format!(
        "Flight SQL {name} is not supported: send the SQL as raw bytes or as CommandStatementQuery"
    )))
}

/// `SELECT * FROM` a path: one part is a name as a spicepod writes it, several parts are exact.
pub(super) fn select_all(path: &[String]) -> Request {
    let name = match path {
        [whole] => whole.parse::<DatasetName>().ok(),
        _ => None,
    };
    let sql = match name {
        Some(name) => select_exactly(name.schema().into_iter().chain([name.table()])),
        None => select_exactly(path),
    };
    Request { protocol: Protocol::Flight, ..Request::new(sql) }
}

/// `SELECT * FROM` a table by the exact parts of its name.
pub(super) fn select_exactly<P: AsRef<str>>(parts: impl IntoIterator<Item = P>) -> String {
    let quote = |part: P| format!("\"{}\"", part.as_ref().replace('"', "\"\""));
    let name = parts.into_iter().map(quote).collect::<Vec<_>>().join(".");
    format!("SELECT * FROM {name}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    #[test]
    fn sql_comes_raw_or_wrapped() {
        assert_eq!(statement(b"SELECT 1").unwrap().sql, "SELECT 1");
        let command = CommandStatementQuery { query: "SELECT 2".into(), transaction_id: None };
        assert_eq!(statement(&command.as_any().encode_to_vec()).unwrap().sql, "SELECT 2");
        let ticket = TicketStatementQuery { statement_handle: "SELECT 3".into() };
        assert_eq!(statement(&ticket.as_any().encode_to_vec()).unwrap().sql, "SELECT 3");
    }

    #[test]
    fn what_is_not_a_statement_is_refused_in_words() {
        let code = |bytes: &[u8]| statement(bytes).unwrap_err().code();
        assert_eq!(code(b""), Code::InvalidArgument);
        assert_eq!(code(b" \n"), Code::InvalidArgument);
        assert_eq!(code(b"\xff\xfe"), Code::InvalidArgument);
        let tables = arrow_flight::sql::CommandGetTableTypes {}.as_any().encode_to_vec();
        let refused = statement(&tables).unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(refused.message().contains("CommandGetTableTypes"), "{refused}");
        let open = CommandStatementQuery { query: "SELECT 1".into(), transaction_id: Some("t".into()) };
        assert_eq!(code(&open.as_any().encode_to_vec()), Code::Unimplemented);
    }

    #[test]
    fn a_path_is_a_table() {
        let sql =
            |path: &[&str]| select_all(&path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()).sql;
        assert_eq!(sql(&["Orders"]), r#"SELECT * FROM "orders""#);
        assert_eq!(sql(&["s.t"]), r#"SELECT * FROM "s"."t""#);
        assert_eq!(sql(&["S", "a\"b"]), r#"SELECT * FROM "S"."a""b""#);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Err(status) = statement(&bytes) {
                prop_assert!(matches!(status.code(), Code::InvalidArgument | Code::Unimplemented));
            }
        }
    }
}
