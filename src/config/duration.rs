//! Durations as spicepods write them: `30s`, `1h30m`, `1.5s`, `300` (seconds).
//!
//! Exact integer arithmetic; text that is negative, too long or not a duration never becomes one.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Units by spelling, in nanoseconds. `Ms` is the microsecond of the public runtime's grammar.
const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("Ms", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("min", 60 * SECOND),
    ("h", 3_600 * SECOND),
    ("d", DAY),
    ("w", 7 * DAY),
];

/// How a duration is shown: largest unit first.
const SHOWN: &[(&str, u128)] = &[
    ("d", DAY),
    ("h", 3_600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SECOND: u128 = 1_000_000_000;
const DAY: u128 = 86_400 * SECOND;

/// A hundred years: long enough for every setting, short enough for every clock to add it.
const MAX: u128 = 36_525 * DAY;

/// Digits kept of a fraction; more would overflow the arithmetic, and mean nothing.
const FRACTION_DIGITS_MAX: usize = 18;

/// A duration as spicepods write it: numbers with units, summed; a bare number is seconds.
///
/// ```
/// use sidewing::config::Duration;
/// let timeout: Duration = "1h30m".parse().unwrap();
/// assert_eq!(timeout.get(), std::time::Duration::from_secs(5400));
/// assert_eq!(timeout.to_string(), "1h30m");
/// assert!("-1s".parse::<Duration>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(std::time::Duration);

/// Text that is not a duration; says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    #[error("a duration is empty: expected one such as `30s`, `1h30m` or `1.5s`")]
    Empty,
    #[error("`{0}` is negative: a duration cannot be")]
    Negative(String),
    #[error("`{text}` is not a duration: `{unit}` is not a unit (ns, us, ms, s, m, h, d, w)")]
    Unit { text: String, unit: String },
    #[error("`{0}` is not a duration: a number without a unit stands alone, and means seconds")]
    NoUnit(String),
    #[error("`{0}` is not a duration: expected one such as `30s`, `1h30m` or `1.5s`")]
    Form(String),
    #[error("`{0}` is too long a duration: at most 100 years")]
    TooLong(String),
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(std::time::Duration::ZERO);

    /// For defaults: fewer than a hundred years.
    pub(super) const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// The duration, for timers.
    #[must_use]
    pub fn get(self) -> std::time::Duration {
        self.0
    }

    /// Whether it is no time at all.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// One of `parts` equal parts, rounded down; all of it where `parts` is zero.
    pub(super) fn part(self, parts: u32) -> Self {
        Self(self.0.checked_div(parts).unwrap_or(self.0))
    }

    /// `None` above a hundred years.
    fn from_nanos(nanos: u128) -> Option<Self> {
        if nanos > MAX {
            return None;
        }
        let seconds = u64::try_from(nanos / SECOND).ok()?;
        let rest = u32::try_from(nanos % SECOND).ok()?;
        Some(Self(std::time::Duration::new(seconds, rest)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, nanos) in SHOWN {
            if rest >= *nanos {
                write!(f, "{}{unit}", rest / nanos)?;
                rest %= nanos;
            }
        }
        Ok(())
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let shown = || super::text::shorten(text);
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(DurationError::Empty);
        }
        if rest.starts_with('-') {
            return Err(DurationError::Negative(shown()));
        }
        let (mut nanos, mut pieces) = (0u128, 0usize);
        while !rest.is_empty() {
            let number = Decimal::take(&mut rest).ok_or_else(|| DurationError::Form(shown()))?;
            rest = rest.trim_start();
            let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
            let (unit, after) = rest.split_at(end);
            let scale = match (unit, pieces, after) {
                ("", 0, "") => SECOND,
                ("", _, _) => return Err(DurationError::NoUnit(shown())),
                _ => scale_of(unit)
                    .ok_or_else(|| DurationError::Unit { text: shown(), unit: super::text::shorten(unit) })?,
            };
            let piece = number.times(scale).ok_or_else(|| DurationError::TooLong(shown()))?;
            nanos = nanos.checked_add(piece).ok_or_else(|| DurationError::TooLong(shown()))?;
            rest = after.trim_start();
            pieces += 1;
        }
        Self::from_nanos(nanos).ok_or_else(|| DurationError::TooLong(shown()))
    }
}

fn scale_of(unit: &str) -> Option<u128> {
    UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale)
}

/// An unsigned decimal number, kept exactly.
pub(super) struct Decimal {
    whole: u128,
    fraction: u128,
    fraction_digits: u32,
}

impl Decimal {
    /// Takes `12`, `1.5` or `.5` from the front of `text`; `None` when no such number stands there.
    pub(super) fn take(text: &mut &str) -> Option<Self> {
        let (whole, after) = digits(text);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let kept = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
        *text = after;
        Some(Self {
            // More digits than a u128 has room for are too many for every unit: saturate, refuse later.
            whole: if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u128::MAX) },
            fraction: if kept.is_empty() { 0 } else { kept.parse().ok()? },
            fraction_digits: u32::try_from(kept.len()).ok()?,
        })
    }

    /// The number times `scale`, rounded down; `None` when too large.
    pub(super) fn times(&self, scale: u128) -> Option<u128> {
        let whole = self.whole.checked_mul(scale)?;
        let fraction = self.fraction.checked_mul(scale)? / 10u128.checked_pow(self.fraction_digits)?;
        whole.checked_add(fraction)
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> Result<u128, DurationError> {
        text.parse::<Duration>().map(|duration| duration.get().as_nanos())
    }

    #[test]
    fn every_spelling() {
        for (text, expected) in [
            ("30s", 30 * SECOND),
            ("1h30m", 5_400 * SECOND),
            ("1h 30min", 5_400 * SECOND),
            ("1.5s", 1_500_000_000),
            (".5 ms", 500_000),
            ("90", 90 * SECOND),
            ("0", 0),
            ("2us", 2_000),
            ("2µs", 2_000),
            ("2Ms", 2_000),
            ("7ns", 7),
            ("1d", DAY),
            ("2w", 14 * DAY),
            ("36525d", MAX),
        ] {
            assert_eq!(nanos(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refusals_say_what_was_expected() {
        let said = |text: &str| nanos(text).unwrap_err().to_string();
        assert!(said("").contains("such as `30s`"));
        assert!(said("-5s").contains("negative"));
        assert!(said("5 parsecs").contains("`parsecs` is not a unit"));
        assert!(said("1h30").contains("without a unit"));
        assert!(said("fast").contains("such as `30s`"));
        assert!(said("36526d").contains("at most 100 years"));
        assert!(said(&"9".repeat(60)).contains("at most 100 years"));
        assert!(said("99999999999999999999999999999999999999w").contains("at most 100 years"));
        assert!(said("1s,2s").contains("is not a duration"));
    }

    proptest! {
        #[test]
        fn a_duration_shown_parses_to_itself(seconds in 0u64..3_155_760_000, rest in 0u32..1_000_000_000) {
            let duration = Duration(std::time::Duration::new(seconds, rest));
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}", number in "[0-9.eE+-]{0,40}[a-zµ ]{0,3}") {
            let _ = text.parse::<Duration>();
            let _ = number.parse::<Duration>();
        }
    }
}
