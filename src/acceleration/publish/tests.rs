//! Subscribers of tables that live at random, and the bounds of what is held for them.

mod lives;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::timeout;

use super::plan::{self, Cursor, Of, Sent, Step};
use super::{
    MemoryLog, Piece, Publication, Published, Retention, Standing, StreamEnd, StreamEvent, Subscription,
};
use crate::acceleration::store::{Budget, Layout, Load};
use crate::proto::stream::{Epoch, Position};

fn batch(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(ids)) as _)]).unwrap()
}

fn schema() -> SchemaRef {
    batch([]).schema()
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn log(retention: Retention) -> MemoryLog {
    MemoryLog::new("t".parse().unwrap(), schema(), retention)
}

fn retention(time: Duration, bytes: u64) -> Retention {
    Retention { time, bytes }
}

/// Nothing is told.
async fn is_silent(subscription: &mut Subscription) -> bool {
    timeout(Duration::from_millis(50), subscription.next()).await.is_err()
}

/// The next event as words: `snapshot 0/5`, `resume 2/5`, `rows [1, 2]`, `whole 5`.
async fn told(subscription: &mut Subscription) -> String {
    match subscription.next().await {
        Ok(StreamEvent::Begin { from, head, is_resume: true, .. }) => format!("resume {from}/{head}"),
        Ok(StreamEvent::Begin { from, head, .. }) => format!("snapshot {from}/{head}"),
        Ok(StreamEvent::Rows { batch, .. }) => format!("rows {:?}", ids(&batch)),
        Ok(StreamEvent::Whole { last, .. }) => format!("whole {last}"),
        Err(end) => format!("end: {end}"),
    }
}

#[tokio::test]
async fn a_subscriber_waits_for_the_first_rows_then_follows() {
    let publication = Publication::new("t".parse().unwrap(), Retention::default());
    let mut subscription = publication.subscribe(None);
    assert!(is_silent(&mut subscription).await);
    assert_eq!(subscription.standing(), None);
    let epoch = Epoch::random();
    let publish = |pieces: Vec<Piece>| publication.publish(Published::of(epoch, &schema(), pieces));
    publish(vec![Piece::batch(batch([1, 2])), Piece::batch(batch([3]))]);
    for words in ["snapshot 0/3", "rows [1, 2]", "rows [3]", "whole 3"] {
        assert_eq!(told(&mut subscription).await, words);
    }
    assert!(is_silent(&mut subscription).await);
    assert_eq!(subscription.standing(), Some(Standing { epoch, last: 3, head: 3 }));
    // Joined pieces are no news; what is new is read from within one.
    publish(vec![Piece::batch(batch([1, 2, 3]))]);
    assert!(is_silent(&mut subscription).await);
    publish(vec![Piece::batch(batch([1, 2, 3, 4]))]);
    assert_eq!(told(&mut subscription).await, "rows [4]");
    publication.withdraw();
    assert!(is_silent(&mut subscription).await);
    publication.publish(Published::of(Epoch::random(), &schema(), [Piece::batch(batch([9]))]));
    for words in ["snapshot 0/1", "rows [9]", "whole 1"] {
        assert_eq!(told(&mut subscription).await, words);
    }
}

#[tokio::test]
async fn what_is_held_is_gone_on_from_where_it_is_of_this_epoch() {
    let log = log(Retention::default());
    log.append(batch([1, 2, 3])).unwrap();
    let mut first = log.publication().subscribe(None);
    assert_eq!(told(&mut first).await, "snapshot 0/3");
    let epoch = first.standing().unwrap().epoch;
    for (held, words) in [
        (Position { epoch, sequence: 3 }, ["resume 3/3", "whole 3"]),
        (Position { epoch, sequence: 2 }, ["resume 2/3", "rows [3]"]),
        (Position { epoch, sequence: 0 }, ["resume 0/3", "rows [1, 2, 3]"]),
        (Position { epoch, sequence: 4 }, ["snapshot 0/3", "rows [1, 2, 3]"]),
        (Position { epoch: Epoch::random(), sequence: 2 }, ["snapshot 0/3", "rows [1, 2, 3]"]),
    ] {
        let mut subscription = log.publication().subscribe(Some(held));
        for words in words {
            assert_eq!(told(&mut subscription).await, words, "{held:?}");
        }
    }
    // Of an epoch that somebody still reads, but that is not the one of now.
    log.replace(vec![batch([7])]).unwrap();
    let mut late = log.publication().subscribe(Some(Position { epoch, sequence: 1 }));
    assert_eq!(told(&mut late).await, "snapshot 0/1");
    assert_eq!(told(&mut first).await, "rows [1, 2, 3]");
}

#[tokio::test]
async fn who_is_reading_finishes_what_was_replaced_within_the_retention() {
    let log = log(retention(Duration::from_secs(600), 1 << 20));
    for ids in [1..3, 3..5] {
        log.append(batch(ids)).unwrap();
    }
    let mut subscription = log.publication().subscribe(None);
    assert_eq!(told(&mut subscription).await, "snapshot 0/4");
    assert_eq!(told(&mut subscription).await, "rows [1, 2]");
    log.replace(vec![batch([8])]).unwrap();
    log.replace(vec![batch([9])]).unwrap();
    for words in ["rows [3, 4]", "whole 4", "snapshot 0/1", "rows [9]", "whole 1"] {
        assert_eq!(told(&mut subscription).await, words);
    }
}

#[tokio::test]
async fn who_is_too_slow_is_cut_off_by_time() {
    let log = log(retention(Duration::from_millis(200), 1 << 20));
    log.append(batch([1, 2])).unwrap();
    let mut slow = log.publication().subscribe(None);
    let mut ready = log.publication().subscribe(None);
    for words in ["snapshot 0/2", "rows [1, 2]", "whole 2"] {
        assert_eq!(told(&mut ready).await, words);
    }
    assert_eq!(told(&mut slow).await, "snapshot 0/2");
    // Nothing is overdue for as long as nothing is held.
    assert!(timeout(Duration::from_millis(500), slow.overdue()).await.is_err());
    log.replace(vec![batch([3])]).unwrap();
    let end = slow.overdue().await;
    assert_eq!(
        end.to_string(),
        "DoExchange subscriber fell behind and missed 2 row(s) of an earlier state of dataset t, which is held no \
         longer (stream_retention is 200ms); resubscribe and reconcile state"
    );
    // Who has read all of it is told the next one, whenever it looks.
    assert_eq!(told(&mut ready).await, "snapshot 0/1");
}

#[tokio::test]
async fn who_holds_too_much_is_cut_off_oldest_first() {
    let bytes = Piece::batch(batch(0..1000)).bytes;
    let log = log(retention(Duration::from_secs(600), bytes));
    let begin = async || {
        let mut subscription = log.publication().subscribe(None);
        assert!(told(&mut subscription).await.starts_with("snapshot"));
        subscription
    };
    log.append(batch(0..1000)).unwrap();
    let (mut first, mut second) = (begin().await, begin().await);
    log.replace(vec![batch(1000..2000)]).unwrap();
    // Both hold the same rows, which count once.
    assert!(timeout(Duration::from_millis(100), first.overdue()).await.is_err());
    assert!(timeout(Duration::from_millis(100), second.overdue()).await.is_err());
    let mut third = begin().await;
    assert!(told(&mut second).await.starts_with("rows"));
    log.replace(vec![batch(2000..3000)]).unwrap();
    assert!(timeout(Duration::from_millis(100), third.overdue()).await.is_err());
    let end = first.overdue().await;
    assert!(matches!(end, StreamEnd::FellBehind { missed: 1000, .. }), "{end}");
    assert!(end.to_string().contains("stream_retention_bytes is"), "{end}");
    assert_eq!(told(&mut second).await, "whole 1000");
    assert!(told(&mut third).await.starts_with("rows"));
}

#[tokio::test]
async fn another_schema_ends_a_subscription() {
    let log = log(Retention::default());
    let mut subscription = log.publication().subscribe(None);
    assert_eq!(told(&mut subscription).await, "snapshot 0/0");
    assert_eq!(told(&mut subscription).await, "whole 0");
    let other = RecordBatch::try_from_iter([("name", Arc::new(StringArray::from(vec!["a"])) as _)]).unwrap();
    assert!(log.append(other.clone()).is_err());
    let next = Published::of(Epoch::random(), &other.schema(), [Piece::batch(other)]);
    log.publication().withdraw();
    log.publication().publish(next);
    assert_eq!(
        told(&mut subscription).await,
        "end: dataset t: the dataset's schema has changed; subscribe again"
    );
    assert_eq!(told(&mut log.publication().subscribe(None)).await, "snapshot 0/1");
}

#[tokio::test]
async fn rows_are_unpacked_only_into_memory_that_there_is() {
    let texts = (0..5_000).map(|row| Some(format!("one of few texts, number {}", row % 3)));
    let texts = StringArray::from_iter(texts);
    let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as _)]).unwrap();
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(8 << 20));
    let budget = Budget::new("t".parse().unwrap(), &pool);
    let layout = Layout::try_new("t".parse().unwrap(), batch.schema(), None, vec![]).unwrap();
    let mut load = Load::begin(Arc::new(layout), None, budget.clone());
    load.push(&batch).unwrap();
    let generation = load.finish().unwrap();
    let publication = Publication::within("t".parse().unwrap(), Retention::default(), Some(budget));
    let pieces = generation.chunks().iter().map(Piece::chunk);
    publication.publish(Published::new(Epoch::random(), generation.layout(), pieces));
    let held = pool.reserved();

    let others = MemoryConsumer::new("others").register(&pool);
    others.try_grow((8 << 20) - held).unwrap();
    let mut subscription = publication.subscribe(None);
    assert_eq!(told(&mut subscription).await, "snapshot 0/5000");
    assert!(is_silent(&mut subscription).await);
    drop(others);
    let mut read = Vec::new();
    while let StreamEvent::Rows { batch, .. } = subscription.next().await.unwrap() {
        assert!(pool.reserved() > held, "what was unpacked is counted");
        read.push(batch);
    }
    assert_eq!(concat_batches(&batch.schema(), &read).unwrap(), batch);
    assert_eq!(pool.reserved(), held, "and given back");
}

