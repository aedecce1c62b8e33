//! `sidewing health`: one GET, an exit code. For container probes, in images without curl.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::{Request, StatusCode};
use http_body_util::Full;

use super::fetch::fetch;
use super::place::Place;
use super::reach::ReachArgs;

/// A probe that hangs has failed.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments of `sidewing health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// What to ask: a URL, or unix:/path/of/socket; without a path behind it, its /health. /v1/ready tells whether every
    /// dataset is ready
    #[arg(default_value = "http://127.0.0.1:8090/health")]
    url: String,
    #[command(flatten)]
    reach: ReachArgs,
}

/// Exits 0 when the answer is 200, else 1 with one line on stderr.
pub(super) async fn run(args: HealthArgs) -> ExitCode {
    let failure = match status(&args.url, &args.reach).await {
        Ok(StatusCode::OK) => return ExitCode::SUCCESS,
        Ok(status) => format!("answered {status}"),
        Err(why) => why,
    };
    eprintln!("{}: {failure}", args.url);
    ExitCode::FAILURE
}

async fn status(url: &str, reach: &ReachArgs) -> Result<StatusCode, String> {
    let (place, path) = Place::split(url)?;
    let path = if path.is_empty() { "/health" } else { &path };
    let request = Request::get(path).body(Full::default()).map_err(|error| error.to_string())?;
    let (status, _body) = fetch(&place, reach, request, TIMEOUT).await.map_err(|error| error.to_string())?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `reply` and returns the request's first line.
    async fn ask(path: &str, reply: &'static str) -> (Result<StatusCode, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{path}", listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            stream.write_all(reply.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..read]).lines().next().unwrap_or_default().to_owned()
        };
        let reach = ReachArgs::default();
        tokio::join!(status(&url, &reach), server)
    }

    #[tokio::test]
    async fn the_status_is_what_counts() {
        let (status, line) = ask("", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!((status, line.as_str()), (Ok(StatusCode::OK), "GET /health HTTP/1.1"));
        let (status, line) =
            ask("/v1/ready?verbose=true", "HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n").await;
        let expected = (Ok(StatusCode::SERVICE_UNAVAILABLE), "GET /v1/ready?verbose=true HTTP/1.1");
        assert_eq!((status, line.as_str()), expected);
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_said() {
        let said = async |url| status(url, &ReachArgs::default()).await.unwrap_err();
        assert!(said("ftp://localhost").await.contains("expected one such as"));
        assert!(said("not a url").await.contains("neither an address nor a URL"));
        assert!(said("unix:/no/such/socket").await.contains("cannot connect"));
        let (status, _) = ask("/", "garbage\r\n\r\n").await;
        assert!(status.unwrap_err().contains("broke"));
    }
}
