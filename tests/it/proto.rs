//! `src/proto/generated.rs` is what `/proto` compiles to, and agrees with `arrow-flight` field by field.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql as fs;
use arrow_flight::{self as fl};
use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;
use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};

const FILES: [&str; 3] = ["Flight.proto", "FlightSql.proto", "sidewing/stream/v1/stream.proto"];
const GENERATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proto/generated.rs");
const PACKAGE: &str = "arrow.flight.protocol";

#[test]
fn the_generated_file_is_what_the_protos_compile_to() {
    let fresh = generate();
    if std::env::var_os("SIDEWING_BLESS").is_some() {
        std::fs::write(GENERATED, fresh).unwrap();
        return;
    }
    let checked_in = std::fs::read_to_string(GENERATED).unwrap();
    assert!(
        checked_in == fresh,
        "src/proto/generated.rs is not what proto/ compiles to: SIDEWING_BLESS=1 cargo test --test it proto"
    );
}

#[test]
fn every_message_agrees_with_arrow_flight() {
    let pool = pool();
    let mut seen = BTreeSet::new();
    for (name, bytes) in samples() {
        let descriptor = pool.get_message_by_name(&name).unwrap_or_else(|| panic!("proto/ lacks {name}"));
        let message = DynamicMessage::decode(descriptor.clone(), bytes.as_slice())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same(&name, &descriptor, &message);
        assert_eq!(message.encode_to_vec(), bytes, "{name} does not survive the round trip");
        seen.insert(name);
    }
    let described: BTreeSet<String> = pool
        .all_messages()
        .filter(|message| !message.is_map_entry())
        .map(|message| message.full_name().to_owned())
        .filter(|name| name.starts_with(PACKAGE))
        .collect();
    assert_eq!(described, seen, "messages of proto/ (left) that have a sample here (right)");
}

#[test]
fn enum_values_agree_with_arrow_flight() {
    let status = |result| format!("{:?}", fl::CancelFlightInfoResult { status: result });
    let kind = |r#type| format!("{:?}", fl::FlightDescriptor { r#type, ..Default::default() });
    let result = |result| format!("{:?}", fs::ActionCancelQueryResult { result });
    let ingest =
        |if_not_exist, if_exists| format!("{:?}", fs::TableDefinitionOptions { if_not_exist, if_exists });
    let options = "sql.CommandStatementIngest.TableDefinitionOptions";
    let (not_exist, exists) = ("TABLE_NOT_EXIST_OPTION_", "TABLE_EXISTS_OPTION_");
    assert_enum(&format!("{options}.TableNotExistOption"), not_exist, &|number| ingest(number, 77));
    assert_enum(&format!("{options}.TableExistsOption"), exists, &|number| ingest(77, number));
    assert_enum("CancelStatus", "CANCEL_STATUS_", &status);
    assert_enum("FlightDescriptor.DescriptorType", "", &kind);
    assert_enum("sql.ActionCancelQueryResult.CancelResult", "CANCEL_RESULT_", &result);
}

#[test]
fn the_stream_protocol_is_spoken_as_it_is_written() {
    use sidewing::proto::stream::{Epoch, Frame, Kind, Position, Subscribe};
    let epoch = Epoch::random();
    let frame = Frame {
        kind: Kind::Heartbeat,
        epoch,
        first: 1,
        last: 2,
        head: 3,
        sent_unix_nanos: 4,
        watermark_unix_nanos: 5,
    };
    let subscribe = Subscribe { held: Some(Position { epoch, sequence: 6 }) };
    let shown = [("Subscribe", subscribe.encode()), ("Frame", frame.encode())].map(|(name, bytes)| {
        let descriptor = pool().get_message_by_name(&format!("sidewing.stream.v1.{name}")).unwrap();
        let message = DynamicMessage::decode(descriptor.clone(), bytes.clone()).unwrap();
        assert_eq!(message.unknown_fields().count(), 0, "{name}");
        assert_eq!(message.encode_to_vec(), bytes, "{name}");
        assert!(descriptor.fields().all(|field| message.has_field(&field)), "{name}: {message}");
        message.to_string()
    });
    let values = |text: &str| text.split_once(",epoch:").map(|(before, _)| before.to_owned()).unwrap();
    assert_eq!(values(&shown[0]), "protocol:8316288573874204263,version:1");
    assert_eq!(values(&shown[1]), "protocol:8316288573874204263,version:1,kind:KIND_HEARTBEAT");
    assert!(shown[1].ends_with(",first:1,last:2,head:3,sent_unix_nanos:4,watermark_unix_nanos:5"));
    assert!(shown[0].ends_with(",sequence:6"));
}

/// Each number has the name that `arrow-flight` prints, and one more number has none in either.
fn assert_enum(name: &str, prefix: &str, printed: &dyn Fn(i32) -> String) {
    let ours = pool().get_enum_by_name(&format!("{PACKAGE}.{name}")).unwrap();
    let last = ours.values().map(|value| value.number()).max().unwrap();
    for value in ours.values() {
        let variant = value.name().strip_prefix(prefix).unwrap().replace('_', "").to_lowercase();
        let theirs = printed(value.number()).to_lowercase();
        assert!(theirs.contains(&format!(": {variant}")), "{name}: {} is {theirs}", value.name());
    }
    let theirs = printed(last + 1);
    assert!(theirs.contains(&format!(": {}", last + 1)), "{name} lacks {theirs}");
}

