//! Flight SQL as arrow-flight's own client speaks it: statements, prepared statements, metadata, actions.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::*;
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Empty, FlightDescriptor,
    FlightInfo, IpcMessage, Ticket,
};
use futures::TryStreamExt;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

type Client = FlightSqlServiceClient<Channel>;

/// Longer than any of this takes.
const WAIT_MAX: Duration = Duration::from_secs(20);

fn items() -> Vec<RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("it's")]));
    let prices = Decimal128Array::from(vec![150, 250, 350]).with_precision_and_scale(10, 2).unwrap();
    let days: ArrayRef = Arc::new(Date32Array::from(vec![19_000, 19_001, 19_002]));
    batch([("id", ids), ("name", names), ("price", Arc::new(prices) as ArrayRef), ("day", days)])
}

async fn world() -> (Upstream, Sidecar) {
    let upstream = Upstream::builder().table("items", items()).start().await;
    let datasets = [
        Dataset::of("items", &upstream),
        Dataset::of("shop.goods", &upstream).table("items"),
        Dataset::of("kept", &upstream).table("items").accelerated("primary_key: '(id, day)'"),
    ];
    let view = "views:\n  - name: named\n    sql: select * from items where name is not null\n";
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, view)).start().await;
    sidecar.wait_ready().await;
    (upstream, sidecar)
}

async fn client(sidecar: &Sidecar) -> Client {
    let channel = Channel::from_shared(format!("http://{}", sidecar.flight_addr())).unwrap();
    FlightSqlServiceClient::new(channel.connect().await.unwrap())
}

async fn fetch(client: &mut Client, info: FlightInfo) -> Result<RecordBatch, Status> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let promised = info.try_decode_schema().unwrap();
    let stream = client.do_get(ticket).await.map_err(Status::from)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(Status::from)?;
    let schema = batches.first().map_or_else(|| Arc::new(promised.clone()), RecordBatch::schema);
    assert_eq!(*schema, promised);
    Ok(arrow::compute::concat_batches(&schema, &batches).unwrap())
}

/// Runs a prepared statement with one row of parameters.
async fn run(
    client: &mut Client,
    sql: &str,
    parameters: Vec<(&str, ArrayRef)>,
) -> Result<RecordBatch, Status> {
    let mut prepared = client.prepare(sql.to_owned(), None).await.map_err(Status::from)?;
    if !parameters.is_empty() {
        prepared.set_parameters(batch(parameters).remove(0)).map_err(Status::from)?;
    }
    let info = prepared.execute().await.map_err(Status::from)?;
    let answer = fetch(client, info).await;
    prepared.close().await.map_err(Status::from)?;
    answer
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
}

fn strings(batch: &RecordBatch, column: usize) -> Vec<&str> {
    batch.column(column).as_string::<i32>().iter().map(|text| text.unwrap_or("∅")).collect()
}

