//! The stream of another sidewing: frames say which rows a message carries, and these are taken once each.
//!
//! What is held is the first `sequence` rows of an epoch, on what queries see or aside; the next row that is taken is
//! the one after. What came already is dropped, a gap ends the connection, and the next one goes on from here.

use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::time::Instant;

use crate::proto::stream::{Frame, Kind, Position};

use super::super::error::RefreshError;
use super::desk::Desk;

/// A publisher says something every two seconds; a message of 2 MiB takes its time where the way is narrow. A connection
/// that is dead is found by its pings, long before.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Resumed {
    /// How far this connection is.
    at: Option<Position>,
    /// The generation aside is whole up to here, and waits to be shown.
    whole: Option<Position>,
    /// Rows that are not put anywhere yet; they end at `at`.
    waiting: Vec<RecordBatch>,
    /// How far the publisher itself lags.
    behind: Duration,
}

impl Resumed {
    /// A connection begins, and goes on from `at`.
    pub(super) fn begin(&mut self, at: Option<Position>) {
        *self = Self { at, ..Self::default() };
    }

    /// How many rows the generation aside has, where it is whole and waits to be shown.
    pub(super) fn whole_rows(&self) -> Option<u64> {
        self.whole.map(|whole| whole.sequence)
    }

    /// Takes messages that came together.
    ///
    /// # Errors
    /// What breaks the protocol, or what putting rows down meets: the connection has to end.
    pub(super) async fn take(
        &mut self,
        desk: &mut Desk,
        group: Vec<(Frame, Option<RecordBatch>)>,
        arrived: Instant,
    ) -> Result<(), RefreshError> {
        let last = group.last().map(|(frame, _)| *frame);
        for (frame, batch) in group {
            self.frame(desk, &frame, batch).await?;
        }
        self.put_down(desk).await?;
        if let (Some(frame), Some(at)) = (last, self.at) {
            // Nothing is missing of what the publisher has, which may lag itself.
            let is_whole = !desk.is_aside() && frame.head == at.sequence && frame.epoch == at.epoch;
            let behind = frame.sent_unix_nanos.saturating_sub(frame.watermark_unix_nanos);
            self.behind = Duration::from_nanos(behind.max(0) as u64);
            match is_whole {
                true => desk.told.whole(arrived, self.behind),
                false => desk.told.apart(),
            }
        }
        Ok(())
    }

    async fn frame(
        &mut self,
        desk: &mut Desk,
        frame: &Frame,
        batch: Option<RecordBatch>,
    ) -> Result<(), RefreshError> {
        match frame.kind {
            Kind::Snapshot => self.snapshot(desk, frame).await?,
            Kind::Resume if self.at == Some(Position { epoch: frame.epoch, sequence: frame.last }) => {}
            Kind::Resume => return Err(desk.broken("the upstream resumes where nobody asked it to")),
            Kind::Rows => self.rows(desk, frame, batch)?,
            Kind::Whole | Kind::Heartbeat => drop(self.follows(desk, frame)?),
            Kind::Unknown if batch.is_none() => return Ok(()),
            Kind::Unknown => return Err(desk.broken("the upstream speaks a later version of the protocol")),
        }
        let reached = self.at.filter(|at| frame.kind == Kind::Whole || at.sequence >= frame.head);
        if let Some(at) = reached.filter(|_| desk.is_aside()) {
            self.put_down(desk).await?;
            self.whole = Some(at);
        }
        Ok(())
    }

    async fn snapshot(&mut self, desk: &mut Desk, frame: &Frame) -> Result<(), RefreshError> {
        self.put_down(desk).await?;
        desk.begin().await?;
        let at = Position { epoch: frame.epoch, sequence: 0 };
        (desk.reached, self.at, self.whole) = (Some(at), Some(at), None);
        Ok(())
    }

    fn follows(&self, desk: &Desk, frame: &Frame) -> Result<Position, RefreshError> {
        match self.at {
            Some(at) if at.epoch == frame.epoch && at.sequence >= frame.last => Ok(at),
            _ => Err(desk.broken(format!("rows before {} of epoch {} are missing", frame.last, frame.epoch))),
        }
    }

    fn rows(&mut self, desk: &Desk, frame: &Frame, batch: Option<RecordBatch>) -> Result<(), RefreshError> {
        let before = Frame { last: frame.first.saturating_sub(1), ..*frame };
        let at = self.follows(desk, &before)?;
        let rows = frame.last.checked_sub(before.last).filter(|_| frame.first > 0);
        let Some(batch) = batch.filter(|batch| rows == Some(batch.num_rows() as u64)) else {
            return Err(desk.broken("a message has not the rows that it says it has"));
        };
        let known = (at.sequence - before.last).min(batch.num_rows() as u64) as usize;
        desk.told.repeated(known as u64);
        if known < batch.num_rows() {
            let new = batch.slice(known, batch.num_rows() - known);
            self.waiting.push(desk.fitted(new)?);
            self.at = Some(Position { sequence: frame.last, ..at });
        }
        Ok(())
    }

    /// Everything up to `at` is put where it belongs.
    async fn put_down(&mut self, desk: &mut Desk) -> Result<(), RefreshError> {
        desk.add(std::mem::take(&mut self.waiting), self.at).await?;
        if desk.is_aside() {
            desk.reached = self.at;
            self.whole = self.whole.and(self.at);
        }
        Ok(())
    }

    /// Queries see the generation that is whole.
    pub(super) async fn show(&mut self, desk: &mut Desk) -> Result<(), RefreshError> {
        let Some(whole) = self.whole.take() else { return Ok(()) };
        desk.finish(Some(whole)).await?;
        desk.told.whole(Instant::now(), self.behind);
        Ok(())
    }
}
