//! The SQL of a view: written in the spicepod, or in a file beside it.

use std::path::Path;

use super::file::{self, ReadError};
use super::yaml::Node;
use super::{Diagnostic, Span};

/// Bytes of a view's SQL file.
const BYTES_MAX: u64 = 1 << 20;

/// The statement; `None` where the checker has already said what is wrong.
pub(super) fn read(item: &Node, directory: &Path, subject: &str) -> Result<Option<String>, Box<Diagnostic>> {
    let problem = |code, message: String, at: Span| {
        Box::new(Diagnostic::new(code, format!("{subject}: {message}")).at(at))
    };
    let (sql, at) = match (item.entry("sql"), item.entry("sql_ref")) {
        (Some(_), Some((key, _))) => {
            let message = "`sql` and `sql_ref` exclude each other".to_owned();
            return Err(problem("InvalidValue", message, key.at));
        }
        (None, None) if item.get("ref").is_some() => return Ok(None),
        (None, None) => {
            let message = "a view needs `sql` or `sql_ref`".to_owned();
            return Err(problem("MissingField", message, item.at));
        }
        (Some((_, node)), None) => (node.text().map(str::to_owned), node.at),
        (None, Some((_, node))) => {
            let Some(path) = node.text() else { return Ok(None) };
            let path = directory.join(path);
            let text = file::read(&path, BYTES_MAX)
                .map_err(|error| problem("UnreadableFile", sql_ref_problem(&path, &error), node.at))?;
            (Some(text), node.at)
        }
    };
    match sql {
        Some(sql) if sql.trim().is_empty() => {
            Err(problem("InvalidValue", "the view's SQL is empty".into(), at))
        }
        sql => Ok(sql),
    }
}

fn sql_ref_problem(path: &Path, error: &ReadError) -> String {
    format!("`sql_ref`: cannot read {}: {error}", path.display())
}
