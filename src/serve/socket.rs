//! Sockets of the front ends: an address enters, a bound listener and its streams leave, over TCP or of this machine.
//!
//! A Unix domain socket is its owner's alone from its first moment on: it is made in a directory that nobody else can
//! enter, and moved to its place with its rights. It goes with its listener.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use super::cork::Corked;
use crate::config::BindAddress;

/// Connections that wait to be accepted; the system may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 16_384;
/// Only the owner connects.
const SOCKET_MODE: u32 = 0o600;
/// The private directory beside a socket's place, and the socket in it: short, for paths of sockets must be.
const MAKING_PREFIX: &str = ".s";
const MAKING_NAME: &str = "s";

/// A bound listener.
pub struct Listener(Kind);

enum Kind {
    Tcp(TcpListener),
    Unix(SocketFile),
}

/// A listening socket with its file, which is removed with it.
struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file: another process may have put its own there.
    file: (u64, u64),
}

/// A connection of a client.
pub(super) enum Stream {
    Tcp(Corked),
    Unix(UnixStream),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(Kind::Tcp(listener))
    }
}

impl Listener {
    /// Listens at `address`. A socket file that a dead process left there is replaced.
    ///
    /// # Errors
    /// An address that cannot be had; a file that is no socket, or one on which somebody listens.
    pub async fn bind(address: &BindAddress) -> io::Result<Self> {
        match address {
            BindAddress::Tcp(address) => listen(*address).map(Into::into),
            BindAddress::Unix(path) => Ok(Self(Kind::Unix(SocketFile::bind(path).await?))),
        }
    }

    /// Where it listens, with the port that it was given.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<BindAddress> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(BindAddress::Tcp),
            Kind::Unix(socket) => Ok(BindAddress::Unix(socket.path.clone())),
        }
    }

    /// Whether what is sent can be heard on the way: on a socket of this machine it cannot.
    pub(super) fn wants_tls(&self) -> bool {
        matches!(self.0, Kind::Tcp(_))
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, _peer) = listener.accept().await?;
                Ok(Stream::Tcp(Corked::new(stream)))
            }
            Kind::Unix(socket) => {
                let (stream, _peer) = socket.listener.accept().await?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}

/// Listens with a queue for many: clients that do not fit into it are connected, and forgotten by this side.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart need not wait for the connections of the former process.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl SocketFile {
    async fn bind(path: &Path) -> io::Result<Self> {
        make_way(path).await?;
        let beside = path.parent().unwrap_or(Path::new("/"));
        let making = tempfile::Builder::new().prefix(MAKING_PREFIX).tempdir_in(beside)?;
        let made = making.path().join(MAKING_NAME);
        let listener = UnixListener::bind(&made)?;
        fs::set_permissions(&made, Permissions::from_mode(SOCKET_MODE))?;
        fs::rename(&made, path)?;
        let file = identity(&fs::symlink_metadata(path)?);
        Ok(Self { listener, path: path.to_owned(), file })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "socket file left behind");
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Whether a socket may be put at `path`: nothing is there, or what a dead process left.
async fn make_way(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "a file that is no socket is there"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "a living process listens there")),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        // Its queue is full, or it is another user's: somebody may listen.
        Err(error) => Err(error),
    }
}

impl Stream {
    /// What small answers need: packets leave as they are written; or, where `in_bursts`, as many full ones as come
    /// at once. See [`Corked`].
    pub(super) fn hurry(&mut self, in_bursts: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.hurry(in_bursts),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Resolves when the client has sent anything, or has gone.
    pub(super) async fn first_byte(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.peek(&mut [0]).await.map(drop),
            Self::Unix(stream) => stream.readable().await,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        let address = BindAddress::Unix(path.clone());
        let listener = Listener::bind(&address).await.unwrap();
        assert_eq!(listener.address().unwrap(), address);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        assert_eq!(names(dir.path()), ["http.sock"]);
        let (connected, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert!(connected.is_ok() && accepted.is_ok());
        drop(listener);
        assert!(names(dir.path()).is_empty());
    }

    #[tokio::test]
    async fn a_dead_ones_file_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // What std leaves behind when its listener is dropped.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = BindAddress::Unix(path.clone());
        let living = Listener::bind(&address).await.unwrap();
        let refused = Listener::bind(&address).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).await.is_ok(), "the refusal has hurt the living one");
        drop(living);
        fs::write(&path, "data").unwrap();
        let refused = Listener::bind(&address).await.err().unwrap();
        assert!(refused.to_string().contains("no socket"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[tokio::test]
    async fn anothers_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&BindAddress::Unix(path.clone())).await.unwrap();
        fs::remove_file(&path).unwrap();
        let other = Listener::bind(&BindAddress::Unix(path.clone())).await.unwrap();
        drop(listener);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(other);
        assert!(!path.exists());
    }
}
