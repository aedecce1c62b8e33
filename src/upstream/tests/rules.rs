//! The endpoint rules, and which targets share a connection.

use proptest::prelude::*;

use super::super::testing::{Pki, dataset, target};
use super::super::{Credentials, Flavor, Pool, Target};
use crate::config::Connector::{FlightSql, SpiceAi};
use crate::config::{Connector, Diagnostic};

fn place(connector: Connector, path: &str, params: &[(&str, &str)]) -> String {
    let target = target(connector, path, params);
    let app = target.app.map_or(String::new(), |app| format!(" {}/{}", app.org, app.app));
    format!("{} {}{app}", target.endpoint, target.table.parts.join("|"))
}

fn problems(name: &str, connector: Connector, path: &str, params: &[(&str, &str)]) -> String {
    let (dataset, params) = dataset(name, connector, path, params);
    let show = |problem: Diagnostic| {
        let (at, code) = (problem.at.unwrap(), problem.code.unwrap());
        format!("{}: {code}: {}\n   {}", at.line, problem.message, problem.help.unwrap())
    };
    match Target::try_new(&dataset, &params) {
        Ok(_) => panic!("{path} was taken"),
        Err(problems) => problems.into_iter().map(show).collect::<Vec<_>>().join("\n"),
    }
}

const KEY: (&str, &str) = ("api_key", "k");
const REGION: (&str, &str) = ("region", "us-east-1");

#[test]
fn endpoints_and_tables() {
    assert_eq!(place(SpiceAi, "http://core:50051", &[]), "http://core:50051 t");
    assert_eq!(place(SpiceAi, "grpc+tls://core:50051/Sales.Orders", &[]), "https://core:50051 sales|orders");
    assert_eq!(place(SpiceAi, "https://core/\"A b\"", &[]), "https://core:443 A b");
    let cloud = "https://us-east-1-prod-aws-flight.spiceai.io:443";
    assert_eq!(place(SpiceAi, "acme/shop/datasets/o", &[KEY, REGION]), format!("{cloud} o acme/shop"));
    assert_eq!(place(SpiceAi, "//acme/shop/datasets/o", &[KEY, REGION]), format!("{cloud} o acme/shop"));
    assert_eq!(place(SpiceAi, "o", &[KEY, REGION]), format!("{cloud} o"));
    assert_eq!(place(SpiceAi, "https://flight.spiceai.io/o", &[KEY, REGION]), format!("{cloud} o"));
    assert_eq!(place(SpiceAi, &format!("{cloud}/o"), &[KEY, REGION]), format!("{cloud} o"));
    // The param `endpoint` before `flight_endpoint` before `from:`.
    let (first, second) = (("endpoint", "http://a:1"), ("flight_endpoint", "http://b:1"));
    assert_eq!(place(SpiceAi, "http://c:1/x", &[first, second]), "http://a:1 x");
    assert_eq!(place(SpiceAi, "http://c:1/x", &[second]), "http://b:1 x");
    assert_eq!(place(FlightSql, "s.o", &[("endpoint", "http://a:1")]), "http://a:1 s|o");
    let flavor = |params: &[_]| target(FlightSql, "o", &[&[first], params].concat()).flavor;
    assert_eq!(flavor(&[("dialect", "DataFusion")]), Flavor::FlightSql { datafusion: true });
    assert_eq!(flavor(&[]), Flavor::FlightSql { datafusion: false });
}

#[test]
fn a_dataset_with_a_schema_names_its_upstream_table_by_both() {
    let (dataset, params) = dataset("sales.orders", SpiceAi, "http://a:1", &[]);
    let Ok(target) = Target::try_new(&dataset, &params) else { panic!() };
    assert_eq!(target.table.parts, ["sales", "orders"]);
    assert!(matches!(target.credentials, Credentials::Anonymous));
}

