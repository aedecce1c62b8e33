//! A dataset that follows its upstream's append stream: messages enter, generations that equal the upstream leave.
//!
//! Against another sidewing it obeys the frames of `proto/sidewing/stream/v1/stream.proto`, which say which rows a
//! message carries (`resumed`). A stock upstream says nothing of the kind, repeats rows and loses them without a word
//! (`stock`); there one rule holds at every moment: *what is held is a part of what the upstream has, each row at most as
//! often*. A row that is equal to none that is held is therefore new. A row that is equal to one may be that one again:
//! it is left out and unsettled, until the upstream's `count(*)` equals what is held, which proves that it was, or a
//! query of the whole table brings what is missing, counted row by row.
//!
//! Nothing here opens a connection: `origin` is the door outward, and stands for a simulated upstream in tests.

mod backoff;
mod changes;
mod confirm;
mod counter;
mod desk;
mod follower;
mod ledger;
mod origin;
mod queue;
mod reconcile;
mod resumed;
mod stock;
mod told;

pub(super) use follower::Follower;
pub(super) use origin::Remote;
#[cfg(test)]
pub(super) use origin::{Messages, Origin};
pub use told::StreamStatus;
pub(super) use told::Told;
