//! Batches as they travel: the same values in plain types, at the price of plain types.

use arrow::array::builder::{ListBuilder, StringViewBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{concat, take};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;

use super::*;
use crate::wire;

/// The batch, cast to what clients are promised.
fn cast_to_wire(batch: &RecordBatch) -> RecordBatch {
    let schema = Arc::new(wire::schema(&batch.schema()));
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// Encodes slices of a batch as batches of their own: nothing else of it may go out.
async fn slices_cost_what_plain_ones_cost(batch: &RecordBatch) {
    let rows = batch.num_rows();
    let slices: Vec<_> = (0..rows).step_by(1000).map(|at| batch.slice(at, 1000.min(rows - at))).collect();
    let messages = encoded(&slices);
    let plain = cast_to_wire(batch);
    let (found, floor) = (bytes(&messages), bytes(&encoded(std::slice::from_ref(&plain))));
    let ratio = found as f64 / floor as f64;
    assert!(ratio <= 1.1, "{:?}: {found} bytes for {floor}", batch.schema().field(0).data_type());
    assert_eq!(decoded(messages).await, plain);
}

#[tokio::test]
async fn views_are_plain_wherever_they_stand() {
    // 12 bytes are the most that a view holds itself, 13 the least that it points at.
    for len in [4, 12, 13, 60] {
        slices_cost_what_plain_ones_cost(&column(StringViewArray::from_iter_values(texts(8000, len)))).await;
        slices_cost_what_plain_ones_cost(&column(BinaryViewArray::from_iter_values(texts(8000, len)))).await;
        slices_cost_what_plain_ones_cost(&column(StringArray::from_iter_values(texts(8000, len)))).await;
    }
    let inner: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts(8000, 60)));
    let fields = Fields::from(vec![Field::new("v", DataType::Utf8View, true)]);
    slices_cost_what_plain_ones_cost(&column(StructArray::new(fields, vec![inner], None))).await;

    let mut lists = ListBuilder::new(StringViewBuilder::new());
    let mut maps = MapBuilder::new(None, StringViewBuilder::new(), Int8Builder::new());
    for text in texts(8000, 60) {
        lists.values().append_value(&text);
        lists.append(true);
        maps.keys().append_value(text);
        maps.values().append_value(1);
        maps.append(true).unwrap();
    }
    slices_cost_what_plain_ones_cost(&column(lists.finish())).await;
    slices_cost_what_plain_ones_cost(&column(maps.finish())).await;
}

/// One text of a MiB, shown in so many rows.
fn one_text(rows: usize) -> StringViewArray {
    let text: ArrayRef = Arc::new(StringViewArray::from_iter_values(["x".repeat(1 << 20)]));
    take(&text, &UInt8Array::from(vec![0; rows]), None).unwrap().as_string_view().clone()
}

#[test]
fn views_that_show_one_text_many_times_are_cut_before_they_are_copied() {
    // 4 GiB of text in a batch of 1 MiB.
    let batch = column(one_text(4096));
    let mut encoder = Encoder::new(batch.schema());
    encoder.take().unwrap().unwrap();
    encoder.feed(batch).unwrap();
    for _ in 0..3 {
        let message = encoder.take().unwrap().unwrap();
        assert!((1 << 20..=MESSAGE_BYTES_MAX).contains(&message.encoded_len()));
    }
}

#[test]
fn a_row_of_more_text_than_offsets_reach_is_an_error() {
    let item = Arc::new(Field::new("item", DataType::Utf8View, true));
    let offsets = OffsetBuffer::from_lengths([2048]);
    let batch = column(ListArray::new(item, offsets, Arc::new(one_text(2048)), None));
    let mut encoder = Encoder::new(batch.schema());
    encoder.take().unwrap().unwrap();
    encoder.feed(batch).unwrap();
    assert!(encoder.take().unwrap_err().to_string().contains("2147483648 bytes of text"));
}

