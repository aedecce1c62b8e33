//! Cron lines: five parts, or with seconds before and a year behind them; times are UTC.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use croner::Cron;
use thiserror::Error;

use super::text::shorten;

/// Text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CronError {
    #[error("`{text}` is not a cron line such as `0 * * * *`: {reason}")]
    Form { text: String, reason: String },
    /// A date such as 31 February.
    #[error("`{0}` never occurs")]
    Never(String),
}

/// Reads a cron line: minute, hour, day of month, month, day of week; a first part more is seconds, one behind it is
/// the year.
///
/// # Errors
/// [`CronError`] where the line is not one, or names a date that no calendar has.
///
/// ```
/// assert!(sidewing::config::parse_cron("*/15 * * * *").is_ok());
/// assert!(sidewing::config::parse_cron("0 0 31 2 *").is_err());
/// ```
pub fn parse_cron(text: &str) -> Result<Cron, CronError> {
    let cron = Cron::from_str(text).map_err(|error| CronError::Form {
        text: shorten(text),
        reason: shorten(error.to_string().trim_end_matches('.')),
    })?;
    // From the epoch, not from now: what a spicepod says must not depend on the day on which it is read.
    match cron.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err(CronError::Never(shorten(text))),
    }
}
