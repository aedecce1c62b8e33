//! What makes two requests one: who asks, the client's own key, and the statement.
//!
//! Keys are compared whole. A plan has no names of tables' homes in it: that they still mean the same tables is what
//! an entry checks ([`super::basis`]). Nothing of a session belongs to a key, because no statement can set anything.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::LogicalPlan;

use super::{CacheWishes, ClientKey, KeyBy};
use crate::query::{Parameters, Principal, Request, tables};

/// What a key takes beside the text of its statement, in bytes: the nodes and schemas of a plan.
const KEY_BYTES: usize = 4 << 10;
/// What a plan takes for each byte of the text that it came from.
const PLAN_BYTES_PER_BYTE: usize = 8;
/// Statements whose keys would take more, in bytes, are not cached.
const KEY_BYTES_MAX: usize = 512 << 10;

/// Hashes keys, with a secret of this process.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// See the module. Cheap to clone, and to look up: a plan is hashed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::query) struct Key(Arc<Hashed>);

#[derive(Debug, PartialEq, Eq)]
struct Hashed {
    hash: u64,
    parts: Parts,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Parts {
    principal: Principal,
    client: Option<ClientKey>,
    statement: Statement,
}

/// A statement with its parameters.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Statement {
    /// As it was sent.
    Sql { sql: String, parameters: String },
    /// Parameters are literals in it.
    Plan(Box<LogicalPlan>),
}

impl Key {
    /// None where the key would be too large, or the plan cannot be taken apart.
    pub(super) fn of(by: KeyBy, request: &Request, plan: &LogicalPlan) -> Option<Self> {
        if Self::bytes(request) > KEY_BYTES_MAX {
            return None;
        }
        let statement = match by {
            KeyBy::Sql => Statement::Sql { sql: request.sql.clone(), parameters: shown(&request.parameters) },
            KeyBy::Plan => Statement::Plan(Box::new(tables::taken_out(plan.clone()).ok()?.0)),
        };
        let CacheWishes { key: client, .. } = &request.cache;
        let (principal, client) = (request.principal.clone(), client.clone());
        let parts = Parts { principal, client, statement };
        Some(Self(Arc::new(Hashed { hash: HASHER.hash_one(&parts), parts })))
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.0.parts.principal
    }

    pub(super) fn has_client_key(&self) -> bool {
        self.0.parts.client.is_some()
    }

    /// About what the key of this request takes, in bytes.
    pub(super) fn bytes(request: &Request) -> usize {
        let text = request.sql.len() + shown(&request.parameters).len();
        PLAN_BYTES_PER_BYTE.saturating_mul(text).saturating_add(KEY_BYTES)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

/// As JSON, or with their types: a list and an object differ, and so do `1` and `"1"`.
pub(super) fn shown(parameters: &Parameters) -> String {
    match parameters {
        Parameters::None => String::new(),
        Parameters::Positional(values) => serde_json::Value::from(values.clone()).to_string(),
        Parameters::Named(values) => serde_json::Value::from(values.clone()).to_string(),
        Parameters::Typed(values) => values.told(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;
    use serde_json::json;

    use super::*;

    async fn key(by: KeyBy, sql: &str, parameters: Parameters) -> Key {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t (a BIGINT, b VARCHAR)").await.unwrap();
        let statement = crate::query::statement::parse(sql, &parameters).unwrap().statement;
        let plan = context.state().statement_to_plan(statement).await.unwrap();
        let request = Request { parameters, ..Request::new(sql) };
        Key::of(by, &request, &plan).unwrap()
    }

    async fn are_same(by: KeyBy, one: &str, other: &str) -> bool {
        key(by, one, Parameters::None).await == key(by, other, Parameters::None).await
    }

    #[tokio::test]
    async fn a_plan_is_one_however_it_is_written() {
        let (one, other) = ("SELECT a FROM t WHERE b = 'x'", "select  A\nfrom T -- here\nwhere b='x'");
        assert!(are_same(KeyBy::Plan, one, other).await);
        assert!(!are_same(KeyBy::Sql, one, other).await);
        assert!(are_same(KeyBy::Sql, one, one).await);
    }

    #[tokio::test]
    async fn what_differs_in_meaning_differs() {
        for (one, other) in [
            ("SELECT a FROM t", "SELECT b FROM t"),
            ("SELECT a FROM t", "SELECT a AS c FROM t"),
            ("SELECT 1 FROM t", "SELECT '1' FROM t"),
            ("SELECT 1 FROM t", "SELECT CAST(1 AS INT) FROM t"),
            ("SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b = 'X'"),
            ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 2"),
            ("SELECT a FROM t UNION SELECT a FROM t", "SELECT a FROM t UNION ALL SELECT a FROM t"),
            ("SELECT a FROM t WHERE a IN (SELECT 1)", "SELECT a FROM t WHERE a IN (SELECT 2)"),
        ] {
            assert!(!are_same(KeyBy::Plan, one, other).await, "{one} / {other}");
            assert!(!are_same(KeyBy::Sql, one, other).await, "{one} / {other}");
        }
    }

    #[tokio::test]
    async fn parameters_and_clients_keys_are_part_of_it() {
        for by in [KeyBy::Plan, KeyBy::Sql] {
            let sql = "SELECT a FROM t WHERE b = $1";
            let with = |value| Parameters::Positional(vec![value]);
            let one = key(by, sql, with(json!("1"))).await;
            assert_eq!(one, key(by, sql, with(json!("1"))).await);
            assert_ne!(one, key(by, sql, with(json!("2"))).await);
            assert_ne!(one, key(by, sql, with(json!(1))).await);
        }
        let context = SessionContext::new();
        let plan = context.state().create_logical_plan("SELECT 1").await.unwrap();
        let mut request = Request::new("SELECT 1");
        let plain = Key::of(KeyBy::Plan, &request, &plan).unwrap();
        request.cache.key = ClientKey::new("mine");
        assert_ne!(plain, Key::of(KeyBy::Plan, &request, &plan).unwrap());
    }
}
