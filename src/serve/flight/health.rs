//! gRPC's health service: a service's name enters, SERVING or NOT_SERVING leaves, as `/v1/ready` says it at that moment.
//!
//! It is found out when it is asked, so that an answer is never older than its question and nobody's absence costs
//! anything; only a watcher looks again and again. `tonic-health` brings the wire, not its reporter, which would have to
//! be told of every change.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use futures::stream::{self, Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::reflection;
use crate::serve::Door;

/// Calls that need no key: probes have none.
pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";
pub(super) const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The name of Flight's own service.
const FLIGHT: &str = "arrow.flight.protocol.FlightService";
/// How often a watched service is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Clone)]
pub(super) struct Readiness<D> {
    door: D,
    stopping: CancellationToken,
}

/// The service; from the moment that `stopping` is cancelled nothing is served any more.
pub(super) fn service<D: Door>(door: D, stopping: CancellationToken) -> HealthServer<Readiness<D>> {
    HealthServer::new(Readiness { door, stopping })
}

impl<D: Door> Readiness<D> {
    /// None for a service that there is not. The empty name is the whole server.
    fn of(&self, service: &str) -> Option<ServingStatus> {
        let is_known = service.is_empty() || service == FLIGHT || reflection::SERVICES.contains(&service);
        is_known.then(|| {
            let now = SystemTime::now();
            let is_ready = || self.door.datasets().iter().all(|dataset| dataset.readiness(now).is_ready());
            match !self.stopping.is_cancelled() && is_ready() {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            }
        })
    }

    /// What it is when that is no longer `last`; none once the server stops and that was told.
    async fn changed(&self, service: &str, last: Option<ServingStatus>) -> Option<ServingStatus> {
        loop {
            // As the protocol has it: a service that may be known one day.
            let is = self.of(service).unwrap_or(ServingStatus::ServiceUnknown);
            if last != Some(is) {
                return Some(is);
            }
            if self.stopping.is_cancelled() {
                return None;
            }
            let _ = self.stopping.run_until_cancelled(tokio::time::sleep(WATCH_INTERVAL)).await;
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl<D: Door> Health for Readiness<D> {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.of(&request.get_ref().service);
        let status = status
            .ok_or_else(|| Status::not_found("there is no such service: server reflection lists them"))?;
        Ok(Response::new(response(status)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watching = (self.clone(), request.into_inner().service, None);
        let told = stream::unfold(watching, |(readiness, service, last)| async move {
            let is = readiness.changed(&service, last).await?;
            Some((Ok(response(is)), (readiness, service, Some(is))))
        });
        Ok(Response::new(told.boxed()))
    }
}
