//! What is told outward: the spicepod's sections, their secrets and the environment enter, a tracer and a collector's
//! address leave.
//!
//! The environment is OpenTelemetry's own (`OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL`, `_HEADERS`, `OTEL_SERVICE_NAME`);
//! what the spicepod says wins over it.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::config::{self, Diagnostic, OtelExporter, OtelProtocol, Runtime};
use crate::secrets::Secrets;
use crate::task::Scope;
use crate::telemetry::{HistoryOptions, Otlp, OtlpExporter, OtlpProtocol, Output, Registry, Tracer};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// The public runtime's.
const PUSH_INTERVAL: Duration = Duration::from_secs(60);

/// Reads one variable of the environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The tracer that `runtime.task_history` describes.
pub(super) fn tracer(runtime: &Runtime) -> Tracer {
    let (history, default) = (&runtime.task_history, HistoryOptions::default());
    Tracer::new(HistoryOptions {
        is_enabled: history.enabled,
        output: if history.captures_output { Output::Truncated } else { Output::None },
        retention: history.retention_period.map_or(default.retention, config::Duration::get),
        check_interval: history
            .retention_check_interval
            .map_or(default.check_interval, config::Duration::get),
        sql_duration_min: history.min_sql_duration.map_or(default.sql_duration_min, config::Duration::get),
    })
}

/// Begins what telemetry does by itself, until `scope` is cancelled.
pub(super) fn start(tracer: &Tracer, otlp: Option<Otlp>, registry: &Registry, scope: &Scope) {
    scope.spawn("task history", tracer.clone().keep());
    scope.spawn("log repeats", crate::telemetry::tell_repeats());
    let Some(otlp) = otlp else { return };
    let endpoint = otlp.endpoint.clone();
    match OtlpExporter::try_new(otlp, tracer, registry.clone()) {
        Ok(exporter) => {
            tracing::info!(%endpoint, "traces and metrics are sent to a collector");
            scope.spawn_draining("otlp exporter", exporter.run(scope.token()));
        }
        // Queries are answered all the same.
        Err(error) => tracing::error!(%error, "traces and metrics are not sent"),
    }
}

/// The collector, where there is one.
///
/// # Errors
/// Secrets that are not there, and values that cannot be an endpoint, a protocol or a header.
pub(super) fn otlp(runtime: &Runtime, secrets: &Secrets) -> Result<Option<Otlp>, Vec<Diagnostic>> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    otlp_with(runtime, secrets, &environment)
}

fn otlp_with(
    runtime: &Runtime,
    secrets: &Secrets,
    environment: Environment<'_>,
) -> Result<Option<Otlp>, Vec<Diagnostic>> {
    let telemetry = &runtime.telemetry;
    let written = telemetry.exporter.as_ref();
    if !telemetry.enabled {
        return Ok(None);
    }
    let Some(endpoint) = endpoint(written, environment)? else { return Ok(None) };
    let headers = headers(written, secrets, environment)?;
    let service = environment(SERVICE_NAME).map(|name| ("service.name".to_owned(), name));
    let is_named = telemetry.properties.iter().any(|(key, _)| key == "service.name");
    let resource = service.into_iter().filter(|_| !is_named).chain(telemetry.properties.iter().cloned());
    let push_interval = written.and_then(|exporter| exporter.push_interval);
    Ok(Some(Otlp {
        endpoint,
        protocol: protocol(written, environment)?,
        headers,
        push_interval: push_interval.map_or(PUSH_INTERVAL, config::Duration::get),
        metrics: written.map(|exporter| exporter.metrics.clone()).unwrap_or_default(),
        resource: resource.collect(),
    }))
}

fn endpoint(
    written: Option<&OtelExporter>,
    environment: Environment<'_>,
) -> Result<Option<Uri>, Vec<Diagnostic>> {
    let text = written.and_then(|exporter| exporter.endpoint.clone());
    let Some(text) = text.or_else(|| environment(ENDPOINT)) else {
        return match written {
            None => Ok(None),
            Some(exporter) => {
                let message = "`runtime.telemetry.otel_exporter` names no endpoint";
                let help = format!("write `endpoint: http://localhost:4317`, or set {ENDPOINT}");
                Err(vec![Diagnostic::new("MissingField", message).at(exporter.at).help(help)])
            }
        };
    };
    let is_web = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    match text.parse::<Uri>().ok().filter(is_web) {
        Some(uri) => Ok(Some(uri)),
        None => {
            let problem = Diagnostic::new("InvalidValue", format!("{ENDPOINT}: `{text}` is no endpoint"));
            Err(vec![problem.help("expected one such as `http://localhost:4317`")])
        }
    }
}

fn protocol(
    written: Option<&OtelExporter>,
    environment: Environment<'_>,
) -> Result<OtlpProtocol, Vec<Diagnostic>> {
    let said = match (written.and_then(|exporter| exporter.protocol), environment(PROTOCOL)) {
        (Some(protocol), _) => protocol,
        (None, None) => OtelProtocol::Grpc,
        (None, Some(text)) => OtelProtocol::parse(&text).ok_or_else(|| {
            let problem = Diagnostic::new("InvalidValue", format!("{PROTOCOL}: unknown protocol `{text}`"));
            vec![problem.help("expected `grpc` or `http/protobuf`")]
        })?,
    };
    Ok(match said {
        OtelProtocol::Grpc => OtlpProtocol::Grpc,
        OtelProtocol::Http => OtlpProtocol::Http,
    })
}

