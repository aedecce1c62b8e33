//! Who may call: keys of the options, and session tokens that Handshake gave out.
//!
//! Without keys everybody may, and a bearer is still returned because clients expect one.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::secrets::Secret;

/// Sessions remembered; the oldest is forgotten first, and its client shakes hands again.
const SESSIONS_MAX: usize = 1024;

/// Checks credentials.
pub(super) struct Guard {
    keys: Vec<Secret>,
    sessions: Mutex<std::collections::VecDeque<String>>,
}

impl Guard {
    pub(super) fn new(keys: Vec<Secret>) -> Self {
        Self { keys, sessions: Mutex::default() }
    }

    /// Opens a session for whoever shows a key as Basic password, and returns its token.
    pub(super) fn open(&self, metadata: &MetadataMap) -> Result<String, Status> {
        let session = Uuid::new_v4().to_string();
        if self.keys.is_empty() {
            return Ok(session);
        }
        let password = basic_password(metadata).ok_or_else(refused)?;
        if !self.is_key(&password) {
            return Err(refused());
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() == SESSIONS_MAX {
            sessions.pop_front();
        }
        sessions.push_back(session.clone());
        Ok(session)
    }

    /// Lets a call pass that carries a key or a session token as bearer.
    pub(super) fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let bearer = authorization(metadata).and_then(|text| scheme(text, "bearer")).ok_or_else(refused)?;
        match self.is_key(bearer) || self.is_session(bearer) {
            true => Ok(()),
            false => Err(refused()),
        }
    }

    /// Compares with every key, whichever matches, so that time tells nothing.
    fn is_key(&self, shown: &str) -> bool {
        let equal = |key: &Secret| key.expose().as_bytes().ct_eq(shown.as_bytes());
        self.keys.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into()
    }

    fn is_session(&self, shown: &str) -> bool {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let equal = |session: &String| session.as_bytes().ct_eq(shown.as_bytes());
        sessions.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into()
    }
}

fn refused() -> Status {
    Status::unauthenticated("Invalid credentials")
}

fn authorization(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("authorization")?.to_str().ok()
}

/// What follows `<name> `, the scheme in any case (RFC 9110 section 11.1).
fn scheme<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (found, rest) = text.split_once(' ')?;
    found.eq_ignore_ascii_case(name).then(|| rest.trim())
}

fn basic_password(metadata: &MetadataMap) -> Option<String> {
    let encoded = scheme(authorization(metadata)?, "basic")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    decoded.split_once(':').map(|(_user, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(authorization: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", authorization.parse().unwrap());
        metadata
    }

    #[test]
    fn a_key_opens_a_session_and_both_are_bearers() {
        let guard = Guard::new(vec![Secret::new("k1".into()), Secret::new("k2".into())]);
        let session = guard.open(&with(&format!("Basic {}", STANDARD.encode(":k2")))).unwrap();
        guard.check(&with(&format!("Bearer {session}"))).unwrap();
        guard.check(&with("bearer k1")).unwrap();
        for bad in ["Bearer ", "Bearer k3", "Basic k1", "k1", "Bearer k1k2"] {
            assert_eq!(guard.check(&with(bad)).unwrap_err().message(), "Invalid credentials", "{bad}");
        }
        assert!(guard.check(&MetadataMap::new()).is_err());
        for bad in ["Basic !!!", "Basic", &format!("Basic {}", STANDARD.encode("k2"))] {
            assert!(guard.open(&with(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn sessions_are_bounded() {
        let guard = Guard::new(vec![Secret::new("k".into())]);
        let basic = with(&format!("Basic {}", STANDARD.encode("u:k")));
        let first = guard.open(&basic).unwrap();
        for _ in 0..SESSIONS_MAX {
            guard.open(&basic).unwrap();
        }
        assert!(guard.check(&with(&format!("Bearer {first}"))).is_err());
    }

    #[test]
    fn without_keys_everybody_passes() {
        let guard = Guard::new(Vec::new());
        guard.check(&MetadataMap::new()).unwrap();
        assert!(!guard.open(&MetadataMap::new()).unwrap().is_empty());
    }
}
