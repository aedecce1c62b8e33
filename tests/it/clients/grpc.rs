//! grpcio's health and reflection clients, as probes and grpcurl use a server.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use serde_json::json;

use super::tools;
use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::{Fault, Method, Upstream};

const FLIGHT: &str = "arrow.flight.protocol.FlightService";

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_read_by_grpcs_own_clients() {
    let Some(python) = tools::python() else { return };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let upstream = Upstream::builder().table("items", batch([("id", ids)])).start().await;
    upstream.inject(Method::GetSchema, usize::MAX, Fault::Http503);
    upstream.inject(Method::GetFlightInfo, usize::MAX, Fault::Http503);
    let sidecar =
        Sidecar::builder().spicepod(&spicepod(&[Dataset::of("items", &upstream)], "")).start().await;
    let told = tools::script(&python, "grpc/probe.py", &[sidecar.flight_addr()]).await;
    let status = "NOT_SERVING";
    assert_eq!(
        told["health"],
        json!({"": status, FLIGHT: status, "nothing": "NOT_FOUND", "watched": status})
    );

    upstream.heal();
    sidecar.wait_ready().await;
    let told = tools::script(&python, "grpc/probe.py", &[sidecar.flight_addr()]).await;
    let status = "SERVING";
    assert_eq!(
        told["health"],
        json!({"": status, FLIGHT: status, "nothing": "NOT_FOUND", "watched": status})
    );
    for version in ["v1", "v1alpha"] {
        let services = told[version].as_array().unwrap();
        for service in
            [FLIGHT, "grpc.health.v1.Health", &format!("grpc.reflection.{version}.ServerReflection")]
        {
            assert!(services.contains(&json!(service)), "{version}: {services:?}");
        }
    }
    let described = &told["described"];
    assert_eq!(described["health"], json!(["Check", "Watch"]));
    assert_eq!(described["methods"].as_array().unwrap().len(), 10);
    assert_eq!(described["fields"].as_array().unwrap().len(), 5);
}
