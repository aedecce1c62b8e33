//! Bounded reading of small text files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

/// Why a file gave no text.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("it is not UTF-8 text (line {line})")]
    NotText { line: usize },
}

impl ReadError {
    /// Whether there is no such file.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a regular UTF-8 file of at most `bytes_max`, without its byte order mark.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<String, ReadError> {
    // Opening a named pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(ReadError::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(ReadError::TooLarge(bytes_max));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        ReadError::NotText { line: good.iter().filter(|byte| **byte == b'\n').count() + 1 }
    })?;
    match text.strip_prefix('\u{feff}') {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, "\u{feff}abc").unwrap();
        assert_eq!(read(&path, 10).unwrap(), "abc");
        assert!(matches!(read(&path, 5), Err(ReadError::TooLarge(5))));
        std::fs::write(&path, b"a\n\xff").unwrap();
        assert!(matches!(read(&path, 5), Err(ReadError::NotText { line: 2 })));
        assert!(matches!(read(directory.path(), 5), Err(ReadError::NotAFile)));
        assert!(read(&directory.path().join("absent"), 5).unwrap_err().is_not_found());
    }
}
