//! Spans end in whatever order; what is recorded of them always hangs together.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn inputs(tracer: &Tracer) -> Vec<String> {
    tracer.history().tasks().iter().map(|task| task.input.to_string()).collect()
}

#[test]
fn a_child_hangs_on_its_parent_and_the_parent_on_the_caller() {
    let tracer = Tracer::default();
    let caller = Traceparent::read(Some(HEADER), ["a=1"]).unwrap();
    let query = tracer.start("sql_query", "SELECT 1", Some(&caller));
    let call = query.context().child("flight_request", "SELECT 1 FROM t");
    let sent = call.context().traceparent().unwrap();
    assert_eq!((sent.ids.trace, &sent.state), (caller.ids.trace, &caller.state));
    call.context().label("rows", "3");
    call.fail("away");
    drop(call);
    assert!(inputs(&tracer).is_empty(), "a child waits for its parent");
    drop(query);
    let tasks = tracer.history().tasks();
    let [call, query] = &tasks[..] else { panic!("{tasks:?}") };
    assert_eq!(query.parent, Some(caller.ids.span));
    assert_eq!(call.parent, Some(query.ids.span));
    assert_eq!(sent.ids, call.ids);
    assert_eq!((call.labels.get("rows"), call.error.as_deref()), (Some("3"), Some("away")));
}

#[test]
fn what_is_hushed_or_short_is_not_recorded_nor_what_hangs_on_it() {
    let sql_duration_min = Duration::from_secs(60);
    let tracer = Tracer::new(HistoryOptions { sql_duration_min, ..HistoryOptions::default() });
    let short = tracer.start("sql_query", "short", None);
    drop(short.context().child("flight_request", "below"));
    let late = short.context().child("flight_request", "late");
    drop(short);
    drop(late);
    let hushed = tracer.start("accelerated_refresh", "hushed", None);
    hushed.context().hush();
    drop(hushed);
    assert!(inputs(&tracer).is_empty());
    drop(tracer.start("accelerated_refresh", "other", None));
    assert_eq!(inputs(&tracer), ["other"]);
}

#[test]
fn without_a_span_the_caller_is_the_parent() {
    let tracer = Tracer::default();
    let caller = Traceparent::read(Some(HEADER), []).unwrap();
    let root = Context::root(&tracer, Some(&caller));
    assert_eq!(root.traceparent().unwrap().header(), HEADER);
    drop(root.child("flight_request", "plan"));
    assert_eq!(tracer.history().tasks()[0].parent, Some(caller.ids.span));
    let alone = Context::root(&tracer, None);
    assert!(alone.traceparent().is_none());
    drop(alone.child("flight_request", "plan"));
    assert_eq!(tracer.history().tasks()[1].parent, None);
}

#[tokio::test]
async fn the_current_place_is_that_of_the_future() {
    assert!(Context::current().is_none());
    let span = Tracer::default().start("sql_query", "x", None);
    let here = span.context().clone();
    let found = here.clone().scope(async { Context::current().unwrap().ids() }).await;
    assert_eq!(found, here.ids());
    assert!(Context::current().is_none());
}

proptest! {
    /// Opens and closes spans in any order: every parent that was recorded here exists, once.
    #[test]
    fn every_parent_is_there(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..60)) {
        let tracer = Tracer::default();
        let mut open: Vec<Span> = Vec::new();
        for (opens, at) in steps {
            match (opens, open.is_empty()) {
                (true, true) => open.push(tracer.start("sql_query", "q", None)),
                (true, false) => {
                    let child = at.get(&open).context().child("flight_request", "c");
                    open.push(child);
                }
                (false, false) => drop(open.swap_remove(at.index(open.len()))),
                (false, true) => {}
            }
        }
        drop(open);
        let tasks = tracer.history().tasks();
        let spans: std::collections::HashSet<u64> = tasks.iter().map(|task| task.ids.span).collect();
        prop_assert_eq!(spans.len(), tasks.len());
        for parent in tasks.iter().filter_map(|task| task.parent) {
            prop_assert!(spans.contains(&parent));
        }
    }
}
