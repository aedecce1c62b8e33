//! Who may ask: the headers of a request enter, an [`Identity`] leaves, the same for HTTP and gRPC.
//!
//! A key is shown as `X-API-Key`, as Bearer, or as the password of Basic; Handshake gives a session token for one, which
//! is a Bearer as well. Nothing is remembered of a session: its token is sealed with the key that it was given for, so
//! that it holds on every replica and ends with its key. Without keys everybody may do everything.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use ::http::header::AUTHORIZATION;
use ::http::{HeaderMap, Request};
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::middleware::{self, Next};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use subtle::{Choice, ConstantTimeEq};
use tonic::Status;
use uuid::Uuid;

use crate::query::{Caller, KeyId, Principal, Rights};
use crate::secrets::Secret;

/// The header of a bare key.
pub(super) const API_KEY: &str = "x-api-key";

/// Session tokens begin so.
const SESSION_PREFIX: &str = "sidewing-session";
/// Bytes of a seal: half of a SHA-256, as many as a forger must guess.
pub(super) const SEAL_BYTES: usize = 16;
/// What the keys of seals and names are derived for.
const SEAL_PURPOSE: &[u8] = b"sidewing seal 1";
const NAME_PURPOSE: &[u8] = b"sidewing key name 1";
const NAME_BYTES: usize = 8;

/// An API key with its rights.
#[derive(Debug, Clone)]
pub struct ApiKey {
    pub secret: Secret,
    pub rights: Rights,
}

/// Checks credentials. Cheap to clone; the keys can be replaced while it is used.
#[derive(Clone, Default)]
pub struct Access(Arc<ArcSwap<Keys>>);

/// The keys as they are now; without any everybody may.
#[derive(Default)]
struct Keys(Vec<Known>);

struct Known {
    secret: Secret,
    identity: Identity,
}

/// Who a request is from.
#[derive(Clone)]
pub(super) struct Identity {
    pub caller: Caller,
    seal: Arc<hmac::Key>,
}

/// A request that shows no key that is known. Which of it was wrong is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denied;

impl ApiKey {
    /// A key that may only read.
    #[must_use]
    pub fn reading(secret: Secret) -> Self {
        Self { secret, rights: Rights::Read }
    }
}

impl Access {
    #[must_use]
    pub fn new(keys: Vec<ApiKey>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Keys::new(keys))))
    }

    /// Other keys from now on; what was begun with the former ones goes on.
    pub fn replace(&self, keys: Vec<ApiKey>) {
        self.0.store(Arc::new(Keys::new(keys)));
    }

    /// Whether nobody has to say who they are.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load().0.is_empty()
    }

    /// Who sends these headers.
    ///
    /// # Errors
    /// No key, no session, or one that is not known.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Identity, Denied> {
        let keys = self.0.load();
        if keys.0.is_empty() {
            return Ok(Identity::anonymous());
        }
        if let Some(key) = headers.get(API_KEY) {
            return keys.of_key(key.to_str().map_err(|_| Denied)?);
        }
        let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(Denied)?;
        match (scheme(authorization, "bearer"), scheme(authorization, "basic")) {
            (Some(bearer), _) => keys.of_session(bearer).or_else(|_| keys.of_key(bearer)),
            (None, Some(basic)) => keys.of_key(&password(basic).ok_or(Denied)?),
            (None, None) => Err(Denied),
        }
    }

    /// A session token for whoever shows a key, in Handshake.
    ///
    /// # Errors
    /// As [`Access::identify`].
    pub(super) fn open_session(&self, headers: &HeaderMap) -> Result<String, Denied> {
        Ok(self.identify(headers)?.session())
    }
}

impl Keys {
    fn new(keys: Vec<ApiKey>) -> Self {
        Self(keys.into_iter().map(Known::new).collect())
    }

    /// Compares with every key, whichever matches, so that time tells nothing.
    fn of_key(&self, shown: &str) -> Result<Identity, Denied> {
        let (mut found, mut any) = (None, Choice::from(0));
        for known in &self.0 {
            let equal = known.secret.expose().as_bytes().ct_eq(shown.as_bytes());
            if bool::from(equal & !any) {
                found = Some(&known.identity);
            }
            any |= equal;
        }
        found.cloned().ok_or(Denied)
    }

