//! The reference of all metrics for people: the catalogue enters, `docs/metrics.md` leaves.

use std::fmt::Write;

use super::catalogue::{ALIASES, Kind, Label, METRICS, Metric, SECTIONS};

/// The text of `docs/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Made from `src/telemetry/metrics/catalogue.rs`: `SIDEWING_BLESS=1 cargo test --test it telemetry` writes it anew.\n\n\
         Any path of the metrics address (`127.0.0.1:9090` by default) answers them in Prometheus' text format. The SQL table \
         `runtime.metrics` has the same numbers, and so has what is pushed by OTLP. All that has no label, or only labels \
         whose values are listed here, is there from the start at 0. Names are the public Spice.ai runtime's where it has the \
         metric.\n",
    );
    let mut sections = SECTIONS.iter().peekable();
    for metric in METRICS {
        if let Some((title, _)) = sections.next_if(|(_, first)| *first == metric.name) {
            // A string takes everything.
            let _ = write!(
                text,
                "\n## {title}\n\n| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n"
            );
        }
        let _ = writeln!(text, "{}", row(metric));
    }
    text.push_str("\n## Second names\n\nThe same numbers under the names of the deployment guide.\n\n| name | is |\n|---|---|\n");
    for (also, of) in ALIASES {
        let _ = writeln!(text, "| `{also}` | `{of}` |");
    }
    let histogram = METRICS.iter().filter(|metric| metric.kind == Kind::Histogram);
    text.push_str("\n## Buckets\n\n| histogram | upper bounds |\n|---|---|\n");
    for metric in histogram {
        let bounds: Vec<String> = metric.bounds.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "| `{}` | {} |", metric.name, bounds.join(", "));
    }
    text
}

fn row(metric: &Metric) -> String {
    let Metric { name, kind, unit, labels, help, .. } = metric;
    let labels: Vec<String> = labels.iter().map(|label| shown(*label)).collect();
    format!("| `{name}` | {} | {} | {} | {help} |", kind.word(), unit.word(), labels.join("; "))
}

fn shown(label: Label) -> String {
    match label {
        Label::Open(name) => format!("`{name}`"),
        Label::Of(name, values) => format!("`{name}`: {}", values.join(", ")),
    }
}
