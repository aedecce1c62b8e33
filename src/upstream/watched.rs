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

/// Read of a connection that cannot be written to any more, for what is behind it.
const LAST_BYTES: usize = 1 << 10;

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

    /// What a write came to. Where it failed the server has gone, and its alert may lie unread: a server that refuses a
    /// client certificate does so while the client already writes.
    fn asking_why<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let (Poll::Ready(Err(_)), Stream::Tls(stream)) = (&written, &mut self.stream) {
            let mut bytes = [0; LAST_BYTES];
            let read = Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut bytes));
            if let Poll::Ready(Err(error)) = read {
                self.note_error(&error);
            }
        }
        written
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
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.asking_why(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.asking_why(cx, flushed)
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
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.asking_why(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::testing::Pki;
    use super::*;
    use crate::task::Scope;

    /// By the time of the second write the server has reset the connection, and nothing was read of it.
    #[tokio::test]
    async fn a_server_that_has_gone_is_asked_why() {
        let pki = Pki::new();
        let acceptor = TlsAcceptor::from(Arc::new(pki.mtls(&pki.leaf("localhost"))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scope = Scope::new();
        let (gone, has_gone) = tokio::sync::oneshot::channel();
        scope.spawn("server", async move {
            let (socket, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(socket).await.is_err());
            gone.send(()).unwrap();
        });
        let connector = TlsConnector::from(Arc::new(pki.client()));
        let socket = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
        has_gone.await.unwrap();
        let notes = Arc::new(Notes::default());
        let mut watched = Watched::new(Stream::Tls(Box::new(stream)), Arc::clone(&notes));
        while watched.write_all(b"a preface").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let Some(Failure::Tls(error)) = notes.failure.get() else { panic!("nothing is known of its end") };
        assert_eq!(*error, rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
    }
}
