//! One result in the cache.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::MemoryReservation;

use super::basis::Basis;
use super::policy::Age;
use crate::query::parts::Form;
use crate::wire::{self, Frame, Part};

/// Larger results, in bytes, are encoded for each client anew: sending them is what takes the time.
const FRAMES_BYTES_MAX: usize = 1 << 20;

/// A whole result, and what is known of where it came from.
pub(in crate::query) struct Entry {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Of the batches and the key.
    pub(super) bytes: usize,
    /// When the last row was here.
    pub(super) made: Instant,
    pub(super) basis: Basis,
    pub(in crate::query) is_upstream: bool,
    /// The batches as they travel to Flight clients, made for the first of them; none where they are not kept so.
    pub(super) frames: OnceLock<Option<Vec<Frame>>>,
    /// Given back when the entry is gone and nobody streams it any more.
    pub(super) held: Arc<MemoryReservation>,
}

impl Entry {
    /// The rows for a Flight client, encoded where that is done once for all of them.
    pub(in crate::query) fn frames(&self) -> Option<&[Frame]> {
        let encode = || {
            if self.bytes > FRAMES_BYTES_MAX {
                return None;
            }
            let frames = wire::frames(&self.schema, &self.batches)?;
            let bytes = frames.iter().map(Frame::bytes).sum();
            self.held.try_grow(bytes).ok().map(|()| frames)
        };
        self.frames.get_or_init(encode).as_deref()
    }

    /// A part of the rows as a client of this kind takes them; none after the last.
    pub(in crate::query) fn part(&self, form: Form, at: usize) -> Option<Part> {
        let frames = if form == Form::Messages { self.frames() } else { None };
        match frames {
            Some(frames) => frames.get(at).cloned().map(Part::Frame),
            None => self.batches.get(at).cloned().map(Part::Batch),
        }
    }

    pub(super) fn age(&self, now: Instant) -> Age {
        match self.is_upstream {
            true => Age::Of(now.saturating_duration_since(self.made)),
            false => Age::Exact,
        }
    }
}
