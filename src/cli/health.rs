//! `sidewing health`: one GET, an exit code. For container probes, in images without curl.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A probe that hangs has failed.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The default port of `http`, RFC 9110 section 4.2.1.
const HTTP_PORT: u16 = 80;

/// Arguments of `sidewing health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// What to ask; a URL without a path means its /health. /v1/ready tells whether every dataset is ready
    #[arg(default_value = "http://127.0.0.1:8090/health")]
    pub url: String,
}

/// Exits 0 when the answer is 200, else 1 with one line on stderr.
pub async fn run(args: HealthArgs) -> ExitCode {
    let failure = match tokio::time::timeout(TIMEOUT, status(&args.url)).await {
        Ok(Ok(StatusCode::OK)) => return ExitCode::SUCCESS,
        Ok(Ok(status)) => format!("answered {status}"),
        Ok(Err(why)) => why,
        Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
    };
    eprintln!("{}: {failure}", args.url);
    ExitCode::FAILURE
}

async fn status(url: &str) -> Result<StatusCode, String> {
    let uri: Uri = url.parse().map_err(|_| "not a URL: expected http://host:port/path".to_owned())?;
    if uri.scheme_str() != Some("http") {
        return Err("only http:// can be asked".to_owned());
    }
    let host = uri.host().ok_or("the URL names no host")?;
    let port = uri.port_u16().unwrap_or(HTTP_PORT);
    let path = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
        None | Some("/") => "/health",
        Some(path) => path,
    };
    // An IPv6 literal wears brackets in a URL and none in a socket address.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream =
        TcpStream::connect((bare, port)).await.map_err(|error| format!("cannot connect: {error}"))?;
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::get(path)
        .header(HOST, format!("{host}:{port}"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    tokio::select! {
        answered = sender.send_request(request) => answered.map(|response| response.status()).map_err(broken),
        ended = connection => Err(ended.err().map_or("the connection was closed".to_owned(), broken)),
    }
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
        tokio::join!(status(&url), server)
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
        assert!(status("https://localhost").await.unwrap_err().contains("http://"));
        assert!(status("not a url").await.unwrap_err().contains("not a URL"));
        let (status, _) = ask("/", "garbage\r\n\r\n").await;
        assert!(status.unwrap_err().contains("broke"));
    }
}
