//! A spicepod without listeners, for who brings a front end of its own: a plan enters, an engine leaves.

use super::foundation::Foundation;
use super::generation::Generation;
use super::{Plan, outward};
use crate::query::Engine;
use crate::task::Scope;
use crate::telemetry::Registry;

/// What answers, and what keeps it up.
pub struct Core {
    pub engine: Engine,
    foundation: Foundation,
}

impl Core {
    /// Starts to reach the upstreams. Returns at once.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        let (built, guarding, basis) = plan.parts();
        let (keepers, outward) = (Scope::new(), Scope::new());
        outward::start(&basis.tracer, guarding.otlp, &Registry::global(), &outward);
        let engine = Generation::begin(built, &keepers).engine;
        let (connections, resources) = (basis.connections, basis.resources);
        Self { engine, foundation: Foundation { keepers, connections, outward, resources } }
    }

    /// Stops the keepers.
    ///
    /// # Errors
    /// The names of those that did not end in time.
    pub async fn shutdown(&self) -> Result<(), Vec<&'static str>> {
        self.foundation.shutdown().await
    }
}
