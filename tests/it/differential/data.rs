//! The tables of the differential test: small ones full of nulls, ties and odd text, and a bigger one with
//! skewed keys.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array,
    RecordBatch, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type};

use crate::support::client::batch;

/// Rows of `big`: enough that reading it whole for a handful of keys is worth avoiding.
const BIG: i64 = 3_000;

/// A table's name, as users write it, and its rows.
pub type Table = (&'static str, Vec<RecordBatch>);

/// Every table once.
pub fn tables() -> Vec<Table> {
    vec![
        ("t", t()),
        ("u", u()),
        ("sales.orders", orders()),
        ("crm.orders", u()),
        ("big", big()),
        ("keys", keys()),
    ]
}

/// The rows of one table.
pub fn table(name: &str) -> Vec<RecordBatch> {
    let found = tables().into_iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no table {name}")).1
}

fn ints(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values))
}

fn texts<const N: usize>(values: [Option<&str>; N]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn decimals(values: impl IntoIterator<Item = Option<i128>>, precision: u8) -> ArrayRef {
    let values = Decimal128Array::from_iter(values);
    Arc::new(values.with_precision_and_scale(precision, 2).unwrap())
}

/// One row of every oddity, of every type.
fn t() -> Vec<RecordBatch> {
    let colours: DictionaryArray<Int32Type> =
        [Some("red"), Some("green"), None, Some("red"), Some("it's"), None].into_iter().collect();
    let notes = [Some("x"), None, Some("a long note, of many bytes"), Some("x"), Some("y"), None];
    let floats = [Some(1.5), Some(f64::NAN), None, Some(-0.0), Some(0.1), Some(1e300)];
    let micros = [Some(1_582_934_399_123_456), Some(-1), None, Some(0), Some(0), Some(86_400_000_000)];
    let oks = [Some(true), Some(false), None, Some(true), None, Some(false)];
    batch([
        ("id", ints((1..=6).map(Some))),
        ("k", ints([Some(1), Some(1), Some(2), None, Some(3), None])),
        ("price", decimals([Some(105), Some(-250), None, Some(999), Some(105), Some(0)], 10)),
        ("Name", texts([Some("a'b"), Some(""), None, Some("50%"), Some("a_b\\"), Some("z")])),
        ("note", Arc::new(StringViewArray::from(notes.to_vec()))),
        ("colour", Arc::new(colours)),
        ("ok", Arc::new(BooleanArray::from(oks.to_vec()))),
        ("f", Arc::new(Float64Array::from(floats.to_vec()))),
        (
            "d",
            Arc::new(Date32Array::from(vec![Some(18_321), Some(0), None, Some(-1), Some(18_321), Some(9)])),
        ),
        ("at", Arc::new(TimestampMicrosecondArray::from(micros.to_vec()))),
    ])
}

/// A key that is null once and twice the same.
fn u() -> Vec<RecordBatch> {
    batch([
        ("id", ints([Some(1), Some(2), Some(2), None])),
        ("Name", texts([Some("a'b"), Some("z"), None, Some("z")])),
        ("v", ints([Some(10), Some(20), Some(20), Some(40)])),
    ])
}

fn orders() -> Vec<RecordBatch> {
    batch([
        ("id", ints((1..=4).map(Some))),
        ("k", ints([Some(1), Some(2), Some(5), None])),
        ("v", ints([Some(7), Some(8), Some(9), Some(9)])),
    ])
}

/// A third of the rows has key 1, every tenth has none, the rest is spread over fifty. Floats are eighths:
/// their sums are exact in any order.
fn big() -> Vec<RecordBatch> {
    let key = |i: i64| match (i % 10, i % 3) {
        (0, _) => None,
        (_, 0) => Some(1),
        _ => Some(i * i % 50),
    };
    let group = |i: i64| [Some("red"), Some("Red"), None, Some("a'b"), Some("")][(i * 7 % 5) as usize];
    let note = |i: i64| (i % 11 != 0).then(|| format!("note number {} of the bigger table", i % 13));
    let at = (1..=BIG).map(|i| (i % 17 != 0).then_some(i * 3_600_000_001));
    let all = batch([
        ("id", ints((1..=BIG).map(Some))),
        ("k", ints((1..=BIG).map(key))),
        ("g", Arc::new((1..=BIG).map(group).collect::<StringArray>()) as ArrayRef),
        ("note", Arc::new((1..=BIG).map(note).collect::<StringViewArray>())),
        ("amount", decimals((1..=BIG).map(|i| Some(i128::from(i * 37 % 2_001 - 1_000))), 12)),
        ("f", Arc::new(Float64Array::from_iter((1..=BIG).map(|i| (i % 19 != 0).then_some(i as f64 / 8.0))))),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter(at))),
    ]);
    let third = all[0].num_rows() / 3;
    (0..3).map(|part| all[0].slice(part * third, third)).collect()
}

/// Keys into `big`: repeated, null, and one that it does not have.
fn keys() -> Vec<RecordBatch> {
    let field = |name, kind| Arc::new(Field::new(name, kind, true));
    let place = StructArray::from(vec![
        (field("x", DataType::Int64), ints([Some(1), None, Some(3), Some(3), Some(5), Some(6)])),
        (field("y", DataType::Utf8), texts([Some("n"), Some("s"), None, Some("n"), Some("e"), Some("w")])),
    ]);
    batch([
        ("k", ints([Some(1), Some(1), Some(4), Some(49), None, Some(1_000)])),
        ("label", texts([Some("red"), Some("Red"), None, Some("a'b"), Some(""), Some("none")])),
        ("w", ints([Some(2), Some(2), Some(3), None, Some(5), Some(8)])),
        ("place", Arc::new(place)),
    ])
}
