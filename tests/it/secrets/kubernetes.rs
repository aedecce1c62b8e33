//! The Kubernetes API, by a server that speaks what its reference says of `GET /api/v1/namespaces/{n}/secrets/{s}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::support::rest::{Answer, Asked, Rest, answer};

/// A Secret of the reference: values in base64, `kind` and `type` beside them.
fn secret(key: &str) -> Answer {
    let coded = |text: &str| STANDARD.encode(text);
    answer(
        200,
        json!({
            "kind": "Secret", "apiVersion": "v1", "type": "Opaque",
            "metadata": {"name": "app", "namespace": "shop", "resourceVersion": "1"},
            "data": {"API_KEY": coded(&format!("{key}\n")), "core-key": coded(CORE_KEY)},
        }),
    )
}

fn status(code: u16, reason: &str) -> Answer {
    answer(code, json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code}))
}

async fn api(world: &World, key: &Held, token: &Held) -> Rest {
    let (key, token) = (key.clone(), token.clone());
    let answers = move |asked: &Asked| match asked.path.as_str() {
        _ if asked.header("authorization") != format!("Bearer {}", token.get()) => {
            status(401, "Unauthorized")
        }
        "/api/v1/namespaces/shop/secrets/app" if asked.method == "GET" => secret(&key.get()),
        path if path.starts_with("/api/v1/namespaces/shop/secrets/") => status(404, "NotFound"),
        _ => status(403, "Forbidden"),
    };
    Rest::start(&world.pki.server("localhost"), answers).await
}

fn section(world: &World, api: &Rest, object: &str, token_file: &std::path::Path) -> String {
    format!(
        "secrets:\n  - from: kubernetes:{object}\n    name: store\n    params:\n      refresh_interval: 1s\n      \
         kubernetes_namespace: shop\n      kubernetes_api_server: https://localhost:{}\n      \
         kubernetes_token_file: {}\n      kubernetes_ca_certificate_file: {}\n",
        api.port(),
        token_file.display(),
        world.pki.ca_file().display()
    )
}

#[tokio::test]
async fn a_secret_is_followed_and_the_token_is_read_each_time() {
    let (world, key, token) = (World::new().await, Held::new(FIRST), Held::new("token-1"));
    let (api, dir) = (api(&world, &key, &token).await, tempfile::tempdir().unwrap());
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "token-1\n").unwrap();
    let sidecar = world.sidecar(&section(&world, &api, "app", &token_file)).start().await;
    assert_first(&sidecar).await;
    // The kubelet has put another token there, and the API does not know the first one any more.
    token.set("token-2");
    std::fs::write(&token_file, "token-2\n").unwrap();
    key.set(SECOND);
    assert_second(&sidecar).await;
}

#[tokio::test]
async fn what_the_api_refuses_is_said() {
    let (world, key, token) = (World::new().await, Held::new(FIRST), Held::new("token-1"));
    let (api, dir) = (api(&world, &key, &token).await, tempfile::tempdir().unwrap());
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "token-1").unwrap();
    let absent =
        world.sidecar(&section(&world, &api, "other", &token_file)).args(["--offline"]).finish("check").await;
    assert!(absent.stderr.contains("namespace `shop` has no secret `other`"), "{}", absent.stderr);
    std::fs::write(&token_file, "hunter2").unwrap();
    let refused =
        world.sidecar(&section(&world, &api, "app", &token_file)).args(["--offline"]).finish("check").await;
    assert!(
        refused.stderr.contains("the Kubernetes API refuses the service account's token"),
        "{}",
        refused.stderr
    );
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    assert_eq!((absent.code, refused.code), (Some(2), Some(2)));
}
