//! Sessions of the protocol's first era: opened by `initialize`, named by a header, ended by their client, by time, or
//! for room.
//!
//! A session is its principal's: for anybody else there is none. What runs in one is rmcp's; here is how many there may
//! be, whose they are, and which goes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError, SessionConfig,
};
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId, SessionManager};
use tokio::time::Instant;

use crate::query::Principal;

/// So many sessions are open at a time; for one more the one that is used least goes.
pub(super) const SESSIONS_MAX: usize = 256;
/// A session that nobody has used for this long has ended.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30 * 60);

/// All sessions.
pub(super) struct Book {
    sessions: Mutex<HashMap<SessionId, Session>>,
    rmcp: LocalSessionManager,
    /// Held while one is opened, so that there are never more than may be.
    opening: tokio::sync::Mutex<()>,
}

struct Session {
    principal: Principal,
    used: Instant,
    /// Requests that are being answered.
    calls: usize,
    /// GET streams on which a client listens.
    streams: usize,
}

/// What a request does with its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Call,
    Listen,
}

/// A session that is used; no longer when it is dropped.
pub(super) struct InUse {
    book: Arc<Book>,
    id: SessionId,
    by: Use,
}

/// The sessions as one principal sees them: its own.
pub(super) struct Own {
    pub book: Arc<Book>,
    pub principal: Principal,
}

impl Book {
    pub fn new() -> Self {
        let mut rmcp = LocalSessionManager::default();
        rmcp.session_config = config();
        Self { sessions: Mutex::default(), rmcp, opening: tokio::sync::Mutex::default() }
    }

    /// Uses a session of `principal`; none where it has no such session.
    pub fn enter(self: &Arc<Self>, id: &str, principal: &Principal, by: Use) -> Option<InUse> {
        let mut sessions = self.sessions();
        let (id, session) = sessions.iter_mut().find(|(known, _)| known.as_ref() == id)?;
        if session.principal != *principal || session.has_ended() {
            return None;
        }
        session.used = Instant::now();
        *session.count(by) += 1;
        Some(InUse { book: Arc::clone(self), id: SessionId::clone(id), by })
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_of(&self, id: &SessionId, principal: &Principal) -> bool {
        self.sessions().get(id).is_some_and(|session| session.principal == *principal && !session.has_ended())
    }

    /// Which session is to go: one that has ended, else, where there are too many, the one that is used least.
    fn leaving(&self) -> Option<SessionId> {
        let sessions = self.sessions();
        let ended = sessions.iter().find(|(_, session)| session.has_ended());
        let least = || sessions.iter().min_by_key(|(_, session)| session.worth());
        let leaving = match ended {
            Some(ended) => Some(ended),
            None if sessions.len() >= SESSIONS_MAX => least(),
            None => None,
        };
        leaving.map(|(id, _)| SessionId::clone(id))
    }

    /// A session stays in the book until it is closed, so that none is forgotten by a request that goes away meanwhile.
    async fn close(&self, id: &SessionId) -> Result<(), LocalSessionManagerError> {
        let closed = self.rmcp.close_session(id).await;
        self.sessions().remove(id);
        closed
    }

    #[cfg(test)]
    pub async fn open_count(&self) -> usize {
        let here = self.rmcp.sessions.read().await.len();
        let known = self.sessions().len();
        assert_eq!(known, here, "both books hold the same sessions");
        known
    }
}

/// Without rmcp's own clock, which would end a session while a long query runs in it; and without its priming events,
/// by which a client could come back for an answer: who goes away has no use for it.
fn config() -> SessionConfig {
    let mut config = SessionConfig::default();
    config.keep_alive = None;
    config.sse_retry = None;
    config
}

impl Session {
    fn new(principal: Principal) -> Self {
        Self { principal, used: Instant::now(), calls: 0, streams: 0 }
    }

    fn count(&mut self, by: Use) -> &mut usize {
        match by {
            Use::Call => &mut self.calls,
            Use::Listen => &mut self.streams,
        }
    }

    fn has_ended(&self) -> bool {
        self.calls == 0 && self.streams == 0 && self.used.elapsed() >= IDLE_MAX
    }

