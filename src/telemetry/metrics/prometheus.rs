//! Prometheus' text format 0.0.4: families enter, text leaves.
//!
//! Names are written as the public runtime writes them, without the suffixes that OpenMetrics asks of counters and units:
//! dashboards know them so. `# UNIT` is a comment to parsers of this format, and a word to people.

use std::fmt::{self, Write};

use super::buckets::Counted;
use super::registry::{Family, Number, Series};

/// Every family that has series.
pub(super) fn text(families: &[Family]) -> String {
    let mut text = String::with_capacity(families.len() * 256);
    for family in families.iter().filter(|family| !family.series.is_empty()) {
        // A string takes everything.
        let _ = write_family(&mut text, family);
    }
    text
}

fn write_family(out: &mut String, family: &Family) -> fmt::Result {
    let Family { name, help, unit, kind, series } = family;
    if !help.is_empty() {
        writeln!(out, "# HELP {name} {}", help.replace('\\', "\\\\").replace('\n', "\\n"))?;
    }
    if !unit.is_empty() {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    writeln!(out, "# TYPE {name} {}", kind.word())?;
    series.iter().try_for_each(|series| write_series(out, name, series))
}

fn write_series(out: &mut String, name: &str, series: &Series) -> fmt::Result {
    let labels = &series.labels;
    match &series.number {
        Number::Counter(count) => writeln!(out, "{name}{} {count}", Labels(labels, None)),
        Number::Gauge(value) => writeln!(out, "{name}{} {}", Labels(labels, None), Value(*value)),
        Number::Histogram(counted) => write_histogram(out, name, labels, counted),
    }
}

fn write_histogram(
    out: &mut String,
    name: &str,
    labels: &[(String, String)],
    counted: &Counted,
) -> fmt::Result {
    let mut below = 0;
    for (bound, count) in counted.bounds.iter().zip(&counted.counts) {
        below += count;
        writeln!(out, "{name}_bucket{} {below}", Labels(labels, Some(&bound.to_string())))?;
    }
    // Of one look, so that the parts agree.
    let count = counted.count();
    writeln!(out, "{name}_bucket{} {count}", Labels(labels, Some("+Inf")))?;
    writeln!(out, "{name}_sum{} {}", Labels(labels, None), Value(counted.sum))?;
    writeln!(out, "{name}_count{} {count}", Labels(labels, None))
}

/// Labels in braces, with `le` last where there is one; nothing without any.
struct Labels<'a>(&'a [(String, String)], Option<&'a str>);

struct Value(f64);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(labels, le) = self;
        let own = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        for (at, (key, value)) in own.chain(le.map(|le| ("le", le))).enumerate() {
            f.write_str(if at == 0 { "{" } else { "," })?;
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{key}=\"{value}\"")?;
        }
        f.write_str(if labels.is_empty() && le.is_none() { "" } else { "}" })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value == f64::INFINITY => f.write_str("+Inf"),
            value if value == f64::NEG_INFINITY => f.write_str("-Inf"),
            value => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Kind;
    use super::*;

    #[test]
    fn families_are_written_as_the_format_wants_them() {
        let labels = |value: &str| vec![("dataset".to_owned(), value.to_owned())];
        let counted = Counted { bounds: &[0.5, 10.0], counts: vec![1, 0, 2], sum: 42.5 };
        let families = [
            Family {
                name: "rows".to_owned(),
                help: "Rows\nof a \\ table.".to_owned(),
                unit: "",
                kind: Kind::Counter,
                series: vec![Series { labels: labels("a \"b\"\n\\"), number: Number::Counter(3) }],
            },
            Family {
                name: "took_ms".to_owned(),
                help: "How long it took.".to_owned(),
                unit: "milliseconds",
                kind: Kind::Histogram,
                series: vec![Series { labels: labels("t"), number: Number::Histogram(counted) }],
            },
            Family {
                name: "limit".to_owned(),
                help: String::new(),
                unit: "",
                kind: Kind::Gauge,
                series: vec![Series { labels: Vec::new(), number: Number::Gauge(f64::INFINITY) }],
            },
            Family {
                name: "none".to_owned(),
                help: "No series.".to_owned(),
                unit: "",
                kind: Kind::Gauge,
                series: Vec::new(),
            },
        ];
        insta::assert_snapshot!(text(&families));
    }
}
