//! A port on which nobody listens: taken for a test, so that no other test is given it meanwhile.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// For as long as a short connection may last.
const RETRIES_MAX: usize = 100;
const RETRY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(20);

/// Held while this lives. Connections to it are refused; a listener may still be bound to it by its number,
/// which neither the kernel's own choice of a port nor an outgoing connection does.
pub struct ClosedPort {
    number: u16,
    _socket: TcpSocket,
}

impl ClosedPort {
    /// Any free port of 127.0.0.1.
    pub fn any() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The port of an address where nobody listens any more.
    pub fn at(addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a socket's option");
        // An outgoing connection of somebody else may have been given the port a moment ago.
        let taken = || socket.bind(addr).inspect_err(|_| std::thread::sleep(RETRY_INTERVAL));
        let bound = std::iter::repeat_with(taken).take(RETRIES_MAX).find(Result::is_ok);
        bound.expect("a free port").expect("one that was found");
        let number = socket.local_addr().expect("a bound address").port();
        Self { number, _socket: socket }
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}
