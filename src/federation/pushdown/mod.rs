//! Verified sub-plans: what lies between forwarding a statement whole and scanning its tables.
//!
//! An optimised plan enters; the same plan leaves with its maximal subtrees that live on one upstream
//! replaced by one SELECT each. A SELECT is sent only if, planned and optimised again over the same schemas,
//! it comes to the form of the subtree (`prove`); a subtree that does not is split further, down to scans.
//! Nothing here trusts the way from a plan to SQL.

mod cut;
mod form;
mod home;
mod node;
mod plain;
mod prove;
mod select;
mod words;

use std::fmt;

pub(super) use cut::cut;
pub(super) use home::remote_table;
pub(super) use node::Planner;

/// Why a subtree is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsent(String);

fn unsent(reason: impl Into<String>) -> Unsent {
    Unsent(reason.into())
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of one subtree that lives on one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Its topmost step and its datasets.
    pub subtree: String,
    /// Why its parts are looked at instead; `None` where it is sent.
    pub kept: Option<String>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kept {
            None => write!(f, "sent: {}", self.subtree),
            Some(reason) => write!(f, "kept: {}: {reason}", self.subtree),
        }
    }
}

#[cfg(test)]
mod tests;