    /// A token names its key in the clear; only its seal is secret.
    fn of_session(&self, shown: &str) -> Result<Identity, Denied> {
        let (claim, seal) = shown.rsplit_once('.').ok_or(Denied)?;
        let name = claim.split('.').nth(1).ok_or(Denied)?;
        let named = |known: &&Known| matches!(&known.identity.caller.principal, Principal::Key(id) if id.to_string() == name);
        let known = self.0.iter().find(named).ok_or(Denied)?;
        let expected = hex(&known.identity.tag(claim.as_bytes()));
        match bool::from(expected.as_bytes().ct_eq(seal.as_bytes())) {
            true => Ok(known.identity.clone()),
            false => Err(Denied),
        }
    }
}

impl Known {
    fn new(key: ApiKey) -> Self {
        let ApiKey { secret, rights } = key;
        let bytes = secret.expose().as_bytes();
        let derived = |purpose: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), purpose);
        let principal = Principal::Key(KeyId::new(&hex(&derived(NAME_PURPOSE).as_ref()[..NAME_BYTES])));
        let seal = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived(SEAL_PURPOSE).as_ref()));
        Self { secret, identity: Identity { caller: Caller { principal, rights }, seal } }
    }
}

impl Identity {
    /// Where there are no keys. Its seals keep bytes whole, and nobody out: there is nobody to keep out.
    pub(super) fn anonymous() -> Self {
        static SEAL: LazyLock<Arc<hmac::Key>> =
            LazyLock::new(|| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, SEAL_PURPOSE)));
        Self { caller: Caller::anonymous(), seal: Arc::clone(&SEAL) }
    }

    /// `payload` with a seal that only this principal's requests open.
    pub(super) fn seal(&self, mut payload: Vec<u8>) -> Vec<u8> {
        let tag = self.tag(&payload);
        payload.extend_from_slice(&tag);
        payload
    }

    /// What was sealed for this principal; none for anything else.
    pub(super) fn open<'a>(&self, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (payload, seal) = sealed.split_at_checked(sealed.len().checked_sub(SEAL_BYTES)?)?;
        bool::from(self.tag(payload).ct_eq(seal)).then_some(payload)
    }

    fn tag(&self, payload: &[u8]) -> [u8; SEAL_BYTES] {
        let mut tag = [0; SEAL_BYTES];
        tag.copy_from_slice(&hmac::sign(&self.seal, payload).as_ref()[..SEAL_BYTES]);
        tag
    }

    fn session(&self) -> String {
        let name = match &self.caller.principal {
            Principal::Anonymous => "anonymous".to_owned(),
            Principal::Key(id) => id.to_string(),
        };
        let claim = format!("{SESSION_PREFIX}.{name}.{}", Uuid::new_v4().simple());
        let seal = hex(&self.tag(claim.as_bytes()));
        format!("{claim}.{seal}")
    }
}

/// `router` for gRPC, each call with its [`Identity`] among its extensions; those of `open` need none. A call that
/// shows no key that is known gets UNAUTHENTICATED.
pub(super) fn guard_calls(router: Router, access: Access, open: &'static [&'static str]) -> Router {
    router.layer(middleware::from_fn(move |mut request: Request<Body>, next: Next| {
        let identity = match open.contains(&request.uri().path()) {
            true => Ok(None),
            false => access.identify(request.headers()).map(Some),
        };
        async move {
            match identity {
                Ok(identity) => {
                    identity.map(|identity| request.extensions_mut().insert(identity));
                    next.run(request).await
                }
                Err(Denied) => unauthenticated().into_http::<Body>(),
            }
        }
    }))
}

pub(super) fn unauthenticated() -> Status {
    Status::unauthenticated("Invalid credentials")
}

/// Who makes a guarded call.
///
/// # Errors
/// None was put there: the call went around the guard.
pub(super) fn of_call<T>(request: &tonic::Request<T>) -> Result<Identity, Status> {
    request.extensions().get::<Identity>().cloned().ok_or_else(unauthenticated)
}

