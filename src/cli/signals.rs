//! SIGTERM and Ctrl-C, heard from the moment that a command starts.
//!
//! One listener for the whole command: a signal between two waits is not lost, and the second one is told
//! from the first. It has a thread of its own: the second signal ends a process whose other threads are all busy.

use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// The command has this long to end by itself after the second signal.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The thread only waits.
const STACK_SIZE: usize = 256 << 10;

/// The signals that ask a process to end.
pub(super) struct StopSignals(mpsc::Receiver<()>);

struct Ears {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Listens from now on.
    ///
    /// # Errors
    /// Handlers or a thread that the system refuses.
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let ears = {
            let _entered = runtime.enter();
            Ears { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? }
        };
        let (sender, receiver) = mpsc::channel(2);
        let thread = std::thread::Builder::new().name("signals".to_owned()).stack_size(STACK_SIZE);
        thread.spawn(move || hear(&runtime, ears, &sender))?;
        Ok(Self(receiver))
    }

    /// Resolves at the next signal, or at once for one that came since the last call.
    pub(super) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The thread ends with the process.
            std::future::pending::<()>().await;
        }
    }
}

/// Passes two signals on; the second is carried out here where nobody does.
fn hear(runtime: &Runtime, mut ears: Ears, sender: &mpsc::Sender<()>) {
    for _ in 0..2 {
        runtime.block_on(ears.next());
        // Two fit.
        let _ = sender.try_send(());
    }
    std::thread::sleep(LAST_WORDS);
    std::process::exit(1);
}

impl Ears {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
