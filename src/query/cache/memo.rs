//! Statements that were planned already: a request enters as it was sent, what the cache needs of its plan leaves.
//!
//! It holds as long as the catalog does ([`Federation::catalog_version`]), and saves a hit its planning and its turn.
//!
//! [`Federation::catalog_version`]: crate::federation::Federation::catalog_version

use std::sync::{Arc, Weak};

use datafusion::catalog::TableProvider;

use super::key::{Key, shown};
use super::reading::Reading;
use super::{Case, ClientKey};
use crate::acceleration::Table;
use crate::query::{Principal, Request};

/// What the statements take together, in bytes.
const BYTES_MAX: u64 = 16 << 20;

/// See the module.
pub(super) struct Memo(moka::sync::Cache<Sent, Arc<Known>>);

/// A request as it was sent.
#[derive(PartialEq, Eq, Hash)]
struct Sent {
    principal: Principal,
    client: Option<ClientKey>,
    sql: String,
    parameters: String,
}

/// What its plan came to. It keeps no table alive.
struct Known {
    version: u64,
    key: Key,
    bytes: usize,
    providers: Vec<Weak<dyn TableProvider>>,
    tables: Vec<Weak<Table>>,
    is_upstream: bool,
}

impl Sent {
    fn of(request: &Request) -> Self {
        Self {
            principal: request.principal.clone(),
            client: request.cache.key.clone(),
            sql: request.sql.clone(),
            parameters: shown(&request.parameters),
        }
    }
}

impl Memo {
    pub fn new() -> Self {
        let weigh = |_: &Sent, known: &Arc<Known>| u32::try_from(known.bytes).unwrap_or(u32::MAX);
        Self(moka::sync::Cache::builder().max_capacity(BYTES_MAX).weigher(weigh).build())
    }

    /// `version` was read before the statement was planned.
    pub fn learn(&self, request: &Request, version: u64, case: &Case) {
        let known = Known {
            version,
            key: case.key.clone(),
            bytes: case.bytes,
            providers: case.reading.providers.iter().map(Arc::downgrade).collect(),
            tables: case.reading.tables.iter().map(Arc::downgrade).collect(),
            is_upstream: case.reading.is_upstream,
        };
        self.0.insert(Sent::of(request), Arc::new(known));
    }

    /// What planning it would come to again; none where that is not known.
    pub fn recall(&self, request: &Request, version: u64) -> Option<Case> {
        let known = self.0.get(&Sent::of(request)).filter(|known| known.version == version)?;
        let reading = Reading {
            providers: known.providers.iter().map(Weak::upgrade).collect::<Option<_>>()?,
            tables: known.tables.iter().map(Weak::upgrade).collect::<Option<_>>()?,
            is_upstream: known.is_upstream,
        };
        Some(Case { key: known.key.clone(), reading, wishes: request.cache.clone(), bytes: known.bytes })
    }
}
