//! The demo: a world of its own, made on the spot, to watch the main job happen.
//!
//! Nothing outside this process is needed: no network, no other software.

pub mod tpch;
