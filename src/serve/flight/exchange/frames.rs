//! A subscription as `proto/sidewing/stream/v1/stream.proto` has it: each message says which rows it brings.

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_flight::FlightData;

use crate::proto::stream::{Frame, Kind};
use crate::query::{Standing, StreamEvent};
use crate::wire::Encoder;

/// When a message is sent, and when the rows were last known to be all there are; nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub sent: i64,
    pub whole: i64,
}

/// Events in, messages out.
#[derive(Default)]
pub(super) struct Frames {
    /// None before the first event.
    at: Option<Standing>,
    encoder: Option<Encoder>,
    /// A message without rows that is to be sent.
    notice: Option<Kind>,
}

impl Frames {
    /// Takes an event; every message of the one before must have been taken. `schema` is that of the rows.
    ///
    /// # Errors
    /// Rows of another schema.
    pub(super) fn take(&mut self, event: StreamEvent, schema: &SchemaRef) -> Result<(), ArrowError> {
        match event {
            StreamEvent::Begin { epoch, from, head, is_resume } => {
                self.at = Some(Standing { epoch, last: from, head });
                self.notice = Some(if is_resume { Kind::Resume } else { Kind::Snapshot });
                self.encoder.get_or_insert_with(|| Encoder::new(SchemaRef::clone(schema)));
            }
            StreamEvent::Rows { batch, head, .. } => {
                self.at = self.at.map(|at| Standing { head, ..at });
                if let Some(encoder) = &mut self.encoder {
                    encoder.feed(batch)?;
                }
            }
            StreamEvent::Whole { head, .. } => {
                self.at = self.at.map(|at| Standing { head, ..at });
                self.notice = Some(Kind::Whole);
            }
        }
        Ok(())
    }

    /// The next message and how many rows it brings.
    ///
    /// # Errors
    /// What Arrow cannot encode.
    pub(super) fn next(&mut self, times: Times) -> Result<Option<(FlightData, u64)>, ArrowError> {
        let (Some(at), Some(encoder)) = (&mut self.at, &mut self.encoder) else { return Ok(None) };
        if let Some(kind) = self.notice.take() {
            // The encoder's first message is the schema: it goes with the first notice, all others are bare.
            let message = encoder.take()?.unwrap_or_default();
            return Ok(Some((message.with_app_metadata(frame(kind, *at, 0, times).encode()), 0)));
        }
        let Some((message, rows)) = encoder.take_counted()? else { return Ok(None) };
        let rows = rows as u64;
        if rows == 0 {
            return Ok(Some((message, 0)));
        }
        let first = at.last + 1;
        at.last += rows;
        Ok(Some((message.with_app_metadata(frame(Kind::Rows, *at, first, times).encode()), rows)))
    }

    /// Says that nothing is new; none before there is an epoch.
    pub(super) fn heartbeat(&self, now: Option<Standing>, times: Times) -> Option<FlightData> {
        let frame = frame(Kind::Heartbeat, now?, 0, times);
        Some(FlightData::default().with_app_metadata(frame.encode()))
    }
}

fn frame(kind: Kind, at: Standing, first: u64, times: Times) -> Frame {
    Frame {
        kind,
        epoch: at.epoch,
        first,
        last: at.last,
        head: at.head,
        sent_unix_nanos: times.sent,
        watermark_unix_nanos: times.whole,
    }
}
