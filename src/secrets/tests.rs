//! The secrets room against invented environments and temporary directories.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::config::{self, Diagnostics, SourceFile, StoreKind};

/// A spicepod of one dataset with these params and stores, in a directory of its own.
fn spicepod(directory: &Path, secrets: &str, params: &str) -> Spicepod {
    let text = format!(
        "version: v1\nkind: Spicepod\nname: t\n{secrets}datasets:\n  - from: spice.ai:https://h:1\n    \
         name: orders\n    params: {{{params}}}\n"
    );
    config::parse(SourceFile { path: directory.join("spicepod.yaml"), text }).unwrap()
}

fn environment(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + Send + Sync + 'static {
    let pairs: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    move |name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

/// The params as text: `name=value` in the order of names.
async fn resolved(pod: &Spicepod, pairs: &[(&str, &str)], current: &Path) -> Result<Vec<String>, String> {
    let shown = |problems: Vec<Diagnostic>| {
        Diagnostics::new(Arc::clone(&pod.source), problems)
            .to_string()
            .replace(&current.display().to_string(), "DIR")
    };
    let secrets = Secrets::load_with(pod, environment(pairs), current).await.map_err(shown)?;
    let params = secrets.resolve(&pod.datasets[0]).map_err(shown)?;
    Ok(params.values.iter().map(|(name, param)| format!("{name}={}", param.value.expose())).collect())
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn the_environment_wins_over_the_files() {
    let dir = directory();
    fs::write(dir.path().join(".env.local"), "B=local-b\nC=local-c\n").unwrap();
    fs::write(dir.path().join(".env"), "A=env-a\nB=env-b\nC='env $c'\nD='pa$word # x'\n").unwrap();
    let pod = spicepod(dir.path(), "", "spiceai_api_key: '${secrets:a}-${env:B}-${ env : C }-${secrets:D}'");
    let found = resolved(&pod, &[("C", "process-c")], dir.path()).await;
    assert_eq!(found.unwrap(), ["api_key=env-a-local-b-process-c-pa$word # x"]);
}

#[tokio::test]
async fn a_spice_name_comes_first() {
    let dir = directory();
    let pod = spicepod(dir.path(), "", "spiceai_api_key: '${secrets:key}'");
    assert_eq!(resolved(&pod, &[("KEY", "b"), ("SPICE_KEY", "a")], dir.path()).await.unwrap(), ["api_key=a"]);
    assert_eq!(resolved(&pod, &[("KEY", "b"), ("SPICE_KEY", "")], dir.path()).await.unwrap(), ["api_key=b"]);
}

#[tokio::test]
async fn the_last_store_is_searched_first() {
    let dir = directory();
    fs::write(dir.path().join("one.env"), "KEY=one\nONLY=one\n").unwrap();
    fs::write(dir.path().join("two.env"), "KEY=two\n").unwrap();
    let stores = "secrets:\n  - {from: env, name: one, params: {file_path: one.env}}\n  - {from: env, name: two, params: {file_path: two.env}}\n";
    let pod = spicepod(dir.path(), stores, "spiceai_api_key: '${secrets:KEY} ${one:KEY} ${secrets:ONLY}'");
    assert_eq!(resolved(&pod, &[], dir.path()).await.unwrap(), ["api_key=two one one"]);
}

#[tokio::test]
async fn files_beside_the_spicepod_are_found() {
    let (dir, elsewhere) = (directory(), directory());
    fs::write(dir.path().join(".env"), "KEY=beside\n").unwrap();
    let pod = spicepod(dir.path(), "", "spiceai_api_key: '${secrets:KEY}'");
    assert_eq!(resolved(&pod, &[], elsewhere.path()).await.unwrap(), ["api_key=beside"]);
    fs::write(elsewhere.path().join(".env"), "KEY=current\n").unwrap();
    assert_eq!(resolved(&pod, &[], elsewhere.path()).await.unwrap(), ["api_key=current"]);
}

#[tokio::test]
async fn absent_secret_params_are_looked_up() {
    let dir = directory();
    let pairs = [
        ("SPICE_SPICEAI_API_KEY", "k"),
        ("SPICEAI_TOKEN", "t"),
        ("SPICEAI_TLS_CLIENT_KEY", "pem"),
        ("SPICEAI_ENDPOINT", "not a secret param"),
    ];
    let names =
        async |params: &str| resolved(&spicepod(dir.path(), "", params), &pairs, dir.path()).await.unwrap();
    assert_eq!(names("").await, ["api_key=k", "tls_client_key=pem"]);
    assert_eq!(names("spiceai_token: x1").await, ["tls_client_key=pem", "token=x1"]);
    assert_eq!(
        names("spiceai_api_key: x1, spiceai_tls_client_key_file: /f").await,
        ["api_key=x1", "tls_client_key_file=/f"]
    );
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let dir = directory();
    let pod = spicepod(dir.path(), "", "spiceai_api_key: '${secrets:SIDECAR_API_KEY}'");
    let said = resolved(&pod, &[], dir.path()).await.unwrap_err();
    insta::assert_snapshot!(said.replace(&dir.path().display().to_string(), "DIR"));
}

#[tokio::test]
async fn an_empty_secret_is_named() {
    let dir = directory();
    let pod = spicepod(dir.path(), "", "spiceai_api_key: '${secrets:key}'");
    let said = resolved(&pod, &[("KEY", "")], dir.path()).await.unwrap_err();
    assert!(said.contains("secret `key` is empty: `KEY` is set to nothing"), "{said}");
}

#[tokio::test]
async fn a_malformed_file_is_named_without_its_text() {
    let dir = directory();
    fs::write(dir.path().join(".env"), "A=1\nhunter2 hunter2\n").unwrap();
    let pod = spicepod(dir.path(), "", "");
    let said = resolved(&pod, &[], dir.path()).await.unwrap_err();
    assert!(said.contains("DIR/.env is malformed in line 2"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn an_absent_file_of_a_store_is_an_error() {
    let dir = directory();
    let pod = spicepod(dir.path(), "secrets: [{from: env, name: e, params: {file_path: no.env}}]\n", "");
    let said = resolved(&pod, &[], dir.path()).await.unwrap_err();
    assert!(said.contains("`file_path` not found: looked for DIR/no.env"), "{said}");
}

#[tokio::test]
async fn nothing_prints_a_secret() {
    let dir = directory();
    let pod = spicepod(dir.path(), "", "spiceai_api_key: hunter2");
    let secrets =
        Secrets::load_with(&pod, environment(&[("SPICEAI_TOKEN", "hunter2")]), dir.path()).await.unwrap();
    let params = secrets.resolve(&pod.datasets[0]).unwrap();
    let shown = format!("{pod:?} {secrets:?} {params:?} {}", pod.shown_warnings());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn every_example_loads() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut loaded = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() || !path.join("spicepod.yaml").exists() {
            continue;
        }
        let pod = config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(pod.warnings.is_empty(), "{}: {:?}", path.display(), pod.warnings);
        loaded += 1;
        // Other stores are not on every machine.
        if pod.secrets.iter().any(|store| store.kind != StoreKind::Env) {
            continue;
        }
        let dir = directory();
        let secrets = Secrets::load_with(&pod, |_| Some("invented".into()), dir.path()).await.unwrap();
        assert!(!pod.datasets.is_empty(), "{}", path.display());
        for dataset in &pod.datasets {
            secrets.resolve(dataset).unwrap();
        }
    }
    assert_eq!(loaded, 5);
}
