//! How generations are built, chunk by chunk.

use arrow::array::{DictionaryArray, Int32Array, StringViewArray};
use arrow::compute::concat_batches;
use datafusion::logical_expr::Operator;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::binary;
use datafusion::physical_plan::expressions::{col, lit};

use super::*;

fn shared(one: &Generation, other: &Generation) -> usize {
    let held = |chunk: &&Arc<Chunk>| other.chunks().iter().any(|held| Arc::ptr_eq(held, chunk));
    one.chunks().iter().filter(held).map(|chunk| chunk.rows()).sum()
}

#[test]
fn a_full_load_keeps_the_rows_in_their_order() {
    let layout = layout_of(vec![]);
    let all = numbered(0, 1_000);
    let first = loaded(&layout, None, &all).unwrap();
    assert_eq!((first.number(), first.rows(), first.watermark()), (1, 1_000, Some(9_990)));
    assert!(first.chunks().len() > 10, "{} chunks", first.chunks().len());
    assert_eq!(rows(&first), all);
    let empty = loaded(&layout, Some(&first), &[]).unwrap();
    assert_eq!((empty.number(), empty.rows(), empty.watermark()), (2, 0, None));
}

#[test]
fn chunks_that_did_not_change_are_shared() {
    let layout = layout_of(vec![primary(None)]);
    let mut all = numbered(0, 4_000);
    let first = loaded(&layout, None, &all).unwrap();
    let same = loaded(&layout, Some(&first), &all).unwrap();
    assert_eq!(shared(&same, &first), 4_000);
    // A contiguous tenth changes, some rows come and some go in the middle.
    all[1_000..1_400].iter_mut().for_each(|row| row.2.push('!'));
    all.splice(2_000..2_000, numbered(9_000, 7));
    all.drain(3_000..3_005);
    let second = loaded(&layout, Some(&same), &all).unwrap();
    assert_eq!(rows(&second), all);
    let kept = shared(&second, &first);
    assert!(kept > 3_000, "only {kept} of 4000 rows are shared");
}

#[test]
fn rows_that_stand_twice_stand_in_two_chunks() {
    let layout = layout_of(vec![]);
    let once = numbered(0, 640);
    let first = loaded(&layout, None, &once).unwrap();
    let twice = [once.clone(), once].concat();
    let second = loaded(&layout, Some(&first), &twice).unwrap();
    assert_eq!(rows(&second), twice);
    let mut ids: Vec<_> = second.chunks().iter().map(|chunk| chunk.id()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), second.chunks().len());
}

#[test]
fn rows_of_another_schema_are_refused() {
    let layout = layout_of(vec![]);
    let mut load = Load::begin(Arc::clone(&layout), None, budget());
    let other = batch(&numbered(0, 3)).project(&[1, 0, 2]).unwrap();
    load.push(&batch(&numbered(0, 3))).unwrap();
    let error = load.push(&other).unwrap_err();
    assert_eq!(error.to_string(), "dataset `s.rows`: a batch with column `t`, `id` expected");
}

#[test]
fn keys_that_are_held_twice_fail_by_name() {
    let strict = layout_of(vec![primary(None)]);
    let row = |id, t, v: &str| (id, Some(t), v.to_owned());
    let error = loaded(&strict, None, &[row(Some(1), 1, "a"), row(Some(1), 2, "b")]).unwrap_err();
    assert_eq!(error.to_string(), "dataset `s.rows`: two different rows have (id) = (1)");
    let error = loaded(&strict, None, &[row(None, 1, "a")]).unwrap_err();
    assert_eq!(error.to_string(), "dataset `s.rows`: NULL in the primary key (id)");
    let same = loaded(&strict, None, &[row(Some(1), 1, "a"), row(Some(1), 1, "a")]).unwrap();
    assert_eq!(same.rows(), 1);
    let error = appended(&same, &[row(Some(1), 9, "b")]).unwrap_err();
    assert!(matches!(error, StoreError::DuplicateKey { .. }), "{error}");
    assert!(appended(&same, &[row(Some(1), 1, "a")]).unwrap().is_none());
    let unique = layout_of(vec![Key { columns: vec![0, 2], role: Role::Unique { on_conflict: None } }]);
    let nulls = [row(None, 1, "a"), row(None, 2, "a"), row(Some(1), 1, "a"), row(Some(1), 1, "b")];
    assert_eq!(loaded(&unique, None, &nulls).unwrap().rows(), 4);
}

