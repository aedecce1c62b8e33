//! Queries over published generations, through DataFusion.

use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{
    BinaryViewArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, StringViewArray,
};
use arrow::compute::concat_batches;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

pub(super) fn published(generation: Arc<Generation>) -> Arc<Table> {
    let table = Table::new(Arc::clone(generation.layout()));
    table.publish(generation).unwrap();
    Arc::new(table)
}

fn context(table: &Arc<Table>, source: Option<Arc<dyn TableProvider>>) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(3);
    let state = SessionStateBuilder::new().with_config(config).with_default_features();
    let state = state.with_physical_optimizer_rule(Arc::new(GroupByNumbers));
    let state = state.with_physical_optimizer_rule(Arc::new(JoinKeys));
    let state = state.with_physical_optimizer_rule(Arc::new(GroupDirectly)).build();
    let context = SessionContext::new_with_state(state);
    let local: Arc<dyn TableProvider> = Arc::new(AcceleratedTable::new(Arc::clone(table)));
    let provider: Arc<dyn TableProvider> = match source {
        Some(source) => Arc::new(OrSource::new(local, Arc::new(Fixed(source)))),
        None => local,
    };
    context.register_table("rows", provider).unwrap();
    context
}

/// A source that is reached, or was never.
#[derive(Debug)]
struct Fixed(Arc<dyn TableProvider>);

#[derive(Debug)]
struct Unreached;

#[async_trait::async_trait]
impl Source for Fixed {
    async fn table(&self) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        Ok(Arc::clone(&self.0))
    }
}

#[async_trait::async_trait]
impl Source for Unreached {
    async fn table(&self) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        datafusion::common::plan_err!("it was never reached")
    }
}

async fn ask(context: &SessionContext, sql: &str) -> RecordBatch {
    let frame = context.sql(sql).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    concat_batches(&schema, &frame.collect().await.unwrap()).unwrap()
}

async fn text(context: &SessionContext, sql: &str) -> String {
    let batch = ask(context, sql).await;
    arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string()
}

