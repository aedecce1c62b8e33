//! What is wrong with a spicepod, and where: the text a person reads.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::excerpt::Excerpt;
use super::text::printable;

/// Problems that are printed; the rest is counted.
const SHOWN_MAX: usize = 100;

/// A place in the spicepod; lines and columns count from 1, `len` is in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub line: usize,
    pub column: usize,
    pub len: usize,
}

/// The file that spans point into.
pub struct SourceFile {
    pub path: PathBuf,
    pub text: String,
}

/// The text may hold secrets: only its length is shown.
impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceFile({}, {} bytes)", self.path.display(), self.text.len())
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// An error name that a user can search for, e.g. `UnsupportedEndpointScheme`.
    pub code: Option<&'static str>,
    /// What is wrong, in one sentence without a full stop; names the dataset where there is one.
    pub message: String,
    pub at: Option<Span>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem with a name, without a place.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Some(code), message: message.into(), at: None, help: None }
    }

    #[must_use]
    pub fn at(mut self, at: Span) -> Self {
        self.at = Some(at);
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All problems of one spicepod, in the order of the file. Never empty.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    pub source: Option<Arc<SourceFile>>,
    pub problems: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Problems of one file, put in the order of the file; those without a place come last.
    #[must_use]
    pub fn new(source: Arc<SourceFile>, mut problems: Vec<Diagnostic>) -> Self {
        problems.sort_by_key(|problem| (problem.at.is_none(), problem.at));
        Self { source: Some(source), problems }
    }

    /// A spicepod that cannot be read at all.
    #[must_use]
    pub fn unreadable(path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot read {}: {error}", path.display());
        Self { source: None, problems: vec![Diagnostic::new("UnreadableSpicepod", message)] }
    }

    /// Problems that stand in no file.
    #[must_use]
    pub fn without_source(problems: Vec<Diagnostic>) -> Self {
        Self { source: None, problems }
    }

    /// Writes problems as blocks, each headed by `severity`.
    fn blocks(&self, f: &mut fmt::Formatter<'_>, severity: &str) -> fmt::Result {
        for problem in self.problems.iter().take(SHOWN_MAX) {
            match problem.code {
                Some(code) => write!(f, "{severity}[{code}]: ")?,
                None => write!(f, "{severity}: ")?,
            }
            writeln!(f, "{}", Safe(&problem.message))?;
            if let (Some(source), Some(at)) = (&self.source, problem.at) {
                write!(f, "{}", Excerpt { source, at })?;
            }
            if let Some(help) = &problem.help {
                writeln!(f, "  = help: {}", Safe(help))?;
            }
            writeln!(f)?;
        }
        match self.problems.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more\n"),
        }
    }

    fn count(&self, f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
        let count = self.problems.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} {what}{plural}")?;
        match &self.source {
            Some(source) => write!(f, " in {}", Safe(&source.path.display().to_string())),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.blocks(f, "error")?;
        self.count(f, "problem")
    }
}

impl std::error::Error for Diagnostics {}

/// The same blocks for advice that does not stop the program.
pub struct Warnings(pub Diagnostics);

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.blocks(f, "warning")?;
        self.0.count(f, "warning")
    }
}

/// Text that cannot steer a terminal.
pub(super) struct Safe<'a>(pub(super) &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.0.chars().flat_map(printable).try_for_each(|c| f.write_char(c))
    }
}
