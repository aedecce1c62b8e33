//! The integration tests, one binary: the real `sidewing` between real sockets.
//!
//! One file a subject. `support` is the harness; `harness` tests the harness itself, without sidewing.

mod support;

mod harness;
mod ranks;
