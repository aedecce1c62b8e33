//! The metrics listener: any path answers Prometheus text, `/health` answers `OK`.

use std::sync::Arc;

use ::http::header::CONTENT_TYPE;
use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use super::listen::{self, Protocol};
use crate::task::Scope;

/// The text exposition format of Prometheus.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes every metric in the Prometheus text format.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves metrics until the scope is cancelled and requests in flight have their answers.
pub async fn serve(listener: TcpListener, render: Render, scope: &Scope) {
    let metrics = move || {
        let text = render();
        async move { ([(CONTENT_TYPE, PROMETHEUS_TEXT)], text) }
    };
    let router = Router::new().route("/health", get(|| async { "OK" })).fallback(get(metrics));
    listen::serve(listener, Protocol::Http, None, router, scope).await;
}
