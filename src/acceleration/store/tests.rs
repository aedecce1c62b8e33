//! The store against models of it.
