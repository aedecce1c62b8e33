//! What ends with the process, whatever it is asked through: keepers, connections, telemetry and temporary files.

use std::time::Duration;

use crate::federation::Resources;
use crate::task::Scope;

/// Keepers hold nothing that has to be finished.
const KEEPERS_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// What is left to be told is tried once.
const OUTWARD_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct Foundation {
    pub keepers: Scope,
    pub connections: Scope,
    /// Of the telemetry: it hears the others end.
    pub outward: Scope,
    pub resources: Resources,
}

impl Foundation {
    /// Stops the keepers, then the connections, then what tells of them.
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

impl Drop for Foundation {
    /// Queries that did not end may still hold files; nobody will read their answers.
    fn drop(&mut self) {
        self.resources.remove_files();
    }
}