#[tokio::test]
async fn every_path_is_the_one_that_clients_call() {
    let called = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&called);
    let recorder = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        log.lock().unwrap().push(request.uri().path().to_owned());
        let mut response = http::Response::new(tonic::body::Body::empty());
        response.headers_mut().insert("grpc-status", http::HeaderValue::from_static("12"));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut client = FlightServiceClient::new(recorder);
    let unimplemented = |status: Option<tonic::Status>| {
        assert_eq!(status.map(|s| s.code()), Some(tonic::Code::Unimplemented));
    };
    unimplemented(client.handshake(futures::stream::empty()).await.err());
    unimplemented(client.list_flights(fl::Criteria::default()).await.err());
    unimplemented(client.get_flight_info(fl::FlightDescriptor::default()).await.err());
    unimplemented(client.poll_flight_info(fl::FlightDescriptor::default()).await.err());
    unimplemented(client.get_schema(fl::FlightDescriptor::default()).await.err());
    unimplemented(client.do_get(fl::Ticket::default()).await.err());
    unimplemented(client.do_put(futures::stream::empty()).await.err());
    unimplemented(client.do_exchange(futures::stream::empty()).await.err());
    unimplemented(client.do_action(fl::Action::default()).await.err());
    unimplemented(client.list_actions(fl::Empty::default()).await.err());
    assert_eq!(*called.lock().unwrap(), sidewing::proto::METHODS);
}

/// Every field is there under its number, as the right kind of thing.
fn assert_same(name: &str, descriptor: &MessageDescriptor, message: &DynamicMessage) {
    assert_eq!(message.unknown_fields().count(), 0, "{name}: arrow-flight has a field that proto/ lacks");
    for field in descriptor.fields() {
        let path = format!("{name}.{}", field.name());
        assert!(message.has_field(&field), "{path}: not a field of arrow-flight's");
        // The samples' bytes are not UTF-8 and their strings are, so neither passes for the other.
        if let (Kind::Bytes, Value::Bytes(bytes)) = (field.kind(), message.get_field(&field).as_ref()) {
            assert!(std::str::from_utf8(bytes).is_err(), "{path}: a string in arrow-flight");
        }
    }
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(sidewing::proto::FILE_DESCRIPTOR_SET).unwrap()
}

/// The text of `generated.rs`, from `/proto`.
fn generate() -> String {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = protox::Compiler::new([proto]).unwrap();
    compiler.include_imports(true).include_source_info(false).open_files(FILES).unwrap();
    let set = compiler.file_descriptor_set();
    let mut text = String::from(
        "//! @generated from `/proto` by `tests/it/proto.rs`: never edited by hand.\n\n\
         /// gRPC paths of `FlightService`, in the order of `Flight.proto`.\npub const METHODS: &[&str] = &[\n",
    );
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                writeln!(text, "    \"/{}.{}/{}\",", file.package(), service.name(), method.name()).unwrap();
            }
        }
    }
    text.push_str(
        "];\n\n/// `FlightService`, the Flight SQL messages and what they import: an encoded\n\
         /// `google.protobuf.FileDescriptorSet`.\npub const FILE_DESCRIPTOR_SET: &[u8] = b\"\\\n",
    );
    for line in set.encode_to_vec().chunks(24) {
        writeln!(text, "    {}\\", literal(line)).unwrap();
    }
    text.push_str("\";\n");
    text
}

/// The bytes as they stand in a byte string that goes on over lines, where leading blanks are dropped.
fn literal(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            0x21..=0x7e => text.push(char::from(*byte)),
            other => write!(text, "\\x{other:02x}").unwrap(),
        }
    }
    text
}

/// One encoded message of every type, each field set to something that only its own type can be.
fn samples() -> Vec<(String, Vec<u8>)> {
    let mut all = flight_requests();
    all.extend(flight_answers());
    all.extend(sql_statements());
    all.extend(sql_metadata());
    all
}

macro_rules! sample {
    ($($message:expr),+ $(,)?) => {
        vec![$(encoded(&$message)),+]
    };
}

