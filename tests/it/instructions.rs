//! What an answer costs, in instructions: they do not depend on how busy the machine is, so that a change that makes one
//! of the three hottest paths dearer is seen where it is made. Counted by Valgrind's callgrind, of a debug build.
//!
//! A bound is a fifth above what was counted when it was set. A change that is worth more says so by raising it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::TryStreamExt;
use tonic::transport::Channel;

use crate::clients::tools::{required, run};
use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

/// Answers before it is counted: everything is connected, known and kept by then.
const WARM: i64 = 40;
const COUNTED: i64 = 100;

/// What is asked, with `{id}` for another number each time, and how many thousand instructions an answer may cost.
const PATHS: [(&str, &str, u64); 3] = [
    ("pass-through", "SELECT id, name FROM items WHERE id >= {id}", 2_340),
    ("key lookup", "SELECT id, name FROM kept WHERE id = {id}", 2_900),
    ("cache hit", "SELECT count(*) AS n FROM kept", 1_280),
];

fn rows() -> Vec<arrow::array::RecordBatch> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2_000));
    let names = (0..2_000).map(|id| format!("item {id}"));
    batch([("id", ids), ("name", Arc::new(StringArray::from_iter_values(names)))])
}

/// Callgrind's own tool.
fn control(args: &[&str], pid: u32) {
    let done = run(Command::new("callgrind_control").args(args).arg(pid.to_string()));
    done.unwrap_or_else(|why| panic!("callgrind_control {args:?}: {why}"));
}

/// What was counted, by the file that was written last.
fn counted(folder: &Path, part: usize) -> u64 {
    let text = std::fs::read_to_string(folder.join(format!("counts.{part}"))).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a line of totals");
    total.trim().parse().unwrap()
}

async fn ask(client: &mut FlightServiceClient<Channel>, sql: &str, ids: std::ops::Range<i64>) {
    for id in ids {
        let ticket = Ticket::new(sql.replace("{id}", &id.to_string()));
        let messages: Vec<_> = client.do_get(ticket).await.unwrap().into_inner().try_collect().await.unwrap();
        assert!(messages.len() > 1, "{sql}: no rows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hottest_paths_cost_what_they_did() {
    let found = run(Command::new("valgrind").arg("--version"));
    let Some(_) = required("valgrind", found) else { return };
    let upstream = Upstream::builder().table("items", rows()).table("kept", rows()).start().await;
    let kept = Dataset::of("kept", &upstream).accelerated("primary_key: id");
    let yaml = spicepod(&[Dataset::of("items", &upstream), kept], "");
    let counting =
        "exec valgrind --quiet --tool=callgrind --instr-atstart=no --callgrind-out-file=counts \"$0\" \"$@\"";
    let sidecar = Sidecar::builder().spicepod(&yaml).limits(counting).start().await;
    sidecar.wait_ready().await;
    let channel = Channel::from_shared(format!("http://{}", sidecar.flight_addr())).unwrap();
    let mut client = FlightServiceClient::new(channel.connect().await.unwrap());
    let mut dear = Vec::new();
    for (at, (path, sql, bound)) in PATHS.into_iter().enumerate() {
        ask(&mut client, sql, 0..WARM).await;
        control(&["-i", "on"], sidecar.pid());
        ask(&mut client, sql, WARM..WARM + COUNTED).await;
        control(&["-i", "off"], sidecar.pid());
        control(&["-d"], sidecar.pid());
        let thousands = counted(sidecar.dir(), at + 1) / COUNTED as u64 / 1_000;
        println!("{path}: {thousands} thousand instructions an answer, bound {bound}");
        if thousands > bound {
            dear.push(format!("{path}: {thousands} thousand instructions an answer, more than {bound}"));
        }
    }
    assert!(dear.is_empty(), "{dear:#?}");
}
