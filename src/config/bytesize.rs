//! Sizes as spicepods write them: `4MB`, `16MiB`, `512` (bytes).
//!
//! `KB`, `MB`, `GB` are powers of 1000, `KiB`, `MiB`, `GiB` powers of 1024, in any case.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::duration::Decimal;

/// Units by lower-case spelling, in bytes.
const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1_000),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("tb", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("kib", 1 << 10),
    ("mi", 1 << 20),
    ("mib", 1 << 20),
    ("gi", 1 << 30),
    ("gib", 1 << 30),
    ("ti", 1 << 40),
    ("tib", 1 << 40),
];

/// How a size is shown: the first unit that divides it.
const SHOWN: &[(&str, u64)] = &[
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A number of bytes as spicepods write it.
///
/// ```
/// use sidewing::config::ByteSize;
/// assert_eq!("4MB".parse::<ByteSize>().unwrap().bytes(), 4_000_000);
/// assert_eq!("16mib".parse::<ByteSize>().unwrap().to_string(), "16MiB");
/// assert!("4 bananas".parse::<ByteSize>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Text that is not a size; says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ByteSizeError {
    #[error("a size is empty: expected one such as `4MB` or `16MiB`")]
    Empty,
    #[error("`{0}` is negative: a size cannot be")]
    Negative(String),
    #[error("`{text}` is not a size: `{unit}` is not a unit (B, KB, MB, GB, KiB, MiB, GiB)")]
    Unit { text: String, unit: String },
    #[error("`{0}` is not a size: expected one such as `4MB` or `16MiB`")]
    Form(String),
    #[error("`{0}` is too large a size")]
    TooLarge(String),
}

impl ByteSize {
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, scale): &&(&str, u64)| self.0 >= *scale && self.0.is_multiple_of(*scale);
        match SHOWN.iter().find(fits) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let shown = || super::text::shorten(text);
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(ByteSizeError::Empty);
        }
        if rest.starts_with('-') {
            return Err(ByteSizeError::Negative(shown()));
        }
        let number = Decimal::take(&mut rest).ok_or_else(|| ByteSizeError::Form(shown()))?;
        let unit = rest.trim();
        let lower = unit.to_ascii_lowercase();
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == lower) else {
            return Err(match unit.chars().all(char::is_alphabetic) {
                true => ByteSizeError::Unit { text: shown(), unit: super::text::shorten(unit) },
                false => ByteSizeError::Form(shown()),
            });
        };
        let bytes = number.times(u128::from(*scale)).and_then(|bytes| u64::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| ByteSizeError::TooLarge(shown()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling() {
        for (text, expected) in [
            ("4MB", 4_000_000),
            ("4mb", 4_000_000),
            ("16MiB", 16 << 20),
            ("1 G", 1_000_000_000),
            ("1.5KB", 1_500),
            ("0.5KiB", 512),
            ("10B", 10),
            ("10", 10),
            ("0", 0),
            ("2Gi", 2 << 30),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(expected)), "{text}");
        }
    }

    #[test]
    fn refusals_say_what_was_expected() {
        let said = |text: &str| text.parse::<ByteSize>().unwrap_err().to_string();
        assert!(said(" ").contains("such as `4MB`"));
        assert!(said("-4MB").contains("negative"));
        assert!(said("4MX").contains("`MX` is not a unit"));
        assert!(said("MB").contains("such as `4MB`"));
        assert!(said("4MB5").contains("such as `4MB`"));
        assert!(said("99999999TB").contains("too large"));
        assert!(said(&"9".repeat(50)).contains("too large"));
    }

    proptest! {
        #[test]
        fn a_size_shown_parses_to_itself(bytes: u64, shift in 0u32..64) {
            let size = ByteSize(bytes >> shift);
            prop_assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}", number in "[0-9.eE+-]{0,40}[kKmMiIbB ]{0,4}") {
            let _ = text.parse::<ByteSize>();
            let _ = number.parse::<ByteSize>();
        }
    }
}