/// All of them are taken for secrets: most hold a key.
fn headers(
    written: Option<&OtelExporter>,
    secrets: &Secrets,
    environment: Environment<'_>,
) -> Result<HeaderMap, Vec<Diagnostic>> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::try_from(name.trim()).map_err(|_| "its name is none of a header")?;
        let mut value = HeaderValue::try_from(value.trim())
            .map_err(|_| "its value has characters that no header can carry")?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok::<_, &str>(())
    };
    for pair in
        environment(HEADERS).iter().flat_map(|text| text.split(',')).filter(|pair| !pair.trim().is_empty())
    {
        let added = pair
            .split_once('=')
            .ok_or("it is no `name=value`")
            .and_then(|(name, value)| add(name, &decoded(value)));
        added.map_err(|why| {
            let message = format!("{HEADERS}: one of its headers cannot be sent: {why}");
            vec![Diagnostic::new("InvalidValue", message).help("expected `name=value,other=value`")]
        })?;
    }
    let written = written.map_or(&[][..], |exporter| exporter.headers.as_slice());
    for (header, value) in written.iter().zip(secrets.resolve_headers(written)?) {
        add(&header.name, value.expose()).map_err(|why| {
            let message =
                format!("`runtime.telemetry.otel_exporter.headers.{}` cannot be sent: {why}", header.name);
            vec![Diagnostic::new("InvalidValue", message).at(header.at)]
        })?;
    }
    Ok(headers)
}

/// Percent-encoding, as the OpenTelemetry specification has it in this variable.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::SourceFile;

    const HEAD: &str = "version: v1\nkind: Spicepod\nname: p\n";

    /// What a spicepod's runtime section and an environment come to.
    fn read(runtime: &str, environment: &[(&str, &str)]) -> Result<Option<Otlp>, String> {
        let environment: Vec<(String, String)> =
            environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let find =
            move |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let text = format!("{HEAD}runtime: {runtime}\n");
        let spicepod = config::parse(SourceFile { path: "spicepod.yaml".into(), text });
        let spicepod = spicepod.map_err(|problems| problems.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let loading = Secrets::load_with(&spicepod, find.clone(), Path::new("/nowhere"));
        let secrets = runtime.block_on(loading).unwrap();
        otlp_with(&spicepod.runtime, &secrets, &find)
            .map_err(|problems| problems.iter().map(|problem| problem.message.clone()).collect())
    }

    #[test]
    fn nothing_is_sent_unless_somebody_says_where() {
        assert!(read("{}", &[]).unwrap().is_none());
        assert!(read("{telemetry: {enabled: true}}", &[]).unwrap().is_none());
        assert!(read("{telemetry: {enabled: false}}", &[(ENDPOINT, "http://c:4317")]).unwrap().is_none());
        let off = "{telemetry: {otel_exporter: {enabled: false, endpoint: 'http://c:1'}}}";
        assert!(read(off, &[]).unwrap().is_none());
        let missing = read("{telemetry: {otel_exporter: {push_interval: 5s}}}", &[]).unwrap_err();
        assert!(missing.contains("names no endpoint"), "{missing}");
    }

    #[test]
    fn the_spicepod_wins_over_the_environment() {
        let environment = [
            (ENDPOINT, "http://env:4317"),
            (PROTOCOL, "http/protobuf"),
            (HEADERS, "x-a=1%202,x-b=3"),
            (SERVICE_NAME, "me"),
        ];
        let otlp = read("{}", &environment).unwrap().unwrap();
        assert_eq!(
            (otlp.endpoint.to_string().as_str(), otlp.protocol),
            ("http://env:4317/", OtlpProtocol::Http)
        );
        assert_eq!(
            (&otlp.headers["x-a"], &otlp.headers["x-b"]),
            (&"1 2".parse().unwrap(), &"3".parse().unwrap())
        );
        assert_eq!(otlp.resource, [("service.name".to_owned(), "me".to_owned())]);
        let written = "{telemetry: {properties: {service.name: pod}, otel_exporter: {endpoint: 'https://own:1', \
                       protocol: grpc, push_interval: 5s, metrics: [query_duration_ms], headers: {x-a: '${secrets:KEY}'}}}}";
        let otlp = read(written, &[environment.as_slice(), &[("KEY", "hunter2")]].concat()).unwrap().unwrap();
        assert_eq!(
            (otlp.endpoint.to_string().as_str(), otlp.protocol),
            ("https://own:1/", OtlpProtocol::Grpc)
        );
        assert_eq!(
            (&otlp.headers["x-a"], otlp.push_interval),
            (&"hunter2".parse().unwrap(), Duration::from_secs(5))
        );
        assert_eq!(otlp.resource, [("service.name".to_owned(), "pod".to_owned())]);
        assert!(!format!("{otlp:?}").contains("hunter2"), "{otlp:?}");
    }

    #[test]
    fn what_cannot_be_is_said_in_words() {
        let wrong = |environment: &[(&str, &str)]| read("{}", environment).unwrap_err();
        assert!(wrong(&[(ENDPOINT, "collector:4317")]).contains("is no endpoint"));
        assert!(wrong(&[(ENDPOINT, "http://c:1"), (PROTOCOL, "http/json")]).contains("unknown protocol"));
        assert!(wrong(&[(ENDPOINT, "http://c:1"), (HEADERS, "nonsense")]).contains("no `name=value`"));
        let missing =
            "{telemetry: {otel_exporter: {endpoint: 'http://c:1', headers: {x-a: '${secrets:NOPE}'}}}}";
        assert!(read(missing, &[]).unwrap_err().contains("NOPE"));
        let endpoint = "{telemetry: {otel_exporter: {endpoint: 'http://me:pw@c:1'}}}";
        assert!(read(endpoint, &[]).unwrap_err().contains("is no endpoint"));
    }
}
