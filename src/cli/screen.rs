//! How far loads are, on standard error: on a terminal a line each that changes in place, else a line every few seconds.
//!
//! Whoever else writes to the terminal meanwhile goes through here, so that no line is written into another.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Between two lines where they cannot be drawn in place.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The loads that are shown now.
pub(super) struct Screen {
    drawn: MultiProgress,
    lines: BTreeMap<String, ProgressBar>,
    is_terminal: bool,
    /// When plain lines were written last, or would have been.
    told: Instant,
}

/// Writes to standard error above the lines that are drawn.
#[derive(Clone)]
pub(super) struct Above(MultiProgress);

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            // Draws on standard error, and only on a terminal.
            drawn: MultiProgress::new(),
            lines: BTreeMap::new(),
            is_terminal: io::stderr().is_terminal(),
            told: Instant::now(),
        }
    }

    /// Where the log goes while loads are shown.
    pub(super) fn above(&self) -> Above {
        Above(self.drawn.clone())
    }

    /// Runs `write`, which writes to the terminal, with no line in its way.
    pub(super) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.drawn.suspend(write)
    }

    /// Shows these loads, each with how far it is, and no others.
    pub(super) fn show(&mut self, loads: &[(String, String)]) {
        match self.is_terminal {
            true => self.draw(loads),
            false => self.tell(loads),
        }
    }

    fn draw(&mut self, loads: &[(String, String)]) {
        let is_shown = |name: &String| loads.iter().any(|(load, _)| load == name);
        self.lines.retain(|name, line| {
            let stays = is_shown(name);
            if !stays {
                line.finish_and_clear();
            }
            stays
        });
        for (name, text) in loads {
            let line = self.lines.entry(name.clone()).or_insert_with(|| {
                // The template is right; were it not, the plain one shows the same text.
                let style = ProgressStyle::with_template("  {prefix}  {spinner} {wide_msg}");
                let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
                let line = ProgressBar::new_spinner().with_style(style).with_prefix(name.clone());
                self.drawn.add(line)
            });
            line.set_message(text.clone());
            line.tick();
        }
    }

    fn tell(&mut self, loads: &[(String, String)]) {
        if self.told.elapsed() < PLAIN_INTERVAL {
            return;
        }
        self.told = Instant::now();
        for (name, text) in loads {
            eprintln!("  {name}  {text}");
        }
    }
}

/// Half-drawn lines are no good to whoever writes next.
impl Drop for Screen {
    fn drop(&mut self) {
        self.lines.values().for_each(ProgressBar::finish_and_clear);
    }
}

impl Write for Above {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
