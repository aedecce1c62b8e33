//! AWS Secrets Manager, by `moto`'s server. It is AWS's own client that asks.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::*;
use crate::clients::tools;

const ACCESS_KEY: &str = "AKIA-TEST";
const SECRET_ACCESS_KEY: &str = "aws-secret-key-6b";

/// moto on a port of its own; it ends with its owner.
struct Moto {
    url: String,
    _child: Child,
}

impl Moto {
    /// Nothing where it cannot be had and need not be.
    async fn start() -> Option<Self> {
        let program = tools::python_server("moto_server")?;
        let mut child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("moto starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut seen = String::new();
        while let Some(line) = lines.next_line().await.expect("moto's words") {
            if let Some((_, address)) = line.split_once("Running on ") {
                let url = address.split_whitespace().next().unwrap_or_default().to_owned();
                let scope = sidewing::task::Scope::new();
                // A pipe that nobody reads would hold it.
                scope
                    .spawn("moto's words", async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Some(Self { url, _child: child });
            }
            seen.push_str(&line);
        }
        panic!("moto ended: {seen}")
    }

    /// One call of the API, signed for nobody: moto only reads for which service and region it is.
    async fn call(&self, operation: &str, body: Value) {
        let scope = "20260101/eu-west-1/secretsmanager/aws4_request";
        let request = reqwest::Client::new()
            .post(&self.url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("secretsmanager.{operation}"))
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders=host, Signature=0"),
            )
            .body(body.to_string());
        let answer = HttpAnswer::of(request).await.expect("moto answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn values(key: &str) -> String {
    json!({"API_KEY": key, "core_key": CORE_KEY}).to_string()
}

fn section(moto: &Moto, secret: &str) -> String {
    format!(
        "secrets:\n  - {{from: env, name: env}}\n  - from: aws_secrets_manager:{secret}\n    name: store\n    params:\n      \
         aws_region: eu-west-1\n      aws_endpoint_url: {}\n      aws_access_key_id: {ACCESS_KEY}\n      \
         aws_secret_access_key: ${{env:AWS_KEY}}\n      refresh_interval: 1s\n",
        moto.url
    )
}

#[tokio::test]
async fn a_secret_is_followed() {
    let Some(moto) = Moto::start().await else { return };
    moto.call(
        "CreateSecret",
        json!({"Name": "shop/app", "SecretString": values(FIRST), "ClientRequestToken": "0".repeat(36)}),
    )
    .await;
    let world = World::new().await;
    let builder = world.sidecar(&section(&moto, "shop/app")).secret("AWS_KEY", SECRET_ACCESS_KEY);
    let sidecar = builder.start().await;
    assert_first(&sidecar).await;
    let rotated =
        json!({"SecretId": "shop/app", "SecretString": values(SECOND), "ClientRequestToken": "1".repeat(36)});
    moto.call("PutSecretValue", rotated).await;
    assert_second(&sidecar).await;
}

#[tokio::test]
async fn the_sdk_finds_credentials_in_the_environment() {
    let Some(moto) = Moto::start().await else { return };
    moto.call(
        "CreateSecret",
        json!({"Name": "app", "SecretString": values(FIRST), "ClientRequestToken": "0".repeat(36)}),
    )
    .await;
    let world = World::new().await;
    let builder = world.sidecar("secrets: [{from: 'aws_secrets_manager:app', name: store}]\n");
    let builder =
        builder.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).secret("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
    let builder = builder.env("AWS_REGION", "eu-west-1").env("AWS_ENDPOINT_URL", &moto.url);
    assert_first(&builder.start().await).await;
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_said() {
    let Some(moto) = Moto::start().await else { return };
    let world = World::new().await;
    let builder = world.sidecar(&section(&moto, "nowhere")).secret("AWS_KEY", SECRET_ACCESS_KEY);
    let said = builder.args(["--offline"]).finish("check").await;
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("AWS Secrets Manager has no secret `nowhere` in this region"),
        "{}",
        said.stderr
    );
}
