//! The results: a table enters, Markdown leaves; each bench keeps its own section of one file.

use crate::Result;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/RESULTS.md");

/// What one bench found.
pub struct Section {
    /// Its heading, by which a later run finds the section again.
    pub title: &'static str,
    /// How often, at what size: the end of the line under the heading.
    pub measured: String,
    pub columns: &'static [&'static str],
    /// As many cells each as there are columns.
    pub lines: Vec<Vec<String>>,
}

/// What is shown of many rounds.
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { least: at(0), median: at(values.len() / 2), most: at(values.len().saturating_sub(1)) }
    }

    /// `median unit (least – most)`, every number times `factor`.
    pub fn shown(&self, factor: f64, decimals: usize, unit: &str) -> String {
        let [least, median, most] = [self.least, self.median, self.most].map(|value| value * factor);
        format!("{median:.decimals$}{unit} ({least:.decimals$} – {most:.decimals$})")
    }
}

/// Prints the section, and with `keep` puts it in its place of the file.
pub fn publish(section: &Section, keep: bool) -> Result<()> {
    let text = section.markdown();
    println!("\n{text}");
    if keep {
        let before = std::fs::read_to_string(FILE).unwrap_or_default();
        std::fs::write(FILE, replaced(&before, section.title, &text))?;
    }
    Ok(())
}

impl Section {
    fn markdown(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let mut text = format!(
            "# {}\n\nsidewing {} on {} {}, {cores} cores, {}. {}; `bench/README.md` says what is measured.\n\n",
            self.title,
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH,
            chrono::Utc::now().format("%Y-%m-%d"),
            self.measured,
        );
        let columns = self.columns.join(" | ");
        text.push_str(&format!("| {columns} |\n|{}\n", "---|".repeat(self.columns.len())));
        for line in &self.lines {
            text.push_str(&format!("| {} |\n", line.join(" | ")));
        }
        text
    }
}

/// `file` with the section called `title` replaced by `text`; a new section goes to the end.
fn replaced(file: &str, title: &str, text: &str) -> String {
    let mut sections: Vec<String> = Vec::new();
    for line in file.lines() {
        match sections.last_mut() {
            Some(section) if !line.starts_with("# ") => *section += &format!("{line}\n"),
            _ => sections.push(format!("{line}\n")),
        }
    }
    let heading = format!("# {title}\n");
    match sections.iter_mut().find(|section| section.starts_with(&heading)) {
        Some(section) => text.clone_into(section),
        None => sections.push(text.to_owned()),
    }
    let trimmed: Vec<&str> = sections.iter().map(|section| section.trim_end()).collect();
    trimmed.join("\n\n") + "\n"
}
