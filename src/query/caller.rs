//! Who asks, and what they may do. The front ends find out; everything below only compares.

use std::fmt;
use std::sync::Arc;

/// Whose rights a statement is answered with. An answer is never given to another principal than the one it was made
/// for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody has to say who they are: all are one.
    #[default]
    Anonymous,
    /// Whoever has shown this API key.
    Key(KeyId),
}

/// Names an API key without telling it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

/// What a caller may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rights {
    /// Ask SQL, follow datasets, have them refreshed, and see and cancel one's own queries.
    #[default]
    Read,
    /// Also write rows, have other rows refreshed than the spicepod says, and see and cancel everybody's queries.
    ReadWrite,
}

/// A principal with its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub principal: Principal,
    pub rights: Rights,
}

impl KeyId {
    /// An id that does not tell the key: the start of a keyed hash of it, in hex.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Key(id) => write!(f, "key {id}"),
        }
    }
}

impl Caller {
    /// Whoever asks where nobody has to say who they are: they may do everything.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { principal: Principal::Anonymous, rights: Rights::ReadWrite }
    }

    #[must_use]
    pub fn may_write(&self) -> bool {
        self.rights == Rights::ReadWrite
    }

    /// Whether the queries of `principal` are this caller's to see and to cancel.
    #[must_use]
    pub fn commands(&self, principal: &Principal) -> bool {
        self.may_write() || self.principal == *principal
    }
}
