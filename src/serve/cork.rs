//! A TCP socket on which what is written in one go travels in full segments.
//!
//! HTTP/2 writes a large answer frame by frame, 16 KiB each where the client asks for no more, and each would be a packet
//! of its own: the kernel's work for a packet, on either side, is most of what passing a gigabyte on costs. While large
//! writes follow each other the socket is corked (tcp(7)): segments leave when they are full, the rest when the writer has
//! no more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A write of fewer bytes is no part of much.
const LARGE_BYTES: usize = 16 << 10;

/// See the module.
///
/// The end of a burst is told from the writer's flushes: h2 flushes after each frame, and once more when it has no other.
/// So either of two is an end: a flush after a small write, or one after no write at all.
pub(super) struct Corked {
    stream: TcpStream,
    /// Whether the writer is known to flush so.
    in_bursts: bool,
    is_corked: bool,
    /// Since the last flush a large write was the last one.
    has_more: bool,
}

impl Corked {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, in_bursts: false, is_corked: false, has_more: false }
    }

    /// Packets leave as they are written, but for those of bursts.
    pub(super) fn hurry(&mut self, in_bursts: bool) -> io::Result<()> {
        self.in_bursts = in_bursts;
        self.stream.set_nodelay(true)
    }

    pub(super) async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(buf).await
    }

    fn begin(&mut self, bytes: usize) -> io::Result<()> {
        self.has_more = self.in_bursts && bytes >= LARGE_BYTES;
        self.cork(self.is_corked || self.has_more)
    }

    fn cork(&mut self, corked: bool) -> io::Result<()> {
        if self.is_corked != corked {
            set_cork(&self.stream, corked)?;
            self.is_corked = corked;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn set_cork(stream: &TcpStream, corked: bool) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_cork(stream, corked)?)
}

#[cfg(not(target_os = "linux"))]
fn set_cork(_stream: &TcpStream, _corked: bool) -> io::Result<()> {
    Ok(())
}

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.begin(buf.len())?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begin(bufs.iter().map(|buf| buf.len()).sum())?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if !std::mem::take(&mut self.has_more) {
            self.cork(false)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cork(false)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ::http::{Request, Response};
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty, Full};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection; the near one in bursts.
    async fn pair() -> (Corked, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (far, near) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let mut near = Corked::new(near.unwrap().0);
        near.hurry(true).unwrap();
        (near, far.unwrap())
    }

    fn is_corked(near: &Corked) -> bool {
        #[cfg(target_os = "linux")]
        assert_eq!(rustix::net::sockopt::tcp_cork(&near.stream).unwrap(), near.is_corked);
        near.is_corked
    }

    #[tokio::test]
    async fn large_writes_are_held_together_until_there_is_no_more() {
        let (mut near, mut far) = pair().await;
        let large = vec![7; 2 * LARGE_BYTES];
        for _ in 0..3 {
            near.write_all(&large).await.unwrap();
            near.flush().await.unwrap();
            assert!(is_corked(&near));
        }
        near.flush().await.unwrap();
        assert!(!is_corked(&near));
        far.read_exact(&mut vec![0; 3 * large.len()]).await.unwrap();
    }

    #[tokio::test]
    async fn a_small_write_ends_a_burst_and_begins_none() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"small").await.unwrap();
        assert!(!is_corked(&near));
        near.write_all(&vec![7; LARGE_BYTES]).await.unwrap();
        near.write_all(b"trailers").await.unwrap();
        assert!(is_corked(&near));
        near.flush().await.unwrap();
        assert!(!is_corked(&near));
        far.read_exact(&mut vec![0; LARGE_BYTES + 13]).await.unwrap();
    }

    #[tokio::test]
    async fn a_writer_that_flushes_otherwise_is_never_held() {
        let (mut near, _far) = pair().await;
        near.hurry(false).unwrap();
        near.write_all(&vec![7; 2 * LARGE_BYTES]).await.unwrap();
        assert!(!is_corked(&near));
    }

    /// Counts how often its socket was corked and let go.
    struct Counted(Corked, Arc<AtomicUsize>, Arc<AtomicUsize>);

    impl Counted {
        fn counted<R>(&mut self, poll: impl FnOnce(Pin<&mut Corked>) -> R) -> R {
            let before = self.0.is_corked;
            let polled = poll(Pin::new(&mut self.0));
            match (before, self.0.is_corked) {
                (false, true) => self.1.fetch_add(1, Ordering::SeqCst),
                (true, false) => self.2.fetch_add(1, Ordering::SeqCst),
                _ => 0,
            };
            polled
        }
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.counted(|inner| inner.poll_read(cx, buf))
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.counted(|inner| inner.poll_write(cx, buf))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.counted(|inner| inner.poll_write_vectored(cx, bufs))
        }

        fn is_write_vectored(&self) -> bool {
            self.0.is_write_vectored()
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.counted(|inner| inner.poll_flush(cx))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.counted(|inner| inner.poll_shutdown(cx))
        }
    }

    /// That h2 flushes as the module says.
    #[tokio::test]
    async fn an_http2_answer_leaves_no_cork_behind() {
        const BODY_BYTES: usize = 1 << 20;
        let (near, far) = pair().await;
        let (corked, let_go) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let near = Counted(near, Arc::clone(&corked), Arc::clone(&let_go));
        let answer = service_fn(async |_: Request<hyper::body::Incoming>| {
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(vec![7; BODY_BYTES]))))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(near), answer);
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(far)).await.unwrap();
        let asks = async move {
            for _ in 0..3 {
                let request = Request::get("http://near/").body(Empty::<Bytes>::new()).unwrap();
                let body = client.send_request(request).await.unwrap().into_body();
                assert_eq!(body.collect().await.unwrap().to_bytes().len(), BODY_BYTES);
            }
        };
        let ((), connection, server) = tokio::join!(asks, connection, server);
        connection.unwrap();
        server.unwrap();
        let (corked, let_go) = (corked.load(Ordering::SeqCst), let_go.load(Ordering::SeqCst));
        assert!(corked >= 3 && corked == let_go, "corked {corked} times, let go {let_go} times");
    }
}