#[test]
fn a_compound_unique_index_upserts_beside_a_primary_key() {
    let keys = vec![
        primary(Some(OnConflict::Upsert)),
        Key { columns: vec![1, 2], role: Role::Unique { on_conflict: Some(OnConflict::Upsert) } },
    ];
    let layout = layout_of(keys);
    let row = |id, t, v: &str| (Some(id), Some(t), v.to_owned());
    let first = loaded(&layout, None, &[row(1, 5, "a"), row(2, 6, "b")]).unwrap();
    // Takes the key of the one and the index entry of the other.
    let second = appended(&first, &[row(1, 6, "b")]).unwrap().unwrap();
    assert_eq!(rows(&second), [row(1, 6, "b")]);
    assert_eq!(sorted(rows(&first)), [row(1, 5, "a"), row(2, 6, "b")]);
}

fn before(t: i64) -> Arc<dyn PhysicalExpr> {
    let schema = schema();
    let value = datafusion::scalar::ScalarValue::TimestampNanosecond(Some(t), None);
    binary(col("t", &schema).unwrap(), Operator::Lt, lit(value), &schema).unwrap()
}

#[test]
fn retention_takes_rows_out_and_keeps_the_watermark() {
    let layout = layout_of(vec![primary(None)]);
    let first = loaded(&layout, None, &numbered(0, 1_000)).unwrap();
    let budget = budget();
    assert!(without(&first, &before(0), &budget).unwrap().is_none());
    let second = without(&first, &before(5_005), &budget).unwrap().unwrap();
    assert_eq!(rows(&second), numbered(501, 499));
    assert!(shared(&second, &first) >= 499 - 64);
    let none = without(&second, &before(i64::MAX), &budget).unwrap().unwrap();
    assert_eq!((none.rows(), none.watermark(), none.number()), (0, Some(9_990), 3));
    let again = appended(&none, &numbered(0, 10)).unwrap().unwrap();
    assert_eq!((again.rows(), again.watermark()), (10, Some(9_990)));
}

#[test]
fn another_layout_shares_nothing_but_the_number() {
    let first = loaded(&layout_of(vec![]), None, &numbered(0, 300)).unwrap();
    let keyed = layout_of(vec![primary(None)]);
    let second = loaded(&keyed, Some(&first), &numbered(0, 300)).unwrap();
    assert_eq!((second.number(), shared(&second, &first)), (2, 0));
    let error = appended(&second, &[(Some(3), Some(1), "other".to_owned())]).unwrap_err();
    assert!(matches!(error, StoreError::DuplicateKey { .. }), "{error}");
    let table = Table::new(keyed);
    let error = table.publish(first).unwrap_err();
    assert_eq!(error.to_string(), "dataset `s.rows`: a generation of another layout");
}

#[test]
fn a_change_of_a_sign_is_a_change() {
    let load = |previous: Option<&Arc<Generation>>, zero: f64| {
        let column: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![zero; 100]));
        let batch = RecordBatch::try_from_iter([("f", column)]).unwrap();
        let layout = Arc::new(Layout::try_new("t".parse().unwrap(), batch.schema(), None, vec![]).unwrap());
        let mut load = Load::begin(layout, previous.cloned(), budget());
        load.push(&batch).unwrap();
        load.finish().unwrap()
    };
    let first = load(None, 0.0);
    assert_eq!(shared(&load(Some(&first), 0.0), &first), 100);
    // Both hash alike.
    assert_eq!(shared(&load(Some(&first), -0.0), &first), 0);
}

#[test]
fn small_chunks_are_joined() {
    let layout = layout_of(vec![primary(None)]);
    let mut generation = loaded(&layout, None, &numbered(0, 100)).unwrap();
    for at in 0..20 {
        generation = appended(&generation, &numbered(100 + at * 3, 3)).unwrap().unwrap();
    }
    let joined = compacted(&generation, &budget()).unwrap().unwrap();
    assert!(joined.chunks().len() < 10, "{} chunks", joined.chunks().len());
    assert_eq!(rows(&joined), numbered(0, 160));
    assert!(compacted(&joined, &budget()).unwrap().is_none());
    let error = appended(&joined, &[(Some(131), Some(1), "other".to_owned())]).unwrap_err();
    assert_eq!(error.to_string(), "dataset `s.rows`: two different rows have (id) = (131)");
}

