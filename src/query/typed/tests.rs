//! Each value is bound, planned and run by DataFusion, and comes back as it was.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use super::*;
use crate::query::Parameters;
use crate::query::statement::parse;

fn row(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn typed(column: ArrayRef) -> Result<TypedParameters, QueryError> {
    TypedParameters::try_new(&row(vec![("p", column)]))
}

/// What `SELECT $1` answers to it, as its last plan types it.
async fn selected(column: &ArrayRef) -> ArrayRef {
    let parameters = Parameters::Typed(typed(Arc::clone(column)).unwrap());
    let statement = parse("SELECT $1 AS p", &parameters).unwrap().statement;
    // The text that would be forwarded means the same.
    assert_eq!(parse(&statement.to_string(), &Parameters::None).unwrap().statement, statement);
    let context = SessionContext::new();
    let plan = context.state().statement_to_plan(statement).await.unwrap();
    let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
    Arc::clone(batches[0].column(0))
}

/// One value of every type that keeps its type.
fn values() -> Vec<ArrayRef> {
    let zone = Some(Arc::from("Europe/Paris"));
    vec![
        Arc::new(NullArray::new(1)),
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(Int8Array::from(vec![i8::MIN])),
        Arc::new(Int16Array::from(vec![i16::MIN])),
        Arc::new(Int32Array::from(vec![i32::MIN])),
        Arc::new(Int64Array::from(vec![i64::MIN])),
        Arc::new(Int64Array::from(vec![i64::MAX])),
        Arc::new(UInt8Array::from(vec![u8::MAX])),
        Arc::new(UInt16Array::from(vec![u16::MAX])),
        Arc::new(UInt32Array::from(vec![u32::MAX])),
        Arc::new(UInt64Array::from(vec![u64::MAX])),
        Arc::new(Float32Array::from(vec![0.1])),
        Arc::new(Float32Array::from(vec![f32::NEG_INFINITY])),
        Arc::new(Float64Array::from(vec![f64::NAN])),
        Arc::new(Float64Array::from(vec![f64::INFINITY])),
        Arc::new(Float64Array::from(vec![-0.0])),
        Arc::new(Float64Array::from(vec![f64::MIN_POSITIVE])),
        Arc::new(Decimal128Array::from(vec![-12_345]).with_precision_and_scale(20, 4).unwrap()),
        Arc::new(
            Decimal256Array::from(vec![i256::from_i128(i128::MIN)]).with_precision_and_scale(60, 3).unwrap(),
        ),
        Arc::new(StringArray::from(vec!["it's \\ a 'text'"])),
        Arc::new(BinaryArray::from(vec![&b"\x00\xff'"[..]])),
        Arc::new(Date32Array::from(vec![-719_162])),
        Arc::new(Time64NanosecondArray::from(vec![86_399_999_999_999])),
        Arc::new(TimestampSecondArray::from(vec![1_700_000_000])),
        Arc::new(TimestampMillisecondArray::from(vec![-1])),
        Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_001])),
        Arc::new(TimestampNanosecondArray::from(vec![1_700_000_000_000_000_001])),
        Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_001]).with_timezone_opt(zone)),
        Arc::new(TimestampNanosecondArray::from(vec![-1]).with_timezone("+05:30")),
        Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(-14, 3, -1_000_000_007)])),
        Arc::new(DurationMicrosecondArray::from(vec![-5])),
    ]
}

#[tokio::test]
async fn every_value_comes_back_as_it_was() {
    for column in values() {
        let answer = selected(&column).await;
        assert_eq!(answer.data_type(), column.data_type());
        assert_eq!(&answer, &column);
    }
}

#[tokio::test]
async fn nulls_keep_their_type_too() {
    for column in values() {
        let null = new_null_array(column.data_type(), 1);
        let answer = selected(&null).await;
        assert!(answer.is_null(0) || answer.data_type() == &DataType::Null);
        if *column.data_type() != DataType::Utf8 {
            assert_eq!(answer.data_type(), column.data_type());
        }
    }
}

