//! A table read from its files: the rows of memory, few bytes for narrow filters, files that live while scanned.

use arrow::array::{
    ArrayRef, BinaryViewArray, Date32Array, Decimal128Array, DictionaryArray, DurationSecondArray,
    Float64Array, IntervalYearMonthArray, ListArray, StringViewArray, StructArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Int32Type, IntervalUnit, UnionFields, UnionMode};
use datafusion::datasource::MemTable;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::SessionContext;

use super::*;

fn on_files(folder: &Path) -> Settings {
    Settings { residence: Residence::Files, ..settings(folder) }
}

async fn answers(context: &SessionContext, sql: &str) -> String {
    let found = context.sql(sql).await.unwrap().collect().await.unwrap();
    arrow::util::pretty::pretty_format_batches(&found).unwrap().to_string()
}

/// Columns of the types that upstreams send, with the values that storage tends to lose.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let structs = StructArray::try_new(
        vec![Field::new("x", DataType::Int64, true)].into(),
        vec![Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4), None]))],
        Some(NullBuffer::from(vec![true, true, false, true, true])),
    );
    let lists = [Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(7)]), Some(vec![None])];
    let long = "a value longer than the sixty-four bytes that statistics keep of a string, at the least";
    vec![
        ("i", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(0), Some(i64::MAX), Some(7)]))),
        ("u", Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(0), None, Some(1), Some(1 << 63)]))),
        ("f", Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-0.0), Some(0.0), None, Some(1.5)]))),
        ("g", Arc::new(Float64Array::from(vec![f64::INFINITY, -0.0, 2.5, f64::MIN, 1.5]))),
        ("s", Arc::new(StringViewArray::from(vec![Some("ab"), Some(""), None, Some(long), Some("é")]))),
        (
            "b",
            Arc::new(BinaryViewArray::from(vec![
                Some(&b"\xff"[..]),
                Some(b""),
                None,
                Some(b"\0"),
                Some(b"z"),
            ])),
        ),
        (
            "d",
            Arc::new(DictionaryArray::<Int32Type>::from_iter([
                Some("x"),
                None,
                Some("y"),
                Some("x"),
                Some(""),
            ])),
        ),
        ("dec", {
            let values = Decimal128Array::from(vec![Some(-1), Some(10_i128.pow(37)), None, Some(0), Some(5)]);
            Arc::new(values.with_precision_and_scale(38, 10).unwrap())
        }),
        ("date", Arc::new(Date32Array::from(vec![Some(i32::MIN), Some(0), None, Some(19_000), Some(-1)]))),
        (
            "ts",
            Arc::new(
                TimestampNanosecondArray::from(vec![Some(1), None, Some(-1), Some(0), Some(9)])
                    .with_timezone("+05:30"),
            ),
        ),
        ("tss", Arc::new(TimestampSecondArray::from(vec![Some(1), None, Some(-1), Some(0), Some(1 << 33)]))),
        ("dur", Arc::new(DurationSecondArray::from(vec![Some(1), None, Some(-1), Some(0), Some(9)]))),
        ("ym", Arc::new(IntervalYearMonthArray::from(vec![Some(1), None, Some(-1), Some(0), Some(9)]))),
        ("st", Arc::new(structs.unwrap())),
        ("l", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))),
        ("n", arrow::array::new_null_array(&DataType::Null, 5)),
    ]
}

