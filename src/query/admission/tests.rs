//! The queue against a model of it, step by step: who runs, who waits, who is turned away.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use proptest::prelude::*;

use super::*;

fn queue(running_max: usize, waiting_max: usize) -> Arc<Queue> {
    let running_max = NonZeroUsize::new(running_max).unwrap();
    Arc::new(Queue::new(running_max, waiting_max, Counted::Nothing))
}

type Place = BoxFuture<'static, Result<OwnedSemaphorePermit, Full>>;

fn poll(place: &mut Place) -> Poll<Result<OwnedSemaphorePermit, Full>> {
    place.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The real queue, driven by hand.
struct Driven {
    queue: Arc<Queue>,
    waiting: Vec<(usize, Place)>,
    running: Vec<(usize, OwnedSemaphorePermit)>,
}

/// What it should be.
#[derive(Default)]
struct Model {
    running: Vec<usize>,
    /// Given a place that they have not taken yet.
    called: Vec<usize>,
    waiting: VecDeque<usize>,
}

impl Model {
    fn has_place(&self, running_max: usize) -> bool {
        self.running.len() + self.called.len() < running_max
    }

    fn call_next(&mut self) {
        self.called.extend(self.waiting.pop_front());
    }

    fn leave(&mut self, who: usize) {
        self.waiting.retain(|other| *other != who);
        if let Some(at) = self.called.iter().position(|other| *other == who) {
            self.called.remove(at);
            self.call_next();
        }
    }

    fn end(&mut self, who: usize) {
        self.running.retain(|other| *other != who);
        self.call_next();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Arrive,
    /// A client that waits goes away.
    Leave(usize),
    /// A query ends, or its client goes away.
    End(usize),
    /// Those who have a place take it.
    Wake,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Arrive),
        1 => (0usize..16).prop_map(Step::Leave),
        3 => (0usize..16).prop_map(Step::End),
        2 => Just(Step::Wake),
    ]
}

impl Driven {
    fn wake(&mut self) {
        // The last first: being asked first must not help.
        let waiting = std::mem::take(&mut self.waiting).into_iter().rev();
        let mut left = Vec::new();
        for (who, mut place) in waiting {
            match poll(&mut place) {
                Poll::Ready(permit) => self.running.push((who, permit.expect("no one who waits is refused"))),
                Poll::Pending => left.push((who, place)),
            }
        }
        left.reverse();
        self.waiting = left;
    }

    fn running(&self) -> Vec<usize> {
        let mut running: Vec<usize> = self.running.iter().map(|(who, _)| *who).collect();
        running.sort_unstable();
        running
    }
}

fn run(steps: Vec<Step>, running_max: usize, waiting_max: usize) -> Result<(), TestCaseError> {
    let queue = queue(running_max, waiting_max);
    let mut real = Driven { queue: Arc::clone(&queue), waiting: Vec::new(), running: Vec::new() };
    let mut model = Model::default();
    for (who, step) in steps.into_iter().enumerate() {
        match step {
            Step::Arrive => {
                let mut place: Place = Box::pin(Arc::clone(&real.queue).place());
                let polled = poll(&mut place);
                if model.has_place(running_max) {
                    let Poll::Ready(Ok(permit)) = polled else {
                        return Err(TestCaseError::fail("a free place is taken at once"));
                    };
                    real.running.push((who, permit));
                    model.running.push(who);
                } else if model.waiting.len() + model.called.len() == waiting_max {
                    prop_assert!(matches!(polled, Poll::Ready(Err(Full))));
                } else {
                    prop_assert!(polled.is_pending());
                    real.waiting.push((who, place));
                    model.waiting.push_back(who);
                }
            }
            Step::Leave(at) => {
                if at < real.waiting.len() {
                    let (who, place) = real.waiting.remove(at);
                    drop(place);
                    model.leave(who);
                }
            }
            Step::End(at) => {
                if at < real.running.len() {
                    let (who, permit) = real.running.remove(at);
                    drop(permit);
                    model.end(who);
                }
            }
            Step::Wake => {
                real.wake();
                model.running.append(&mut model.called);
                model.running.sort_unstable();
                prop_assert_eq!(real.running(), model.running.clone());
            }
        }
        prop_assert!(real.running.len() <= running_max);
        prop_assert!(real.waiting.len() <= waiting_max);
        prop_assert_eq!(queue.waiting.load(Ordering::Relaxed), real.waiting.len());
    }
    drop(real);
    prop_assert_eq!(queue.places.available_permits(), running_max, "a place was lost");
    prop_assert_eq!(queue.waiting.load(Ordering::Relaxed), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// First come, first served; never more than may run or wait; and no place is lost to whoever goes away, at
    /// whatever moment.
    #[test]
    fn the_queue_is_its_model(
        steps in prop::collection::vec(step(), 0..80),
        running_max in 1usize..4,
        waiting_max in 0usize..5,
    ) {
        run(steps, running_max, waiting_max)?;
    }
}

fn admission(running_max: usize, waiting_max: usize, wait_max: Duration) -> Admission {
    let running_max = NonZeroUsize::new(running_max);
    Admission::new(QueueOptions { running_max, waiting_max, wait_max }, Counted::Queries)
}

#[tokio::test]
async fn without_a_bound_everybody_enters() {
    let open = admission(0, 0, Duration::ZERO);
    let turns = futures::future::join_all((0..100).map(|_| open.enter(None, Protocol::Http))).await;
    assert!(turns.iter().all(Result::is_ok));
}

#[tokio::test]
async fn who_is_refused_learns_why() {
    let narrow = admission(1, 1, Duration::from_millis(20));
    let turn = narrow.enter(None, Protocol::Http).await.unwrap();
    let (waited, refused) =
        tokio::join!(narrow.enter(None, Protocol::Http), narrow.enter(None, Protocol::Http));
    let told = |result: Result<Turn, QueryError>| result.unwrap_err().to_string();
    insta::assert_snapshot!(told(waited), @"the query waited 0.02 s for its turn, as long as runtime.params.query_queue_timeout lets it, while as many others ran as may (1): try again, or raise runtime.query.max_concurrent_queries");
    insta::assert_snapshot!(told(refused), @"as many queries run (1) and wait (1) as may: try again in a moment, or raise runtime.query.max_concurrent_queries");
    let soon = Deadline::after(Duration::from_millis(10));
    insta::assert_snapshot!(told(narrow.enter(Some(soon), Protocol::Http).await), @"the query waited 0.01 s for its turn, as long as runtime.query.timeout lets it, while as many others ran as may (1): try again, or raise runtime.query.max_concurrent_queries");
    drop(turn);
    narrow.enter(Some(Deadline::after(Duration::from_secs(30))), Protocol::Http).await.unwrap();
}
