//! Keys, TLS, sockets, origins and hosts: what is read, and what is said of contradictions.

use super::*;

fn runtime(lines: &str) -> (Runtime, String) {
    let pod = pod(&format!("{HEAD}runtime:\n{lines}")).unwrap_or_else(|problems| panic!("{problems}"));
    let warnings = pod.shown_warnings();
    (pod.runtime, warnings)
}

fn refused(lines: &str) -> String {
    said(&format!("runtime:\n{lines}"))
}

#[test]
fn keys_are_read_in_both_spellings() {
    for spelling in ["api-key", "api_key"] {
        let (runtime, warnings) = runtime(&format!(
            "  auth:\n    {spelling}:\n      keys: ['${{secrets:A}}', '${{env:B}}:rw', 'pre-${{secrets:C}}:ro']\n"
        ));
        let names: Vec<&str> = runtime.api_keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[1], format!("runtime.auth.{spelling}.keys[1]"));
        assert_eq!(runtime.api_keys[1].value.references().collect::<Vec<_>>(), [("env", "B")]);
        assert_eq!(warnings, "");
    }
    let (off, _) = runtime("  auth: {api-key: {enabled: false, keys: ['']}}\n");
    assert!(off.api_keys.is_empty());
    let (absent, _) = runtime("  auth: {}\n");
    assert!(absent.api_keys.is_empty() && absent.tls.is_none());
}

#[test]
fn a_key_in_clear_is_a_warning_that_does_not_show_it() {
    let (runtime, warnings) =
        runtime("  auth:\n    api-key:\n      enabled: true\n      keys:\n        - hunter2:rw\n");
    assert_eq!(runtime.api_keys.len(), 1);
    assert!(!warnings.contains("hunter2"), "{warnings}");
    insta::assert_snapshot!(warnings);
}

#[test]
fn keys_that_cannot_be() {
    insta::assert_snapshot!(refused(
        "  auth:\n    api-key:\n      keys: ['', ':rw', 'hunter2:ro:rw', \"hun\\tter2\", 12345, '${secrets:A', '${evn:B}', ]\n    \
         api_kye: {}\n"
    ));
    for empty in ["{}", "{enabled: true}", "{keys: []}", "{enabled: true, keys: }", ""] {
        let said = refused(&format!("  auth:\n    api-key: {empty}\n"));
        assert!(said.contains("error[MissingApiKeys]") && said.contains("enabled: false"), "{empty}: {said}");
    }
    let twice =
        refused("  auth:\n    api_key: {keys: ['${secrets:A}']}\n    api-key: {keys: ['${secrets:A}']}\n");
    assert!(twice.contains("two names of one section"), "{twice}");
    let many = format!("  auth: {{api-key: {{keys: [{}]}}}}\n", "'${secrets:A}', ".repeat(1_001));
    assert!(refused(&many).contains("has 1001 keys, more than 1000"));
}

#[test]
fn tls_is_read_in_all_its_forms() {
    let (files, warnings) = runtime(
        "  tls: {certificate_file: c.pem, key_file: /k.pem, client_auth_mode: required, client_auth_ca_file: ca.pem}\n  \
         metrics:\n    tls:\n      certificate: '${secrets:CERTIFICATE}'\n      key: '${secrets:KEY}'\n      \
         client_auth_mode: request\n      client_auth_ca: '${secrets:CA}'\n",
    );
    let Some(tls) = files.tls else { panic!("no TLS") };
    assert!(matches!(&tls.certificate.source, PemSource::File(path) if path == Path::new("c.pem")));
    assert!(tls.client_auth.is_required());
    let Some(metrics) = files.metrics_tls else { panic!("no TLS of the metrics") };
    assert_eq!(metrics.key.name, "runtime.metrics.tls.key");
    assert!(matches!(&metrics.key.source, PemSource::Inline(_)));
    assert!(matches!(&metrics.client_auth, ClientAuth::Request(ca) if ca.name.ends_with("client_auth_ca")));
    assert_eq!(warnings, "");
    let (off, _) = runtime("  tls: {enabled: false, certificate: x}\n");
    assert!(off.tls.is_none() && off.metrics_tls.is_none());
}

