//! Secret stores: what is read of each kind, and what is said of mistakes.

use super::*;

/// The stores of a spicepod, or what is said of them.
fn stores(list: &str) -> Result<Spicepod, String> {
    pod(&format!("{HEAD}secrets:\n{list}")).map_err(|problems| problems.to_string())
}

#[test]
fn every_kind_is_read() {
    let pod = stores(
        "  - {from: env, name: e, params: {file_path: x.env}}\n  - {from: 'files:/run/secrets', name: f}\n  \
         - {from: 'kubernetes:app-1.x', name: k, params: {kubernetes_namespace: shop, refresh_interval: 5m}}\n  \
         - {from: 'hashicorp_vault:secret/team/app', name: v, params: {hashicorp_vault_token: '${e:T}', \
         hashicorp_vault_kv_version: 1}}\n  \
         - {from: 'aws_secrets_manager:arn:aws:secretsmanager:eu-west-1:1:secret:app-Ab1', name: a}\n  \
         - {from: 'azure_keyvault:shop', name: z}\n",
    )
    .unwrap();
    let shown: Vec<String> = pod
        .secrets
        .iter()
        .map(|store| format!("{}={}:{}", store.name, store.kind.name(), store.object))
        .collect();
    // The last one is searched first.
    assert_eq!(
        shown,
        [
            "z=azure_keyvault:shop",
            "a=aws_secrets_manager:arn:aws:secretsmanager:eu-west-1:1:secret:app-Ab1",
            "v=hashicorp_vault:secret/team/app",
            "k=kubernetes:app-1.x",
            "f=files:/run/secrets",
            "e=env:",
        ]
    );
    assert_eq!(pod.secrets[3].refresh_interval.map(|interval| interval.to_string()), Some("5m".to_owned()));
    assert_eq!(pod.secrets[2].params["hashicorp_vault_kv_version"].value.literal(), Some("1"));
    assert_eq!(pod.shown_warnings(), "");
}

#[test]
fn mistakes_are_told_with_their_kind() {
    insta::assert_snapshot!(
        stores(
            "  - {from: kubernets, name: a}\n  - {from: kubernetes, name: b}\n  - {from: 'kubernetes:../x', name: c}\n  \
             - {from: 'env:x', name: d}\n  - {from: keyring, name: e}\n  \
             - {from: 'files:/x', name: f, params: {file_path: y}}\n  \
             - {from: 'azure_keyvault:x', name: g, params: {aws_region: y, azure_client_secret: '${d:X}'}}\n  \
             - {from: env, name: h, params: {file_path: '${d:X}', refresh_interval: 10ms}}\n"
        )
        .unwrap_err()
    );
}

#[test]
fn a_login_needs_what_its_method_shows() {
    let said = |params: &str| {
        stores(&format!(
            "  - {{from: env, name: env}}\n  - {{from: 'hashicorp_vault:secret/app', name: v, params: {{{params}}}}}\n"
        ))
        .unwrap_err()
    };
    for (params, expected) in [
        ("", "the login `token` needs one of `hashicorp_vault_token` or `hashicorp_vault_token_file`"),
        (
            "hashicorp_vault_token: '${env:A}', hashicorp_vault_token_file: f",
            "the login `token` needs one of",
        ),
        ("hashicorp_vault_auth_method: approle", "the login `approle` needs `hashicorp_vault_role_id`"),
        ("hashicorp_vault_auth_method: kubernetes", "the login `kubernetes` needs `hashicorp_vault_role`"),
        (
            "hashicorp_vault_auth_method: jwt, hashicorp_vault_role: r",
            "the login `jwt` needs `hashicorp_vault_jwt_file`",
        ),
        ("hashicorp_vault_auth_method: ldap", "unknown value `ldap`"),
        ("hashicorp_vault_token: '${v:A}'", "names an unknown secret store `v`"),
    ] {
        let said = said(params);
        assert!(said.contains(expected), "{params}: {said}");
    }
    let pair =
        stores("  - {from: 'aws_secrets_manager:x', name: a, params: {aws_access_key_id: k}}\n").unwrap_err();
    assert!(pair.contains("`aws_access_key_id` needs `aws_secret_access_key` beside it"), "{pair}");
}

#[test]
fn a_credential_in_clear_is_a_warning_that_does_not_show_it() {
    let pod = stores(
        "  - from: hashicorp_vault:secret/app\n    name: v\n    params:\n      hashicorp_vault_token: hunter2\n",
    )
    .unwrap();
    let warnings = pod.shown_warnings();
    assert!(!warnings.contains("hunter2") && !format!("{pod:?}").contains("hunter2"), "{warnings}");
    assert!(warnings.contains("param `hashicorp_vault_token` holds a secret in clear"), "{warnings}");
}
