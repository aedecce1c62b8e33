//! Which form of answer a client asked for, by its Accept header (RFC 9110 section 12.5.1).

use ::http::HeaderMap;
use ::http::header::ACCEPT;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
    Plain,
}

/// In the order of our own preference.
const FORMATS: [Format; 3] = [Format::Json, Format::Csv, Format::Plain];

impl Format {
    /// The type and subtype that ask for it.
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
            Self::Plain => ("text", "plain"),
        }
    }

    /// The Content-Type of the answer.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Plain => "text/plain; charset=utf-8",
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

/// The format of the highest weight; among equals the one written first, then our own preference.
/// `None` when the client takes none of ours; JSON when it does not say.
pub(super) fn negotiate(headers: &HeaderMap) -> Option<Format> {
    if !headers.contains_key(ACCEPT) {
        return Some(Format::Json);
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
    for format in FORMATS {
        let Some(rank) = rank(format) else { continue };
        if best.is_none_or(|(highest, _)| rank > highest) {
            best = Some((rank, format));
        }
    }
    best.map(|(_, format)| format)
}

/// Whether the client names JSON itself: its errors are then JSON too.
pub(super) fn names_json(headers: &HeaderMap) -> bool {
    ranges(headers).iter().any(|range| range.weight > 0 && range.closeness(Format::Json) == Some(3))
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
        assert_eq!(asked("text/html,application/xhtml+xml,*/*;q=0.8"), Some(Format::Json));
    }

    #[test]
    fn nothing_of_ours_is_none() {
        for accept in ["image/png", "application/json;q=0", "nonsense", "text/csv;q=2"] {
            assert_eq!(asked(accept), None, "{accept}");
        }
    }
}
