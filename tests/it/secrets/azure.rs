//! An Azure Key Vault, by a server that speaks what Azure documents: a challenge, a login with a client secret, and
//! `GET /secrets/{name}`. It is Azure's own client that asks.

use serde_json::json;

use super::*;
use crate::support::rest::{Answer, Asked, Rest, answer};

const TOKEN: &str = "entra-token-1";
const CLIENT_SECRET: &str = "client-secret-2";
/// Below `localhost`, and below the host of the challenge, as the client demands.
const HOST: &str = "shop.vault.localhost";

fn challenge() -> Answer {
    let header =
        "Bearer authorization=\"https://login.invalid/tenant\", resource=\"https://vault.localhost\"";
    Answer { header: Some(("www-authenticate", header.to_owned())), ..answer(401, json!({})) }
}

async fn vault(world: &World, key: &Held) -> Rest {
    let key = key.clone();
    let answers = move |asked: &Asked| {
        if asked.path == "/tenant/oauth2/v2.0/token" {
            return match asked.body.contains(&format!("client_secret={CLIENT_SECRET}")) {
                true => {
                    answer(200, json!({"token_type": "Bearer", "expires_in": 3600, "access_token": TOKEN}))
                }
                false => {
                    answer(401, json!({"error": "invalid_client", "error_description": "AADSTS7000215"}))
                }
            };
        }
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return challenge();
        }
        let secret =
            |value: &str| answer(200, json!({"value": value, "id": format!("https://{HOST}/secrets/x/1")}));
        match asked.path.trim_end_matches('/') {
            "/secrets/api-key" => secret(&key.get()),
            "/secrets/core-key" => secret(CORE_KEY),
            _ => answer(404, json!({"error": {"code": "SecretNotFound", "message": "no such secret"}})),
        }
    };
    Rest::start(&world.pki.server(HOST), answers).await
}

fn section(world: &World, vault: &Rest) -> String {
    let (port, ca) = (vault.port(), world.pki.ca_file());
    format!(
        "secrets:\n  - {{from: env, name: env}}\n  - from: azure_keyvault:https://{HOST}:{port}\n    name: store\n    \
         params:\n      azure_tenant_id: tenant\n      azure_client_id: app\n      \
         azure_client_secret: ${{env:CLIENT_SECRET}}\n      azure_authority_host: https://{HOST}:{port}\n      \
         azure_ca_certificate_file: {}\n      refresh_interval: 1s\n",
        ca.display()
    )
}

#[tokio::test]
async fn a_vault_is_followed() {
    let (world, key) = (World::new().await, Held::new(FIRST));
    let vault = vault(&world, &key).await;
    let builder = world.sidecar(&section(&world, &vault)).secret("CLIENT_SECRET", CLIENT_SECRET);
    let sidecar = builder.start().await;
    assert_first(&sidecar).await;
    key.set(SECOND);
    assert_second(&sidecar).await;
    // One for what watches, and one for the configuration that the change makes.
    let tokens = vault.count("POST /tenant/oauth2/v2.0/token");
    assert!(tokens <= 2, "the token holds for an hour, and {tokens} were asked for");
}

#[tokio::test]
async fn a_client_secret_that_is_refused_is_said() {
    let (world, key) = (World::new().await, Held::new(FIRST));
    let vault = vault(&world, &key).await;
    let builder = world.sidecar(&section(&world, &vault)).secret("CLIENT_SECRET", "hunter2");
    let said = builder.args(["--offline"]).finish("check").await;
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("secret store `store`: cannot log in for the vault"), "{}", said.stderr);
}
