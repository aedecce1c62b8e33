//! A name server: one UDP socket, every name has the addresses that the test says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sidewing::task::Scope;
use tokio::net::UdpSocket;

/// Header and the bytes of a question's type and class.
const HEADER: usize = 12;
const QUESTION_END: usize = 4;
const TYPE_A: u16 = 1;
/// A pointer to the name in the question.
const NAME: [u8; 2] = [0xc0, 0x0c];

pub struct NameServer {
    addr: SocketAddr,
    state: Arc<State>,
    scope: Scope,
}

struct State {
    addresses: Mutex<Vec<Ipv4Addr>>,
    ttl_seconds: u32,
    asked: AtomicUsize,
}

impl NameServer {
    pub async fn start(addresses: &[Ipv4Addr], ttl_seconds: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP socket");
        let addr = socket.local_addr().expect("a bound address");
        let asked = AtomicUsize::new(0);
        let state = Arc::new(State { addresses: Mutex::new(addresses.to_vec()), ttl_seconds, asked });
        let scope = Scope::new();
        scope.spawn("name server", serve(socket, Arc::clone(&state)));
        Self { addr, state, scope }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every name has these addresses from now on.
    pub fn set(&self, addresses: &[Ipv4Addr]) {
        *self.state.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.to_vec();
    }

    /// How many questions came.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

async fn serve(socket: UdpSocket, state: Arc<State>) {
    let mut question = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut question).await {
        if let Some(answer) = state.answer(&question[..len]) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

impl State {
    /// RFC 1035, section 4: the question comes back with its answers behind it.
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let name = question.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
        let end = HEADER + name + 1 + QUESTION_END;
        let kind = question.get(end - QUESTION_END..end - 2)?;
        self.asked.fetch_add(1, Ordering::SeqCst);
        let addresses = match kind == TYPE_A.to_be_bytes() {
            true => self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            false => Vec::new(),
        };
        let count = u16::try_from(addresses.len()).ok()?.to_be_bytes();
        let mut answer = question[..2].to_vec();
        // An answer, recursion desired and available, no error; one question.
        answer.extend([0x81, 0x80, 0, 1, count[0], count[1], 0, 0, 0, 0]);
        answer.extend(&question[HEADER..end]);
        for address in addresses {
            answer.extend(NAME);
            answer.extend([0, 1, 0, 1]);
            answer.extend(self.ttl_seconds.to_be_bytes());
            answer.extend([0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }
}
