//! Random sequences of refreshes against the rows that an upstream has.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;

/// How far behind the watermark an append asks again.
const OVERLAP: i64 = 3;

#[derive(Debug, Clone)]
enum Step {
    /// The upstream gets rows at so much after the overlap's begin: key, time, value.
    Insert(Vec<(i64, i64, u8)>),
    Append,
    Full,
    Compact,
    /// What is older than the overlap goes, but for so much.
    Retain(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = prop::collection::vec((0..6_i64, 0..8_i64, 0..3_u8), 1..12);
    let step = prop_oneof![
        4 => rows.prop_map(Step::Insert),
        5 => Just(Step::Append),
        1 => Just(Step::Full),
        1 => Just(Step::Compact),
        1 => (0..5_i64).prop_map(Step::Retain),
    ];
    prop::collection::vec(step, 1..25)
}

fn check(name: &str, keys: Vec<Key>, fold: fn(&[Row]) -> Vec<Row>, retains: bool) {
    let run = |steps: Vec<Step>| run(&layout_of(keys.clone()), steps, fold, retains);
    runner(120).run(&steps(), run).unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn run(
    layout: &Arc<Layout>,
    steps: Vec<Step>,
    fold: fn(&[Row]) -> Vec<Row>,
    retains: bool,
) -> Result<(), TestCaseError> {
    let mut upstream: Vec<Row> = Vec::new();
    let mut held = loaded(layout, None, &[]).unwrap();
    for step in steps {
        let since = held.watermark().map(|last| last - OVERLAP);
        let next = match step {
            Step::Insert(new) => {
                let row = |(id, t, v)| (Some(id), Some(since.unwrap_or(0) + t), format!("{v}"));
                upstream.extend(new.into_iter().map(row));
                continue;
            }
            Step::Append => {
                let asked = upstream.iter().filter(|row| since.is_none_or(|since| row.1 >= Some(since)));
                appended(&held, &asked.cloned().collect::<Vec<_>>()).unwrap()
            }
            Step::Full => Some(loaded(layout, Some(&held), &upstream).unwrap()),
            Step::Compact => compacted(&held, &budget()).unwrap(),
            Step::Retain(more) => {
                let Some(last) = since.map(|since| since - more).filter(|_| retains) else { continue };
                upstream.retain(|row| row.1 >= Some(last));
                without(&held, &before(last), &budget()).unwrap()
            }
        };
        if let Some(next) = next {
            prop_assert!(next.number() > held.number());
            held = next;
        }
        if matches!(step, Step::Append | Step::Full) {
            prop_assert_eq!(sorted(rows(&held)), sorted(fold(&upstream)));
            let again = appended(&held, &upstream).unwrap();
            prop_assert!(again.is_none(), "the same rows again are no news");
        }
    }
    Ok(())
}

fn before(t: i64) -> Arc<dyn datafusion::physical_plan::PhysicalExpr> {
    use datafusion::physical_plan::expressions::{binary, col, lit};
    let value = datafusion::scalar::ScalarValue::TimestampNanosecond(Some(t), None);
    let column = col("t", &schema()).unwrap();
    binary(column, datafusion::logical_expr::Operator::Lt, lit(value), &schema()).unwrap()
}

#[test]
fn appends_hold_what_the_upstream_holds_as_a_multiset() {
    check("multiset", vec![], |rows| rows.to_vec(), true);
}

#[test]
fn a_plain_index_changes_nothing() {
    check("index", vec![Key { columns: vec![2, 0], role: Role::Plain }], |rows| rows.to_vec(), true);
}

#[test]
fn upserts_fold_by_time_then_arrival() {
    let fold = |rows: &[Row]| {
        let mut latest: BTreeMap<Option<i64>, &Row> = BTreeMap::new();
        for row in rows {
            let held = latest.entry(row.0).or_insert(row);
            if row.1 >= held.1 {
                *held = row;
            }
        }
        latest.into_values().cloned().collect()
    };
    check("upsert", vec![primary(Some(OnConflict::Upsert))], fold, true);
}

#[test]
fn drops_keep_the_first_row_by_time_then_arrival() {
    let fold = |rows: &[Row]| {
        let mut first: BTreeMap<Option<i64>, &Row> = BTreeMap::new();
        for row in rows {
            let held = first.entry(row.0).or_insert(row);
            if row.1 < held.1 {
                *held = row;
            }
        }
        first.into_values().cloned().collect()
    };
    // Without retention: what it took out upstream too may have been the reason why a later row was dropped.
    check("drop", vec![primary(Some(OnConflict::Drop))], fold, false);
}

#[test]
fn rows_without_a_time_are_counted_too() {
    let layout = layout_of(vec![]);
    let row = |t| (Some(1), t, "a".to_owned());
    let first = loaded(&layout, None, &[row(None), row(Some(5))]).unwrap();
    assert!(appended(&first, &[row(Some(5)), row(None)]).unwrap().is_none());
    let second = appended(&first, &[row(None), row(None)]).unwrap().unwrap();
    assert_eq!(sorted(rows(&second)), [row(None), row(None), row(Some(5))]);
}
