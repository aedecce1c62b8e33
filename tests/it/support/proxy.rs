//! A TCP proxy in front of an upstream: it passes, goes silent, refuses or resets, for old and new connections.

use std::net::SocketAddr;

use sidewing::task::Scope;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::port::ClosedPort;

pub struct Proxy {
    addr: SocketAddr,
    to: SocketAddr,
    mode: watch::Sender<Mode>,
    running: Option<Scope>,
    port: Option<ClosedPort>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Passes,
    /// Connections are accepted, and nothing is ever heard of them again.
    Silent,
    Resets,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        let mut proxy = Self { addr, to, mode: watch::Sender::new(Mode::Passes), running: None, port: None };
        proxy.serve(listener);
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Nothing passes any more; what is open now stays dark for ever.
    pub fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    /// Every connection is reset, those that come at once.
    pub fn reset(&self) {
        self.mode.send_replace(Mode::Resets);
    }

    /// Nobody listens any more, and what is open is closed.
    pub async fn refuse(&mut self) {
        if let Some(scope) = self.running.take() {
            scope.shutdown(std::time::Duration::from_secs(5)).await.expect("the proxy's tasks end");
            self.port = Some(ClosedPort::at(self.addr));
        }
    }

    /// New connections pass.
    pub async fn heal(&mut self) {
        self.mode.send_replace(Mode::Passes);
        if self.running.is_none() {
            let listener = TcpListener::bind(self.addr).await.expect("the port of before");
            self.port = None;
            self.serve(listener);
        }
    }

    fn serve(&mut self, listener: TcpListener) {
        let scope = Scope::new();
        let (to, mode, inner) = (self.to, self.mode.clone(), scope.clone());
        scope.spawn("proxy", async move {
            while let Ok((near, _)) = listener.accept().await {
                let mode = mode.subscribe();
                inner.spawn("proxy connection", pass(near, to, mode));
            }
        });
        self.running = Some(scope);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(scope) = self.running.take() {
            scope.cancel();
        }
    }
}

async fn pass(mut near: TcpStream, to: SocketAddr, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow_and_update() == Mode::Passes
        && let Ok(mut far) = TcpStream::connect(to).await
    {
        let _ = near.set_nodelay(true);
        let _ = far.set_nodelay(true);
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
            _ = mode.changed() => {}
        }
    }
    // Dropped with what is unread, a connection is reset.
    if *mode.borrow() == Mode::Silent {
        let _held = near;
        std::future::pending::<()>().await;
    } else {
        let _ = near.set_zero_linger();
    }
}
