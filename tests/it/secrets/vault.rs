//! HashiCorp Vault, by a server that speaks what its API documentation says of logins, tokens, KV 1 and 2, and leases.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::support::rest::{Answer, Asked, Rest, answer};

const ROLE_ID: &str = "role-77";
const SECRET_ID: &str = "secret-id-88";
const JWT: &str = "jwt-99";

/// What the server knows.
struct State {
    key: String,
    /// Tokens that it has given and not taken back, with how long each holds.
    tokens: BTreeMap<String, u64>,
    given: usize,
    leases: usize,
}

#[derive(Clone)]
struct Vault(Arc<Mutex<State>>);

fn denied() -> Answer {
    answer(403, json!({"errors": ["permission denied"]}))
}

impl Vault {
    fn new() -> Self {
        let tokens = BTreeMap::from([("root-token".to_owned(), 0)]);
        Self(Arc::new(Mutex::new(State { key: FIRST.to_owned(), tokens, given: 0, leases: 0 })))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, key: &str) {
        self.with(|state| state.key = key.to_owned());
    }

    /// Takes back every token, as at the end of its greatest life.
    fn revoke_all(&self) {
        self.with(|state| state.tokens.clear());
    }

    async fn serve(&self, world: &World) -> Rest {
        let vault = self.clone();
        Rest::start(&world.pki.server("localhost"), move |asked| vault.answer(asked)).await
    }

    fn answer(&self, asked: &Asked) -> Answer {
        if asked.header("x-vault-request") != "true" {
            return answer(400, json!({"errors": ["missing X-Vault-Request"]}));
        }
        let body = asked.json();
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/v1/auth/approle/login") => {
                match body == json!({"role_id": ROLE_ID, "secret_id": SECRET_ID}) {
                    true => self.login(),
                    false => answer(400, json!({"errors": ["invalid role or secret ID"]})),
                }
            }
            ("POST", "/v1/auth/k8s/login") if body == json!({"role": "app", "jwt": JWT}) => self.login(),
            (_, path) => {
                let token = asked.header("x-vault-token");
                let ttl = self.with(|state| state.tokens.get(token).copied());
                ttl.map_or_else(denied, |ttl| self.known(&asked.method, path, &body, ttl))
            }
        }
    }

    fn login(&self) -> Answer {
        let token = self.with(|state| {
            state.given += 1;
            let token = format!("hvs.given-{}", state.given);
            state.tokens.insert(token.clone(), 2);
            token
        });
        answer(200, json!({"auth": {"client_token": token, "lease_duration": 2, "renewable": true}}))
    }

    fn known(&self, method: &str, path: &str, body: &Value, ttl: u64) -> Answer {
        let data = |state: &State| json!({"API_KEY": state.key, "core_key": CORE_KEY});
        match (method, path) {
            ("GET", "/v1/auth/token/lookup-self") => {
                answer(200, json!({"data": {"ttl": ttl, "renewable": ttl > 0}}))
            }
            ("POST", "/v1/auth/token/renew-self") => answer(
                200,
                json!({"auth": {"client_token": "same", "lease_duration": ttl, "renewable": true}}),
            ),
            ("GET", "/v1/secret/data/shop/app") => {
                let data = self.with(|state| data(state));
                answer(
                    200,
                    json!({"lease_id": "", "lease_duration": 0, "data": {"data": data, "metadata": {"version": 1}}}),
                )
            }
            ("GET", "/v1/kv1/shop") => answer(
                200,
                json!({"lease_id": "", "lease_duration": 2764800, "data": self.with(|state| data(state))}),
            ),
            // Each reading makes other credentials: the second login is another user.
            ("GET", "/v1/database/creds/app") => {
                let (count, data) = self.with(|state| {
                    state.leases += 1;
                    (state.leases, data(state))
                });
                let id = format!("database/creds/app/{count}");
                answer(200, json!({"lease_id": id, "lease_duration": 2, "renewable": true, "data": data}))
            }
            ("PUT", "/v1/sys/leases/renew") => {
                let is_last =
                    self.with(|state| body["lease_id"] == format!("database/creds/app/{}", state.leases));
                match is_last && self.with(|state| state.key == FIRST) {
                    true => answer(
                        200,
                        json!({"lease_id": body["lease_id"], "lease_duration": 2, "renewable": true}),
                    ),
                    false => answer(400, json!({"errors": ["lease not found"]})),
                }
            }
            _ => answer(404, json!({"errors": []})),
        }
    }
}

/// The section of a store at `object` with further params.
fn section(world: &World, vault: &Rest, object: &str, params: &str) -> String {
    format!(
        "secrets:\n  - {{from: env, name: env}}\n  - from: hashicorp_vault:{object}\n    name: store\n    params:\n      \
         hashicorp_vault_address: https://localhost:{}\n      hashicorp_vault_ca_certificate_file: {}\n{params}",
        vault.port(),
        world.pki.ca_file().display()
    )
}

#[tokio::test]
async fn a_secret_is_followed_with_a_token() {
    let (world, vault) = (World::new().await, Vault::new());
    let server = vault.serve(&world).await;
    let params = "      hashicorp_vault_token: ${env:VAULT}\n      refresh_interval: 1s\n";
    let builder = world.sidecar(&section(&world, &server, "secret/shop/app", params));
    let sidecar = builder.secret("VAULT", "root-token").start().await;
    assert_first(&sidecar).await;
    vault.set(SECOND);
    assert_second(&sidecar).await;
    assert_eq!(server.count("POST /v1/auth/token/renew-self"), 0, "a root token has no end");
}