#[tokio::test]
async fn the_watermark_is_now_until_another_is_told() {
    let publication = Publication::new("t".parse().unwrap(), Retention::default());
    assert_eq!(publication.whole_at(77), 77);
    publication.known_whole(70);
    assert_eq!((publication.whole_at(77), publication.whole_at(60)), (70, 60));
}

/// The pure part alone, over many histories: every row of an epoch once and in order, and whole only where it is.
#[test]
fn steps_are_complete_and_in_order_whatever_happens() {
    for seed in 0..5_000 {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut states: Vec<Position> = Vec::new();
        let (mut present, mut seen, mut earlier): (Option<Position>, Option<Position>, Option<Position>) =
            Default::default();
        let mut cursor = Cursor::Fresh { held: None };
        for round in 0..60 {
            let is_last = round >= 50;
            match dice.random_range(0..10) {
                _ if is_last && present.is_some() => {}
                0..4 if present.is_some() => {
                    present =
                        present.map(|at| Position { sequence: at.sequence + dice.random_range(1..9), ..at });
                }
                4 if !is_last => present = None,
                _ => present = Some(Position { epoch: Epoch::random(), sequence: dice.random_range(0..9) }),
            }
            states.extend(present);
            for _ in 0..if is_last { 9 } else { dice.random_range(0..4) } {
                if seen != present {
                    let left = seen.filter(|seen| cursor.leaves_rows(*seen, present));
                    earlier = left.or(earlier);
                    seen = present;
                }
                let step = plan::next(cursor, seen, earlier);
                let last = match step {
                    Step::Begin { head, from, .. } => {
                        assert_eq!((Some(head), from), (seen, 0), "seed {seed}");
                        0
                    }
                    Step::Read { sent, up_to, of } => {
                        let of = if of == Of::Present { seen } else { earlier }.unwrap();
                        assert_eq!(of.epoch, sent.epoch, "seed {seed}");
                        assert!(sent.sequence < up_to && up_to <= of.sequence, "seed {seed}");
                        dice.random_range(sent.sequence + 1..=up_to)
                    }
                    Step::Whole { sent } => {
                        assert!(states.contains(&sent), "seed {seed}: {sent:?} was never a state");
                        0
                    }
                    Step::Wait => {
                        let Cursor::At(Sent { position, is_whole, .. }) = cursor else { continue };
                        assert!(is_whole && (seen.is_none() || seen == Some(position)), "seed {seed}");
                        0
                    }
                };
                cursor = cursor.after(step, last);
            }
        }
        // At most eight rows are read for each of the nine steps of each of the last rounds.
        let Cursor::At(sent) = cursor else { panic!("seed {seed}: nothing was told") };
        assert_eq!(Some(sent.position), present, "seed {seed}");
    }
}
