//! The sidecar of a bench: a directory with a spicepod enters, a ready process and clients of it leave.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightClient, FlightDescriptor};
use futures::TryStreamExt;
use tonic::transport::Channel;

use crate::Result;
use crate::process::Process;

const READY_WITHIN: Duration = Duration::from_secs(300);

/// The binary that is measured: the one that cargo built beside this bench, or what `SIDEWING_BINARY` names.
pub fn program() -> PathBuf {
    let named = std::env::var_os("SIDEWING_BINARY").map(PathBuf::from);
    let program = named.unwrap_or_else(|| env!("CARGO_BIN_EXE_sidewing").into());
    // It is started in another directory.
    std::path::absolute(&program).unwrap_or(program)
}

/// Runs the spicepod of `directory` on free ports until all datasets are ready.
pub async fn start(directory: &Path) -> Result<Process> {
    let any = "127.0.0.1:0";
    let arguments = ["run", ".", "--http", any, "--flight", any, "--metrics", any];
    let sidecar = Process::start(&program(), &arguments, directory, "metrics").await?;
    let url = format!("http://{}/v1/ready", sidecar.address("http")?);
    let started = Instant::now();
    loop {
        let answer = reqwest::get(&url).await?;
        if answer.status().is_success() {
            return Ok(sidecar);
        }
        if started.elapsed() > READY_WITHIN {
            return Err(format!("the sidecar is not ready: {}", answer.text().await?).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A Flight client of `address`, in the clear.
pub async fn client(address: &str) -> Result<FlightClient> {
    let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
    let inner = FlightServiceClient::new(channel).max_decoding_message_size(64 << 20);
    Ok(FlightClient::new_from_inner(inner))
}

/// Runs `sql` and hands over each batch that arrives.
pub async fn ask(client: &mut FlightClient, sql: &str, mut each: impl FnMut(RecordBatch)) -> Result<()> {
    let info = client.get_flight_info(FlightDescriptor::new_cmd(sql.to_owned())).await?;
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or("an endpoint without a ticket")?;
        let mut batches = client.do_get(ticket).await?;
        while let Some(batch) = batches.try_next().await? {
            each(batch);
        }
    }
    Ok(())
}
