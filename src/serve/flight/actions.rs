//! DoAction and ListActions: prepared statements are made and closed, queries are cancelled.
//!
//! Prepared statements are stateless: what is made here is a handle, and closing it leaves nothing behind.

use arrow::datatypes::{Field, Schema};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo,
    IpcMessage, SchemaAsIpc,
};
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::handle::{self, Handle, Kind};
use super::service::refusal;
use crate::query::{CancelError, Protocol, Request};
use crate::serve::Door;
use crate::serve::access::Identity;
use crate::wire;

const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";
const CLOSE_PREPARED_STATEMENT: &str = "ClosePreparedStatement";
const CANCEL_QUERY: &str = "CancelQuery";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";

/// What there is, and what goes in and comes out.
const ACTIONS: [(&str, &str); 4] = [
    (
        CANCEL_FLIGHT_INFO,
        "Cancels the query of a FlightInfo.\nRequest: CancelFlightInfoRequest\nResult: CancelFlightInfoResult",
    ),
    (
        CANCEL_QUERY,
        "Cancels the query of a FlightInfo, as Flight SQL did before CancelFlightInfo.\nRequest: ActionCancelQueryRequest\nResult: ActionCancelQueryResult",
    ),
    (
        CREATE_PREPARED_STATEMENT,
        "Prepares a statement.\nRequest: ActionCreatePreparedStatementRequest\nResult: ActionCreatePreparedStatementResult",
    ),
    (
        CLOSE_PREPARED_STATEMENT,
        "Closes a prepared statement; nothing is kept of one.\nRequest: ActionClosePreparedStatementRequest\nResult: none",
    ),
];
/// Of an action's name so much is told back.
const NAME_CHARS_MAX: usize = 64;

/// All actions that [`act`] does.
pub(super) fn list() -> impl Iterator<Item = ActionType> {
    ACTIONS.into_iter().map(|(name, description)| ActionType {
        r#type: name.to_owned(),
        description: description.to_owned(),
    })
}

/// Does an action; what leaves are the bodies of its results.
///
/// # Errors
/// UNIMPLEMENTED for others, INVALID_ARGUMENT for bodies that are not the action's.
pub(super) async fn act(
    door: &impl Door,
    identity: &Identity,
    action: &Action,
) -> Result<Vec<Bytes>, Status> {
    let body = &action.body;
    match action.r#type.as_str() {
        CREATE_PREPARED_STATEMENT => {
            let created = create(door, identity, unpacked(body)?).await?;
            Ok(vec![created.as_any().encode_to_vec().into()])
        }
        CLOSE_PREPARED_STATEMENT => {
            let close: ActionClosePreparedStatementRequest = unpacked(body)?;
            Handle::open(&close.prepared_statement_handle, Kind::Prepared, identity).map(|_| Vec::new())
        }
        CANCEL_QUERY => {
            let cancel: ActionCancelQueryRequest = unpacked(body)?;
            let info = FlightInfo::decode(&*cancel.info).map_err(|_| malformed("FlightInfo"))?;
            // The numbers are those of CancelStatus.
            let result = cancelled(door, identity, &info)?.into();
            Ok(vec![ActionCancelQueryResult { result }.as_any().encode_to_vec().into()])
        }
        CANCEL_FLIGHT_INFO => {
            let cancel = CancelFlightInfoRequest::decode(&**body);
            let cancel = cancel.map_err(|_| malformed("CancelFlightInfoRequest"))?;
            let status = cancelled(door, identity, &cancel.info.unwrap_or_default())?.into();
            Ok(vec![CancelFlightInfoResult { status }.encode_to_vec().into()])
        }
        other => Err(refused(other)),
    }
}

async fn create(
    door: &impl Door,
    identity: &Identity,
    asked: ActionCreatePreparedStatementRequest,
) -> Result<ActionCreatePreparedStatementResult, Status> {
    if asked.transaction_id.is_some() {
        return Err(Status::unimplemented("transactions are not supported: sidewing only reads"));
    }
    let principal = identity.caller.principal.clone();
    let request = Request { principal, protocol: Protocol::FlightSql, ..Request::new(asked.query.clone()) };
    let prepared = door.prepare(request).await.map_err(refusal)?;
    let parameters = Schema::new(prepared.parameters.into_iter().collect::<Vec<Field>>());
    Ok(ActionCreatePreparedStatementResult {
        prepared_statement_handle: Handle::new(asked.query).seal(Kind::Prepared, identity).into(),
        dataset_schema: ipc(&wire::schema(&prepared.schema))?,
        parameter_schema: ipc(&wire::schema(&parameters))?,
    })
}

