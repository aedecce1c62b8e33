//! A socket that can go dark: it stays open, and nothing passes any more, as behind a router that lost its table.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::State;

pub(super) struct Socket<T> {
    inner: T,
    state: Arc<State>,
    /// How many blackholes there had been when it was opened.
    born: usize,
}

impl<T> Socket<T> {
    pub fn new(inner: T, state: Arc<State>) -> Self {
        let born = state.blackholes.load(Ordering::SeqCst);
        Self { inner, state, born }
    }

    /// For ever: nobody has to be woken.
    fn is_dark(&self) -> bool {
        self.state.blackholes.load(Ordering::SeqCst) > self.born
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.is_dark() {
            true => Poll::Pending,
            false => Pin::new(&mut self.inner).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.is_dark() {
            true => Poll::Pending,
            false => Pin::new(&mut self.inner).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.is_dark() {
            true => Poll::Pending,
            false => Pin::new(&mut self.inner).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.is_dark() {
            true => Poll::Pending,
            false => Pin::new(&mut self.inner).poll_shutdown(cx),
        }
    }
}