#[test]
fn broken_rules_are_named() {
    insta::assert_snapshot!(problems("t", SpiceAi, "grpc://core:1", &[]), @r"
    1: UnsupportedEndpointScheme: dataset `t`: unsupported endpoint scheme in endpoint grpc://core:1: grpc:// is not supported
       use http:// for plaintext Flight, or https:// or grpc+tls:// for TLS, with host and port
    ");
    insta::assert_snapshot!(problems("t", SpiceAi, "x", &[("endpoint", "ftp://core:1")]), @r"
    2: UnsupportedEndpointScheme: dataset `t`: unsupported endpoint scheme in endpoint ftp://core:1: ftp:// is not supported
       use http:// for plaintext Flight, or https:// or grpc+tls:// for TLS, with host and port
    ");
    insta::assert_snapshot!(problems("t", SpiceAi, "x", &[]), @r"
    1: MissingRequiredParameter: dataset `t`: missing required parameter: region
       for Spice.ai Cloud set `spiceai_region: us-east-1` (or your region); for an upstream of your own set `spiceai_endpoint: https://host:port`
    ");
    insta::assert_snapshot!(problems("t", SpiceAi, "a/b/datasets/c", &[REGION]), @r"
    1: MissingRequiredParameter: dataset `t`: missing required parameter: api_key or token
       Spice.ai Cloud asks everybody for a key: set `spiceai_api_key: ${secrets:SPICEAI_API_KEY}`
    ");
    insta::assert_snapshot!(problems("t", SpiceAi, "x", &[("region", "Mars"), KEY]), @r"
    2: InvalidRegion: dataset `t`: invalid Spice Cloud region: `Mars`
       specify a region such as `spiceai_region: us-east-1`
    ");
    let cloud = ("endpoint", "https://eu-west-1-prod-aws-flight.spiceai.io");
    insta::assert_snapshot!(problems("t", SpiceAi, "x", &[cloud, REGION, KEY]), @r"
    3: CloudEndpointRegionMismatch: dataset `t`: Spice Cloud endpoint region mismatch: endpoint https://eu-west-1-prod-aws-flight.spiceai.io:443 does not match region us-east-1
       use the endpoint of the configured region, or remove the endpoint parameter
    ");
    insta::assert_snapshot!(problems("t", SpiceAi, "x", &[cloud, KEY]), @r"
    1: MissingRequiredParameter: dataset `t`: missing required parameter: region
       `https://eu-west-1-prod-aws-flight.spiceai.io:443` is Spice.ai Cloud: set `spiceai_region: eu-west-1`
    ");
    insta::assert_snapshot!(problems("t", FlightSql, "x", &[("username", "me")]), @r"
    1: MissingRequiredParameter: dataset `t`: missing required parameter: flightsql_endpoint
       set `flightsql_endpoint: https://host:port` (or http:// for a plaintext upstream)
    1: MissingRequiredParameter: dataset `t`: missing required parameter: flightsql_password
       set both, or none for an anonymous upstream
    ");
    insta::assert_snapshot!(problems("t", FlightSql, "x", &[("endpoint", "http://a:1"), ("dialect", "mysql")]), @r"
    3: InvalidParameterValue: dataset `t`: `flightsql_dialect: mysql` is not a dialect
       use `datafusion` where the upstream runs DataFusion (statements are forwarded whole), or leave it out
    ");
}

#[test]
fn lists_of_endpoints() {
    let list = |text: &str| {
        let target = target(SpiceAi, "t", &[("endpoint", text)]);
        let standby: Vec<_> = target.standby.iter().map(ToString::to_string).collect();
        format!("{} then {}", target.endpoint, standby.join(" "))
    };
    assert_eq!(list("grpc+tls://a:1, https://b:2,https://c"), "https://a:1 then https://b:2 https://c:443");
    let broken = |text: &str| problems("t", SpiceAi, "x", &[("endpoint", text), REGION, KEY]);
    insta::assert_snapshot!(broken("https://a:1,, http://b:1, grpc+tls://a:1, ftp://c:1"), @r"
    2: InvalidEndpointList: dataset `t`: the list in `spiceai_endpoint` has an empty item
       list endpoints with the same data, each once, all of them with TLS or none, such as `https://a:50051, https://b:50051`
    2: InvalidEndpointList: dataset `t`: the list in `spiceai_endpoint` mixes TLS and plaintext: https://a:1 and http://b:1
       list endpoints with the same data, each once, all of them with TLS or none, such as `https://a:50051, https://b:50051`
    2: InvalidEndpointList: dataset `t`: the list in `spiceai_endpoint` names https://a:1 twice
       list endpoints with the same data, each once, all of them with TLS or none, such as `https://a:50051, https://b:50051`
    2: UnsupportedEndpointScheme: dataset `t`: unsupported endpoint scheme in endpoint ftp://c:1: ftp:// is not supported
       use http:// for plaintext Flight, or https:// or grpc+tls:// for TLS, with host and port
    ");
    insta::assert_snapshot!(broken("https://a:1, https://us-east-1-prod-aws-flight.spiceai.io"), @r"
    2: InvalidEndpointList: dataset `t`: `spiceai_endpoint`: https://us-east-1-prod-aws-flight.spiceai.io:443 is Spice.ai Cloud, which stands in no list
       name the Cloud's endpoint alone: it fails over by itself
    ");
    insta::assert_snapshot!(problems("t", SpiceAi, "https://a:1,https://b:1/x", &[]), @r"
    1: InvalidEndpointList: dataset `t`: `from:` names one endpoint, and `https://a:1,https:` is a list
       write `from: spice.ai:<table>`, and the list into the param `spiceai_endpoint`
    ");
    insta::assert_snapshot!(problems("t", FlightSql, "x", &[("endpoint", "http://a:1, http://a:1")]), @r"
    2: InvalidEndpointList: dataset `t`: the list in `flightsql_endpoint` names http://a:1 twice
       list endpoints with the same data, each once, all of them with TLS or none, such as `https://a:50051, https://b:50051`
    ");
}

#[test]
fn all_problems_of_a_dataset_come_together() {
    let pki = Pki::new();
    let garbage = pki.write("garbage.pem", "not PEM");
    let params = [
        ("endpoint", "https://core:1"),
        ("max_message_size", "lots"),
        ("tls_ca_certificate_file", garbage.as_str()),
        ("tls_client_certificate_file", "/nowhere/client.pem"),
    ];
    let shown = problems("t", SpiceAi, "a.b.c.d", &params).replace(&garbage, "GARBAGE");
    insta::assert_snapshot!(shown, @r"
    1: InvalidTableName: dataset `t`: the table `a.b.c.d` in `from:` has 4 parts; a table has at most 3 (catalog.schema.table)
       name the upstream's table as `table`, `schema.table` or `catalog.schema.table`, or `<org>/<app>/datasets/<table>` on Spice.ai Cloud
    3: InvalidParameterValue: dataset `t`: `spiceai_max_message_size: lots`: `lots` is not a size: expected one such as `4MB` or `16MiB`
       write a size such as `16MiB` or `64MB`
    4: UnusableCertificate: dataset `t`: `spiceai_tls_ca_certificate_file`: it holds no certificate
       expected PEM text with `-----BEGIN CERTIFICATE-----`
    5: IncompleteClientIdentity: dataset `t`: `spiceai_tls_client_certificate_file` is set without `spiceai_tls_client_key_file`
       a client identity (mTLS) is a certificate and its private key: set both or none
    ");
    // The CA file is not read for a plaintext endpoint.
    let plain = [("endpoint", "http://core:1"), ("tls_ca_certificate_file", "/nowhere/ca.pem")];
    assert_eq!(place(SpiceAi, "t", &plain), "http://core:1 t");
}

#[test]
fn client_identities() {
    let pki = Pki::new();
    let (leaf, other) = (pki.leaf("client"), pki.leaf("other"));
    let endpoint = ("endpoint", "https://core:1");
    let (certificate, key) = (("tls_client_certificate", leaf.pem.as_str()), leaf.key.serialize_pem());
    let mixed = [endpoint, certificate, ("tls_client_key_file", "/k")];
    insta::assert_snapshot!(problems("t", SpiceAi, "x", &mixed), @r"
    3: AmbiguousClientIdentity: dataset `t`: the client identity is given as files and inline at the same time
       keep `spiceai_tls_client_certificate_file` and `spiceai_tls_client_key_file`, or `spiceai_tls_client_certificate` and `spiceai_tls_client_key`
    ");
    insta::assert_snapshot!(problems("t", SpiceAi, "x", &[endpoint, ("tls_client_key", &key)]), @r"
    3: IncompleteClientIdentity: dataset `t`: `spiceai_tls_client_key` is set without `spiceai_tls_client_certificate`
       a client identity (mTLS) is a certificate and its private key: set both or none
    ");
    let swapped = other.key.serialize_pem();
    let shown = problems("t", SpiceAi, "x", &[endpoint, certificate, ("tls_client_key", &swapped)]);
    insta::assert_snapshot!(shown, @r"
    3: UnusableCertificate: dataset `t`: the key of `spiceai_tls_client_key` does not go with the certificate of `spiceai_tls_client_certificate`: keys may not be consistent: KeyMismatch
       the first certificate must be the client's own, issued for that key
    ");
    let shown = problems("t", SpiceAi, "x", &[endpoint, certificate, ("tls_client_key", "SECRET-KEY")]);
    assert!(!shown.contains("SECRET-KEY"));
    insta::assert_snapshot!(shown, @r"
    4: UnusableCertificate: dataset `t`: `spiceai_tls_client_key`: it holds no private key that can be read
       expected an unencrypted PEM key with `-----BEGIN PRIVATE KEY-----`
    ");
    let missing =
        [endpoint, ("tls_client_certificate_file", "/nowhere/c"), ("tls_client_key_file", "/nowhere/k")];
    insta::assert_snapshot!(problems("t", SpiceAi, "x", &missing), @r"
    3: UnreadableFile: dataset `t`: `spiceai_tls_client_certificate_file`: the file `/nowhere/c` cannot be read: No such file or directory (os error 2)
       check the path (relative to the working directory) and its permissions
    4: UnreadableFile: dataset `t`: `spiceai_tls_client_key_file`: the file `/nowhere/k` cannot be read: No such file or directory (os error 2)
       check the path (relative to the working directory) and its permissions
    ");
}

#[tokio::test]
async fn equal_targets_share_a_channel_and_keep_their_own_limits() {
    let pool = Pool::new();
    let id = |path: &str, params: &[(&str, &str)]| {
        pool.connect(&target(SpiceAi, path, params)).unwrap().id().clone()
    };
    let base = id("http://a:1/x", &[KEY]);
    assert_eq!(base, id("http://a:1/y", &[KEY, ("max_message_size", "64MB")]));
    assert_eq!(base, id("http://a:1/y", &[("token", "k")]));
    assert_ne!(base, id("http://a:1/x", &[("api_key", "l")]));
    assert_ne!(base, id("http://a:1/x", &[]));
    assert_ne!(base, id("http://a:2/x", &[KEY]));
    let cloud = |app: &str| id(&format!("acme/{app}/datasets/o"), &[KEY, ("endpoint", "http://a:1")]);
    assert_ne!(base, cloud("shop"));
    assert_ne!(cloud("other"), cloud("shop"));
    let pki = Pki::new();
    let (ca, other) = (pki.ca_file(), pki.write("other.pem", &Pki::self_signed_ca("x").pem));
    let tls = |ca: &str| id("https://a:1/x", &[("tls_ca_certificate_file", ca)]);
    assert_eq!(tls(&ca), tls(&ca));
    assert_ne!(tls(&ca), tls(&other));
    assert!(!format!("{:?}", id("http://a:1/x", &[("api_key", "hunter2")])).contains("hunter2"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_params_panic(path in "\\PC{0,40}", endpoint in "\\PC{0,30}", region in "\\PC{0,12}", size in "\\PC{0,8}") {
        let params = [("endpoint", endpoint.as_str()), ("region", &region), ("max_message_size", &size)];
        for connector in [SpiceAi, FlightSql] {
            let (dataset, params) = dataset("t", connector, &path, &params);
            if let Err(problems) = Target::try_new(&dataset, &params) {
                prop_assert!(!problems.is_empty());
            }
        }
    }
}
