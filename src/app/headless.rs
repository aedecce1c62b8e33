//! A spicepod without listeners, for who brings a front end of its own: a plan enters, an engine leaves.

use super::generation::Generation;
use super::{KEEPERS_SHUTDOWN_TIMEOUT, OUTWARD_SHUTDOWN_TIMEOUT, Plan, outward};
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
        let (built, guarding, basis) = plan.parts();
        let (keepers, outward) = (Scope::new(), Scope::new());
        outward::start(&basis.tracer, guarding.otlp, &Registry::global(), &outward);
        let engine = Generation::begin(built, &keepers).engine;
        Self { engine, keepers, connections: basis.connections, outward, resources: basis.resources }
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
