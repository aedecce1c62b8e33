//! Forms of answers beside JSON rows, CSV and tables, and answers too large or too deep to hold at once.

use arrow::ipc::reader::StreamReader;
use serde_json::{Value, json};

use super::*;

const SPICE: &str = "application/vnd.spiceai.sql.v1+json";
const ARROW: &str = "application/vnd.apache.arrow.stream";

#[tokio::test]
async fn the_spice_form_has_the_schema_of_every_type_beside_the_rows() {
    let text = all_types_as(SPICE).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["row_count"], json!(2));
    let rows: Value = serde_json::from_str(&all_types_as("application/json").await).unwrap();
    assert_eq!(answer["data"], rows);
    let fields = answer["schema"]["fields"].as_array().unwrap();
    let types: Vec<String> =
        fields.iter().map(|field| format!("{}: {}", field["name"], field["data_type"])).collect();
    insta::assert_snapshot!(types.join("\n"));
}

#[tokio::test]
async fn the_spice_form_of_nothing_is_whole() {
    let batch = numbers(0..0);
    let (url, _scope) = http(Fake::default().answering("none", batch.schema(), vec![])).await;
    let text = post(&url, "none", SPICE).await.text().await.unwrap();
    assert_eq!(
        text,
        r#"{"schema":{"fields":[{"name":"n","data_type":"Int64","nullable":false,"dict_id":0,"dict_is_ordered":false,"metadata":{}}],"metadata":{}},"data":[],"row_count":0}"#
    );
}

#[tokio::test]
async fn arrow_streams_hold_every_type_plainly() {
    let batch = all_types();
    let fake = Fake::default().answering("all", batch.schema(), vec![batch.clone(), batch.clone()]);
    let (url, _scope) = http(fake).await;
    let response = post(&url, "all", ARROW).await;
    assert_eq!(response.headers()["content-type"], ARROW);
    let body = response.bytes().await.unwrap();
    let reader = StreamReader::try_new(&body[..], None).unwrap();
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(schema.field_with_name("view").unwrap().data_type(), &DataType::Utf8);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    let promised = Arc::new(crate::wire::schema(&batch.schema()));
    assert_eq!(batches[0], crate::wire::batch(&batch, &promised).unwrap());
}

#[tokio::test]
async fn an_empty_arrow_stream_has_its_schema_and_its_end() {
    let batch = numbers(0..0);
    let (url, _scope) = http(Fake::default().answering("none", batch.schema(), vec![])).await;
    let body = post(&url, "none", ARROW).await.bytes().await.unwrap();
    let reader = StreamReader::try_new(&body[..], None).unwrap();
    assert_eq!((reader.schema(), reader.count()), (batch.schema(), 0));
    assert!(body.ends_with(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
}

#[tokio::test]
async fn half_an_arrow_stream_has_no_end() {
    let (url, _scope) = http(breaking()).await;
    assert!(post(&url, "break", ARROW).await.bytes().await.is_err());
}

#[tokio::test]
async fn short_answers_have_a_length_and_long_ones_have_none() {
    let fake = Fake::default().table("short", vec![numbers(0..3)]).table("long", vec![numbers(0..100_000)]);
    let (url, _scope) = http(fake).await;
    let short = post(&url, "select n from short", "application/json").await;
    assert_eq!(short.headers()["content-length"], "25");
    assert_eq!(short.text().await.unwrap(), r#"[{"n":0},{"n":1},{"n":2}]"#);
    let long = post(&url, "select n from long", "application/json").await;
    assert!(!long.headers().contains_key("content-length"));
    let rows: Vec<Value> = serde_json::from_str(&long.text().await.unwrap()).unwrap();
    assert_eq!(rows.len(), 100_000);
}

/// A million rows come in steps, whatever the form, and no step is much larger than it should be.
#[tokio::test]
async fn a_million_rows_stream_steadily() {
    for accept in ["application/json", "text/csv", SPICE, ARROW] {
        let fake = Fake::default().on("million", || {
            let batches = (0..10).map(|part| Ok(numbers(part * 100_000..(part + 1) * 100_000)));
            Ok(answer(numbers(0..0).schema(), stream::iter(batches)))
        });
        let answer = crate::serve::Door::run(&fake, crate::query::Request::new("million")).await.unwrap();
        let format = super::super::accept::FORMATS
            .into_iter()
            .find(|format| format.content_type().starts_with(accept));
        let pieces = super::super::outgoing::pieces(answer, format.unwrap()).unwrap();
        let lengths: Vec<usize> = pieces.map(|piece| piece.unwrap().len()).collect().await;
        assert!(lengths.len() > 100, "{accept}: {} pieces", lengths.len());
        assert!(lengths.iter().all(|length| *length <= 1024 * 1024), "{accept}: {:?}", lengths.iter().max());
    }
}

#[tokio::test]
async fn long_rows_are_sent_one_at_a_time() {
    let fake = Fake::default().on("long", || {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..200).map(|_| "x".repeat(100_000))));
        let batch = RecordBatch::try_from_iter([("t", texts)]).unwrap();
        Ok(answer(batch.schema(), stream::iter([Ok(batch.clone()), Ok(batch)])))
    });
    let answer = crate::serve::Door::run(&fake, crate::query::Request::new("long")).await.unwrap();
    let pieces = super::super::outgoing::pieces(answer, super::super::Format::Json).unwrap();
    let lengths: Vec<usize> = pieces.map(|piece| piece.unwrap().len()).collect().await;
    // The first piece does not know them yet.
    assert!(lengths[1..].iter().all(|length| *length <= 1024 * 1024), "{lengths:?}");
}

/// On a thread like those of the process: unoptimised code takes more of a stack than a test's thread has.
#[test]
fn deeply_nested_rows_are_written() {
    let thread = std::thread::Builder::new().stack_size(crate::query::STACK_SIZE);
    let thread =
        thread.spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(write_deeply_nested_rows()));
    thread.unwrap().join().unwrap();
}

/// Without a server: its own threads are as small as the test's.
async fn write_deeply_nested_rows() {
    const DEPTH: usize = 200;
    let mut column: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    for _ in 0..DEPTH {
        let item = Arc::new(Field::new("item", column.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([1]);
        column = Arc::new(ListArray::new(item, offsets, column, None));
    }
    let batch = RecordBatch::try_from_iter([("deep", column)]).unwrap();
    for format in super::super::accept::FORMATS {
        let answer = answer(batch.schema(), stream::iter([Ok(batch.clone())]));
        let pieces = super::super::outgoing::pieces(answer, format).unwrap();
        let text = pieces.map(|piece| piece.unwrap()).collect::<Vec<_>>().await.concat();
        if format == super::super::Format::Json {
            let expected = format!(r#"[{{"deep":{}7{}}}]"#, "[".repeat(DEPTH), "]".repeat(DEPTH));
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }
}
