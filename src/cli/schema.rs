//! `sidewing schema`: the JSON Schema of the spicepod on standard output.

use crate::config;

pub(super) fn run() -> u8 {
    println!("{:#}", config::json_schema());
    0
}