#[test]
fn metadata_and_other_types_stay() {
    let extension = HashMap::from([("ARROW:extension:name".to_owned(), "arrow.json".to_owned())]);
    let field = |name: &str, of| Field::new(name, of, false).with_metadata(extension.clone());
    let list = |of| DataType::LargeList(Arc::new(field("item", of)));
    let dictionary = |of| DataType::Dictionary(Box::new(DataType::Int8), Box::new(of));
    let schema = |text: DataType, bytes| {
        Schema::new(vec![
            field("a", list(text.clone())),
            field("b", dictionary(text)),
            field("c", list(bytes)),
            field("d", DataType::LargeUtf8),
            field("e", DataType::Decimal128(5, 2)),
        ])
    };
    let mapped = wire::schema(&schema(DataType::Utf8View, DataType::BinaryView));
    assert_eq!(mapped, schema(DataType::Utf8, DataType::Binary));
    assert_eq!(wire::schema(&mapped), mapped);
}

/// The rows as text: for types that Arrow cannot cast.
fn shown(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(batch.column(0), &options).unwrap();
    (0..batch.num_rows()).map(|row| formatter.value(row).to_string()).collect()
}

#[tokio::test]
async fn runs_unions_and_list_views_are_mapped_too() {
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts(6, 20)));
    let item = Arc::new(Field::new("item", DataType::Utf8View, true));
    let ends = Int32Array::from(vec![1, 3, 4, 6, 7, 9]);
    let runs = RunArray::<Int32Type>::try_new(&ends, &views).unwrap();
    let ids = ScalarBuffer::from(vec![0_i8; 6]);
    let children = [(0, Arc::clone(&item))].into_iter().collect();
    let union = UnionArray::try_new(children, ids, None, vec![Arc::clone(&views)]).unwrap();
    let (offsets, sizes) = (ScalarBuffer::from(vec![4, 0, 2]), ScalarBuffer::from(vec![2, 3, 0]));
    let list_views = ListViewArray::new(item, offsets, sizes, views, None);
    for batch in [column(runs), column(union), column(list_views)] {
        let cut = batch.slice(1, 2);
        let read = decoded(encoded(std::slice::from_ref(&cut))).await;
        assert_eq!(read.schema().as_ref(), &wire::schema(&batch.schema()));
        assert_eq!(shown(&read), shown(&cut));
        assert!(!format!("{:?}", read.schema()).contains("Utf8View"));
    }
}

/// How values are wrapped into fewer or as many rows.
#[derive(Debug, Clone, Copy)]
enum Wrap {
    List,
    LargeList,
    Pairs,
    Map,
    Struct,
}

/// The innermost values.
#[derive(Debug, Clone, Copy)]
enum Leaf {
    Text,
    Bytes,
    Dictionary,
}

fn leaf(kind: Leaf, texts: &[Option<String>]) -> ArrayRef {
    let views = StringViewArray::from_iter(texts);
    match kind {
        Leaf::Text => Arc::new(views),
        Leaf::Bytes => Arc::new(views.to_binary_view()),
        Leaf::Dictionary => {
            let keys = (0..texts.len()).map(|row| (row % 3 > 0).then_some((row / 2) as i32));
            Arc::new(DictionaryArray::new(Int32Array::from_iter(keys), Arc::new(views)))
        }
    }
}