#[test]
fn what_was_written_comes_back_as_it_was() {
    let layout = layout_of(vec![primary(None)]);
    let first = loaded(&layout, None, &numbered(0, 500)).unwrap();
    let written = first.chunks().iter().map(|chunk| (chunk.id(), chunk.batch().unwrap())).collect();
    let back = restored(&layout, written, 17, Some(99_999), &budget()).unwrap();
    assert_eq!((back.number(), back.watermark()), (17, Some(99_999)));
    assert_eq!(rows(&back), rows(&first));
    let next = Load::begin(Arc::clone(&layout), Some(Arc::clone(&back)), budget());
    assert_eq!(next.finish().unwrap().number(), 18);
    let error = appended(&back, &[(Some(3), Some(1), "other".to_owned())]).unwrap_err();
    assert!(matches!(error, StoreError::DuplicateKey { .. }), "{error}");
}

#[test]
fn every_time_format_gives_the_same_watermark() {
    let second = 1_700_000_000_i64;
    let day = second / 86_400;
    let columns: Vec<(ArrayRef, TimeFormat, i64)> = vec![
        (
            Arc::new(Int64Array::from(vec![None, Some(second)])),
            TimeFormat::UnixSeconds,
            second * 1_000_000_000,
        ),
        (
            Arc::new(Int64Array::from(vec![second * 1_000 + 7])),
            TimeFormat::UnixMillis,
            (second * 1_000 + 7) * 1_000_000,
        ),
        (Arc::new(arrow::array::Float64Array::from(vec![1.5])), TimeFormat::UnixSeconds, 1_500_000_000),
        (Arc::new(arrow::array::UInt64Array::from(vec![u64::MAX])), TimeFormat::UnixSeconds, i64::MAX),
        (
            Arc::new(
                arrow::array::Decimal128Array::from(vec![1_500]).with_precision_and_scale(20, 3).unwrap(),
            ),
            TimeFormat::UnixSeconds,
            1_500_000_000,
        ),
        (
            Arc::new(StringArray::from(vec!["2023-11-14T22:13:20+00:00", "2023-11-14T23:13:20.5+01:00"])),
            TimeFormat::Iso8601,
            second * 1_000_000_000 + 500_000_000,
        ),
        (Arc::new(StringViewArray::from(vec!["2023-11-14"])), TimeFormat::Date, day * 86_400_000_000_000),
        (
            Arc::new(arrow::array::Date32Array::from(vec![day as i32])),
            TimeFormat::Date,
            day * 86_400_000_000_000,
        ),
        (
            Arc::new(
                arrow::array::TimestampMicrosecondArray::from(vec![second * 1_000_000])
                    .with_timezone("+02:00"),
            ),
            TimeFormat::TimestampTz,
            second * 1_000_000_000,
        ),
    ];
    for (column, format, wanted) in columns {
        let schema = Arc::new(Schema::new(vec![Field::new("when", column.data_type().clone(), true)]));
        let time = Some(Time { column: 0, format });
        let layout = Layout::try_new("t".parse().unwrap(), Arc::clone(&schema), time, vec![]).unwrap();
        let mut load = Load::begin(Arc::new(layout), None, budget());
        load.push(&RecordBatch::try_new(schema, vec![column]).unwrap()).unwrap();
        assert_eq!(load.finish().unwrap().watermark(), Some(wanted), "{format}");
    }
}

#[test]
fn a_text_that_is_no_time_is_named() {
    let schema = Arc::new(Schema::new(vec![Field::new("when", DataType::Utf8, true)]));
    let time = Some(Time { column: 0, format: TimeFormat::Iso8601 });
    let layout = Arc::new(Layout::try_new("t".parse().unwrap(), Arc::clone(&schema), time, vec![]).unwrap());
    let mut load = Load::begin(layout, None, budget());
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["2024-01-01", "soon"]));
    load.push(&RecordBatch::try_new(schema, vec![texts]).unwrap()).unwrap();
    let error = load.finish().unwrap_err();
    assert_eq!(error.to_string(), "dataset `t`: `soon` in column `when` is not of the time format ISO8601");
}

