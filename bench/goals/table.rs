//! What was found: figures of each subject enter, the table leaves. Nothing is left out: what could not be measured
//! says why.

use std::future::Future;

use crate::Result;
use crate::context::Bench;
use crate::report::{self, Section, Spread};
use crate::rows::{self, ROWS};

/// What was measured for one row.
pub struct Finding {
    pub row: &'static str,
    /// What the goal is compared with; none where a peer is missing.
    pub ratio: Option<Spread>,
    /// Everything else that was seen.
    pub figures: String,
}

/// A small table below: its title, its columns, its lines.
pub struct Details {
    pub title: &'static str,
    pub columns: &'static [&'static str],
    pub lines: Vec<Vec<String>>,
}

/// What a subject hands over.
#[derive(Default)]
pub struct Findings {
    pub rows: Vec<Finding>,
    pub details: Option<Details>,
}

impl From<Vec<Finding>> for Findings {
    fn from(rows: Vec<Finding>) -> Self {
        Self { rows, details: None }
    }
}

/// All of it.
#[derive(Default)]
pub struct Table {
    rows: Vec<Finding>,
    details: Vec<Details>,
}

impl Table {
    /// Runs a subject when one of its rows is wanted. Its failure is the figure of those rows, not the end of the table.
    pub async fn add(
        &mut self,
        bench: &Bench,
        rows: &[&'static str],
        subject: impl Future<Output = Result<Findings>>,
    ) {
        let wanted: Vec<&'static str> = rows.iter().copied().filter(|row| bench.wants(row)).collect();
        if wanted.is_empty() {
            return;
        }
        eprintln!("goals: {} …", wanted.join(", "));
        match subject.await {
            Ok(found) => {
                self.rows.extend(found.rows);
                self.details.extend(found.details);
            }
            Err(error) => self.rows.extend(wanted.iter().map(|row| Finding {
                row,
                ratio: None,
                figures: format!("not measured: {}", error.to_string().replace(['\n', '|'], " ")),
            })),
        }
    }

    pub async fn publish(self, bench: &Bench) -> Result<()> {
        let lines = ROWS
            .iter()
            .filter(|row| bench.wants(row.name))
            .map(|row| line(row, self.rows.iter().find(|finding| finding.row == row.name)))
            .collect();
        let section = Section {
            title: "Goals",
            measured: bench.head(),
            columns: &["row", "measured", "÷", "figures", "ratio or figure", "goal", "reached", "command"],
            lines,
        };
        report::publish(&section, bench.options.write)?;
        for Details { title, columns, lines } in self.details {
            let measured = "The rows above in detail".to_owned();
            report::publish(&Section { title, measured, columns, lines }, bench.options.write)?;
        }
        Ok(())
    }
}

fn line(row: &rows::Row, found: Option<&Finding>) -> Vec<String> {
    let ratio = found.and_then(|finding| finding.ratio.as_ref());
    let reached = match ratio {
        Some(ratio) if row.goal.reached(ratio.median) => "yes",
        Some(_) => "no",
        None => "not measured",
    };
    vec![
        row.name.to_owned(),
        row.measured.to_owned(),
        row.against.to_owned(),
        found.map_or_else(|| "not measured".to_owned(), |finding| finding.figures.clone()),
        ratio.map_or_else(|| "–".to_owned(), |ratio| ratio.shown(1.0, decimals(ratio.median), "")),
        row.goal.shown(),
        reached.to_owned(),
        format!("`cargo bench --bench goals -- --only {}`", row.name),
    ]
}

/// As many as tell something.
fn decimals(value: f64) -> usize {
    if value.abs() < 10.0 { 2 } else { 1 }
}
