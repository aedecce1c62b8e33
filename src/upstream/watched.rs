//! A socket that remembers: its first bytes and its last error.
//!
//! They tell a TLS port from a plaintext one, and a missing client certificate from a lost connection, long
//! after the layers above have forgotten why.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;

/// What was seen on a socket.
#[derive(Default)]
pub(super) struct Notes {
    pub first: OnceLock<FirstBytes>,
    pub failure: OnceLock<Failure>,
    changed: Notify,
    /// How many calls the connection's owner has under way.
    load: OnceLock<Arc<AtomicUsize>>,
}

/// What a server says first, whoever it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum FirstBytes {
    Http2,
    /// A TLS record where plaintext was expected.
    Tls,
    /// `HTTP/1.1 400 Bad Request`.
    Http1,
    Closed,
}

pub(super) enum Failure {
    Tls(rustls::Error),
    Io(String),
}

impl Notes {
    fn begin(&self, first: FirstBytes) {
        if self.first.set(first).is_ok() {
            self.changed.notify_waiters();
        }
    }

    pub fn fail(&self, failure: Failure) {
        if self.failure.set(failure).is_ok() {
            self.changed.notify_waiters();
        }
    }

    /// Says whose calls the connection carries.
    pub fn carries(&self, load: Arc<AtomicUsize>) {
        // A connection has one owner.
        let _ = self.load.set(load);
    }

    /// Whether calls would suffer from its end.
    pub fn is_carrying(&self) -> bool {
        self.load.get().is_some_and(|load| load.load(Ordering::Relaxed) > 0)
    }

    /// Resolves when the server has said anything, or the connection has failed.
    pub async fn heard(&self) {
        loop {
            let changed = self.changed.notified();
            if self.first.get().is_some() || self.failure.get().is_some() {
                return;
            }
            changed.await;
        }
    }
}

pub(super) enum Stream {
    Plain(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket whose first bytes and last error are noted.
pub(super) struct Watched {
    stream: Stream,
    notes: Arc<Notes>,
    begun: bool,
}

impl Watched {
    pub fn new(stream: Stream, notes: Arc<Notes>) -> Self {
        Self { stream, notes, begun: false }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.begun = true;
        let is_plain = !matches!(self.stream, Stream::Tls(_));
        self.notes.begin(match bytes {
            [] => FirstBytes::Closed,
            // A handshake or alert record of any TLS version.
            [0x15 | 0x16, 0x03, ..] if is_plain => FirstBytes::Tls,
            bytes if bytes.starts_with(b"HTTP/") => FirstBytes::Http1,
            _ => FirstBytes::Http2,
        });
    }

    fn note_error(&self, error: &io::Error) {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        self.notes.fail(match tls {
            Some(error) => Failure::Tls(error.clone()),
            None => Failure::Io(error.to_string()),
        });
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        });
        match &result {
            Ok(()) if !self.begun => self.note(&buf.filled()[before..]),
            Ok(()) => {}
            Err(error) => self.note_error(error),
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
