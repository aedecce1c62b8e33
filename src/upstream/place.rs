//! The endpoint rules: `endpoint`, `flight_endpoint`, `from:` and `region` enter, one checked address with
//! its table leaves. No network.

use crate::config::Connector;
use crate::name::{EndpointError, EndpointUrl};

use super::identity::CloudApp;
use super::table::RemoteTableName;
use super::target::Rules;

/// What the Spice.ai Cloud host of a region ends with.
const CLOUD_HOST_SUFFIX: &str = "-prod-aws-flight.spiceai.io";
/// The Cloud host of before there were regions.
const CLOUD_HOST_LEGACY: &str = "flight.spiceai.io";

/// Where a dataset is.
pub(super) struct Place {
    pub endpoint: EndpointUrl,
    /// Further endpoints with the same data.
    pub standby: Vec<EndpointUrl>,
    /// `None` when its name is bad, which `rules` has heard.
    pub table: Option<RemoteTableName>,
    pub app: Option<CloudApp>,
    pub is_cloud: bool,
}

/// The addresses that a param lists.
struct Endpoints {
    first: EndpointUrl,
    standby: Vec<EndpointUrl>,
}

/// The parts of a `from:` path.
struct Path<'a> {
    /// `<scheme>://<authority>`.
    endpoint: Option<&'a str>,
    table: Option<&'a str>,
    app: Option<CloudApp>,
}

/// Finds the place of a dataset; what is wrong goes to `rules`.
pub(super) fn find(rules: &mut Rules<'_>) -> Option<Place> {
    let dataset = rules.dataset;
    let path = split(&dataset.from.path, dataset.from.connector);
    // A list that stands here by mistake was split in its middle.
    let is_list = path.endpoint.is_some_and(|endpoint| endpoint.contains(','));
    let table = table(rules, path.table.filter(|_| !is_list));
    let endpoint = match dataset.from.connector {
        Connector::SpiceAi => spice_endpoint(rules, path.endpoint),
        Connector::FlightSql => flightsql_endpoint(rules, path.endpoint).map(|endpoint| (endpoint, false)),
    };
    let (Endpoints { first: endpoint, standby }, is_cloud) = endpoint?;
    Some(Place { endpoint, standby, table, app: path.app, is_cloud })
}

fn split(path: &str, connector: Connector) -> Path<'_> {
    if let Some(scheme_end) = path.find("://").filter(|end| *end > 0) {
        let authority = scheme_end + "://".len();
        let end = path[authority..].find('/').map_or(path.len(), |slash| authority + slash);
        let table = path[end..].trim_matches('/');
        let table = (!table.is_empty()).then_some(table);
        return Path { endpoint: Some(&path[..end]), table, app: None };
    }
    let path = path.trim_start_matches('/');
    if let (Connector::SpiceAi, [org, app, "datasets", table]) =
        (connector, path.splitn(4, '/').collect::<Vec<_>>().as_slice())
    {
        let app = CloudApp { org: (*org).to_owned(), app: (*app).to_owned() };
        return Path { endpoint: None, table: Some(table), app: Some(app) };
    }
    Path { endpoint: None, table: Some(path).filter(|path| !path.is_empty()), app: None }
}

/// The table that `from:` names, or the dataset's own name behind a bare endpoint.
fn table(rules: &mut Rules<'_>, text: Option<&str>) -> Option<RemoteTableName> {
    let name = &rules.dataset.name;
    let Some(text) = text else {
        let schema = name.schema().map(str::to_owned);
        return Some(RemoteTableName {
            parts: schema.into_iter().chain([name.table().to_owned()]).collect(),
        });
    };
    match RemoteTableName::try_new(text) {
        Ok(table) => Some(table),
        Err(why) => {
            let help = "name the upstream's table as `table`, `schema.table` or `catalog.schema.table`, or \
                        `<org>/<app>/datasets/<table>` on Spice.ai Cloud";
            let message = format!("the table `{text}` in `from:` {why}");
            rules.wrong_from("InvalidTableName", message, help.to_owned());
            None
        }
    }
}

