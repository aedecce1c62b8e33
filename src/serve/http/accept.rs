//! Which form of answer a client asked for, by its Accept header (RFC 9110 section 12.5.1).

use ::http::HeaderMap;
use ::http::header::ACCEPT;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
    Plain,
    /// JSON with the schema beside the rows, as Spice.ai's clients ask for it.
    Spice,
    /// An Arrow IPC stream.
    Arrow,
}

/// In the order of our own preference.
pub(super) const FORMATS: [Format; 5] =
    [Format::Json, Format::Csv, Format::Plain, Format::Spice, Format::Arrow];

impl Format {
    /// The type and subtype that ask for it.
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
            Self::Plain => ("text", "plain"),
            Self::Spice => ("application", "vnd.spiceai.sql.v1+json"),
            Self::Arrow => ("application", "vnd.apache.arrow.stream"),
        }
    }

    /// The Content-Type of the answer.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Plain => "text/plain; charset=utf-8",
            Self::Spice => "application/vnd.spiceai.sql.v1+json",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// One media range with its weight in thousandths.
struct Range {
    kind: String,
    subkind: String,
    weight: u16,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subkind) = parts.next()?.split_once('/')?;
        let weight = parts
            .filter_map(|param| param.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(Some(1000), |(_, value)| thousandths(value.trim()))?;
        Some(Self {
            kind: kind.trim().to_ascii_lowercase(),
            subkind: subkind.trim().to_ascii_lowercase(),
            weight,
        })
    }

    /// How closely the range names the format: 3 by name, 2 by `type/*`, 1 by `*/*`.
    fn closeness(&self, format: Format) -> Option<u8> {
        let (kind, subkind) = format.media_type();
        match (self.kind.as_str(), self.subkind.as_str()) {
            ("*", "*") => Some(1),
            (k, "*") if k == kind => Some(2),
            (k, s) if k == kind && s == subkind => Some(3),
            _ => None,
        }
    }
}

/// `0.75` to 750; `None` for what is no weight.
fn thousandths(text: &str) -> Option<u16> {
    let weight: f64 = text.parse().ok()?;
    // Checked range: the cast is exact.
    (0.0..=1.0).contains(&weight).then(|| (weight * 1000.0).round() as u16)
}

fn ranges(headers: &HeaderMap) -> Vec<Range> {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(Range::parse).collect()
}

/// [`negotiate_among`] all of them.
pub(super) fn negotiate(headers: &HeaderMap) -> Option<Format> {
    negotiate_among(headers, &FORMATS)
}

/// The format of the highest weight; among equals the one written first, then that of `formats`.
/// `None` when the client takes none of them; the first one when it does not say.
pub(super) fn negotiate_among(headers: &HeaderMap, formats: &[Format]) -> Option<Format> {
    if !headers.contains_key(ACCEPT) {
        return formats.first().copied();
    }
    let ranges = ranges(headers);
    let rank = |format: Format| {
        let named = ranges.iter().enumerate().filter_map(|(at, range)| {
            range.closeness(format).map(|closeness| (closeness, std::cmp::Reverse(at), range.weight))
        });
        let (_, at, weight) = named.max()?;
        (weight > 0).then_some((weight, at))
    };
    let mut best = None;
    for &format in formats {
        let Some(rank) = rank(format) else { continue };
        if best.is_none_or(|(highest, _)| rank > highest) {
            best = Some((rank, format));
        }
    }
    best.map(|(_, format)| format)
}

/// Whether the client takes JSON by name, or any form of it: its errors are then JSON too. `*/*` says nothing: what people
/// type commands into sends it.
pub(super) fn takes_json(headers: &HeaderMap) -> bool {
    let is_json = |range: &Range| {
        let subkind = range.subkind.as_str();
        range.kind == "application" && (matches!(subkind, "json" | "*") || subkind.ends_with("+json"))
    };
    ranges(headers).iter().any(|range| range.weight > 0 && is_json(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &str) -> Option<Format> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        negotiate(&headers)
    }

    #[test]
    fn the_best_weight_wins_then_the_first_written() {
        assert_eq!(negotiate(&HeaderMap::new()), Some(Format::Json));
        assert_eq!(asked("*/*"), Some(Format::Json));
        assert_eq!(asked("text/csv"), Some(Format::Csv));
        assert_eq!(asked("TEXT/Plain; charset=utf-8"), Some(Format::Plain));
        assert_eq!(asked("text/plain, application/json"), Some(Format::Plain));
        assert_eq!(asked("text/plain;q=0.5, application/json;q=0.6"), Some(Format::Json));
        assert_eq!(asked("text/*"), Some(Format::Csv));
        assert_eq!(asked("text/*, text/csv;q=0.1"), Some(Format::Plain));
        assert_eq!(asked("application/json;q=0, */*"), Some(Format::Csv));
        assert_eq!(asked("application/*"), Some(Format::Json));
        assert_eq!(asked("application/vnd.spiceai.sql.v1+json, */*;q=0.1"), Some(Format::Spice));
        assert_eq!(asked("application/vnd.apache.arrow.stream"), Some(Format::Arrow));
        assert_eq!(asked("text/html,application/xhtml+xml,*/*;q=0.8"), Some(Format::Json));
    }

    #[test]
    fn who_takes_json_takes_errors_in_it() {
        let takes = |accept: &str| takes_json(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]));
        for accept in ["application/json", "text/csv, application/problem+json;q=0.1", "application/*"] {
            assert!(takes(accept), "{accept}");
        }
        for accept in
            ["*/*", "text/csv", "application/json;q=0", "text/json", "application/vnd.apache.arrow.stream"]
        {
            assert!(!takes(accept), "{accept}");
        }
        assert!(!takes_json(&HeaderMap::new()));
    }

    #[test]
    fn nothing_of_ours_is_none() {
        for accept in ["image/png", "application/json;q=0", "nonsense", "text/csv;q=2"] {
            assert_eq!(asked(accept), None, "{accept}");
        }
    }
}