/// Rows of 0 to 2 values each, as far as the values go; null rows keep theirs hidden.
fn wrapped(values: ArrayRef, wrap: Wrap, seed: usize) -> ArrayRef {
    let lengths = (0..).map(|row| (row * 7 + seed) % 3);
    let lengths = lengths.scan(values.len(), |left, length| {
        *left = left.checked_sub(length)?;
        Some(length)
    });
    let lengths: Vec<_> = lengths.take(values.len()).collect();
    let nulls =
        |rows: usize| Some(NullBuffer::from_iter((0..rows).map(|row| !(row + seed).is_multiple_of(5))));
    let item = Arc::new(Field::new("item", values.data_type().clone(), true));
    match wrap {
        Wrap::List => {
            let rows = nulls(lengths.len());
            Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), values, rows))
        }
        Wrap::LargeList => {
            let rows = nulls(lengths.len());
            Arc::new(LargeListArray::new(item, OffsetBuffer::from_lengths(lengths), values, rows))
        }
        Wrap::Pairs => {
            let rows = values.len() / 2;
            Arc::new(FixedSizeListArray::new(item, 2, values.slice(0, rows * 2), nulls(rows)))
        }
        Wrap::Map => {
            let keys: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts(values.len(), 9)));
            let fields = Fields::from(vec![
                Field::new("keys", DataType::Utf8View, false),
                Field::new("values", values.data_type().clone(), true),
            ]);
            let entries = StructArray::new(fields, vec![keys, values], None);
            let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
            let rows = nulls(lengths.len());
            Arc::new(MapArray::new(field, OffsetBuffer::from_lengths(lengths), entries, rows, false))
        }
        Wrap::Struct => {
            let numbers: ArrayRef =
                Arc::new(Int16Array::from_iter_values((0..values.len()).map(|n| n as i16)));
            let fields = vec![
                Field::new("v", values.data_type().clone(), true),
                Field::new("n", DataType::Int16, false),
            ];
            let rows = nulls(values.len());
            Arc::new(StructArray::new(fields.into(), vec![values, numbers], rows))
        }
    }
}

/// The array in buffers of its own.
fn fresh(array: &ArrayRef) -> ArrayRef {
    let rows = UInt32Array::from_iter_values(0..array.len() as u32);
    take(array, &rows, None).unwrap()
}

fn kinds() -> impl Strategy<Value = (Leaf, Vec<Wrap>)> {
    use Wrap::{LargeList, List, Map, Pairs, Struct};
    let leaf = prop::sample::select(vec![Leaf::Text, Leaf::Bytes, Leaf::Dictionary]);
    let wraps = prop::sample::select(vec![List, LargeList, Pairs, Map, Struct]);
    (leaf, prop::collection::vec(wraps, 0..4))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_batch_arrives_as_its_cast_and_costs_no_more(
        (kind, wraps) in kinds(),
        pattern in prop::collection::vec(prop::option::weighted(0.8, "[a-zé]{0,30}"), 1..20),
        values in 0..2000_usize,
        seed in 0..5_usize,
        (skip, keep) in (0.0..1.0_f64, 0.0..1.0_f64),
        step in 10..1500_usize,
    ) {
        let texts: Vec<_> = pattern.iter().cloned().cycle().take(values).collect();
        let array = wraps.iter().fold(leaf(kind, &texts), |array, wrap| wrapped(array, *wrap, seed));
        let from = (array.len() as f64 * skip) as usize;
        let rows = ((array.len() - from) as f64 * keep) as usize;
        let batch = column(array.slice(from, rows));
        let expected = cast_to_wire(&batch);
        let slices: Vec<_> = (0..rows).step_by(step).map(|at| batch.slice(at, step.min(rows - at))).collect();
        // An answer without rows has an empty batch, which tells its schema.
        let messages = encoded(&[&[batch.slice(0, 0)], &*slices].concat());

        let plain = column(fresh(expected.column(0)));
        let floor = bytes(&encoded(&[plain]));
        // A message has a header, and each buffer of its own is padded to 64 bytes.
        let most = floor * 5 / 4 + messages.len() * (1024 + 256 * wraps.len());
        prop_assert!(bytes(&messages) <= most, "{} bytes, {} as plain", bytes(&messages), floor);

        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (schema, read) = runtime.block_on(async {
            let messages = stream::iter(messages.into_iter().map(Ok));
            let mut stream = FlightRecordBatchStream::new_from_flight_data(messages);
            let mut read = Vec::new();
            while let Some(batch) = stream.next().await {
                read.push(batch.unwrap());
            }
            (stream.schema().cloned().unwrap(), read)
        });
        prop_assert_eq!(&schema, &expected.schema());
        prop_assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
        if rows > 0 {
            let read: Vec<&dyn Array> = read.iter().map(|batch| batch.column(0).as_ref()).collect();
            prop_assert_eq!(&concat(&read).unwrap(), expected.column(0));
        }
    }
}