/// The rows in no order: that of zeros and NaNs among themselves is nobody's promise.
pub(super) async fn lines(context: &SessionContext, sql: &str) -> Vec<String> {
    let mut lines: Vec<String> = text(context, sql).await.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

pub(super) async fn plan(context: &SessionContext, sql: &str) -> String {
    let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string()
}

#[test]
fn plans_skip_chunks_find_keys_and_count_without_reading() {
    runtime().block_on(async {
        let layout = layout_of(vec![primary(None), Key { columns: vec![2, 0], role: Role::Plain }]);
        let context = context(&published(loaded(&layout, None, &numbered(0, 5_000)).unwrap()), None);
        let mut plans = String::new();
        for sql in [
            "SELECT v FROM rows",
            "SELECT v FROM rows WHERE t >= arrow_cast(49900, 'Timestamp(Nanosecond, None)')",
            "SELECT v FROM rows WHERE id = 4711",
            "SELECT id FROM rows WHERE v = 'v17' AND id = 17 AND t IS NOT NULL",
            "SELECT v FROM rows WHERE id = -1",
            "SELECT count(*), min(id), max(t) FROM rows",
            "SELECT count(*) FROM rows WHERE v IS NULL",
            "SELECT v FROM rows LIMIT 3",
        ] {
            plans += &format!("{sql}\n{}\n", plan(&context, sql).await);
        }
        insta::assert_snapshot!(plans);
        assert_eq!(ask(&context, "SELECT * FROM rows").await.num_rows(), 5_000);
        assert_eq!(rows_of(&ask(&context, "SELECT * FROM rows WHERE id = 4711").await), numbered(4_711, 1));
        assert_eq!(ask(&context, "SELECT v FROM rows LIMIT 3").await.num_rows(), 3);
        let counted = "SELECT count(*) AS n, min(id) AS a, max(id) AS b FROM rows WHERE id IN (3, 4000)";
        insta::assert_snapshot!(text(&context, counted).await);
    });
}

/// Columns of the types whose equality is not that of their bytes, and a table of their rows in many chunks.
fn odd_rows(seeds: &[(u8, u8, u8)]) -> RecordBatch {
    let floats = [0.0, -0.0, f64::NAN, 1.5, f64::INFINITY, f64::NEG_INFINITY, -f64::NAN];
    let words = ["", "a", "b", "a text of more than twelve bytes", "a text of more than twelve bytes!"];
    let float = |seed: u8| (seed % 8 != 7).then(|| floats[usize::from(seed % 8) % floats.len()]);
    let word = |seed: u8| (seed % 6 != 5).then(|| words[usize::from(seed % 6) % words.len()]);
    let codes =
        Int32Array::from_iter(seeds.iter().map(|seed| (seed.2 % 6 != 5).then(|| i32::from(seed.2 % 6))));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("f", Arc::new(Float64Array::from_iter(seeds.iter().map(|seed| float(seed.0))))),
        ("s", Arc::new(StringViewArray::from_iter(seeds.iter().map(|seed| word(seed.1))))),
        ("d", Arc::new(DictionaryArray::new(codes, Arc::new(StringArray::from(words.to_vec()))))),
        (
            "b",
            Arc::new(BinaryViewArray::from_iter(
                seeds.iter().map(|seed| word(seed.1.wrapping_add(seed.0)).map(str::as_bytes)),
            )),
        ),
        (
            "y",
            Arc::new(BooleanArray::from_iter(
                seeds.iter().map(|seed| (seed.0 % 3 != 0).then_some(seed.0 % 2 == 0)),
            )),
        ),
        (
            "n",
            Arc::new(Int64Array::from_iter(
                seeds.iter().map(|seed| (seed.2 != 0).then_some(i64::from(seed.2))),
            )),
        ),
    ];
    let nullable = columns.into_iter().map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(nullable).unwrap()
}