/// What pruning and statistics could answer wrongly.
fn statements() -> Vec<String> {
    let mut statements = vec!["SELECT count(*) FROM t".to_owned()];
    for (name, column) in columns() {
        statements.push(format!("SELECT count({name}), count(*) FROM t WHERE {name} IS NOT NULL"));
        statements.push(format!("SELECT count({name}) FROM t"));
        statements.push(format!("SELECT count(*) FROM t WHERE {name} IS NULL"));
        if !column.data_type().is_nested() && *column.data_type() != DataType::Null {
            for operator in ["=", "<", ">=", "<>"] {
                statements.push(format!(
                    "SELECT count(*) FROM t AS a JOIN (SELECT max({name}) AS m FROM t) ON a.{name} {operator} m"
                ));
            }
            statements.push(format!("SELECT min({name}), max({name}) FROM t"));
        }
    }
    statements.extend(
        [
            "f > 3",
            "f < 0.0",
            "f = 0.0",
            "f >= 0",
            "g < 0",
            "g >= -0.0",
            "u > 9223372036854775808",
            "s > 'a value longer than'",
            "d = 'x'",
            "dec > 1",
            "b >= '\u{0}'",
            "date < '1970-01-01'",
            "ts < '1970-01-01'",
            "st['x'] > 3",
        ]
        .map(|filter| format!("SELECT count(*) FROM t WHERE {filter}")),
    );
    statements
}

#[tokio::test]
async fn every_type_comes_back_and_answers_as_memory_does() {
    let fields: Vec<Field> = columns()
        .iter()
        .map(|(name, column)| {
            Field::new(*name, column.data_type().clone(), true)
                .with_metadata([("k".to_owned(), "v".to_owned())].into())
        })
        .collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, [("of".to_owned(), "all".to_owned())].into()));
    Folder::check(&schema).await.unwrap();
    let whole = columns().into_iter().map(|(_, column)| column).collect();
    let whole = RecordBatch::try_new(Arc::clone(&schema), whole).unwrap();
    let rows_of = |at| (ChunkId::fresh(), whole.slice(at, 1));
    let chunks: Vec<_> = (0..5).map(rows_of).chain([(ChunkId::fresh(), whole.clone())]).collect();

    let folder = tempfile::tempdir().unwrap();
    let mut disk = Folder::open(on_files(folder.path())).await.unwrap().folder;
    let made = Commit { schema: Arc::clone(&schema), ..commit(1) };
    disk.commit(made, chunks.clone()).await.unwrap();

    let memory = SessionContext::new();
    memory
        .register_table(
            "t",
            Arc::new(MemTable::try_new(Arc::clone(&schema), vec![batches(&chunks)]).unwrap()),
        )
        .unwrap();
    let files = SessionContext::new();
    files.register_table("t", Arc::new(disk.table(Arc::clone(&schema)))).unwrap();
    for sql in statements() {
        assert_eq!(answers(&files, &sql).await, answers(&memory, &sql).await, "{sql}");
    }
    drop((files, disk));

    let opened = Folder::open(settings(folder.path())).await.unwrap();
    assert_eq!(opened.findings, Findings::default());
    let restored = opened.restored.unwrap();
    assert_eq!(restored.schema, schema);
    for (back, (_, batch)) in rows(&restored).iter().zip(&chunks) {
        assert_eq!(back.schema(), schema);
        for (found, expected) in back.columns().iter().zip(batch.columns()) {
            assert_eq!(found, expected);
        }
    }
}

#[tokio::test]
async fn types_that_parquet_cannot_hold_are_refused_by_column() {
    let members = [(0, Arc::new(Field::new("x", DataType::Int64, true)))];
    let union = DataType::Union(UnionFields::from_iter(members), UnionMode::Dense);
    let hollow = DataType::Union(UnionFields::empty(), UnionMode::Dense);
    let mut said = Vec::new();
    for refused in [
        DataType::Interval(IntervalUnit::MonthDayNano),
        union,
        hollow,
        DataType::Struct([].as_slice().into()),
    ] {
        let fields = vec![Field::new("fine", DataType::Int64, true), Field::new("odd", refused, true)];
        let error = Folder::check(&Arc::new(Schema::new(fields))).await.unwrap_err();
        assert!(matches!(&error, DiskError::Type { column, .. } if column == "odd"), "{error}");
        said.push(error.to_string());
    }
    assert!(matches!(Folder::check(&Arc::new(Schema::empty())).await, Err(DiskError::NoColumns)));
    insta::assert_debug_snapshot!(said);
}