fn flightsql_endpoint(rules: &mut Rules<'_>, in_from: Option<&str>) -> Option<Endpoints> {
    if in_from.is_some() && rules.text("endpoint").is_none() {
        let help = "`from: flightsql:<table>` names a table; the address goes into the param \
                    `flightsql_endpoint`";
        rules.missing("flightsql_endpoint", help.to_owned());
        return None;
    }
    if let (Some(text), Some(_)) = (in_from, rules.text("endpoint")) {
        let message = format!("`from:` holds the address `{text}` where a table belongs");
        rules.wrong_from("InvalidTableName", message, "write `from: flightsql:<table>`".to_owned());
    }
    match rules.text("endpoint") {
        Some(text) => listed(rules, "endpoint", text),
        None => {
            let help = "set `flightsql_endpoint: https://host:port` (or http:// for a plaintext upstream)";
            rules.missing("flightsql_endpoint", help.to_owned());
            None
        }
    }
}

/// The endpoint, and whether it is Spice.ai Cloud.
fn spice_endpoint(rules: &mut Rules<'_>, in_from: Option<&str>) -> Option<(Endpoints, bool)> {
    let region = region(rules);
    let written =
        ["endpoint", "flight_endpoint"].into_iter().find_map(|name| Some((name, rules.text(name)?)));
    let endpoints = match (written, in_from) {
        (Some((name, text)), _) => listed(rules, name, text)?,
        (None, Some(text)) => Endpoints { first: in_path(rules, text)?, standby: Vec::new() },
        (None, None) => return regional(rules, region?).map(|endpoint| (alone(endpoint), true)),
    };
    if !endpoints.standby.is_empty() {
        return without_cloud(rules, written.map_or("endpoint", |(name, _)| name), endpoints);
    }
    let (endpoint, is_cloud) = cloud_or_own(rules, region, endpoints.first)?;
    Some((alone(endpoint), is_cloud))
}

fn alone(first: EndpointUrl) -> Endpoints {
    Endpoints { first, standby: Vec::new() }
}

/// A list of endpoints of one's own: each region of the Cloud is an upstream by itself.
fn without_cloud(rules: &mut Rules<'_>, param: &str, endpoints: Endpoints) -> Option<(Endpoints, bool)> {
    let is_cloud = |endpoint: &&EndpointUrl| {
        endpoint.host() == CLOUD_HOST_LEGACY || endpoint.host().ends_with(CLOUD_HOST_SUFFIX)
    };
    let Some(cloud) = std::iter::once(&endpoints.first).chain(&endpoints.standby).find(is_cloud) else {
        return Some((endpoints, false));
    };
    let message = format!("`{}`: {cloud} is Spice.ai Cloud, which stands in no list", rules.key(param));
    let help = "name the Cloud's endpoint alone: it fails over by itself".to_owned();
    rules.wrong("InvalidEndpointList", param, message, help);
    None
}

/// One endpoint, and whether it is Spice.ai Cloud.
fn cloud_or_own(
    rules: &mut Rules<'_>,
    region: Option<Option<&str>>,
    endpoint: EndpointUrl,
) -> Option<(EndpointUrl, bool)> {
    if endpoint.host() == CLOUD_HOST_LEGACY {
        return regional(rules, region?).map(|endpoint| (endpoint, true));
    }
    let Some(cloud_region) = endpoint.host().strip_suffix(CLOUD_HOST_SUFFIX) else {
        return Some((endpoint, false));
    };
    match region? {
        None => {
            let help = format!("`{endpoint}` is Spice.ai Cloud: set `spiceai_region: {cloud_region}`");
            rules.missing("region", help);
        }
        Some(region) if region != cloud_region => {
            let message = format!(
                "Spice Cloud endpoint region mismatch: endpoint {endpoint} does not match region {region}"
            );
            let help = "use the endpoint of the configured region, or remove the endpoint parameter";
            rules.wrong("CloudEndpointRegionMismatch", "region", message, help.to_owned());
        }
        Some(_) => {}
    }
    Some((endpoint, true))
}

