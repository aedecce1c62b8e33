//! Random lives of a chain, stock upstream → sidecar → sidecar, in simulated time: connections that end everywhere,
//! messages that vanish or come twice, restarts with and without data, kills, full disks, slow readers.
//!
//! At every moment no row is seen more often than the upstream ever had it at one moment; when all is quiet, each sidecar
//! holds the upstream's rows, row by row. Seeds are fixed, the first that fails is printed: `SIDEWING_SEED=n` (or `n..m`)
//! lives it again, `SIDEWING_LONG=1` takes thousands.

mod node;
mod root;

use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::acceleration::Phase;
use crate::acceleration::disk::Residence;
use crate::task::Scope;
use crate::upstream::ErrorKind;

use node::{Hop, Node};
use root::{Form, Link, Root, Row, counted, failure};

const SEEDS: u64 = 40;
const SEEDS_LONG: u64 = 5_000;
/// All is well again at the latest after so long without trouble: a minute of doubt, and two checks.
const QUIET_MAX: Duration = Duration::from_secs(200);

struct World {
    dice: StdRng,
    root: Arc<Root>,
    edge: Arc<Node>,
    hop: Arc<Hop>,
    leaf: Arc<Node>,
    next: i64,
    /// What was done, to be read when it fails.
    story: String,
}

impl World {
    async fn begin(seed: u64, scope: &Scope) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let form = if seed.is_multiple_of(2) { Form::Y2024 } else { Form::Y2026 };
        let root = Root::new(form, dice.random(), scope);
        let mut residence =
            || *[None, Some(Residence::Memory), Some(Residence::Files)].choose(&mut dice).unwrap();
        let (near, far) = (residence(), residence());
        let edge = Node::new(Arc::new(Link(Arc::clone(&root))), near, dice.random());
        let hop = Hop::new(&edge, dice.random());
        let leaf = Node::new(Arc::new(Arc::clone(&hop)), far, dice.random());
        let story = format!("{form:?}, edge {near:?}, leaf {far:?}\n");
        let mut world = Self { dice, root, edge, hop, leaf, next: 0, story };
        let rows = world.some_rows(20);
        world.root.push(&rows);
        world.edge.start().await;
        world.leaf.start().await;
        world
    }

    /// New ones, and some that are there already.
    fn some_rows(&mut self, most: usize) -> Vec<Row> {
        let known = self.root.rows();
        let many = self.dice.random_range(1..=most);
        (0..many)
            .map(|_| {
                let again = known.choose(&mut self.dice).filter(|_| self.next % 5 == 0);
                self.next += 1;
                again.copied().unwrap_or((self.next, self.next as usize % 3))
            })
            .collect()
    }

    fn tells(&mut self, what: &str) {
        let at = Instant::now();
        let _ = writeln!(self.story, "{at:?} {what}");
    }

    async fn step(&mut self) {
        let wait = [1, 5, 20, 100, 1_000, 8_000].choose(&mut self.dice).copied().unwrap();
        sleep(Duration::from_millis(self.dice.random_range(0..wait))).await;
        let kind = self.dice.random_range(0..26);
        self.tells(&format!("step {kind}"));
        match kind {
            0..7 => {
                let rows = self.some_rows(8);
                self.root.push(&rows);
            }
            7 => {
                // A burst, more than fits anywhere.
                for _ in 0..60 {
                    let rows = self.some_rows(3);
                    self.root.push(&rows);
                }
            }
            8 => self.root.rebroadcast(),
            9 => self.root.disconnect(None),
            10 => self.root.disconnect(Some(failure(ErrorKind::Unavailable, "reset"))),
            11 => self.root.disconnect(Some(failure(ErrorKind::Internal, "DATA_LOSS: fell behind"))),
            12 => {
                let many = self.dice.random_range(1..4);
                self.root.lose(many);
            }
            13 => self.root.fail(2),
            14 => {
                let with_data = self.dice.random();
                self.root.go_away();
                sleep(Duration::from_millis(self.dice.random_range(0..9_000))).await;
                self.root.come_back(with_data);
            }
            15 => {
                let rows = self.some_rows(40);
                self.root.refresh(rows);
            }
            16 => self.root.slow(Duration::from_millis(self.dice.random_range(0..400))),
            17 => self.root.update_and_delete(),
            18 => self.edge.kill_and_start(&mut self.dice).await,
            19 => self.leaf.kill_and_start(&mut self.dice).await,
            20 => self.hop.cut(),
            21 => {
                let mut faults = self.hop.faults.lock().unwrap();
                faults.doubled += 3;
                faults.latency = Duration::from_millis(self.dice.random_range(0..200));
            }
            24 => self.hop.faults.lock().unwrap().stalled += 1,
            25 => {
                self.hop.faults.lock().unwrap().mute += 1;
                self.hop.cut();
            }
            22 => self.edge.fill_disk(self.dice.random_range(0..6)),
            _ => self.leaf.fill_disk(self.dice.random_range(0..6)),
        }
        self.check();
    }

    /// No row is shown more often than it ever was there.
    fn check(&self) {
        let most = self.root.most();
        for node in [&self.edge, &self.leaf] {
            for (row, times) in counted(&node.rows().unwrap_or_default()) {
                let allowed = most.get(&row).copied().unwrap_or(0);
                assert!(
                    times <= allowed,
                    "{row:?} is shown {times} times, it was there {allowed} times at most"
                );
            }
        }
    }

    /// Without trouble everything comes to be as it should.
    async fn settle(&mut self) {
        self.root.heal();
        *self.hop.faults.lock().unwrap() = node::Faults::default();
        self.tells("quiet");
        let begun = Instant::now();
        let expected = counted(&self.root.rows());
        loop {
            sleep(Duration::from_millis(500)).await;
            self.check();
            let wrong = [&self.edge, &self.leaf].into_iter().find(|node| {
                let is_ready = node.status().is_some_and(|status| status.phase == Phase::Ready);
                !is_ready || node.rows().is_none_or(|rows| counted(&rows) != expected)
            });
            let Some(wrong) = wrong else { return };
            if begun.elapsed() > QUIET_MAX {
                let found = counted(&wrong.rows().unwrap_or_default());
                let more: Vec<_> =
                    found.iter().filter(|(row, times)| expected.get(row) != Some(times)).collect();
                let less: Vec<_> =
                    expected.iter().filter(|(row, times)| found.get(row) != Some(times)).collect();
                panic!("not what the upstream has: {more:?}, expected {less:?}; {:#?}", wrong.status());
            }
        }
    }
}

