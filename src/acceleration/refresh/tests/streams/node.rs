//! A sidecar in the chain: a follower with its files on a simulated disk, and its publication for the next one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::acceleration::disk::tests::sim::Sim;
use crate::acceleration::disk::{self, Residence, Settings};
use crate::acceleration::{Publication, Retention, StreamEvent, Subscription};
use crate::config::SchemaChange;
use crate::federation::{Federation, Options, RemoteDataset};
use crate::proto::stream::{Frame, Kind, Subscribe};
use crate::task::Scope;
use crate::upstream::testing::spice;
use crate::upstream::{ErrorKind, ExchangeMessage, RemoteTableName};

use super::super::super::cadence::{Cadence, When};
use super::super::super::definition::{Definition, Mode, Stream};
use super::super::super::error::RefreshError;
use super::super::super::holder::Holder;
use super::super::super::home::Home;
use super::super::super::schedule::Rules;
use super::super::super::status::{Board, Status};
use super::super::super::stream::{Follower, Messages, Origin};
use super::root::{Row, Sent, failure, rows_of, schema, streamed, upstream};

/// Between two messages of a publisher with nothing to say.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// See the module. It lives through restarts of its process.
pub struct Node {
    origin: Arc<dyn Origin>,
    residence: Option<Residence>,
    sim: Mutex<Arc<Sim>>,
    process: Mutex<Option<Process>>,
    dice: Mutex<StdRng>,
}

struct Process {
    board: Arc<Board>,
    scope: Scope,
}

impl Node {
    /// In memory, or with files.
    pub fn new(origin: Arc<dyn Origin>, residence: Option<Residence>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            origin,
            residence,
            sim: Mutex::new(Sim::with_files(BTreeMap::new())),
            process: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
        })
    }

    pub async fn start(&self) {
        let definition = definition();
        let publication = Publication::new(definition.name.clone(), Retention::default());
        let remote = RemoteDataset {
            name: definition.name.clone(),
            from: "spice.ai:rows".to_owned(),
            upstream: spice("http://127.0.0.1:1", &[]),
            remote: RemoteTableName { parts: vec!["rows".to_owned()] },
        };
        let federation = Federation::try_new(vec![remote], &[], Options::default());
        let federation = federation.unwrap_or_else(|problems| panic!("{problems:?}"));
        let home = Home::new(definition.name.clone(), &federation);
        let board = Board::new(&definition, home, publication);
        let stream = board.stream.clone().unwrap();
        let mut held = Holder::new(definition, Arc::clone(&board));
        if let Some(residence) = self.residence {
            let settings = Settings {
                folder: Path::new("/data").to_owned(),
                mode: disk::Mode::File,
                residence,
                definition: "of the test".to_owned(),
                adopts: None,
                memory_bytes_max: None,
            };
            let sim = Arc::clone(&self.sim.lock().unwrap());
            let opened = sim.open_folder(settings).await.unwrap();
            held.found(opened, residence, disk::Mode::File).await.unwrap();
        }
        let seed = self.dice.lock().unwrap().random();
        let interval = Some(Duration::from_secs(30));
        let follower = Follower::new(held, stream, Arc::clone(&self.origin), interval, seed);
        let scope = Scope::new();
        // Dropped wherever it is, as by SIGKILL.
        scope.spawn("follower", follower.keep(CancellationToken::new()));
        *self.process.lock().unwrap() = Some(Process { board, scope });
    }

    /// The process dies; what the disk did not promise may be lost.
    pub fn kill(&self) {
        if let Some(process) = self.process.lock().unwrap().take() {
            process.scope.cancel();
        }
        let seed = self.dice.lock().unwrap().random();
        let mut sim = self.sim.lock().unwrap();
        *sim = sim.crashed(seed);
    }

    /// The disk refuses the next steps from a moment on.
    pub fn fill_disk(&self, after: usize) {
        let fault = disk::tests::sim::Fault::Fail(disk::tests::sim::ENOSPC);
        self.sim.lock().unwrap().fault_at(after, fault);
    }

    pub fn status(&self) -> Option<Status> {
        self.process.lock().unwrap().as_ref().map(|process| process.board.status())
    }

    pub fn publication(&self) -> Option<(Arc<Publication>, CancellationToken)> {
        let process = self.process.lock().unwrap();
        process.as_ref().map(|process| (Arc::clone(&process.board.publication), process.scope.token()))
    }

    /// The rows that queries see; none while there is no table.
    pub fn rows(&self) -> Option<Vec<Row>> {
        let (publication, _) = self.publication()?;
        let batches = publication.present_batches()?;
        Some(batches.iter().flat_map(rows_of).collect())
    }
}

fn definition() -> Definition {
    Definition {
        name: "rows".parse().unwrap(),
        mode: Mode::Append,
        sql: None,
        data_window: None,
        append_overlap: Duration::ZERO,
        rules: Rules { is_disabled: false, has_schedule: false, refreshes_restored: true, retries_max: 0 },
        cadence: Cadence { when: When::Never, jitter_max: None },
        retention: None,
        time: None,
        keys: Vec::new(),
        uses_source: false,
        is_awaited: true,
        on_change: SchemaChange::Block,
        is_written: false,
        stream: Some(Stream {
            check_interval: Some(Duration::from_secs(30)),
            acceptable_lag: Duration::from_secs(60),
        }),
        disk: None,
        origin: "of the test".to_owned(),
    }
}

