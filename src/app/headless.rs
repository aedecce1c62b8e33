//! A spicepod without listeners, for who brings a front end of its own: a plan enters, an engine leaves.

use super::{KEEPERS_SHUTDOWN_TIMEOUT, OUTWARD_SHUTDOWN_TIMEOUT, Plan, bring_up, engine, outward};
use crate::federation::Resources;
use crate::query::Engine;
use crate::task::Scope;
use crate::telemetry::Registry;

/// What answers, and what keeps it up.
pub struct Core {
    pub engine: Engine,
    keepers: Scope,
    connections: Scope,
    outward: Scope,
    resources: Resources,
}

impl Core {
    /// Starts to reach the upstreams. Returns at once.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        let Plan { spicepod, federation, acceleration, resources, tracer, otlp, connections, .. } = plan;
        let (keepers, outward) = (Scope::new(), Scope::new());
        let engine = engine(&spicepod.runtime, &federation, &acceleration, &keepers);
        outward::start(&tracer, otlp, &Registry::global(), &outward);
        bring_up(&spicepod.runtime, &federation, &acceleration, &keepers);
        Self { engine, keepers, connections, outward, resources }
    }

    /// Stops the keepers.
    ///
    /// # Errors
    /// The names of those that did not end in time.
    pub async fn shutdown(&self) -> Result<(), Vec<&'static str>> {
        let kept = self.keepers.shutdown(KEEPERS_SHUTDOWN_TIMEOUT).await;
        self.connections.cancel();
        let told = self.outward.shutdown(OUTWARD_SHUTDOWN_TIMEOUT).await;
        kept.and(told)
    }
}

impl Drop for Core {
    /// Queries that did not end may still hold files; nobody will read their answers.
    fn drop(&mut self) {
        self.resources.remove_files();
    }
}
