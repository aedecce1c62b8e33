//! Tables that live at random beside a model that is a list of rows: whatever a subscriber misses, skips or is told
//! twice, it ends with the table's rows in the table's order.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;

use super::*;

/// The table, and all that it ever was.
struct Table {
    publication: Arc<Publication>,
    epoch: Epoch,
    /// The rows of each epoch, in their order.
    rows: HashMap<Epoch, Vec<i64>>,
    /// Every generation that was published.
    states: HashSet<(Epoch, u64)>,
    next: i64,
}

/// A client and what it holds.
#[derive(Default)]
struct Client {
    subscription: Option<Subscription>,
    held: Option<(Epoch, Vec<i64>)>,
    /// A snapshot that is not whole.
    coming: Option<(Epoch, Vec<i64>)>,
    resumes: usize,
}

impl Table {
    fn new() -> Self {
        let publication = Publication::new("t".parse().unwrap(), Retention::default());
        let (epoch, rows, states) = (Epoch::random(), HashMap::new(), HashSet::new());
        Self { publication, epoch, rows, states, next: 0 }
    }

    fn live(&mut self, dice: &mut StdRng) {
        match dice.random_range(0..12) {
            0..6 => {
                let more = dice.random_range(1..40);
                self.rows.entry(self.epoch).or_default().extend(self.next..self.next + more);
                self.next += more;
            }
            // The same rows in other pieces.
            6..9 => {}
            9 => {
                self.epoch = Epoch::random();
                let rows = dice.random_range(0..90);
                self.rows.insert(self.epoch, (self.next..self.next + rows).collect());
                self.next += rows;
            }
            // Some rows are dropped.
            10 => {
                let mut rows = self.rows.get(&self.epoch).cloned().unwrap_or_default();
                rows.retain(|_| dice.random_bool(0.8));
                self.epoch = Epoch::random();
                self.rows.insert(self.epoch, rows);
            }
            _ => return self.publication.withdraw(),
        }
        self.publish(dice);
    }

    fn publish(&mut self, dice: &mut StdRng) {
        let rows = self.rows.entry(self.epoch).or_default();
        let mut pieces = Vec::new();
        let mut left = rows.as_slice();
        while !left.is_empty() {
            let (piece, rest) = left.split_at(dice.random_range(1..=left.len().min(50)));
            pieces.push(Piece::batch(batch(piece.iter().copied())));
            left = rest;
        }
        self.states.insert((self.epoch, rows.len() as u64));
        self.publication.publish(Published::of(self.epoch, &schema(), pieces));
    }
}

impl Client {
    /// Begins with what it holds, or a part of it, or with what never was.
    fn connect(&mut self, table: &Table, dice: &mut StdRng) {
        self.coming = None;
        if let Some((_, rows)) = &mut self.held {
            // What was not on disk is lost.
            rows.truncate(dice.random_range(0..=rows.len()));
        }
        let mut position =
            self.held.as_ref().map(|(epoch, rows)| Position { epoch: *epoch, sequence: rows.len() as u64 });
        match dice.random_range(0..10) {
            0 => position = None,
            1 => position = Some(Position { epoch: Epoch::random(), sequence: 5 }),
            2 => position = position.map(|position| Position { sequence: u64::MAX, ..position }),
            _ => {}
        }
        self.subscription = Some(table.publication.subscribe(position));
    }

    fn take(&mut self, event: StreamEvent, table: &Table) {
        match event {
            StreamEvent::Begin { epoch, from, is_resume: true, .. } => {
                self.resumes += 1;
                let (held, rows) = self.held.as_ref().unwrap();
                assert_eq!((*held, rows.len() as u64), (epoch, from));
            }
            StreamEvent::Begin { epoch, from, .. } => {
                assert_eq!(from, 0);
                self.coming = Some((epoch, Vec::new()));
            }
            StreamEvent::Rows { batch, first, last, head } => {
                let (_, rows) = self.coming.as_mut().or(self.held.as_mut()).unwrap();
                assert_eq!(first, rows.len() as u64 + 1);
                rows.extend(ids(&batch));
                assert_eq!(last, rows.len() as u64);
                assert!(last <= head);
            }
            StreamEvent::Whole { last, .. } => {
                if let Some(coming) = self.coming.take() {
                    self.held = Some(coming);
                }
                let (epoch, rows) = self.held.as_ref().unwrap();
                assert_eq!(rows.len() as u64, last);
                assert!(table.states.contains(&(*epoch, last)), "the table was never there");
            }
        }
        for (epoch, rows) in self.held.iter().chain(&self.coming) {
            assert!(table.rows[epoch].starts_with(rows), "rows of another order");
        }
    }

    /// Polls for its next event some times, then lets it be: it may be dropped in the middle of a read.
    async fn poll(&mut self, table: &Table, polls: usize) {
        let Some(subscription) = &mut self.subscription else { return };
        let event = {
            let mut next = pin!(subscription.next());
            let mut left = polls;
            std::future::poll_fn(|cx| match next.as_mut().poll(cx) {
                std::task::Poll::Ready(event) => std::task::Poll::Ready(Some(event.unwrap())),
                std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                std::task::Poll::Pending => {
                    left -= 1;
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
            })
            .await
        };
        if let Some(event) = event {
            self.take(event, table);
        }
    }

    async fn catch_up(&mut self, table: &Table) {
        let rows = &table.rows[&table.epoch];
        while self.coming.is_some()
            || self.held.as_ref().is_none_or(|held| *held != (table.epoch, rows.clone()))
        {
            let event = self.subscription.as_mut().unwrap().next();
            let event = timeout(Duration::from_secs(20), event).await.expect("rows are missing");
            self.take(event.unwrap(), table);
        }
    }
}

async fn life(seed: u64) -> usize {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut table = Table::new();
    let mut clients: [Client; 3] = Default::default();
    for _ in 0..200 {
        if dice.random_bool(0.3) {
            table.live(&mut dice);
        }
        let client = &mut clients[dice.random_range(0..3)];
        if client.subscription.is_none() || dice.random_bool(0.08) {
            client.connect(&table, &mut dice);
        }
        client.poll(&table, dice.random_range(0..30)).await;
    }
    table.publish(&mut dice);
    for client in &mut clients {
        if client.subscription.is_none() {
            client.connect(&table, &mut dice);
        }
        client.catch_up(&table).await;
    }
    clients.iter().map(|client| client.resumes).sum()
}

/// Says which seed has failed.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SIDEWING_SEED={}", self.0);
        }
    }
}

#[tokio::test]
async fn subscribers_end_with_the_rows_of_the_table() {
    let only = std::env::var("SIDEWING_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let mut resumes = 0;
    for seed in only.map_or(0..150, |seed| seed..seed + 1) {
        let _replay = Replay(seed);
        resumes += life(seed).await;
    }
    assert!(only.is_some() || resumes > 150, "only {resumes} resumes");
}