#[tokio::test]
async fn layouts_are_plain_values_in_sql() {
    let dictionary: DictionaryArray<Int8Type> = vec!["x"].into_iter().collect();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let views: [ArrayRef; 3] = [
        Arc::new(dictionary),
        Arc::new(StringViewArray::from(vec!["x"])),
        Arc::new(LargeStringArray::from(vec!["x"])),
    ];
    for view in views {
        assert_eq!(&selected(&view).await, &text);
    }
    let widened: [(ArrayRef, DataType); 4] = [
        (Arc::new(Date64Array::from(vec![86_400_000])), DataType::Date32),
        (Arc::new(Time32MillisecondArray::from(vec![1])), DataType::Time64(TimeUnit::Nanosecond)),
        (Arc::new(IntervalYearMonthArray::from(vec![-13])), DataType::Interval(IntervalUnit::MonthDayNano)),
        (
            Arc::new(Decimal64Array::from(vec![15]).with_precision_and_scale(9, 1).unwrap()),
            DataType::Decimal128(9, 1),
        ),
    ];
    for (column, to) in widened {
        assert_eq!(&selected(&column).await, &cast(&column, &to).unwrap());
    }
}

#[test]
fn what_has_no_literal_is_refused_by_name() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)])]);
    let refused: Vec<ArrayRef> = vec![
        Arc::new(list),
        Arc::new(Date64Array::from(vec![86_400_001])),
        Arc::new(Decimal128Array::from(vec![1]).with_precision_and_scale(5, -2).unwrap()),
        Arc::new(TimestampSecondArray::from(vec![1]).with_timezone("it's")),
        Arc::new(Int64Array::from(vec![1, 2])),
        Arc::new(Int64Array::from(Vec::<i64>::new())),
    ];
    let said: Vec<String> =
        refused.into_iter().map(|column| typed(column).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn columns_are_found_by_name_number_or_place() {
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let two: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    let bound = |sql: &str, names: [&str; 2]| {
        let row = row(vec![(names[0], Arc::clone(&one)), (names[1], Arc::clone(&two))]);
        let parameters = Parameters::Typed(TypedParameters::try_new(&row).unwrap());
        parse(sql, &parameters).map_or_else(|error| error.to_string(), |done| done.statement.to_string())
    };
    assert_eq!(bound("SELECT $1, $2", ["$2", "$1"]), "SELECT 2, 1");
    assert_eq!(bound("SELECT $1, $2", ["0", "1"]), "SELECT 1, 2");
    assert_eq!(bound("SELECT ?, ?", ["", "a"]), "SELECT 1, 2");
    assert_eq!(bound("SELECT ?, ?", ["$2", "$1"]), "SELECT 2, 1");
    assert_eq!(bound("SELECT $a - $b", ["b", "$a"]), "SELECT 2 - 1");
    assert!(bound("SELECT $a", ["b", "a"]).contains("parameter `b` is not used"));
    assert!(bound("SELECT $c", ["b", "a"]).contains("parameter $c, which was not sent"));
    assert!(bound("SELECT $3", ["b", "a"]).contains("parameter $3, which was not sent"));
}

#[test]
fn types_tell_parameters_apart() {
    let all = values();
    let mut told: Vec<String> = all.iter().map(|column| typed(Arc::clone(column)).unwrap().told()).collect();
    told.push(typed(new_null_array(&DataType::Utf8, 1)).unwrap().told());
    told.push(typed(Arc::new(StringArray::from(vec!["CAST(NULL AS VARCHAR)"]))).unwrap().told());
    told.push(typed(Arc::new(StringArray::from(vec!["NULL"]))).unwrap().told());
    let count = told.len();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), count);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn every_float_and_integer_reads_back(bits: u64, number: i64) {
        let float = f64::from_bits(bits);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![float]));
        let answer = runtime.block_on(selected(&floats));
        let read = answer.as_primitive::<Float64Type>().value(0);
        prop_assert!(read.to_bits() == bits || (read.is_nan() && float.is_nan()));
        let not_a_number: ArrayRef = Arc::new(Float64Array::from(vec![f64::from_bits(bits | 0xfff8 << 48)]));
        let answer = runtime.block_on(selected(&not_a_number));
        prop_assert!(answer.as_primitive::<Float64Type>().value(0).is_nan());
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![number]));
        prop_assert_eq!(&runtime.block_on(selected(&numbers)), &numbers);
    }
}
