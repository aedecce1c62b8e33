//! A start of the sidecar with a watch in the hand: until both listeners take connections, and until all is ready.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::Result;
use crate::process;
use crate::proxy::free_address;
use crate::sidecar;

const LISTENING_WITHIN: Duration = Duration::from_secs(30);
const READY_WITHIN: Duration = Duration::from_secs(300);
/// Between two looks: short beside what is measured, and long enough to leave the core to the sidecar.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const ASK_EVERY: Duration = Duration::from_millis(10);

/// A running sidecar; it ends with its owner.
pub struct Launch {
    child: Child,
    begun: Instant,
    http: String,
    pub flight: String,
    /// Seconds until both listeners took a connection.
    pub listening: f64,
}

impl Launch {
    /// Starts the spicepod of `home`.
    pub async fn of(home: &Path) -> Result<Self> {
        let (http, flight) = (free_address().await?, free_address().await?);
        let begun = Instant::now();
        let child = Command::new(sidecar::program())
            .args(["run", ".", "--http", &http, "--flight", &flight, "--metrics", "127.0.0.1:0"])
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        for address in [&http, &flight] {
            while TcpStream::connect(address).await.is_err() {
                if begun.elapsed() > LISTENING_WITHIN {
                    return Err(format!("it does not listen after {LISTENING_WITHIN:?}").into());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        let listening = begun.elapsed().as_secs_f64();
        Ok(Self { child, begun, http, flight, listening })
    }

    /// Seconds from the start until every dataset can be asked.
    pub async fn ready(&self) -> Result<f64> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{}/v1/ready", self.http);
        while !client.get(&url).send().await?.status().is_success() {
            if self.begun.elapsed() > READY_WITHIN {
                return Err(format!("it is not ready after {READY_WITHIN:?}").into());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(self.begun.elapsed().as_secs_f64())
    }

    pub fn id(&self) -> Result<u32> {
        self.child.id().ok_or_else(|| "the sidecar has ended".into())
    }

    pub async fn stop(mut self) -> Result<()> {
        process::end(&mut self.child).await
    }
}
