//! What is held of an earlier epoch for one subscriber, until it has read it or is too slow.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::proto::stream::Position;

use super::rows::{Piece, Published};

/// The rest of a generation. What was read is let go of.
#[derive(Debug)]
pub(super) struct Finishing {
    /// What the epoch came to.
    pub head: Position,
    /// When another epoch was met.
    pub since: Instant,
    /// Cancelled when more is held than may be.
    pub expired: CancellationToken,
    rest: Mutex<Rest>,
}

#[derive(Debug)]
struct Rest {
    pieces: VecDeque<Piece>,
    /// The rows that stand before them.
    before: u64,
}

/// All that is held for the subscribers of a dataset.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Vec<Weak<Finishing>>>);

impl Finishing {
    /// What is left of `generation` for who was sent so many rows.
    pub(super) fn new(generation: &Published, sent: u64) -> Arc<Self> {
        let (pieces, before) = generation.rest(sent);
        Arc::new(Self {
            head: generation.position(),
            since: Instant::now(),
            expired: CancellationToken::new(),
            rest: Mutex::new(Rest { pieces: pieces.into(), before }),
        })
    }

    /// The piece that follows on `sent` rows, and how many rows stand before it. `sent` never falls.
    pub(super) fn piece_after(&self, sent: u64) -> Option<(Piece, u64)> {
        let mut rest = self.lock();
        while let Some(first) = rest.pieces.front() {
            if rest.before + first.rows > sent {
                return Some((first.clone(), rest.before));
            }
            rest.before += first.rows;
            rest.pieces.pop_front();
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// Counts `more` from now on.
    pub(super) fn add(&self, more: &Arc<Finishing>) {
        self.lock().push(Arc::downgrade(more));
    }

    /// Lets the oldest expire until what all hold beside `present`, each piece counted once, is `bytes_max` at most.
    pub(super) fn enforce(&self, present: Option<&Published>, bytes_max: u64) {
        let mut held = self.lock();
        held.retain(|one| one.strong_count() > 0);
        if held.is_empty() {
            return;
        }
        let shared = present.into_iter().flat_map(|present| present.pieces());
        let mut counted: HashSet<usize> = shared.map(Piece::address).collect();
        let mut bytes: u64 = 0;
        for one in held.iter().rev().filter_map(Weak::upgrade) {
            let own: Vec<(usize, u64)> = {
                let rest = one.lock();
                let own = rest.pieces.iter().map(|piece| (piece.address(), piece.bytes));
                own.filter(|(address, _)| !counted.contains(address)).collect()
            };
            let more: u64 = own.iter().map(|(_, bytes)| bytes).sum();
            match bytes.saturating_add(more) > bytes_max {
                true => one.expired.cancel(),
                false => {
                    bytes += more;
                    counted.extend(own.into_iter().map(|(address, _)| address));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Finishing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
