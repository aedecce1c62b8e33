//! Flight SQL between callers that do not know each other, and beside it health and reflection.

use std::time::{Duration, SystemTime};

use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, CommandGetSqlInfo, CommandPreparedStatementQuery, SqlInfo,
};
use arrow_flight::{CancelFlightInfoRequest, FlightInfo};
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use super::*;
use crate::query::{DatasetState, Rights};

fn keys() -> FlightOptions {
    let writer = ApiKey { secret: Secret::new("two".into()), rights: Rights::ReadWrite };
    FlightOptions { access: Access::new(vec![ApiKey::reading(Secret::new("one".into())), writer]), tls: None }
}

async fn channel(door: Fake, options: FlightOptions) -> (Channel, Scope) {
    let (listener, address) = bind().await;
    let scope = Scope::new();
    let serving = scope.clone();
    scope.spawn_draining("flight", async move { serve(listener, door, options, &serving).await });
    (Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap(), scope)
}

/// A client of whoever has the key.
fn of(channel: &Channel, key: &str) -> FlightSqlServiceClient<Channel> {
    let mut client = FlightSqlServiceClient::new(channel.clone());
    client.set_token(key.to_owned());
    client
}

fn door() -> Fake {
    Fake::default().table("t", vec![column(Int64Array::from(vec![1, 2]))])
}

fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

#[tokio::test]
async fn what_one_caller_got_is_nothing_to_another() {
    let (channel, _scope) = channel(door(), keys()).await;
    let (mut one, mut two) = (of(&channel, "one"), of(&channel, "two"));
    let info = one.execute("select c from t".into(), None).await.unwrap();
    let mut prepared = one.prepare("select c from t".into(), None).await.unwrap();
    let prepared_info = prepared.execute().await.unwrap();
    for info in [&info, &prepared_info] {
        assert_eq!(one.do_get(ticket(info)).await.unwrap().try_collect::<Vec<_>>().await.unwrap().len(), 1);
        let refused = Status::from(two.do_get(ticket(info)).await.unwrap_err());
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(!refused.message().contains("caller"), "no hint: {refused}");
    }
    // Cancelling asks for the ticket too, whatever the key may do.
    let body = CancelFlightInfoRequest { info: Some(info) }.encode_to_vec();
    let refused = Status::from(two.do_action(Action::new("CancelFlightInfo", body)).await.unwrap_err());
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    // The same words as for bytes that nobody got.
    let nobody = CommandPreparedStatementQuery { prepared_statement_handle: "mine".into() };
    let nobody = FlightDescriptor::new_cmd(nobody.as_any().encode_to_vec());
    let mut request = Request::new(nobody);
    request.metadata_mut().insert("authorization", "Bearer one".parse().unwrap());
    let refused = one.inner_mut().get_flight_info(request).await.unwrap_err();
    assert_eq!(refused.message(), "the prepared statement is not valid: prepare it again");
    let close = ActionClosePreparedStatementRequest { prepared_statement_handle: "mine".into() };
    let close = Action::new("ClosePreparedStatement", close.as_any().encode_to_vec());
    let said = Status::from(one.do_action(close).await.unwrap_err());
    assert_eq!(said.message(), refused.message());
}

#[tokio::test]
async fn a_key_that_only_reads_binds_parameters_and_puts_no_rows() {
    let (channel, _scope) = channel(door(), keys()).await;
    let mut one = of(&channel, "one");
    let mut prepared = one.prepare("select c from t where c = $1".into(), None).await.unwrap();
    assert_eq!(prepared.parameter_schema().unwrap().field(0).data_type(), &DataType::Int64);
    prepared.set_parameters(column(Int64Array::from(vec![1]))).unwrap();
    prepared.execute().await.unwrap();
    let update = Status::from(one.execute_update("delete from t".into(), None).await.unwrap_err());
    assert_eq!(update.code(), Code::PermissionDenied, "{update}");
}

