//! Certificates good and bad, each with its own words.

use std::sync::atomic::Ordering;

use rcgen::date_time_ymd;

use super::super::testing::{Leaf, Pki, Script, Server, spice};
use super::super::{ErrorKind, Step, UpstreamError};
use super::{collect, count, text};

async fn server(leaf: &Leaf) -> Server {
    Server::start(Script::default(), Some(leaf.server())).await
}

/// The error of a query and of a verification, which must agree.
async fn refused(server: &Server, endpoint: &str, params: &[(&str, &str)]) -> (UpstreamError, String) {
    let upstream = spice(endpoint, params);
    let error = collect(&upstream, "all").await.unwrap_err();
    let verified = upstream.verify(|_, _| {}).await.unwrap_err();
    assert_eq!(verified.to_string(), error.to_string());
    assert_eq!(verified.step, error.step);
    let shown = text(&error, server.address.port());
    (error, shown)
}

#[tokio::test]
async fn a_private_ca_is_trusted_and_the_steps_are_told() {
    let pki = Pki::new();
    let server = server(&pki.leaf("localhost")).await;
    let ca = pki.ca_file();
    let upstream = spice(&server.https(), &[("tls_ca_certificate_file", &ca)]);
    assert_eq!(count(&upstream, "all").await.unwrap(), 4);
    let mut steps = Vec::new();
    upstream.verify(|step, detail| steps.push(format!("{step:?}: {detail}"))).await.unwrap();
    let shown = steps.join("\n").replace(&server.address.port().to_string(), "PORT");
    insta::assert_snapshot!(shown, @"");
    // The same by another spelling of the scheme.
    let same = server.https().replace("https", "grpc+tls");
    assert_eq!(count(&spice(&same, &[("tls_ca_certificate_file", &ca)]), "all").await.unwrap(), 4);
}

#[tokio::test]
async fn a_wrong_ca() {
    let pki = Pki::new();
    let server = server(&Pki::new().leaf("localhost")).await;
    let other = Pki::self_signed_ca("elsewhere");
    let other = pki.write("other.pem", &other.pem);
    let (error, shown) = refused(&server, &server.https(), &[("tls_ca_certificate_file", &other)]).await;
    assert_eq!((error.kind, error.step), (ErrorKind::Tls, Step::Tls));
    insta::assert_snapshot!(shown, @"");
    // The machine's own roots do not know the CA either.
    let (_, shown) = refused(&server, &server.https(), &[]).await;
    insta::assert_snapshot!(shown, @"");
}

#[tokio::test]
async fn a_ca_of_the_same_name() {
    let pki = Pki::new();
    let server = server(&Pki::new().leaf("localhost")).await;
    let (error, shown) =
        refused(&server, &server.https(), &[("tls_ca_certificate_file", &pki.ca_file())]).await;
    assert_eq!(error.kind, ErrorKind::Tls);
    insta::assert_snapshot!(shown, @"");
}

#[tokio::test]
async fn dates_and_names() {
    let pki = Pki::new();
    let ca = pki.ca_file();
    let params = [("tls_ca_certificate_file", ca.as_str())];
    let expired = pki.leaf_with("localhost", |params| params.not_after = date_time_ymd(2020, 1, 2));
    let expired = server(&expired).await;
    insta::assert_snapshot!(refused(&expired, &expired.https(), &params).await.1, @"");
    let future = pki.leaf_with("localhost", |params| params.not_before = date_time_ymd(2200, 1, 2));
    let future = server(&future).await;
    insta::assert_snapshot!(refused(&future, &future.https(), &params).await.1, @"");
    let named = server(&pki.leaf("core.example.com")).await;
    insta::assert_snapshot!(refused(&named, &named.https(), &params).await.1, @"");
}

#[tokio::test]
async fn a_self_signed_ca_is_trusted_when_it_is_the_pinned_file_itself() {
    let pki = Pki::new();
    let leaf = Pki::self_signed_ca("localhost");
    let pinned = pki.write("pinned.pem", &leaf.pem);
    let params = [("tls_ca_certificate_file", pinned.as_str())];
    let server = server(&leaf).await;
    assert_eq!(count(&spice(&server.https(), &params), "all").await.unwrap(), 4);
    // The name is checked all the same.
    let by_address = server.https().replace("localhost", "127.0.0.1");
    insta::assert_snapshot!(refused(&server, &by_address, &params).await.1, @"");
}

#[tokio::test]
async fn a_pinned_certificate_that_expired_is_refused() {
    let pki = Pki::new();
    let leaf = pki.leaf_with("localhost", |params| params.not_after = date_time_ymd(2020, 1, 2));
    let pinned = pki.write("pinned.pem", &leaf.pem);
    let server = server(&leaf).await;
    let (_, shown) = refused(&server, &server.https(), &[("tls_ca_certificate_file", &pinned)]).await;
    insta::assert_snapshot!(shown, @"");
}

#[tokio::test]
async fn a_ca_as_server_certificate_that_is_not_pinned() {
    let pki = Pki::new();
    let leaf = pki.leaf_with("localhost", |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let server = server(&leaf).await;
    let (_, shown) = refused(&server, &server.https(), &[("tls_ca_certificate_file", &pki.ca_file())]).await;
    insta::assert_snapshot!(shown, @"");
}

#[tokio::test]
async fn plaintext_and_tls_ports_mixed_up() {
    let pki = Pki::new();
    let ca = pki.ca_file();
    let secure = server(&pki.leaf("localhost")).await;
    let (error, shown) = refused(&secure, &secure.http(), &[]).await;
    assert!(!error.is_retryable());
    insta::assert_snapshot!(shown, @"");
    let plain = Server::plain(Script::default()).await;
    let (error, shown) = refused(&plain, &plain.https(), &[("tls_ca_certificate_file", &ca)]).await;
    assert!(!error.is_retryable());
    insta::assert_snapshot!(shown, @"");
}

#[tokio::test]
async fn client_certificates() {
    let pki = Pki::new();
    let server = Server::start(Script::default(), Some(pki.mtls(&pki.leaf("localhost")))).await;
    let (ca, client) = (pki.ca_file(), pki.leaf("client"));
    let (_, shown) = refused(&server, &server.https(), &[("tls_ca_certificate_file", &ca)]).await;
    insta::assert_snapshot!(shown, @"");

    let key = client.key.serialize_pem();
    let files = (pki.write("client.pem", &client.pem), pki.write("client.key", &key));
    let by_file = [
        ("tls_ca_certificate_file", ca.as_str()),
        ("tls_client_certificate_file", &files.0),
        ("tls_client_key_file", &files.1),
    ];
    assert_eq!(count(&spice(&server.https(), &by_file), "all").await.unwrap(), 4);
    let inline = [
        ("tls_ca_certificate_file", ca.as_str()),
        ("tls_client_certificate", &client.pem),
        ("tls_client_key", &key),
    ];
    assert_eq!(count(&spice(&server.https(), &inline), "all").await.unwrap(), 4);

    let stranger = Pki::new().leaf("client");
    let key = stranger.key.serialize_pem();
    let wrong = [
        ("tls_ca_certificate_file", ca.as_str()),
        ("tls_client_certificate", &stranger.pem),
        ("tls_client_key", &key),
    ];
    let (_, shown) = refused(&server, &server.https(), &wrong).await;
    insta::assert_snapshot!(shown, @"");
    assert!(server.script.calls.load(Ordering::SeqCst) > 0);
}