/// Lets a guarded call pass that may write.
///
/// # Errors
/// PERMISSION_DENIED.
pub(super) fn may_write<T>(request: &tonic::Request<T>) -> Result<(), Status> {
    match of_call(request)?.caller.may_write() {
        true => Ok(()),
        false => Err(Status::permission_denied("Write access denied")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What follows `<name> `, the scheme in any case (RFC 9110 section 11.1).
fn scheme<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (found, rest) = text.split_once(' ')?;
    found.eq_ignore_ascii_case(name).then(|| rest.trim())
}

/// The password of Basic credentials; the user may be anybody.
fn password(encoded: &str) -> Option<String> {
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    decoded.split_once(':').map(|(_user, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(::http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    fn authorization(value: &str) -> HeaderMap {
        with("authorization", value)
    }

    fn basic(text: &str) -> HeaderMap {
        authorization(&format!("Basic {}", STANDARD.encode(text)))
    }

    fn two_keys() -> Access {
        let writer = ApiKey { secret: Secret::new("k2".into()), rights: Rights::ReadWrite };
        Access::new(vec![ApiKey::reading(Secret::new("k1".into())), writer])
    }

    #[test]
    fn a_key_is_shown_in_four_ways() {
        let access = two_keys();
        let session = access.open_session(&basic(":k2")).unwrap();
        let shown = [
            with("x-api-key", "k2"),
            authorization("bearer k2"),
            authorization(&format!("Bearer {session}")),
            basic("anybody:k2"),
        ];
        for headers in shown {
            let caller = access.identify(&headers).map(|identity| identity.caller).unwrap();
            assert_eq!(caller.rights, Rights::ReadWrite, "{headers:?}");
            assert!(!caller.principal.to_string().contains("k2"), "{caller:?}");
        }
        assert_eq!(access.identify(&basic(":k1")).unwrap().caller.rights, Rights::Read);
    }

    #[test]
    fn anything_else_is_denied() {
        let access = two_keys();
        let session = access.open_session(&basic(":k1")).unwrap();
        let tampered = session.replace('0', "1").replace('a', "b");
        let bad = [
            HeaderMap::new(),
            with("x-api-key", ""),
            with("x-api-key", "k3"),
            authorization("Bearer "),
            authorization("Bearer k3"),
            authorization("Bearer k1k2"),
            authorization(&format!("Bearer {tampered}")),
            authorization(&format!("Bearer {session}0")),
            authorization("Basic k1"),
            authorization("Basic !!!"),
            authorization("k1"),
            basic("k1"),
        ];
        for headers in bad {
            assert_eq!(access.identify(&headers).err(), Some(Denied), "{headers:?}");
        }
    }

    #[test]
    fn a_session_holds_elsewhere_and_ends_with_its_key() {
        let (access, replica) = (two_keys(), two_keys());
        let session = authorization(&format!("Bearer {}", access.open_session(&basic(":k1")).unwrap()));
        assert!(replica.identify(&session).is_ok());
        access.replace(vec![ApiKey::reading(Secret::new("k3".into()))]);
        assert!(access.identify(&session).is_err() && access.identify(&basic(":k3")).is_ok());
    }

    #[test]
    fn without_keys_everybody_may_do_everything() {
        let access = Access::default();
        assert!(access.is_open());
        for headers in [HeaderMap::new(), authorization("Bearer "), authorization("Bearer x"), basic(":")] {
            assert!(access.identify(&headers).unwrap().caller.may_write());
            assert!(!access.open_session(&headers).unwrap().is_empty());
        }
    }

    #[test]
    fn a_seal_opens_only_for_its_principal() {
        let access = two_keys();
        let [one, other] = [":k1", ":k2"].map(|key| access.identify(&basic(key)).unwrap());
        let sealed = one.seal(b"payload".to_vec());
        assert_eq!(one.open(&sealed), Some(&b"payload"[..]));
        assert_eq!(other.open(&sealed), None);
        assert_eq!(Identity::anonymous().open(&sealed), None);
        assert_eq!(one.open(b"short"), None);
    }

    proptest! {
        #[test]
        fn a_changed_byte_breaks_the_seal(payload in proptest::collection::vec(any::<u8>(), 0..64), at: prop::sample::Index, bit in 0..8_u8) {
            let identity = two_keys().identify(&basic(":k1")).unwrap();
            let mut sealed = identity.seal(payload);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(identity.open(&sealed), None);
        }
    }
}