/// The publication of a node as the next one reaches it: frames over a connection that may break, stall or repeat.
pub struct Hop {
    pub core: Arc<Node>,
    pub faults: Mutex<Faults>,
    dice: Mutex<StdRng>,
}

#[derive(Debug, Default)]
pub struct Faults {
    /// Every open connection ends.
    pub cut: Option<CancellationToken>,
    /// So many messages are delivered twice.
    pub doubled: usize,
    /// So many calls are never answered.
    pub mute: usize,
    /// So many connections say nothing more, and live on.
    pub stalled: usize,
    pub latency: Duration,
}

impl Hop {
    pub fn new(core: &Arc<Node>, seed: u64) -> Arc<Self> {
        let dice = Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Self { core: Arc::clone(core), faults: Mutex::default(), dice })
    }

    pub fn cut(&self) {
        if let Some(cut) = self.faults.lock().unwrap().cut.take() {
            cut.cancel();
        }
    }

    fn pause(&self) -> Duration {
        let most = self.faults.lock().unwrap().latency;
        most.mul_f64(self.dice.lock().unwrap().random())
    }

    /// Whether a fault that waits happens now.
    fn happens(&self, fault: impl Fn(&mut Faults) -> &mut usize) -> bool {
        let mut faults = self.faults.lock().unwrap();
        let left = fault(&mut faults);
        let happens = *left > 0;
        *left = left.saturating_sub(1);
        happens
    }

    fn away() -> RefreshError {
        upstream(failure(ErrorKind::Unavailable, "the core is away"))
    }

    async fn reached(&self) -> Result<Vec<Row>, RefreshError> {
        sleep(self.pause()).await;
        self.core.rows().ok_or_else(Self::away)
    }
}

/// What a subscriber is sent next.
struct Sending {
    hop: Arc<Hop>,
    subscription: Subscription,
    process: CancellationToken,
    cut: CancellationToken,
    again: Option<ExchangeMessage>,
}

impl Sending {
    async fn next(mut self) -> Option<(Sent, Self)> {
        if let Some(message) = self.again.take() {
            return Some((Ok(message), self));
        }
        if self.hop.happens(|faults| &mut faults.stalled) {
            std::future::pending::<()>().await;
        }
        let event = tokio::select! {
            () = self.process.cancelled() => return None,
            () = self.cut.cancelled() => return None,
            event = timeout(HEARTBEAT, self.subscription.next()) => event,
        };
        sleep(self.hop.pause()).await;
        let message = match event {
            Err(_) => self
                .subscription
                .standing()
                .map(|standing| {
                    let kind = Kind::Heartbeat;
                    Frame {
                        kind,
                        epoch: standing.epoch,
                        first: 0,
                        last: standing.last,
                        head: standing.head,
                        ..now()
                    }
                })
                .map(|frame| (frame, None)),
            Ok(Err(end)) => {
                let error = failure(ErrorKind::Unavailable, &format!("{end:?}"));
                return Some((Err(error), self));
            }
            Ok(Ok(StreamEvent::Begin { epoch, from, head, is_resume })) => {
                let kind = if is_resume { Kind::Resume } else { Kind::Snapshot };
                Some((Frame { kind, epoch, first: 0, last: from, head, ..now() }, None))
            }
            Ok(Ok(StreamEvent::Rows { batch, first, last, head })) => {
                let epoch = self.subscription.standing().unwrap().epoch;
                Some((Frame { kind: Kind::Rows, epoch, first, last, head, ..now() }, Some(batch)))
            }
            Ok(Ok(StreamEvent::Whole { last, head })) => {
                let epoch = self.subscription.standing().unwrap().epoch;
                Some((Frame { kind: Kind::Whole, epoch, first: 0, last, head, ..now() }, None))
            }
        };
        let Some((frame, batch)) = message else { return Box::pin(self.next()).await };
        let message = ExchangeMessage { app_metadata: frame.encode(), batch, bytes: 100 };
        if frame.kind == Kind::Rows && self.hop.happens(|faults| &mut faults.doubled) {
            self.again = Some(message.clone());
        }
        Some((Ok(message), self))
    }
}

/// A frame of this moment.
fn now() -> Frame {
    Frame {
        kind: Kind::Unknown,
        epoch: crate::proto::stream::Epoch::random(),
        first: 0,
        last: 0,
        head: 0,
        sent_unix_nanos: 0,
        watermark_unix_nanos: 0,
    }
}

#[async_trait]
impl Origin for Arc<Hop> {
    async fn schema(&self) -> Result<SchemaRef, RefreshError> {
        self.reached().await.map(|_| schema())
    }

    async fn subscribe(&self, hello: Bytes) -> Result<Messages, RefreshError> {
        sleep(self.pause()).await;
        if self.happens(|faults| &mut faults.mute) {
            std::future::pending::<()>().await;
        }
        let held = Subscribe::decode(&hello).unwrap().held;
        let Some((publication, process)) = self.core.publication() else { return Err(Hop::away()) };
        let cut = self.faults.lock().unwrap().cut.get_or_insert_default().clone();
        let subscription = publication.subscribe(held);
        let sending = Sending { hop: Arc::clone(self), subscription, process, cut, again: None };
        Ok(futures::stream::unfold(sending, Sending::next).boxed())
    }

    async fn count(&self) -> Result<u64, RefreshError> {
        self.reached().await.map(|rows| rows.len() as u64)
    }

    async fn rows(&self) -> Result<SendableRecordBatchStream, RefreshError> {
        let rows = self.reached().await?;
        Ok(streamed(rows, self.pause(), false))
    }
}