#[tokio::test]
async fn a_narrow_filter_reads_few_rows_and_the_count_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Folder::open(on_files(folder.path())).await.unwrap().folder;
    let chunks: Vec<_> = (0..4).map(|at| chunk(at * 100_000, (at + 1) * 100_000)).collect();
    disk.commit(commit(1), chunks).await.unwrap();
    let context = SessionContext::new();
    context.register_table("t", Arc::new(disk.table(schema()))).unwrap();

    let plan = context
        .sql("SELECT name FROM t WHERE id = 250001")
        .await
        .unwrap()
        .create_physical_plan()
        .await
        .unwrap();
    let found = collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let scanned = leaf(&plan).metrics().unwrap().output_rows().unwrap();
    // One page, not one of four files of 100,000 rows.
    assert!(scanned <= 30_000, "{scanned} rows left the scan");
    let count =
        context.sql("SELECT count(*), max(id) FROM t").await.unwrap().create_physical_plan().await.unwrap();
    let text = displayable(count.as_ref()).indent(false).to_string();
    assert!(text.contains("PlaceholderRowExec"), "{text}");
}

fn leaf(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    plan.children().first().map_or_else(|| Arc::clone(plan), |child| leaf(child))
}

#[tokio::test]
async fn a_scan_keeps_its_files_and_the_folder_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Folder::open(on_files(folder.path())).await.unwrap().folder;
    disk.commit(commit(1), vec![chunk(0, 10)]).await.unwrap();
    let context = SessionContext::new();
    context.register_table("t", Arc::new(disk.table(schema()))).unwrap();
    let sql = "SELECT sum(id) FROM t";
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();

    // Two generations later no manifest names its file any more.
    disk.commit(commit(2), vec![chunk(10, 12)]).await.unwrap();
    disk.commit(commit(3), vec![chunk(20, 21)]).await.unwrap();
    assert!(names(folder.path()).contains(&"chunk-1.parquet".to_owned()));
    let old = collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
    assert_eq!(old[0].column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(0), 45);
    assert!(answers(&context, sql).await.contains("20"));

    // The folder belongs to the scan as long as it may read.
    drop((disk, context));
    let locked = Folder::open(on_files(folder.path())).await.unwrap_err();
    assert!(matches!(locked, DiskError::Locked { .. }), "{locked}");
    drop(plan);
    let opened = loop {
        match Folder::open(on_files(folder.path())).await {
            // The last pin's file is removed by a thread, which holds the folder until it has done so.
            Err(DiskError::Locked { .. }) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(opened.restored.unwrap().rows, 1);
    assert!(!names(folder.path()).contains(&"chunk-1.parquet".to_owned()));
}

#[tokio::test]
async fn a_restored_table_appends_to_its_files_and_another_schema_is_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Folder::open(on_files(folder.path())).await.unwrap().folder;
    disk.commit(commit(1), vec![chunk(0, 10)]).await.unwrap();
    drop(disk);
    let opened = Folder::open(on_files(folder.path())).await.unwrap();
    let mut disk = opened.folder;
    let Some(Restored { chunks: Chunks::Files(mut ids), .. }) = opened.restored else { panic!("no files") };
    let more = chunk(10, 12);
    ids.push(more.0);
    disk.write(more.0, more.1).await.unwrap();
    disk.seal(commit(2), ids).await.unwrap();
    assert_eq!(
        names(folder.path()),
        ["chunk-1.parquet", "chunk-2.parquet", "lock", "manifest-1", "manifest-2"]
    );

    let context = SessionContext::new();
    context.register_table("t", Arc::new(disk.table(schema()))).unwrap();
    assert!(
        answers(&context, "SELECT count(*), sum(id) FROM t WHERE id > 0").await.contains("| 11       | 66")
    );
    let other = Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, true)]));
    context.register_table("o", Arc::new(disk.table(other))).unwrap();
    let error = context.sql("SELECT * FROM o").await.unwrap().collect().await.unwrap_err();
    assert!(error.to_string().contains("schema changed"), "{error}");
}
