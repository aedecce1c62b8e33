//! What a subscriber is to be told next. Pure: nothing is read, and nobody waited for.

use crate::proto::stream::Position;

/// Where a subscriber is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    /// Nothing was sent; this is what it says that it holds.
    Fresh {
        held: Option<Position>,
    },
    At(Sent),
}

/// What a subscriber was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// How many rows of which epoch it has, those that it held before included.
    pub position: Position,
    /// The rows that were there when the epoch began for it: as many are a state of the table.
    pub goal: u64,
    pub is_whole: bool,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing to tell.
    Wait,
    /// Rows of `head.epoch` follow, from `from` on.
    Begin { head: Position, from: u64, is_resume: bool },
    /// The rows behind `sent`, at most so far, from the present generation or from what is held of an earlier one.
    Read { sent: Position, up_to: u64, of: Of },
    /// What was sent is a state that the table was in.
    Whole { sent: Position },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Present,
    Earlier,
}

impl Sent {
    fn begun(head: Position, from: u64) -> Self {
        let position = Position { epoch: head.epoch, sequence: from };
        Self { position, goal: head.sequence, is_whole: false }
    }

    /// After so many rows in all.
    fn at(self, sequence: u64) -> Self {
        Self { position: Position { sequence, ..self.position }, ..self }
    }
}

impl Cursor {
    /// After `step` was taken, and after it read to `last`.
    pub(super) fn after(self, step: Step, last: u64) -> Self {
        match (self, step) {
            (_, Step::Begin { head, from, .. }) => Self::At(Sent::begun(head, from)),
            (Self::At(sent), Step::Read { .. }) => Self::At(sent.at(last)),
            (Self::At(sent), Step::Whole { .. }) => Self::At(Sent { is_whole: true, ..sent }),
            (Self::Fresh { .. }, Step::Read { .. } | Step::Whole { .. }) | (_, Step::Wait) => self,
        }
    }

    /// Whether rows of a generation at `seen` are still to be sent, now that `next` takes its place.
    pub(super) fn leaves_rows(self, seen: Position, next: Option<Position>) -> bool {
        match self {
            Self::Fresh { .. } => false,
            Self::At(Sent { position, .. }) => {
                position.epoch == seen.epoch
                    && position.sequence < seen.sequence
                    && next.is_none_or(|next| next.epoch != seen.epoch)
            }
        }
    }
}

/// `present` is what the present generation has, `earlier` what the one came to that is held for this subscriber.
pub(super) fn next(cursor: Cursor, present: Option<Position>, earlier: Option<Position>) -> Step {
    let sent = match (cursor, present) {
        (Cursor::Fresh { .. }, None) => return Step::Wait,
        (Cursor::Fresh { held }, Some(present)) => return begin(held, present),
        (Cursor::At(sent), _) => sent,
    };
    let Sent { position, goal, is_whole } = sent;
    if !is_whole && position.sequence == goal {
        return Step::Whole { sent: position };
    }
    let is_here = |head: &Position| head.epoch == position.epoch;
    let has_more = |head: &Position| is_here(head) && position.sequence < head.sequence;
    let read = |head: Position, of| {
        // To the goal first, so that what is whole is told in time however fast rows come.
        let up_to = if is_whole { head.sequence } else { goal };
        Step::Read { sent: position, up_to, of }
    };
    match (present, earlier) {
        (Some(head), _) if has_more(&head) => read(head, Of::Present),
        (Some(head), _) if is_here(&head) => Step::Wait,
        (_, Some(head)) if has_more(&head) => read(head, Of::Earlier),
        (Some(head), _) => Step::Begin { head, from: 0, is_resume: false },
        (None, _) => Step::Wait,
    }
}

/// What is held goes on where it is of the epoch of now; more rows than there are were never sent by anybody.
fn begin(held: Option<Position>, head: Position) -> Step {
    let held = held.filter(|held| held.epoch == head.epoch && held.sequence <= head.sequence);
    Step::Begin { head, from: held.map_or(0, |held| held.sequence), is_resume: held.is_some() }
}