#[test]
fn tls_that_contradicts_itself() {
    insta::assert_snapshot!(refused(
        "  tls:\n    enabled: true\n    certificate: '${secrets:C}'\n    certificate_file: c.pem\n    \
         client_auth_mode: required\n  metrics:\n    tls:\n      key_file: ''\n      client_auth_mode: requested\n      \
         client_auth_ca: ${secrets}\n"
    ));
    for (lines, expected) in [
        ("  tls: {}\n", "`runtime.tls` is on and has no certificate"),
        ("  tls:\n", "`runtime.tls` is on and has no key"),
        ("  tls: {certificate_file: c}\n", "`runtime.tls` is on and has no key"),
        ("  tls: {certificate_file: c, key_file: k, client_auth_mode: request}\n", "has no CA"),
        ("  tls: {certificate: ' ', key_file: k}\n", "`runtime.tls.certificate` is empty"),
        ("  tls: {certificate_file: c, key_file: k, key: x}\n", "exclude each other"),
    ] {
        let said = refused(lines);
        assert!(said.contains(expected), "{lines}: {said}");
    }
}

#[test]
fn tls_that_is_better_done_otherwise() {
    let (runtime, warnings) = runtime(
        "  tls:\n    certificate_file: c.pem\n    key: |\n      hunter2\n    client_auth_ca_file: ca.pem\n",
    );
    assert!(matches!(runtime.tls.map(|tls| tls.client_auth), Some(ClientAuth::None)));
    assert!(!warnings.contains("hunter2"), "{warnings}");
    insta::assert_snapshot!(warnings);
}

#[test]
fn sockets_are_addresses_of_http_and_flight() {
    let (runtime, _) = runtime(
        "  http: {bind_address: 'unix:/run/h.sock'}\n  flight: {bind_address: 'unix:///run/f.sock'}\n",
    );
    assert_eq!(runtime.http_bind, Some(BindAddress::Unix("/run/h.sock".into())));
    assert_eq!(runtime.flight_bind, Some(BindAddress::Unix("/run/f.sock".into())));
    let said = refused("  http: {bind_address: 'unix:h.sock'}\n  metrics: {bind_address: 'unix:/m.sock'}\n");
    assert!(
        said.contains("write an absolute path") && said.contains("`runtime.metrics.bind_address`"),
        "{said}"
    );
}

#[test]
fn origins_and_hosts() {
    let (read, warnings) = runtime(
        "  cors: {enabled: true, allowed_origins: ['https://a.example', 'http://localhost:3000']}\n  \
         mcp: {allowed_hosts: [sidewing, 'sidewing:8090']}\n",
    );
    assert_eq!(read.cors.allowed_origins, ["https://a.example", "http://localhost:3000"]);
    assert_eq!(read.mcp.allowed_hosts, ["sidewing", "sidewing:8090"]);
    assert_eq!(warnings, "");
    let (all, _) = runtime("  cors: {enabled: true}\n");
    assert_eq!((all.cors.enabled, all.cors.allowed_origins), (true, vec!["*".to_owned()]));
    assert_eq!(all.mcp.allowed_hosts, ["localhost", "127.0.0.1", "::1"]);
    let (idle, warnings) = runtime("  cors: {allowed_origins: ['https://a.example']}\n");
    assert!(!idle.cors.enabled && warnings.contains("has no effect"), "{warnings}");
    insta::assert_snapshot!(refused(
        "  cors:\n    enabled: true\n    allowed_origins: ['*', 'https://a/b', app]\n  mcp:\n    \
         allowed_hosts: ['http://x', '*']\n"
    ));
    assert!(refused("  mcp: {allowed_hosts: []}\n").contains("nobody may ask"));
}