    /// The least goes first: one that answers nothing, then one on which nobody listens, then the longest idle.
    fn worth(&self) -> (bool, bool, Instant) {
        (self.calls > 0, self.streams > 0, self.used)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(session) = self.book.sessions().get_mut(&self.id) {
            session.used = Instant::now();
            *session.count(self.by) -= 1;
        }
    }
}

impl Own {
    fn check(&self, id: &SessionId) -> Result<&LocalSessionManager, LocalSessionManagerError> {
        match self.book.is_of(id, &self.principal) {
            true => Ok(&self.book.rmcp),
            false => Err(LocalSessionManagerError::SessionNotFound(SessionId::clone(id))),
        }
    }
}

impl SessionManager for Own {
    type Error = LocalSessionManagerError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        let _opening = self.book.opening.lock().await;
        while let Some(leaving) = self.book.leaving() {
            self.book.close(&leaving).await?;
        }
        let (id, transport) = self.book.rmcp.create_session().await?;
        self.book.sessions().insert(SessionId::clone(&id), Session::new(self.principal.clone()));
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.check(id)?.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        match self.check(id) {
            Ok(rmcp) => rmcp.has_session(id).await,
            Err(_) => Ok(false),
        }
    }

    /// Also called by rmcp when a session has ended by itself.
    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        let is_own = self.book.sessions().get(id).is_some_and(|session| session.principal == self.principal);
        match is_own {
            true => self.book.close(id).await,
            false => Ok(()),
        }
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.check(id)?.create_stream(id, message).await
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        self.check(id)?.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.check(id)?.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.check(id)?.resume(id, last_event_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::KeyId;

    fn key(name: &str) -> Principal {
        Principal::Key(KeyId::new(name))
    }

    fn own(book: &Arc<Book>, principal: Principal) -> Own {
        Own { book: Arc::clone(book), principal }
    }

    async fn open(book: &Arc<Book>, principal: Principal) -> SessionId {
        own(book, principal).create_session().await.unwrap().0
    }

    #[tokio::test]
    async fn a_session_is_its_principals() {
        let book = Arc::new(Book::new());
        let id = open(&book, key("a")).await;
        let (mine, other) = (own(&book, key("a")), own(&book, key("b")));
        assert!(mine.has_session(&id).await.unwrap() && !other.has_session(&id).await.unwrap());
        assert!(book.enter(&id, &key("b"), Use::Call).is_none());
        other.close_session(&id).await.unwrap();
        assert!(book.enter(&id, &key("a"), Use::Call).is_some());
        mine.close_session(&id).await.unwrap();
        assert!(book.enter(&id, &key("a"), Use::Call).is_none());
        assert_eq!(book.open_count().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_nobody_uses_ends() {
        let book = Arc::new(Book::new());
        let (idle, used) = (open(&book, key("a")).await, open(&book, key("a")).await);
        let listening = book.enter(&used, &key("a"), Use::Listen).unwrap();
        tokio::time::advance(IDLE_MAX).await;
        assert!(book.enter(&idle, &key("a"), Use::Call).is_none());
        assert!(!own(&book, key("a")).has_session(&idle).await.unwrap());
        drop(listening);
        assert!(book.enter(&used, &key("a"), Use::Call).is_some(), "idle from now on");
        open(&book, key("b")).await;
        assert_eq!(book.open_count().await, 2, "what has ended is cleared away");
    }

    #[tokio::test(start_paused = true)]
    async fn the_session_that_is_used_least_makes_room() {
        let book = Arc::new(Book::new());
        let (mut ids, step) = (Vec::new(), Duration::from_millis(1));
        for _ in 0..SESSIONS_MAX {
            ids.push(open(&book, key("a")).await);
            tokio::time::advance(step).await;
        }
        let listening = book.enter(&ids[0], &key("a"), Use::Listen).unwrap();
        drop(book.enter(&ids[1], &key("a"), Use::Call).unwrap());
        open(&book, key("b")).await;
        assert_eq!(book.open_count().await, SESSIONS_MAX);
        let gone = |id: &SessionId| book.enter(id, &key("a"), Use::Call).is_none();
        assert!(gone(&ids[2]) && !gone(&ids[0]) && !gone(&ids[1]) && !gone(&ids[3]));
        drop(listening);
    }
}