fn int(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_run_by_opaque_tickets() {
    let (_upstream, sidecar) = world().await;
    let mut client = client(&sidecar).await;
    let info = client.execute("select id from items order by id".into(), None).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap().ticket;
    let any = Any::decode(&*ticket).unwrap();
    assert!(any.unpack::<TicketStatementQuery>().unwrap().is_some(), "{}", any.type_url);
    assert_eq!(ids(&fetch(&mut client, info).await.unwrap()), [1, 2, 3]);

    // One byte else is no ticket, and neither is one of our own making.
    let mut forged = ticket.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let made_up = TicketStatementQuery { statement_handle: "select 1".into() }.as_any().encode_to_vec();
    for bytes in [forged, made_up] {
        let refused = client.inner_mut().do_get(Ticket::new(bytes)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with("the statement handle is not valid"), "{refused}");
    }
    let poll =
        client.inner_mut().poll_flight_info(FlightDescriptor::new_cmd("select id from items")).await.unwrap();
    let poll = poll.into_inner();
    assert_eq!((poll.progress, poll.flight_descriptor), (Some(1.0), None));
    assert_eq!(fetch(&mut client, poll.info.unwrap()).await.unwrap().num_rows(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_tell_their_schemas() {
    let (_upstream, sidecar) = world().await;
    let mut client = client(&sidecar).await;
    let sql = "select id, name from items where price > ? and day = ? and name like $who";
    let prepared = client.prepare(sql.into(), None).await.unwrap();
    let parameters = Schema::new(vec![
        Field::new("$1", DataType::Decimal128(10, 2), true),
        Field::new("$2", DataType::Date32, true),
        Field::new("$who", DataType::Utf8, true),
    ]);
    assert_eq!(prepared.parameter_schema().unwrap(), &parameters);
    let names: Vec<_> =
        prepared.dataset_schema().unwrap().fields().iter().map(|it| it.name().clone()).collect();
    assert_eq!(names, ["id", "name"]);
    let asked = FlightDescriptor::new_cmd("select id from items where id = $1 and day > ?");
    let guessed = client.inner_mut().get_schema(asked).await.unwrap().into_inner();
    assert_eq!(Schema::try_from(guessed).unwrap().field(0).data_type(), &DataType::Int64);
    let plain = client.prepare("select id from items".into(), None).await.unwrap();
    assert!(plain.parameter_schema().unwrap().fields().is_empty());
    for (sql, code) in [
        ("selec", Code::InvalidArgument),
        ("select $1 from nowhere", Code::NotFound),
        ("delete from items where id = $1", Code::InvalidArgument),
    ] {
        let refused = Status::from(client.prepare(sql.into(), None).await.unwrap_err());
        assert_eq!(refused.code(), code, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_bound_with_their_types_and_forwarded_as_literals() {
    let (upstream, sidecar) = world().await;
    let mut client = client(&sidecar).await;
    let price = Decimal128Array::from(vec![250]).with_precision_and_scale(10, 2).unwrap();
    let by_name = vec![("low", Arc::new(price) as ArrayRef), ("$who", text("it's"))];
    upstream.clear();
    let found =
        run(&mut client, "select id from items where price >= $low and name = $who", by_name).await.unwrap();
    assert_eq!(ids(&found), [3]);
    let sent = upstream.statements().join("\n");
    assert!(sent.contains("CAST('2.50' AS DECIMAL(10,2))") && sent.contains("'it''s'"), "{sent}");

    for (sql, parameters) in [
        ("select id from items where id = $1 or name = $2", vec![("$2", text("a")), ("$1", int(3))]),
        ("select id from items where id = ? or name = ?", vec![("0", int(3)), ("1", text("a"))]),
    ] {
        assert_eq!(
            ids(&run(&mut client, &format!("{sql} order by id"), parameters).await.unwrap()),
            [1, 3],
            "{sql}"
        );
    }
    let moment = TimestampMicrosecondArray::from(vec![1_700_000_000_000_001]).with_timezone("UTC");
    let moment: ArrayRef = Arc::new(moment);
    let answer = run(
        &mut client,
        "select $1 as t, $2 as b",
        vec![
            ("a", Arc::clone(&moment)),
            ("b", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]])) as ArrayRef),
        ],
    );
    let answer = answer.await.unwrap();
    assert_eq!(answer.column(0).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(answer.column(0), &moment);
    assert_eq!(answer.column(1).as_binary::<i32>().value(0), b"\x00\xff");
    assert_eq!(
        run(&mut client, "select id from items order by id limit 1", vec![]).await.unwrap().num_rows(),
        1
    );
}

/// Each is learned from its first runs, with parameters of one type and another, and answered for itself.
#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_run_again_with_other_parameters() {
    let ids_of = |count: i64| Arc::new(Int64Array::from_iter_values(0..count)) as ArrayRef;
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..300).map(|id| format!("it's {id}"))));
    let days: ArrayRef = Arc::new(Date32Array::from_iter_values(19_000..19_300));
    let rows = batch([("id", ids_of(300)), ("name", names), ("day", days)]);
    let upstream = Upstream::builder().table("t", rows).start().await;
    let datasets = [
        Dataset::of("kept", &upstream).table("t").accelerated("primary_key: id"),
        Dataset::of("there", &upstream).table("t"),
    ];
    let builder =
        Sidecar::builder().spicepod(&spicepod(&datasets, "")).env("RUST_LOG", "warn,sidewing=debug");
    let sidecar = builder.start().await;
    sidecar.wait_ready().await;
    let mut client = client(&sidecar).await;
    let small = |value: i32| Arc::new(Int32Array::from(vec![value])) as ArrayRef;
    for table in ["kept", "there"] {
        for round in 0..12_i64 {
            let id = round * 7 % 300;
            let name = format!("it's {id}");
            let day: ArrayRef = Arc::new(Date32Array::from(vec![19_000 + id as i32]));
            let low = if round % 2 == 0 { int(id) } else { small(id as i32) };
            for (condition, parameters) in [
                ("id = $1", vec![("$1", int(id))]),
                ("id = ?", vec![("a", small(id as i32))]),
                ("name = ? and id <= ?", vec![("a", text(&name)), ("b", int(id))]),
                ("day = $day", vec![("day", day)]),
                ("id >= $low and id < $low + 1", vec![("low", low)]),
            ] {
                let sql = format!("select id, name from {table} where {condition}");
                let found = run(&mut client, &sql, parameters).await.unwrap();
                assert_eq!(ids(&found), [id], "{sql} in round {round}");
            }
            // What is missing or too much is refused after as before.
            let sql = format!("select id from {table} where id = $1");
            for parameters in [vec![("$2", int(1))], vec![("a", int(1)), ("b", int(2))]] {
                run(&mut client, &sql, parameters).await.unwrap_err();
            }
        }
    }
    // The first two runs of each form teach; a type that needs a function to be written (`arrow_cast`) has no place.
    let log = sidecar.stderr();
    for words in ["planned as a statement of this shape was", "sent as a statement of this shape was"] {
        let count = log.matches(words).count();
        assert!(count >= 40, "{words}: {count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_bound_is_refused_in_words() {
    let (_upstream, sidecar) = world().await;
    let mut client = client(&sidecar).await;
    let sql = "select id from items where id = $1";
    let list = ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>([Some(vec![Some(1)])]);
    let two: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let none: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
    let long = "x".repeat(2 << 20);
    let mut said = Vec::new();
    for parameters in [
        vec![("a", two)],
        vec![("a", none)],
        vec![("a", Arc::new(list) as ArrayRef)],
        vec![("a", int(1)), ("b", int(2))],
        vec![("a", text(&long))],
        vec![],
    ] {
        let refused = run(&mut client, sql, parameters).await.unwrap_err();
        said.push(format!("{:?}: {}", refused.code(), refused.message()));
    }
    let forged = CommandPreparedStatementQuery { prepared_statement_handle: "select 1".into() };
    let forged = FlightDescriptor::new_cmd(forged.as_any().encode_to_vec());
    let refused = client.inner_mut().get_flight_info(forged).await.unwrap_err();
    said.push(format!("{:?}: {}", refused.code(), refused.message()));
    let update = client.execute_update("delete from items".into(), None).await.unwrap_err();
    let update = Status::from(update);
    said.push(format!("{:?}: {}", update.code(), update.message()));
    insta::assert_snapshot!(said.join("\n"));
}

/// The tables that a command finds, as `schema.table type`.
async fn tables(client: &mut Client, asked: CommandGetTables) -> Vec<String> {
    let info = client.get_tables(asked).await.unwrap();
    let found = fetch(client, info).await.unwrap();
    let [catalogs, schemas, names, types] = [0, 1, 2, 3].map(|column| strings(&found, column));
    assert!(catalogs.iter().all(|catalog| *catalog == "spice"));
    (0..found.num_rows()).map(|row| format!("{}.{} {}", schemas[row], names[row], types[row])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_told_as_information_schema_tells_them() {
    let (_upstream, sidecar) = world().await;
    let mut client = client(&sidecar).await;
    let all = tables(&mut client, CommandGetTables::default()).await;
    let sql = "select table_schema || '.' || table_name || ' ' || table_type as t from information_schema.tables \
               where table_catalog = 'spice' and table_schema not in ('information_schema', 'runtime') order by t";
    let known = sidecar.sql(sql).await;
    let known: Vec<&str> = known.as_array().unwrap().iter().map(|row| row["t"].as_str().unwrap()).collect();
    assert_eq!(all, known);
    assert_eq!(
        all,
        ["public.items BASE TABLE", "public.kept BASE TABLE", "public.named VIEW", "shop.goods BASE TABLE"]
    );

    let asked = |schema: Option<&str>, table: Option<&str>, types: &[&str]| CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: schema.map(str::to_owned),
        table_name_filter_pattern: table.map(str::to_owned),
        table_types: types.iter().map(|kind| (*kind).to_owned()).collect(),
        include_schema: false,
    };
    assert_eq!(tables(&mut client, asked(Some("sh%"), None, &[])).await, ["shop.goods BASE TABLE"]);
    assert_eq!(tables(&mut client, asked(None, Some("_ept"), &[])).await, ["public.kept BASE TABLE"]);
    assert_eq!(tables(&mut client, asked(None, None, &["VIEW"])).await, ["public.named VIEW"]);
    let elsewhere = CommandGetTables { catalog: Some("other".into()), ..CommandGetTables::default() };
    assert!(tables(&mut client, elsewhere).await.is_empty());

    let info =
        client.get_tables(CommandGetTables { include_schema: true, ..asked(None, Some("items"), &[]) }).await;
    let found = fetch(&mut client, info.unwrap()).await.unwrap();
    let schema = found.column(4).as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(IpcMessage(schema.into())).unwrap();
    let sent = client.execute("select * from items".into(), None).await.unwrap().try_decode_schema().unwrap();
    assert_eq!(schema.fields(), sent.fields());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_is_told_too() {
    let (_upstream, sidecar) = world().await;
    let mut client = client(&sidecar).await;
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(strings(&fetch(&mut client, info).await.unwrap(), 0), ["spice"]);
    let info = client.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    assert_eq!(strings(&fetch(&mut client, info).await.unwrap(), 1), ["public", "shop"]);
    let info = client.get_table_types().await.unwrap();
    assert_eq!(
        strings(&fetch(&mut client, info).await.unwrap(), 0),
        ["BASE TABLE", "LOCAL TEMPORARY", "VIEW"]
    );

    let asked = CommandGetPrimaryKeys { table: "kept".into(), ..CommandGetPrimaryKeys::default() };
    let info = client.get_primary_keys(asked).await.unwrap();
    let keys = fetch(&mut client, info).await.unwrap();
    assert_eq!(strings(&keys, 3), ["id", "day"]);
    assert_eq!(keys.column(5).as_primitive::<arrow::datatypes::Int32Type>().values(), &[1, 2]);
    let asked = CommandGetPrimaryKeys { table: "items".into(), ..CommandGetPrimaryKeys::default() };
    let info = client.get_primary_keys(asked).await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap().num_rows(), 0);
    let exported = client.get_exported_keys(CommandGetExportedKeys::default()).await.unwrap();
    let imported = client.get_imported_keys(CommandGetImportedKeys::default()).await.unwrap();
    let crossed = client.get_cross_reference(CommandGetCrossReference::default()).await.unwrap();
    for info in [exported, imported, crossed] {
        let keys = fetch(&mut client, info).await.unwrap();
        assert_eq!((keys.num_columns(), keys.num_rows()), (13, 0));
    }

    let info =
        client.get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::SqlStringFunctions]).await.unwrap();
    let info = fetch(&mut client, info).await.unwrap();
    let values = info.column(1).as_any().downcast_ref::<UnionArray>().unwrap();
    assert_eq!(values.value(0).as_string::<i32>().value(0), "sidewing");
    let functions = values.value(1);
    let functions = functions.as_list::<i32>().value(0);
    assert!(functions.as_string::<i32>().iter().any(|name| name == Some("upper")), "{functions:?}");
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: Some(-5) }).await.unwrap();
    assert_eq!(strings(&fetch(&mut client, info).await.unwrap(), 0), ["BIGINT", "BIGINT UNSIGNED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_was_never_reached_is_listed_without_columns() {
    let upstream = Upstream::builder().table("items", items()).start().await;
    upstream.inject(Method::GetSchema, usize::MAX, Fault::Http503);
    upstream.inject(Method::GetFlightInfo, usize::MAX, Fault::Http503);
    let sidecar =
        Sidecar::builder().spicepod(&spicepod(&[Dataset::of("items", &upstream)], "")).start().await;
    let mut client = client(&sidecar).await;
    let info = client.get_tables(CommandGetTables { include_schema: true, ..CommandGetTables::default() });
    let info = info.await.unwrap();
    let found = fetch(&mut client, info).await.unwrap();
    assert_eq!(strings(&found, 2), ["items"]);
    let schema =
        Schema::try_from(IpcMessage(found.column(4).as_binary::<i32>().value(0).to_vec().into())).unwrap();
    assert!(schema.fields().is_empty());
}

/// Asks for the end of the query of `info`, as the action is called.
async fn cancel(client: &mut Client, action: &str, info: &FlightInfo) -> CancelStatus {
    let body = match action {
        "CancelQuery" => {
            ActionCancelQueryRequest { info: info.encode_to_vec().into() }.as_any().encode_to_vec()
        }
        _ => CancelFlightInfoRequest { info: Some(info.clone()) }.encode_to_vec(),
    };
    let results: Vec<_> =
        client.do_action(Action::new(action, body)).await.unwrap().try_collect().await.unwrap();
    let body = &results[0].body;
    let number = match action {
        "CancelQuery" => {
            let any = Any::decode(&**body).unwrap();
            any.unpack::<ActionCancelQueryResult>().unwrap().unwrap().result
        }
        _ => CancelFlightInfoResult::decode(&**body).unwrap().status,
    };
    CancelStatus::try_from(number).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_query_is_cancelled_by_its_ticket() {
    let (upstream, sidecar) = world().await;
    for action in ["CancelQuery", "CancelFlightInfo"] {
        let mut client = client(&sidecar).await;
        let info = client.execute("select id from items".into(), None).await.unwrap();
        assert_eq!(
            cancel(&mut client, action, &info).await,
            CancelStatus::NotCancellable,
            "nothing runs yet"
        );
        upstream.inject(Method::DoGet, 1, Fault::Hang);
        let (mut other, asked) = (client.clone(), info.clone());
        let running = async move { fetch(&mut other, asked).await.unwrap_err() };
        let cancelling = async {
            // Until it runs there is nothing to cancel.
            while cancel(&mut client, action, &info).await != CancelStatus::Cancelled {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (ended, ()) =
            tokio::time::timeout(WAIT_MAX, async { tokio::join!(running, cancelling) }).await.unwrap();
        assert_eq!(ended.code(), Code::Cancelled, "{ended}");
        assert_eq!(cancel(&mut client, action, &info).await, CancelStatus::NotCancellable);
        upstream.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_actions_are_those_that_are_done() {
    let (_upstream, sidecar) = world().await;
    let mut client = FlightServiceClient::new(
        Channel::from_shared(format!("http://{}", sidecar.flight_addr())).unwrap().connect().await.unwrap(),
    );
    let listed: Vec<_> =
        client.list_actions(Empty {}).await.unwrap().into_inner().try_collect().await.unwrap();
    for action in &listed {
        let refused = client.do_action(Action::new(&action.r#type, "\u{1}\u{2}")).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{}: {refused}", action.r#type);
    }
    for name in ["BeginTransaction", "SetSessionOptions", "what"] {
        let refused = client.do_action(Action::new(name, "")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
        assert!(refused.message().contains(name), "{refused}");
    }
}