impl Node {
    async fn kill_and_start(&self, dice: &mut StdRng) {
        self.kill();
        sleep(Duration::from_millis(dice.random_range(0..3_000))).await;
        self.start().await;
    }
}

/// One life; its story, where it went wrong.
fn live(seed: u64) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let scope = Scope::new();
    let life = async {
        let mut world = World::begin(seed, &scope).await;
        let lived = AssertUnwindSafe(async {
            for _ in 0..4 {
                for _ in 0..world.dice.random_range(3..18) {
                    world.step().await;
                }
                world.settle().await;
            }
        });
        let lived = lived.catch_unwind().await;
        world.edge.kill();
        world.leaf.kill();
        scope.cancel();
        lived.map_err(|panic| format!("{}\n{}", crate::task::words_of(panic.as_ref()), world.story))
    };
    let lived = runtime.block_on(life);
    runtime.shutdown_timeout(Duration::from_secs(5));
    lived
}

fn seeds() -> std::ops::Range<u64> {
    let number = |text: &str| text.trim().parse().expect("SIDEWING_SEED is n or n..m");
    match std::env::var("SIDEWING_SEED") {
        Ok(text) => match text.split_once("..") {
            Some((from, to)) => number(from)..number(to),
            None => number(&text)..number(&text) + 1,
        },
        Err(_) if std::env::var_os("SIDEWING_LONG").is_some() => 0..SEEDS_LONG,
        Err(_) => 0..SEEDS,
    }
}

/// One life is told in full.
fn tell(seeds: &std::ops::Range<u64>) {
    if std::env::var_os("SIDEWING_SEED").is_some() && seeds.end - seeds.start == 1 {
        let log =
            tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr);
        let _ = log.try_init();
    }
}

#[test]
fn a_chain_holds_what_its_upstream_has_whatever_happens() {
    let seeds = seeds();
    tell(&seeds);
    for seed in seeds {
        if let Err(story) = live(seed) {
            panic!("SIDEWING_SEED={seed}: {story}");
        }
    }
}