#[tokio::test]
async fn an_approle_renews_its_token_and_logs_in_again() {
    let (world, vault) = (World::new().await, Vault::new());
    let server = vault.serve(&world).await;
    let params = format!(
        "      hashicorp_vault_auth_method: approle\n      hashicorp_vault_role_id: {ROLE_ID}\n      \
         hashicorp_vault_secret_id: ${{env:SECRET_ID}}\n"
    );
    let builder = world.sidecar(&section(&world, &server, "secret/shop/app", &params));
    let sidecar = builder.secret("SECRET_ID", SECRET_ID).start().await;
    assert_first(&sidecar).await;
    // Its token holds for 2 s: that, and not the default of 60 s, says when it is asked again.
    let renew = "POST /v1/auth/token/renew-self";
    sidecar.wait_until("the token is renewed", async || server.count(renew) >= 2).await;
    assert_eq!(server.count("POST /v1/auth/approle/login"), 1);
    vault.revoke_all();
    vault.set(SECOND);
    assert_second(&sidecar).await;
    assert!(server.count("POST /v1/auth/approle/login") >= 2);
    assert!(!sidecar.stderr().contains("ERROR"), "{}", sidecar.stderr());
}

#[tokio::test]
async fn a_pod_logs_in_with_its_service_account() {
    let (world, vault) = (World::new().await, Vault::new());
    let (server, dir) = (vault.serve(&world).await, tempfile::tempdir().unwrap());
    let jwt_file = dir.path().join("token");
    std::fs::write(&jwt_file, JWT).unwrap();
    let params = format!(
        "      hashicorp_vault_auth_method: kubernetes\n      hashicorp_vault_auth_mount: k8s\n      \
         hashicorp_vault_role: app\n      hashicorp_vault_jwt_file: {}\n      hashicorp_vault_kv_version: 1\n      \
         refresh_interval: 1s\n",
        jwt_file.display()
    );
    let sidecar = world.sidecar(&section(&world, &server, "kv1/shop", &params)).start().await;
    assert_first(&sidecar).await;
    vault.set(SECOND);
    assert_second(&sidecar).await;
}

#[tokio::test]
async fn a_lease_is_renewed_and_replaced_when_it_cannot_be() {
    let (world, vault) = (World::new().await, Vault::new());
    let server = vault.serve(&world).await;
    let params = "      hashicorp_vault_token: root-token\n      hashicorp_vault_kv_version: 1\n";
    let sidecar = world.sidecar(&section(&world, &server, "database/creds/app", params)).start().await;
    assert_first(&sidecar).await;
    let (read, renew) = ("GET /v1/database/creds/app", "PUT /v1/sys/leases/renew");
    sidecar.wait_until("the lease is renewed", async || server.count(renew) >= 2).await;
    assert_eq!(server.count(read), 1, "a reading would have made other credentials");
    vault.set(SECOND);
    assert_second(&sidecar).await;
    assert!(server.count(read) >= 2);
}

#[tokio::test]
async fn another_token_in_a_file_is_used_and_a_sealed_vault_changes_nothing() {
    let (world, vault) = (World::new().await, Vault::new());
    let (server, dir) = (vault.serve(&world).await, tempfile::tempdir().unwrap());
    let token_file = dir.path().join("sink");
    std::fs::write(&token_file, "root-token").unwrap();
    let params =
        format!("      hashicorp_vault_token_file: {}\n      refresh_interval: 1s\n", token_file.display());
    let sidecar = world.sidecar(&section(&world, &server, "secret/shop/app", &params)).start().await;
    assert_first(&sidecar).await;
    vault.revoke_all();
    vault.set(SECOND);
    let failed = "secrets_store_errors{store=\"store\"}";
    sidecar.wait_until("it is refused", async || metric(&sidecar, failed).await >= Some(2.0)).await;
    assert_first(&sidecar).await;
    assert_eq!(sidecar.stderr().matches("does not let this login read").count(), 1, "{}", sidecar.stderr());
    vault.with(|state| state.tokens.insert("next-token".to_owned(), 0));
    std::fs::write(&token_file, "next-token").unwrap();
    assert_second(&sidecar).await;
}

/// The token of Vault stands in a file of this machine: the store is opened anew when it changes.
#[tokio::test]
async fn a_store_follows_the_store_that_its_params_refer_to() {
    let (world, vault) = (World::new().await, Vault::new());
    let server = vault.serve(&world).await;
    let params = "      hashicorp_vault_token: ${env:VAULT}\n      refresh_interval: 1h\n";
    let builder = world.sidecar(&section(&world, &server, "secret/shop/app", params));
    let sidecar = builder.file(".env", "VAULT=root-token\n").start().await;
    assert_first(&sidecar).await;
    vault.revoke_all();
    vault.set(SECOND);
    vault.with(|state| state.tokens.insert("next-token".to_owned(), 0));
    std::fs::write(sidecar.dir().join(".env"), "VAULT=next-token\n").unwrap();
    assert_second(&sidecar).await;
}

#[tokio::test]
async fn a_login_that_is_refused_is_said_without_what_it_showed() {
    let (world, vault) = (World::new().await, Vault::new());
    let server = vault.serve(&world).await;
    let params = "      hashicorp_vault_auth_method: approle\n      hashicorp_vault_role_id: r\n      \
                  hashicorp_vault_secret_id: ${env:SECRET_ID}\n";
    let builder = world.sidecar(&section(&world, &server, "secret/shop/app", params));
    let said = builder.secret("SECRET_ID", "hunter2").args(["--offline"]).finish("check").await;
    let expected = "cannot log in: Vault answers 400 Bad Request: invalid role or secret ID";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
}
