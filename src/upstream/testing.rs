//! Test support: see below.
