//! Stores that cannot be read: all of them are told at once, with their place, and in bounded time.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn every_store_that_fails_is_told_and_none_is_waited_for_long() {
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let pod = format!(
        "secrets:\n  - {{from: env, name: env}}\n  - from: hashicorp_vault:secret/app\n    name: vault\n    params:\n      \
         hashicorp_vault_address: http://127.0.0.1:{port}\n      hashicorp_vault_token: ${{env:TOKEN}}\n  \
         - {{from: 'kubernetes:app', name: k8s}}\n  - from: hashicorp_vault:secret/app\n    name: gone\n    params:\n      \
         hashicorp_vault_address: https://no-such-host.invalid\n      hashicorp_vault_token: ${{env:TOKEN}}\n"
    );
    let builder = Sidecar::builder().spicepod(&spicepod(&[], &pod)).secret("TOKEN", "hunter2-token");
    let started = Instant::now();
    let said = builder.args(["--offline"]).finish("check").await;
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    assert_eq!(said.code, Some(2));
    let shown = said.stderr.replace(&port.to_string(), "PORT");
    // What the machine says of a name that is not there differs from one to the next.
    let shown: String = shown
        .lines()
        .map(|line| match line.split_once("cannot be resolved: ") {
            Some((before, _)) => format!("{before}cannot be resolved: WHY\n"),
            None => format!("{line}\n"),
        })
        .collect();
    insta::assert_snapshot!(shown.replace(" 127.0.0.1:PORT", " HOST:PORT"));
    drop(silent);
}

/// The demo's build has no client of a cloud; it says how to get one.
#[cfg(not(feature = "aws"))]
#[tokio::test]
async fn a_store_that_this_build_has_not_is_said() {
    let pod = spicepod(&[], "secrets: [{from: 'aws_secrets_manager:app', name: aws}]\n");
    let said = Sidecar::builder().spicepod(&pod).args(["--offline"]).finish("check").await;
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("error[SecretStoreNotInThisBuild]"), "{}", said.stderr);
    assert!(said.stderr.contains("cargo build --release --features aws"), "{}", said.stderr);
}