fn ipc(schema: &Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, _> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    message
        .map(|message| message.0)
        .map_err(|error| Status::internal(format!("the schema cannot be encoded: {error}")))
}

/// Asks the queries of `info` to end.
fn cancelled(door: &impl Door, identity: &Identity, info: &FlightInfo) -> Result<CancelStatus, Status> {
    let queries = handle::queries(info, identity)?;
    let ended = queries.into_iter().map(|query| door.cancel(query, &identity.caller));
    // One that has ended, or was never begun, is not cancelled. A caller's tickets are for no other's queries.
    let ended: Vec<Result<(), CancelError>> = ended.collect();
    match ended.iter().any(Result::is_ok) {
        true => Ok(CancelStatus::Cancelled),
        false => Ok(CancelStatus::NotCancellable),
    }
}

/// # Errors
/// INVALID_ARGUMENT for anything but an `Any` with this message in it.
fn unpacked<M: ProstMessageExt>(body: &[u8]) -> Result<M, Status> {
    let any = Any::decode(body).ok();
    let message = any.and_then(|any| any.unpack::<M>().ok().flatten());
    message.ok_or_else(|| malformed(M::type_url().rsplit('.').next().unwrap_or_default()))
}

fn malformed(what: &str) -> Status {
    Status::invalid_argument(format!("the body of the action is no {what}"))
}

fn refused(name: &str) -> Status {
    let why = match name {
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
            "there are no transactions: sidewing only reads"
        }
        "CreatePreparedSubstraitPlan" => {
            "Substrait plans are not read: prepare SQL with CreatePreparedStatement"
        }
        "SetSessionOptions" | "GetSessionOptions" | "CloseSession" => {
            "sessions have no options: name tables with their schema, and bind values to prepared statements"
        }
        "RenewFlightEndpoint" => "endpoints do not expire",
        _ => "ListActions tells what there is",
    };
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    Status::unimplemented(format!("action `{name}` is not supported: {why}"))
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::serve::fake::Fake;
    use crate::serve::flight::tests::fuzz;

    async fn done(name: &str) -> Result<Vec<Bytes>, Status> {
        act(&Fake::default(), &Identity::anonymous(), &Action::new(name, "")).await
    }

    #[tokio::test]
    async fn what_is_listed_is_done_and_nothing_else() {
        for listed in list() {
            if let Err(status) = done(&listed.r#type).await {
                assert_eq!(status.code(), tonic::Code::InvalidArgument, "{}", listed.r#type);
            }
        }
        let mut said = Vec::new();
        for name in [
            "BeginTransaction",
            "CreatePreparedSubstraitPlan",
            "SetSessionOptions",
            "RenewFlightEndpoint",
            "?",
        ] {
            said.push(done(name).await.unwrap_err().message().to_owned());
        }
        insta::assert_snapshot!(said.join("\n"));
    }

    proptest! {
        #![proptest_config(fuzz(1_000))]

        /// Bodies as they are, and inside of what an action expects.
        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..96), which in 0usize..4) {
            let identity = Identity::anonymous();
            let sealed = identity.seal([&[Kind::Prepared as u8][..], &body].concat()).into();
            let close = ActionClosePreparedStatementRequest { prepared_statement_handle: sealed };
            let cancel = ActionCancelQueryRequest { info: body.clone().into() };
            let query = String::from_utf8_lossy(&body).into_owned();
            let create = ActionCreatePreparedStatementRequest { query, transaction_id: None };
            let bodies = [close.as_any(), cancel.as_any(), create.as_any()].map(|any| any.encode_to_vec());
            for body in bodies.into_iter().chain([body]) {
                let action = Action::new(ACTIONS[which].0, body);
                if let Err(status) = block_on(act(&Fake::default(), &identity, &action)) {
                    prop_assert_eq!(status.code(), tonic::Code::InvalidArgument, "{:?}", status);
                }
            }
        }
    }
}