#[tokio::test]
async fn without_a_key_health_is_told_and_nothing_else() {
    let (channel, _scope) = channel(door(), keys()).await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "arrow.flight.protocol.FlightService"] {
        let asked = HealthCheckRequest { service: service.into() };
        let told = health.check(asked).await.unwrap().into_inner();
        assert_eq!(told.status(), ServingStatus::Serving);
    }
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let asked = ServerReflectionRequest { host: String::new(), message_request };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let refused = reflection.server_reflection_info(stream::iter([asked.clone()])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut keyed = Request::new(stream::iter([asked]));
    keyed.metadata_mut().insert("authorization", "Bearer one".parse().unwrap());
    let mut listed = reflection.server_reflection_info(keyed).await.unwrap().into_inner();
    assert!(listed.message().await.unwrap().is_some());
    let mut nobody = FlightSqlServiceClient::new(channel);
    let refused = Status::from(nobody.get_sql_info(vec![SqlInfo::FlightSqlServerName]).await.unwrap_err());
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn health_follows_readiness_and_ends_with_the_server() {
    let mut away = door();
    away.datasets[0].state = DatasetState::Error {
        reason: Arc::new(upstream_error(ErrorKind::Connect)),
        since: SystemTime::now(),
        was_ready: false,
    };
    let (channel_away, _scope) = channel(away, FlightOptions::default()).await;
    let asked = || HealthCheckRequest { service: String::new() };
    let told = HealthClient::new(channel_away).check(asked()).await.unwrap().into_inner();
    assert_eq!(told.status(), ServingStatus::NotServing);

    let (channel, scope) = channel(door(), FlightOptions::default()).await;
    let mut health = HealthClient::new(channel);
    let unknown = health.check(HealthCheckRequest { service: "nothing".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watched = health.watch(asked()).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let drained = scope.shutdown(Duration::from_secs(10));
    let told = async {
        let last = watched.message().await.unwrap().unwrap().status();
        (last, watched.message().await.unwrap())
    };
    let (drained, (last, end)) = tokio::join!(drained, told);
    assert_eq!((last, end, drained), (ServingStatus::NotServing, None, Ok(())));
}

#[tokio::test]
async fn an_open_reflection_call_does_not_hold_up_the_end() {
    let (channel, scope) = channel(door(), FlightOptions::default()).await;
    let mut reflection = ServerReflectionClient::new(channel);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let asked = ServerReflectionRequest { host: String::new(), message_request };
    let open = stream::iter([asked]).chain(stream::pending());
    let mut listed = reflection.server_reflection_info(open).await.unwrap().into_inner();
    assert!(listed.message().await.unwrap().is_some());
    assert_eq!(scope.shutdown(Duration::from_secs(10)).await, Ok(()));
}

#[tokio::test]
async fn metadata_is_split_as_rows_are() {
    let mut door = Fake::default();
    for table in 0..60 {
        let name = format!("table_{table}");
        let fields =
            (0..400).map(|field| (format!("{field:0>200}"), Arc::new(Int64Array::from(vec![1])) as _, true));
        door = door.table(&name, vec![RecordBatch::try_from_iter_with_nullable(fields).unwrap()]);
    }
    let (mut client, _scope) = flight(door).await;
    let asked = arrow_flight::sql::CommandGetTables { include_schema: true, ..Default::default() };
    let ticket = Ticket::new(asked.as_any().encode_to_vec());
    let messages: Vec<FlightData> =
        client.do_get(ticket).await.unwrap().into_inner().try_collect().await.unwrap();
    assert!(messages.len() > 2, "{}", messages.len());
    assert!(messages.iter().all(|message| message.encoded_len() <= MESSAGE_BYTES_MAX));
    let rows = decoded(messages).await.num_rows();
    assert_eq!(rows, 60);
    let info = CommandGetSqlInfo { info: vec![] }.as_any().encode_to_vec();
    let response = client.do_get(Ticket::new(info)).await.unwrap();
    assert!(!response.metadata().contains_key("x-cache"));
}
