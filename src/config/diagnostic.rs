//! What is wrong with a spicepod, and where: the text a person reads.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A place in the spicepod; lines and columns count from 1, `len` is in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub line: usize,
    pub column: usize,
    pub len: usize,
}

/// The file that spans point into.
#[derive(Debug)]
pub struct SourceFile {
    pub path: PathBuf,
    pub text: String,
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

/// All problems of one spicepod, in the order of the file. Never empty.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    pub source: Option<Arc<SourceFile>>,
    pub problems: Vec<Diagnostic>,
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

impl std::error::Error for Diagnostics {}
