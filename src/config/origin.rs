//! The `from:` of a dataset: which connector, and what follows its name.

use super::text::{nearest, shorten};
use super::types::Connector;

/// Schemes that are written where a connector should stand.
const SCHEMES: &[&str] = &["http", "https", "grpc+tls", "grpc", "grpcs", "grpc+tcp"];

/// What was read from a `from:`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) connector: Connector,
    pub(super) path: String,
}

/// A `from:` that names no dataset of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OriginError {
    pub(super) message: String,
    pub(super) help: String,
}

/// Splits `from:` into connector and path; no connector at all means spice.ai.
pub(super) fn parse(text: &str) -> Result<Parsed, OriginError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(error("`from` is empty".to_owned(), EXAMPLE.to_owned()));
    }
    let (connector, path) = split(text)?;
    // `spice.ai://org/app/datasets/t` is another spelling of `spice.ai:org/app/datasets/t`.
    let path = match connector {
        Connector::SpiceAi => path.strip_prefix("//").unwrap_or(path),
        Connector::FlightSql => path,
    };
    match path.trim().is_empty() {
        true => Err(error(format!("`from: {}` names no table", shorten(text)), EXAMPLE.to_owned())),
        false => Ok(Parsed { connector, path: path.trim().to_owned() }),
    }
}

const EXAMPLE: &str =
    "write `spice.ai:https://host:50051`, `spice.ai:<org>/<app>/datasets/<table>` or `flightsql:<table>`";

fn split(text: &str) -> Result<(Connector, &str), OriginError> {
    for name in ["spice.ai", "spiceai"] {
        if let Some(path) = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('/')) {
            return Ok((Connector::SpiceAi, path));
        }
        if text == name {
            return Ok((Connector::SpiceAi, ""));
        }
    }
    // A quoted table name may hold a colon.
    let Some((name, path)) = text.split_once(':').filter(|_| !text.starts_with('"')) else {
        return Ok((Connector::SpiceAi, text));
    };
    match name {
        "spice.ai" | "spiceai" => Ok((Connector::SpiceAi, path)),
        "flightsql" => Ok((Connector::FlightSql, path)),
        _ => Err(unknown(text, name)),
    }
}

fn unknown(text: &str, name: &str) -> OriginError {
    let lower = name.to_lowercase();
    if SCHEMES.contains(&lower.as_str()) {
        let message = "`from` begins with an endpoint, not with a connector".to_owned();
        // What stands before `@` is a credential, which no message repeats.
        let endpoint = if text.contains('@') { "https://host:port".to_owned() } else { shorten(text) };
        return error(message, format!("write `from: spice.ai:{endpoint}`"));
    }
    let message = format!(
        "connector `{}` is not supported: sidewing reads from Flight upstreams (`spice.ai`, `flightsql`)",
        shorten(name)
    );
    let help = match nearest(name, ["spice.ai", "spiceai", "flightsql"]) {
        Some(near) => format!("did you mean `{near}:`?"),
        None => {
            "serve the table from a Spice.ai runtime or a Flight SQL server, and name that here".to_owned()
        }
    };
    error(message, help)
}

fn error(message: String, help: String) -> OriginError {
    OriginError { message, help }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form() {
        use Connector::{FlightSql, SpiceAi};
        for (text, connector, path) in [
            ("spice.ai:https://h:1", SpiceAi, "https://h:1"),
            ("spiceai:grpc+tls://h:1", SpiceAi, "grpc+tls://h:1"),
            ("spice.ai:https://h:1/schema.table", SpiceAi, "https://h:1/schema.table"),
            ("spice.ai/org/app/datasets/t", SpiceAi, "org/app/datasets/t"),
            ("spice.ai:org/app/datasets/t", SpiceAi, "org/app/datasets/t"),
            ("spice.ai://org/app/datasets/t", SpiceAi, "org/app/datasets/t"),
            ("spiceai/t", SpiceAi, "t"),
            ("my_table", SpiceAi, "my_table"),
            ("schema.table", SpiceAi, "schema.table"),
            ("org/app/datasets/t", SpiceAi, "org/app/datasets/t"),
            ("\"a:b\".t", SpiceAi, "\"a:b\".t"),
            ("flightsql:s.t", FlightSql, "s.t"),
        ] {
            assert_eq!(parse(text), Ok(Parsed { connector, path: path.into() }), "{text}");
        }
    }

    #[test]
    fn refusals_help() {
        let help = |text: &str| parse(text).unwrap_err().help;
        assert_eq!(help("https://host:1"), "write `from: spice.ai:https://host:1`");
        assert_eq!(help("flighsql:t"), "did you mean `flightsql:`?");
        assert!(!help("https://u:hunter2@host").contains("hunter2"));
        assert!(parse("postgres:t").unwrap_err().message.contains("`postgres` is not supported"));
        for bad in ["", "spice.ai", "spice.ai:", "spice.ai:// ", "flightsql:"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", near in "(spice.ai|spiceai|flightsql|[:/\"@]){0,6}") {
            let _ = parse(&text);
            let _ = parse(&near);
        }

        #[test]
        fn a_path_is_kept(path in "[a-z][a-z0-9_./]{0,20}") {
            prop_assert_eq!(parse(&format!("flightsql:{path}")).unwrap().path, path);
        }
    }
}
