//! Stores, folders and the bounds of appends together, as a keeper uses them; the whole keeper runs in `tests/it`.

mod clock;
mod model;
mod streams;
mod world;
mod writes;