/// A comparison in SQL.
fn filter() -> impl Strategy<Value = String> {
    let op = prop::sample::select(vec!["=", "=", "=", "<>", "<", "<=", ">", ">="]);
    let float =
        prop::sample::select(vec!["0.0", "-0.0", "1.5", "CAST('NaN' AS DOUBLE)", "CAST('inf' AS DOUBLE)"]);
    let word = prop::sample::select(vec!["''", "'a'", "'b'", "'a text of more than twelve bytes'", "'zz'"]);
    let leaf = prop_oneof![
        (op.clone(), float).prop_map(|(op, value)| format!("f {op} {value}")),
        (op.clone(), word.clone()).prop_map(|(op, value)| format!("s {op} {value}")),
        (op.clone(), word.clone()).prop_map(|(op, value)| format!("{value} {op} d")),
        (op.clone(), word).prop_map(|(op, value)| format!("b {op} CAST({value} AS BYTEA)")),
        (op, 0..9_i64).prop_map(|(op, value)| format!("n {op} {value}")),
        prop::sample::select(vec!["y", "NOT y", "n IS NULL", "s IS NOT NULL", "n IN (1, 3)", "s LIKE 'a%'"])
            .prop_map(str::to_owned),
        prop::sample::select(vec![
            "n IN (1, 2, 3, 4, 5, 5, NULL)",
            "n NOT IN (1, 2, 3, 4, 5)",
            "s IN ('', 'a', 'b', 'zz', 'a text of more than twelve bytes')",
            "f IN (0.0, -0.0, 1.5, CAST('NaN' AS DOUBLE))",
            "(n = 1 OR n = 7 OR 3 = n) AND (s = 'a' OR s = 'b')",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        (inner.clone(), inner, prop::sample::select(vec!["AND", "AND", "OR"]))
            .prop_map(|(one, other, word)| format!("({one} {word} {other})"))
    })
}

#[test]
fn skipping_and_finding_lose_no_row() {
    let rows = prop::collection::vec((0..8_u8, 0..6_u8, 0..9_u8), 0..200);
    let case = (rows, prop::collection::vec(filter(), 5), any::<bool>());
    let runtime = runtime();
    runner(10)
        .run(&case, |(mut seeds, filters, clustered)| {
            if clustered {
                seeds.sort();
            }
            let all = odd_rows(&seeds);
            let plain = |columns: Vec<usize>| Key { columns, role: Role::Plain };
            let keys = vec![plain(vec![0]), plain(vec![1]), plain(vec![2]), plain(vec![3]), plain(vec![5]), plain(vec![5, 1])];
            let layout = Layout::try_new("rows".parse().unwrap(), all.schema(), None, keys).unwrap();
            let mut load = Load::begin(Arc::new(layout), None, budget()).in_small_chunks();
            for from in (0..all.num_rows()).step_by(7) {
                load.push(&all.slice(from, 7.min(all.num_rows() - from))).unwrap();
            }
            let ours = context(&published(load.finish().unwrap()), None);
            let plain = SessionContext::new();
            let table = MemTable::try_new(all.schema(), vec![vec![all.clone()]]).unwrap();
            plain.register_table("rows", Arc::new(table)).unwrap();
            for filter in filters {
                for select in ["f, s, d, b, y, n", "count(*), min(f), max(f), min(s), max(b), max(n), count(y)"] {
                    let sql = format!("SELECT {select} FROM rows WHERE {filter}");
                    let both = async { (lines(&ours, &sql).await, lines(&plain, &sql).await) };
                    let (ours, theirs) = runtime.block_on(both);
                    prop_assert_eq!(ours, theirs, "{}", sql);
                }
            }
            let sql = "SELECT count(*), min(f), max(f), min(s), max(s), min(b), max(b), min(y), max(y), max(n) FROM rows";
            let (ours, theirs) = runtime.block_on(async { (text(&ours, sql).await, text(&plain, sql).await) });
            prop_assert_eq!(ours, theirs);
            Ok(())
        })
        .unwrap();
}

/// Rows enough for several chunks whose texts are kept as codes.
fn repeating() -> RecordBatch {
    const ROWS: i64 = 150_000;
    let text =
        |row: i64| (row % 11 != 3).then(|| format!("a text of more than twelve bytes, {}", row * 7 % 9));
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("k", Arc::new(Int64Array::from_iter_values(0..ROWS)), false),
        ("s", Arc::new(StringViewArray::from_iter((0..ROWS).map(text))), true),
        (
            "c",
            Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("{}", row / 7 % 5)))),
            false,
        ),
        (
            "n",
            Arc::new(Int64Array::from_iter((0..ROWS).map(|row| (row % 13 != 0).then_some(row % 97)))),
            true,
        ),
        ("m", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| row / 3_000))), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// A condition on [`repeating`].
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (0..10).prop_map(|at| format!("s = 'a text of more than twelve bytes, {at}'")),
        (0..10).prop_map(|at| format!("s <> 'a text of more than twelve bytes, {at}'")),
        (0..10).prop_map(|at| format!("s LIKE '%{at}'")),
        (0..6).prop_map(|at| format!("c IN ('{at}', '2', 'none')")),
        (0..6).prop_map(|at| format!("CAST(c AS BIGINT) + 1 > {at}")),
        (0..97).prop_map(|at| format!("n < {at}")),
        (0..50).prop_map(|at| format!("m = {at}")),
        (0..150_000).prop_map(|at| format!("k >= {at}")),
        (2..2_000).prop_map(|at| format!("k % {at} = 1")),
        prop::sample::select(vec![
            "s IS NULL",
            "s IS NOT NULL",
            "coalesce(s, c) = c",
            "n IS NULL",
            "n = m",
            "c = '3' AND n = 5",
            "s > c",
            "n IN (SELECT q FROM few)",
            "c NOT IN (SELECT w FROM few WHERE w IS NOT NULL)",
            "k > (SELECT max(q) FROM few) * 1000",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec((leaf.clone(), leaf, any::<bool>()), 1..4).prop_map(|parts| {
        let part = |(one, other, alone): (String, String, bool)| {
            if alone { one } else { format!("({one} OR {other})") }
        };
        parts.into_iter().map(part).collect::<Vec<_>>().join(" AND ")
    })
}

/// [`repeating`], in chunks of codes and a last one too small for them, beside the same in plain DataFusion; each with a
/// table `few`.
fn repeated() -> (SessionContext, SessionContext) {
    const LAST: usize = 700;
    let all = repeating();
    let layout = Layout::try_new("rows".parse().unwrap(), all.schema(), None, vec![]).unwrap();
    let mut load = Load::begin(Arc::new(layout), None, budget());
    load.push(&all.slice(0, all.num_rows() - LAST)).unwrap();
    let mut append = Append::begin(load.finish().unwrap(), budget());
    append.push(&all.slice(all.num_rows() - LAST, LAST)).unwrap();
    let generation = append.finish().unwrap().unwrap();
    assert!(generation.chunks().len() > 3, "{} chunks", generation.chunks().len());
    let ours = context(&published(generation), None);
    let plain = SessionContext::new();
    let slices = (0..all.num_rows()).step_by(10_000).map(|from| all.slice(from, 10_000)).collect();
    plain.register_table("rows", Arc::new(MemTable::try_new(all.schema(), vec![slices]).unwrap())).unwrap();
    let few = RecordBatch::try_from_iter_with_nullable([
        (
            "q",
            Arc::new(Int64Array::from(vec![Some(5), Some(30), Some(96), Some(500), None])) as ArrayRef,
            true,
        ),
        (
            "w",
            Arc::new(StringArray::from(vec![Some("1"), Some("4"), None, Some("9"), Some("1")])) as ArrayRef,
            true,
        ),
    ]);
    let few = few.unwrap();
    for context in [&ours, &plain] {
        let table = MemTable::try_new(few.schema(), vec![vec![few.clone()]]).unwrap();
        context.register_table("few", Arc::new(table)).unwrap();
    }
    (ours, plain)
}

/// Both answer statements of `selects`, with a condition each, with the same rows.
fn equal_answers(selects: Vec<&'static str>) {
    let (ours, plain) = repeated();
    let case = prop::collection::vec((prop::sample::select(selects), condition()), 6);
    let runtime = runtime();
    runner(6)
        .run(&case, |statements| {
            for (select, condition) in statements {
                let sql = select.replace("{}", &condition);
                let both = async { (lines(&ours, &sql).await, lines(&plain, &sql).await) };
                let (ours, theirs) = runtime.block_on(both);
                prop_assert_eq!(ours, theirs, "{}", sql);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_filtered_while_it_is_read_is_what_is_filtered_afterwards() {
    equal_answers(vec![
        "SELECT count(*), sum(k), count(s), min(s), max(c), sum(n) FROM rows WHERE {}",
        "SELECT k, s, c FROM rows WHERE {} ORDER BY k LIMIT 40",
        "SELECT c, s, k FROM rows WHERE {} ORDER BY m DESC, k LIMIT 7",
        "SELECT s, count(*), max(k) FROM rows WHERE {} GROUP BY s",
        "SELECT count(*), sum(k), min(rows.s) FROM few JOIN rows ON few.q = rows.n WHERE {}",
        "SELECT count(*), sum(k), min(few.q) FROM few LEFT JOIN rows ON few.q = rows.n AND few.w = rows.c WHERE {}",
        "SELECT count(*), sum(k) FROM rows WHERE {} AND EXISTS (SELECT 1 FROM few WHERE few.q = rows.m)",
        "SELECT count(*), sum(a.k) FROM rows a JOIN rows b ON a.k = b.m * 3 WHERE b.n = 7 AND a.k IN (SELECT k FROM rows WHERE {})",
        "WITH RECURSIVE r(x) AS (SELECT 5 UNION ALL SELECT rows.k / 2 FROM r JOIN rows ON rows.k = x * 3 WHERE x < 900 AND ({})) SELECT count(*), sum(x) FROM r",
    ]);
}

/// Groups of texts, each way that a column can take to its group.
const GROUPED: [&str; 16] = [
    "SELECT s, count(*), max(k) FROM rows WHERE {} GROUP BY s",
    "SELECT s, c, count(*), sum(n), min(k) FROM rows WHERE {} GROUP BY s, c",
    "SELECT c, m, s, sum(k + 1) FROM rows WHERE {} GROUP BY c, m, s",
    "SELECT DISTINCT c, s FROM rows WHERE {}",
    "SELECT s, count(DISTINCT n), count(DISTINCT c) FROM rows WHERE {} GROUP BY s",
    "SELECT c, min(s), max(s) FROM rows WHERE {} GROUP BY c",
    "SELECT c, s, max(c), count(*) FILTER (WHERE c > '2') FROM rows WHERE {} GROUP BY c, s",
    "SELECT s, upper(c), count(*) FROM rows WHERE {} GROUP BY s, upper(c)",
    "SELECT c AS one, s AS other, count(*) FROM rows WHERE {} GROUP BY GROUPING SETS ((c), (s, c), ())",
    "SELECT s, few.w, count(*), sum(k) FROM few JOIN rows ON few.q = rows.n WHERE {} GROUP BY s, few.w",
    "SELECT s, few.w, count(*), sum(k) FROM few LEFT JOIN rows ON few.q = rows.n WHERE {} GROUP BY s, few.w",
    "SELECT s, count(*) FROM rows WHERE {} AND EXISTS (SELECT 1 FROM few WHERE few.q = rows.m) GROUP BY s",
    "SELECT a.s, b.c, a.c, count(*) FROM rows a JOIN rows b ON a.k = b.m * 3 WHERE b.n = 7 AND a.k IN (SELECT k FROM rows WHERE {}) GROUP BY a.s, b.c, a.c",
    "SELECT s, c, count(*) FROM rows JOIN few ON rows.c = few.w WHERE {} GROUP BY s, c HAVING count(*) > 3",
    "SELECT s, n FROM (SELECT s, count(*) AS n FROM rows WHERE {} GROUP BY s) ORDER BY s DESC, n LIMIT 4",
    "SELECT c, array_agg(n ORDER BY k)[1], first_value(s ORDER BY k) FROM rows WHERE {} GROUP BY c",
];

#[test]
fn groups_by_numbers_are_groups_by_texts() {
    equal_answers(GROUPED.to_vec());
}

#[test]
fn texts_are_read_as_numbers_where_nothing_else_looks_at_them() {
    let (ours, _) = repeated();
    runtime().block_on(async {
        let mut read = String::new();
        for select in GROUPED {
            let sql = select.replace("{}", "k >= 0");
            let plan = plan(&ours, &sql).await;
            read += &format!("{sql}\n");
            for scan in plan.lines().filter(|line| line.contains("ChunkScan")) {
                let numbered = scan.split_once("numbered=").map_or("nothing", |(_, columns)| columns);
                read += &format!("    {numbered}\n");
            }
        }
        insta::assert_snapshot!(read);
    });
}

#[test]
fn a_query_sees_one_generation_however_often_it_scans() {
    runtime().block_on(async {
        let layout = layout_of(vec![]);
        let first = loaded(&layout, None, &numbered(0, 100)).unwrap();
        let second = loaded(&layout, Some(&first), &numbered(0, 300)).unwrap();
        let table = published(first);
        let (config, pins) = Pins::into_config(SessionConfig::new());
        let context = SessionContext::new_with_config(config);
        let provider: Arc<dyn TableProvider> = Arc::new(AcceleratedTable::new(Arc::clone(&table)));
        context.register_table("rows", Arc::clone(&provider)).unwrap();
        let scan = || async { provider.scan(&context.state(), None, &[], None).await.unwrap() };
        let before = scan().await;
        table.publish(Arc::clone(&second)).unwrap();
        let after = scan().await;
        for plan in [before, after] {
            let batches = datafusion::physical_plan::collect(plan, context.task_ctx()).await.unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 100);
        }
        let taken: Vec<u64> = pins.taken().iter().map(|(_, generation)| generation.number()).collect();
        assert_eq!(taken, [1]);
        assert_eq!(pins.taken()[0].0.layout(), &layout);
        let stale = table.publish(second).unwrap_err();
        assert_eq!(stale.to_string(), "dataset `s.rows`: generation 2 does not follow generation 2");
    });
}

#[test]
fn before_the_first_load_a_query_is_told_so() {
    runtime().block_on(async {
        let table = Arc::new(Table::new(layout_of(vec![])));
        let error =
            context(&table, None).sql("SELECT * FROM rows").await.unwrap().collect().await.unwrap_err();
        assert!(
            error.to_string().contains("Acceleration not ready; loading initial data for s.rows"),
            "{error}"
        );
    });
}

#[test]
fn where_no_row_is_held_the_source_answers() {
    runtime().block_on(async {
        let layout = layout_of(vec![primary(None)]);
        let table = published(loaded(&layout, None, &numbered(0, 1_000)).unwrap());
        let upstream = [numbered(0, 10), numbered(5_000, 10)].concat();
        let source = MemTable::try_new(schema(), vec![vec![batch(&upstream)], vec![]]).unwrap();
        let context = context(&table, Some(Arc::new(source)));
        let count = |sql: &'static str| {
            let context = context.clone();
            async move { ask(&context, sql).await.num_rows() }
        };
        assert_eq!(count("SELECT v FROM rows WHERE id < 20").await, 20);
        assert_eq!(count("SELECT v FROM rows WHERE id > 4000").await, 10);
        assert_eq!(count("SELECT v FROM rows WHERE id = 5003").await, 1);
        assert_eq!(count("SELECT v FROM rows WHERE id > 4000 LIMIT 3").await, 3);
        assert_eq!(count("SELECT v FROM rows WHERE id > 900 LIMIT 30").await, 30);
        assert_eq!(count("SELECT v FROM rows WHERE v = 'nowhere'").await, 0);
        insta::assert_snapshot!(text(&context, "SELECT count(*), max(v) FROM rows WHERE id > 5004").await);
        insta::assert_snapshot!(text(&context, "SELECT count(*), max(id) FROM rows").await);
        insta::assert_snapshot!(plan(&context, "SELECT v FROM rows WHERE id > 4000 LIMIT 3").await);
    });
}

#[test]
fn the_source_is_asked_for_columns_by_their_names() {
    runtime().block_on(async {
        // As `refresh_sql: select b, a` makes it: the source has them the other way round, and one more.
        let ints = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let held = RecordBatch::try_from_iter([("b", ints(&[1])), ("a", ints(&[2]))]).unwrap();
        let layout = Arc::new(Layout::try_new("rows".parse().unwrap(), held.schema(), None, vec![]).unwrap());
        let mut load = Load::begin(layout, None, budget());
        load.push(&held).unwrap();
        let table = published(load.finish().unwrap());
        let there = [("a", ints(&[20])), ("more", ints(&[30])), ("b", ints(&[10]))];
        let there = RecordBatch::try_from_iter(there).unwrap();
        let source = MemTable::try_new(there.schema(), vec![vec![there]]).unwrap();
        let context = context(&table, Some(Arc::new(source)));
        let batch = ask(&context, "SELECT * FROM rows WHERE a > 5").await;
        let at = |column| batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().value(0);
        assert_eq!((at("b"), at("a"), batch.num_rows()), (10, 20, 1));
    });
}

#[test]
fn a_source_that_cannot_answer_fails_only_the_query_that_asks_it() {
    runtime().block_on(async {
        let table = published(loaded(&layout_of(vec![]), None, &numbered(0, 10)).unwrap());
        let other = RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]);
        let other = other.unwrap();
        let narrow = MemTable::try_new(other.schema(), vec![vec![other]]).unwrap();
        let narrow: Arc<dyn Source> = Arc::new(Fixed(Arc::new(narrow)));
        for (source, reason) in
            [(Arc::new(Unreached) as _, "never reached"), (narrow, "type Utf8, here of type Int64")]
        {
            let context = SessionContext::new();
            let local = Arc::new(AcceleratedTable::new(Arc::clone(&table)));
            let provider = OrSource::new(local, source);
            context.register_table("rows", Arc::new(provider)).unwrap();
            assert_eq!(ask(&context, "SELECT id FROM rows WHERE id = 3").await.num_rows(), 1);
            let nothing = context.sql("SELECT id FROM rows WHERE id = 77").await.unwrap();
            let error = nothing.collect().await.unwrap_err().to_string();
            assert!(error.contains("no row is held") && error.contains(reason), "{error}");
        }
    });
}

#[test]
fn readers_never_see_a_mixture_through_refreshes_and_removals() {
    use datafusion::logical_expr::Operator;
    use datafusion::physical_plan::expressions::{binary, col, lit};

    const LATE: i64 = 390;
    let layout = layout_of(vec![primary(Some(OnConflict::Upsert))]);
    let compare = |op, t: i64| {
        let value = datafusion::scalar::ScalarValue::TimestampNanosecond(Some(t), None);
        binary(col("t", &schema()).unwrap(), op, lit(value), &schema()).unwrap()
    };
    let (stale, late) = (compare(Operator::Lt, 0), compare(Operator::GtEq, LATE));
    // The upstream has rows that are not to be kept; they go before a generation is seen.
    let generation = |g: i64, previous: Option<&Arc<Generation>>| {
        let all: Vec<Row> =
            (-40..400 + g % 7).map(|at| (Some(at), Some(at), format!("{g:06} of {at}"))).collect();
        let whole = loaded(&layout, previous, &all).unwrap();
        without(&whole, &stale, &budget()).unwrap().unwrap()
    };
    let table = published(generation(0, None));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let (runtime, context) = (runtime(), context(&table, None));
                    let mut seen = 0;
                    while !done.load(Ordering::Acquire) || seen == 0 {
                        // The filter keeps the answer from coming out of the statistics.
                        let sql = "SELECT min(left(v, 6)) AS a, max(left(v, 6)) AS b, count(*) AS n, min(arrow_cast(t, 'Int64')) >= 0 AS k \
                                   FROM rows WHERE v <> 'x'";
                        let text = runtime.block_on(text(&context, sql));
                        let cells: Vec<&str> = text.lines().nth(3).unwrap().split('|').map(str::trim).collect();
                        let g: i64 = cells[1].parse().unwrap();
                        let (whole, reduced) = ((400 + g % 7).to_string(), LATE.to_string());
                        assert!(cells[1] == cells[2] && cells[4] == "true", "a mixture: {text}");
                        assert!([whole.as_str(), &reduced].contains(&cells[3]), "{text}");
                        seen += 1;
                    }
                    seen
                })
            })
            .collect();
        for g in 1..=300 {
            let next = generation(g, table.pin().as_ref());
            table.publish(next).unwrap();
            // Retention between refreshes.
            if g % 3 == 0 {
                let reduced = without(&table.pin().unwrap(), &late, &budget()).unwrap().unwrap();
                table.publish(reduced).unwrap();
            }
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}
