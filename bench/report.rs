//! The table: rounds enter, Markdown leaves.

use std::fmt::Write as _;
use std::time::Duration;

/// One round, both ways: the time of one read.
pub struct Sample {
    pub direct: Duration,
    pub through: Duration,
}

/// All rounds of one case.
pub struct Row {
    pub name: &'static str,
    pub bytes: usize,
    pub samples: Vec<Sample>,
}

/// What is shown of many rounds.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { least: at(0), median: at(values.len() / 2), most: at(values.len().saturating_sub(1)) }
    }
}

/// The whole file: what it was measured with, and the table.
pub fn render(rows: &[Row], rounds: usize) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut text = format!(
        "# Federated reads, through the sidecar ÷ direct\n\n\
         sidewing {} on {} {}, {cores} cores, {}. Median of {rounds} rounds, in brackets the least and the \
         most; `bench/README.md` says what is measured.\n\n\
         | read | direct | through | through ÷ direct |\n|---|---|---|---|\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        chrono::Utc::now().format("%Y-%m-%d"),
    );
    for row in rows {
        let direct = Spread::of(row.samples.iter().map(|sample| sample.direct.as_secs_f64()));
        let through = Spread::of(row.samples.iter().map(|sample| sample.through.as_secs_f64()));
        let ratio = Spread::of(row.samples.iter().map(|s| s.through.as_secs_f64() / s.direct.as_secs_f64()));
        let (direct, through) = (time(&direct, row.bytes), time(&through, row.bytes));
        let Spread { least, median, most } = ratio;
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "| {} | {direct} | {through} | {median:.2} ({least:.2} – {most:.2}) |", row.name);
    }
    text
}

/// Milliseconds, and the rate where there is enough to speak of one.
fn time(spread: &Spread, bytes: usize) -> String {
    let Spread { least, median, most } = spread;
    let mut text = format!("{:.3} ms ({:.3} – {:.3})", median * 1e3, least * 1e3, most * 1e3);
    if bytes > 1_000_000 {
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown without decimals")]
        let rate = bytes as f64 / median / 1e6;
        let _ = write!(text, ", {rate:.0} MB/s");
    }
    text
}
