//! Whether the runtime still runs tasks: a task that ticks enters, a word in the log and a metric leave when it does not.
//!
//! Seen by a thread of its own. A process that is stuck cannot answer `/health`, so that its probe restarts it; what is
//! written here tells why it was restarted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::task::Scope;

const TICK: Duration = Duration::from_millis(500);
/// Without a tick for so long, the runtime is called stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// The thread only looks.
const STACK_SIZE: usize = 128 << 10;

/// When the last tick was, in milliseconds since the beginning.
struct Pulse {
    begun: Instant,
    last_ms: AtomicU64,
}

/// Watches the runtime for as long as `scope` lives.
///
/// # Errors
/// A thread that the system refuses.
pub(super) fn watch(scope: &Scope) -> io::Result<()> {
    let pulse = Arc::new(Pulse { begun: Instant::now(), last_ms: AtomicU64::new(0) });
    let (ticking, token) = (Arc::clone(&pulse), scope.token());
    scope.spawn("pulse", async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            ticking.tick();
        }
    });
    metrics::gauge!("runtime_stalled_ms").set(0.0);
    let thread = std::thread::Builder::new().name("pulse".to_owned()).stack_size(STACK_SIZE);
    thread.spawn(move || {
        let mut is_stuck = false;
        while !token.is_cancelled() {
            std::thread::sleep(TICK);
            is_stuck = tell(pulse.silence(), is_stuck);
        }
    })?;
    Ok(())
}

/// Tells what has changed; whether it is stuck now.
fn tell(silence: Duration, was_stuck: bool) -> bool {
    let is_stuck = silence > STUCK_AFTER;
    metrics::gauge!("runtime_stalled_ms").set(if silence > TICK * 2 {
        silence.as_secs_f64() * 1e3
    } else {
        0.0
    });
    let seconds = silence.as_secs_f64();
    match (was_stuck, is_stuck) {
        (false, true) => tracing::error!(seconds, "no task gets on: all threads are busy or blocked"),
        (true, false) => tracing::warn!("tasks get on again"),
        _ => {}
    }
    is_stuck
}

impl Pulse {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tick(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Registry;

    #[test]
    fn it_is_stuck_after_a_long_silence_and_until_the_next_tick() {
        let registry = Registry::default();
        let stalled =
            |expected: &str| registry.render().contains(&format!("\nruntime_stalled_ms {expected}"));
        let pulse = Pulse { begun: Instant::now() - Duration::from_secs(60), last_ms: AtomicU64::new(0) };
        assert!(metrics::with_local_recorder(&registry, || tell(pulse.silence(), false)));
        assert!(stalled("60"), "{}", registry.render());
        pulse.tick();
        assert!(!metrics::with_local_recorder(&registry, || tell(pulse.silence(), true)));
        assert!(stalled("0\n"), "{}", registry.render());
        assert!(pulse.silence() < STUCK_AFTER);
    }
}