/// The `region` param: `None` when it is bad, `Some(None)` when it is not written.
fn region<'a>(rules: &mut Rules<'a>) -> Option<Option<&'a str>> {
    let Some(region) = rules.text("region") else { return Some(None) };
    if is_region(region) {
        return Some(Some(region));
    }
    let help = "specify a region such as `spiceai_region: us-east-1`".to_owned();
    rules.wrong("InvalidRegion", "region", format!("invalid Spice Cloud region: `{region}`"), help);
    None
}

/// `us-east-1`: words of lower-case letters, then a number.
fn is_region(text: &str) -> bool {
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    match text.rsplit_once('-') {
        Some((words, number)) => {
            words.contains('-')
                && words.split('-').all(|word| is_word(&word))
                && (1..=2).contains(&number.len())
                && number.bytes().all(|b| b.is_ascii_digit())
        }
        None => false,
    }
}

fn regional(rules: &mut Rules<'_>, region: Option<&str>) -> Option<EndpointUrl> {
    let Some(region) = region else {
        let help = "for Spice.ai Cloud set `spiceai_region: us-east-1` (or your region); for an upstream of \
                    your own set `spiceai_endpoint: https://host:port`";
        rules.missing("region", help.to_owned());
        return None;
    };
    parse(rules, Some("region"), &format!("https://{region}{CLOUD_HOST_SUFFIX}"))
}

/// The endpoints of a param, with commas between them; every problem of the list is told.
fn listed(rules: &mut Rules<'_>, param: &str, text: &str) -> Option<Endpoints> {
    let help = "list endpoints with the same data, each once, all of them with TLS or none, such as \
                `https://a:50051, https://b:50051`";
    let mut found: Vec<EndpointUrl> = Vec::new();
    let mut is_good = true;
    for item in text.split(',').map(str::trim) {
        let endpoint = match item.is_empty() {
            true => Err(Some("has an empty item".to_owned())),
            false => parse(rules, Some(param), item).ok_or(None),
        };
        let checked = endpoint.and_then(|endpoint| match found.first() {
            Some(_) if found.contains(&endpoint) => Err(Some(format!("names {endpoint} twice"))),
            Some(first) if first.is_tls() != endpoint.is_tls() => {
                Err(Some(format!("mixes TLS and plaintext: {first} and {endpoint}")))
            }
            _ => Ok(endpoint),
        });
        match checked {
            Ok(endpoint) => found.push(endpoint),
            Err(problem) => {
                is_good = false;
                if let Some(problem) = problem {
                    let message = format!("the list in `{}` {problem}", rules.key(param));
                    rules.wrong("InvalidEndpointList", param, message, help.to_owned());
                }
            }
        }
    }
    let mut found = found.into_iter();
    let endpoints = Endpoints { first: found.next()?, standby: found.collect() };
    is_good.then_some(endpoints)
}

/// The endpoint in `from:`, where no list can stand.
fn in_path(rules: &mut Rules<'_>, text: &str) -> Option<EndpointUrl> {
    if !text.contains(',') {
        return parse(rules, None, text);
    }
    let message = format!("`from:` names one endpoint, and `{text}` is a list");
    let help = "write `from: spice.ai:<table>`, and the list into the param `spiceai_endpoint`".to_owned();
    rules.wrong_from("InvalidEndpointList", message, help);
    None
}

fn parse(rules: &mut Rules<'_>, param: Option<&str>, text: &str) -> Option<EndpointUrl> {
    let error = match text.parse::<EndpointUrl>() {
        Ok(endpoint) => return Some(endpoint),
        Err(error) => error,
    };
    let (code, message) = match &error {
        EndpointError::UnsupportedScheme { endpoint, scheme } => (
            "UnsupportedEndpointScheme",
            format!("unsupported endpoint scheme in endpoint {endpoint}: {scheme}:// is not supported"),
        ),
        other => ("InvalidEndpoint", other.to_string()),
    };
    let help = "use http:// for plaintext Flight, or https:// or grpc+tls:// for TLS, with host and port";
    match param {
        Some(name) => rules.wrong(code, name, message, help.to_owned()),
        None => rules.wrong_from(code, message, help.to_owned()),
    }
    None
}
