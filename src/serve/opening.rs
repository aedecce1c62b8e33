//! The first bytes of a connection, which must come in time.
//!
//! Whether a client speaks HTTP/1.1 or HTTP/2 is seen by its first 24 bytes, and hyper's own timers begin only after
//! them: a client that sends half of the preface and stays would hold its connection for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What an HTTP/2 client begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module.
pub(super) struct Opening<T> {
    inner: T,
    /// How much of the preface has come.
    seen: usize,
    /// None once the opening is over: the preface is whole, or something else was said.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<T> Opening<T> {
    /// Reading fails unless the client has said within `limit` what it speaks.
    pub(super) fn new(inner: T, limit: Duration) -> Self {
        Self { inner, seen: 0, limit: Some(Box::pin(sleep(limit))) }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let rest = &PREFACE[self.seen..];
        let common = rest.iter().zip(bytes).take_while(|(expected, said)| expected == said).count();
        self.seen += common;
        if common < bytes.len() || self.seen == PREFACE.len() {
            self.limit = None;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Opening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let poll = Pin::new(&mut this.inner).poll_read(cx, buf);
        let Some(limit) = &mut this.limit else { return poll };
        match poll {
            Poll::Ready(Ok(())) => {
                this.hear(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if limit.as_mut().poll(cx).is_ready() => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client does not say what it speaks",
            ))),
            poll => poll,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Opening<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const LONG: Duration = Duration::from_secs(3600);

    /// What a reader has, or meets, when the client says these pieces and then nothing.
    async fn read_after(pieces: &[&[u8]]) -> Option<io::Result<Vec<u8>>> {
        let (near, mut far): (_, DuplexStream) = duplex(64);
        let mut opening = Opening::new(near, LIMIT);
        let mut all = Vec::new();
        for piece in pieces {
            far.write_all(piece).await.unwrap();
            let mut heard = vec![0; piece.len()];
            opening.read_exact(&mut heard).await.unwrap();
            all.extend(heard);
        }
        match tokio::time::timeout(LONG, opening.read_u8()).await {
            Err(_) => None,
            Ok(Ok(_)) => Some(Ok(all)),
            Ok(Err(error)) => Some(Err(error)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_not_waited_for() {
        for pieces in [&[] as &[&[u8]], &[b"P"], &[b"PRI * ", b"HTTP/2.0\r\n\r\nSM\r\n\r"]] {
            let error = read_after(pieces).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{pieces:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_said_what_it_speaks_is_left_alone() {
        for pieces in
            [&[PREFACE][..], &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", b"\n"], &[b"GET "], &[b"PO"], &[b"PRI x"]]
        {
            assert!(read_after(pieces).await.is_none(), "{pieces:?}");
        }
    }
}
