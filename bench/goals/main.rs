//! What sidewing costs and saves beside its peers: one table, a row for each goal.
//!
//! Each subject is a module that starts what it needs (upstream, sidecar, peers), measures in rounds in which all take
//! turns, and ends what it started. `rows.rs` lists the rows and their goals; `bench/README.md` tells how each is
//! measured.

mod append;
mod cached;
mod calls;
mod context;
mod crowd;
mod datasets;
mod duck;
mod idle;
mod install;
mod json;
mod launch;
mod load;
mod lookup;
mod options;
mod pass;
mod peers;
mod proc;
mod proxy;
mod queries;
mod rows;
mod served;
mod shelf;
mod single;
mod table;
mod tpch;
mod ways;
mod wire;

#[path = "../growing.rs"]
mod growing;
#[path = "../idlers.rs"]
mod idlers;
#[path = "../memory.rs"]
mod memory;
#[path = "../process.rs"]
mod process;
#[path = "../publisher.rs"]
mod publisher;
#[path = "../report.rs"]
mod report;
#[path = "../sidecar.rs"]
mod sidecar;
#[path = "../upstream.rs"]
mod upstream;

use context::Bench;
use growing::Growing;
use options::{Mode, Options};
use shelf::Shelf;
use table::Table;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    match Mode::read()? {
        Mode::Shelf => upstream::serve(Shelf::default()).await,
        Mode::Growing => upstream::serve(Growing::default()).await,
        Mode::Measure(options) => measure(options).await,
        Mode::Nothing => {
            println!("goals: measures only under `cargo bench`");
            Ok(())
        }
    }
}

async fn measure(options: Options) -> Result<()> {
    let bench = Bench::new(options)?;
    let mut table = Table::default();
    table.add(&bench, pass::ROWS, pass::measure(&bench)).await;
    table.add(&bench, append::ROWS, append::measure(&bench)).await;
    table.add(&bench, single::ROWS, single::measure(&bench)).await;
    table.add(&bench, queries::ROWS, queries::measure(&bench)).await;
    table.add(&bench, tpch::ROWS, tpch::measure(&bench)).await;
    table.add(&bench, lookup::ROWS, lookup::measure(&bench)).await;
    table.add(&bench, cached::ROWS, cached::measure(&bench)).await;
    table.add(&bench, wire::ROWS, wire::measure(&bench)).await;
    table.add(&bench, json::ROWS, json::measure(&bench)).await;
    table.add(&bench, load::ROWS, load::measure(&bench)).await;
    table.add(&bench, idle::ROWS, idle::measure(&bench)).await;
    table.add(&bench, datasets::ROWS, datasets::measure(&bench)).await;
    table.add(&bench, crowd::ROWS, crowd::measure(&bench)).await;
    table.publish(&bench).await
}
