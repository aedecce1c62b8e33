//! The metrics listener: any path answers Prometheus text, `/health` answers `OK`.

use ::http::header::CONTENT_TYPE;
use axum::Router;
use axum::routing::get;

use super::listen::{self, Protocol};
use super::socket::Listener;
use super::tls::ServerTls;
use crate::task::Scope;
use crate::telemetry::Render;

/// The text exposition format of Prometheus.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves metrics until the scope is cancelled and requests in flight have their answers.
pub async fn serve(listener: impl Into<Listener>, render: Render, tls: Option<ServerTls>, scope: &Scope) {
    let metrics = move || {
        let text = render();
        async move { ([(CONTENT_TYPE, PROMETHEUS_TEXT)], text) }
    };
    let router = Router::new().route("/health", get(|| async { "OK" })).fallback(get(metrics));
    listen::serve(listener, Protocol::Http, tls, router, scope).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::serve::fake::bind;

    #[tokio::test]
    async fn any_path_is_metrics_and_health_is_ok() {
        let (listener, address) = bind().await;
        let scope = Scope::new();
        let serving = scope.clone();
        let render: Render = Arc::new(|| "up 1\n".to_owned());
        scope.spawn_draining("metrics", async move { serve(listener, render, None, &serving).await });
        let get = async |path: &str| reqwest::get(format!("http://{address}{path}")).await.unwrap();
        for path in ["/metrics", "/", "/any/path"] {
            let response = get(path).await;
            assert_eq!(response.headers()["content-type"], PROMETHEUS_TEXT);
            assert_eq!(response.text().await.unwrap(), "up 1\n");
        }
        assert_eq!(get("/health").await.text().await.unwrap(), "OK");
    }
}