#[test]
fn a_layout_that_its_schema_does_not_allow_is_refused() {
    let refused =
        |time, keys| Layout::try_new("t".parse().unwrap(), schema(), time, keys).unwrap_err().to_string();
    let plain = |columns| vec![Key { columns, role: Role::Plain }];
    let time = |column, format| Some(Time { column, format });
    insta::assert_snapshot!(
        [
            refused(time(2, TimeFormat::UnixSeconds), vec![]),
            refused(time(9, TimeFormat::Date), vec![]),
            refused(None, plain(vec![])),
            refused(None, plain(vec![1, 1])),
            refused(None, plain(vec![7])),
            refused(None, vec![primary(None), primary(None)]),
        ]
        .join("\n")
    );
}

#[test]
fn memory_is_asked_for_and_given_back() {
    let pool = pool(1 << 30);
    let budget = Budget::new("s.rows".parse().unwrap(), &pool);
    let layout = layout_of(vec![primary(Some(OnConflict::Upsert))]);
    let first = load(&layout, None, &numbered(0, 2_000), &budget).unwrap();
    assert_eq!((pool.reserved(), budget.bytes()), (first.bytes(), first.bytes()));
    // All shared: nothing more is held.
    let same = load(&layout, Some(&first), &numbered(0, 2_000), &budget).unwrap();
    assert_eq!(pool.reserved(), first.bytes());
    let mut append = Append::begin(Arc::clone(&same), budget.clone());
    append.push(&batch(&[(Some(5), Some(1_000_000), "new".to_owned())])).unwrap();
    let next = append.finish().unwrap().unwrap();
    assert!(pool.reserved() > first.bytes());
    drop((first, same));
    assert_eq!((pool.reserved(), budget.bytes()), (next.bytes(), next.bytes()));
    drop(next);
    assert_eq!((pool.reserved(), budget.bytes()), (0, 0));
}

#[test]
fn what_does_not_fit_is_refused_with_its_size() {
    let pool = pool(20_000);
    let budget = Budget::new("s.rows".parse().unwrap(), &pool);
    let layout = layout_of(vec![]);
    let small = load(&layout, None, &numbered(0, 100), &budget).unwrap();
    let error = load(&layout, Some(&small), &numbered(0, 5_000), &budget).unwrap_err();
    let StoreError::Memory { needed, limit, .. } = &error else { panic!("{error}") };
    assert!(*needed > 20_000, "{error}");
    assert_eq!(*limit, Some(20_000));
    assert_eq!(pool.reserved(), small.bytes());
}

#[test]
fn chunks_own_just_the_memory_of_their_rows() {
    let long = "a text that is longer than the twelve bytes that a view holds itself".repeat(100);
    let views: ArrayRef =
        Arc::new(StringViewArray::from_iter_values((0..5_000).map(|at| format!("{at}{long}"))));
    let codes = Int32Array::from_iter_values((0..5_000).map(|at| at % 3));
    let words: ArrayRef =
        Arc::new(DictionaryArray::new(codes, Arc::new(StringArray::from(vec!["x", "y", "z"]))));
    let nested: ArrayRef = Arc::new(arrow::array::StructArray::from(vec![(
        Arc::new(Field::new("inner", DataType::Utf8View, true)),
        Arc::clone(&views),
    )]));
    let columns = vec![("views", views), ("words", words), ("nested", nested)];
    let whole = RecordBatch::try_from_iter(columns).unwrap();
    let few = whole.slice(2_000, 10);
    let layout = Arc::new(Layout::try_new("t".parse().unwrap(), few.schema(), None, vec![]).unwrap());
    let mut load = Load::begin(layout, None, budget());
    load.push(&few).unwrap();
    let generation = load.finish().unwrap();
    assert!(generation.bytes() < 2 * 10 * (long.len() + 100), "{} bytes", generation.bytes());
    let batches: Vec<RecordBatch> = generation.chunks().iter().map(|chunk| chunk.batch().unwrap()).collect();
    let back = concat_batches(&few.schema(), &batches).unwrap();
    assert_eq!(back, few);
}