fn flight_requests() -> Vec<(String, Vec<u8>)> {
    sample![
        fl::HandshakeRequest { protocol_version: 7, payload: blob() },
        fl::HandshakeResponse { protocol_version: 7, payload: blob() },
        fl::BasicAuth { username: text(), password: text() },
        fl::Empty {},
        fl::ActionType { r#type: text(), description: text() },
        fl::Criteria { expression: blob() },
        fl::Action { r#type: text(), body: blob() },
        fl::CancelFlightInfoRequest { info: Some(info()) },
        fl::RenewFlightEndpointRequest { endpoint: Some(endpoint()) },
        descriptor(),
        fl::Ticket { ticket: blob() },
    ]
}

fn flight_answers() -> Vec<(String, Vec<u8>)> {
    let data = fl::FlightData {
        flight_descriptor: Some(descriptor()),
        data_header: blob(),
        app_metadata: blob(),
        data_body: blob(),
    };
    let poll = fl::PollInfo {
        info: Some(info()),
        flight_descriptor: Some(descriptor()),
        progress: Some(0.5),
        expiration_time: Some(time()),
    };
    sample![
        fl::Result { body: blob() },
        fl::CancelFlightInfoResult { status: 2 },
        fl::SchemaResult { schema: blob() },
        info(),
        poll,
        endpoint(),
        fl::Location { uri: text() },
        data,
        fl::PutResult { app_metadata: blob() },
    ]
}

fn sql_statements() -> Vec<(String, Vec<u8>)> {
    let created = fs::ActionCreatePreparedStatementResult {
        prepared_statement_handle: blob(),
        dataset_schema: blob(),
        parameter_schema: blob(),
    };
    sample![
        fs::CommandStatementQuery { query: text(), transaction_id: Some(blob()) },
        fs::TicketStatementQuery { statement_handle: blob() },
        fs::CommandPreparedStatementQuery { prepared_statement_handle: blob() },
        fs::DoPutPreparedStatementResult { prepared_statement_handle: Some(blob()) },
        fs::TableDefinitionOptions { if_not_exist: 2, if_exists: 3 },
        ingest(),
        fs::DoPutUpdateResult { record_count: -1 },
        fs::ActionCreatePreparedStatementRequest { query: text(), transaction_id: Some(blob()) },
        created,
        fs::ActionClosePreparedStatementRequest { prepared_statement_handle: blob() },
        fs::ActionCancelQueryRequest { info: blob() },
        fs::ActionCancelQueryResult { result: 3 },
    ]
}

fn sql_metadata() -> Vec<(String, Vec<u8>)> {
    let tables = fs::CommandGetTables {
        catalog: Some(text()),
        db_schema_filter_pattern: Some(text()),
        table_name_filter_pattern: Some(text()),
        table_types: vec![text(), text()],
        include_schema: true,
    };
    let cross = fs::CommandGetCrossReference {
        pk_catalog: Some(text()),
        pk_db_schema: Some(text()),
        pk_table: text(),
        fk_catalog: Some(text()),
        fk_db_schema: Some(text()),
        fk_table: text(),
    };
    sample![
        fs::CommandGetSqlInfo { info: vec![1, 500] },
        fs::CommandGetXdbcTypeInfo { data_type: Some(-5) },
        fs::CommandGetCatalogs {},
        fs::CommandGetDbSchemas { catalog: Some(text()), db_schema_filter_pattern: Some(text()) },
        tables,
        fs::CommandGetTableTypes {},
        fs::CommandGetPrimaryKeys { catalog: Some(text()), db_schema: Some(text()), table: text() },
        fs::CommandGetExportedKeys { catalog: Some(text()), db_schema: Some(text()), table: text() },
        fs::CommandGetImportedKeys { catalog: Some(text()), db_schema: Some(text()), table: text() },
        cross,
    ]
}

fn ingest() -> fs::CommandStatementIngest {
    fs::CommandStatementIngest {
        table_definition_options: Some(fs::TableDefinitionOptions { if_not_exist: 2, if_exists: 3 }),
        table: text(),
        schema: Some(text()),
        catalog: Some(text()),
        temporary: true,
        transaction_id: Some(blob()),
        options: [(text(), text())].into(),
    }
}

/// The protobuf name of a message of `arrow-flight`, from its Rust path, and its bytes.
fn encoded<M: Message>(message: &M) -> (String, Vec<u8>) {
    let path = std::any::type_name::<M>();
    let short = path.rsplit("::").next().unwrap();
    let mut package = if path.contains("::sql::") { format!("{PACKAGE}.sql") } else { PACKAGE.to_owned() };
    if path.contains("::command_statement_ingest::") {
        package.push_str(".CommandStatementIngest");
    }
    (format!("{package}.{short}"), message.encode_to_vec())
}

fn text() -> String {
    "text".to_owned()
}

fn blob() -> Bytes {
    Bytes::from_static(&[0xff, 0xfe])
}

fn time() -> Timestamp {
    Timestamp { seconds: 1, nanos: 2 }
}

fn descriptor() -> fl::FlightDescriptor {
    fl::FlightDescriptor { r#type: 2, cmd: blob(), path: vec![text(), text()] }
}

fn endpoint() -> fl::FlightEndpoint {
    fl::FlightEndpoint {
        ticket: Some(fl::Ticket { ticket: blob() }),
        location: vec![fl::Location { uri: text() }],
        expiration_time: Some(time()),
        app_metadata: blob(),
    }
}

fn info() -> fl::FlightInfo {
    fl::FlightInfo {
        schema: blob(),
        flight_descriptor: Some(descriptor()),
        endpoint: vec![endpoint()],
        total_records: 3,
        total_bytes: -1,
        ordered: true,
        app_metadata: blob(),
    }
}
