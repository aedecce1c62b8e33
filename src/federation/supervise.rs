//! Brings datasets up and keeps them so: one keeper per upstream verifies the connection, loads the
//! schemas, and after a reported failure looks again until the upstream is back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use futures::StreamExt;
use rand::Rng;
use tokio::sync::Notify;

use crate::name::DatasetName;
use crate::task::Scope;
use crate::upstream::{ErrorKind, RemoteTableName, Upstream, UpstreamError, UpstreamId};

use super::Federation;
use super::registry::{Entry, Kind, Reason, State, View};
use super::rows::RowCount;
use super::table::{RemoteTable, remote_schema};

const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Between an alarm and the look that it asks for.
const ALARM_PAUSE: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The datasets of one upstream.
pub(super) struct Group {
    id: UpstreamId,
    members: Vec<usize>,
    /// Rung when a query met a failure that may mean that the upstream is away.
    alarm: Notify,
}

impl Group {
    /// What its members share.
    pub fn upstream(&self, entries: &[Entry]) -> Option<Arc<Upstream>> {
        match &entries.get(*self.members.first()?)?.kind {
            Kind::Dataset { upstream, .. } => Some(Arc::clone(upstream)),
            Kind::View(_) => None,
        }
    }
}

/// Puts the datasets of equal upstreams together.
pub(super) fn group(entries: &[Entry]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<UpstreamId, usize> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Kind::Dataset { upstream, .. } = &entry.kind {
            let id = upstream.id();
            let place = *known.entry(id.clone()).or_insert_with(|| {
                groups.push(Group { id: id.clone(), members: Vec::new(), alarm: Notify::new() });
                groups.len() - 1
            });
            groups[place].members.push(at);
        }
    }
    groups
}

/// One task per upstream.
pub(super) fn start(federation: &Federation, scope: &Scope, parallel: usize) {
    for place in 0..federation.inner.groups.len() {
        let keeper = Keeper { federation: federation.clone(), place, parallel };
        scope.spawn("dataset keeper", async move { keeper.keep().await });
    }
}

/// Rings the keeper of `upstream` where `error` may mean that it is away.
pub(super) fn report(federation: &Federation, upstream: &Upstream, error: &UpstreamError) {
    let changed = matches!(error.kind, ErrorKind::Auth | ErrorKind::Protocol | ErrorKind::NotFound);
    if (error.is_absence() || changed)
        && let Some(group) = federation.inner.groups.iter().find(|group| &group.id == upstream.id())
    {
        group.alarm.notify_one();
    }
}

struct Keeper {
    federation: Federation,
    place: usize,
    parallel: usize,
}

impl Keeper {
    fn group(&self) -> &Group {
        &self.federation.inner.groups[self.place]
    }

    /// Reach, load, wait for an alarm, reach again.
    async fn keep(&self) {
        let mut wait = RETRY_FIRST;
        loop {
            match self.bring_up().await {
                true => {
                    wait = RETRY_FIRST;
                    self.group().alarm.notified().await;
                    // Many failing queries ring at once; an upstream in trouble is looked at once.
                    tokio::time::sleep(jittered(ALARM_PAUSE)).await;
                }
                false => {
                    tokio::time::sleep(jittered(wait)).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Whether every dataset of the upstream is ready now.
    async fn bring_up(&self) -> bool {
        let Some(upstream) = self.member_upstream() else { return true };
        if let Err(error) = upstream.verify(|_, _| ()).await {
            let reason = Reason::Upstream(error);
            let members = &self.group().members;
            let news = members.iter().filter(|at| self.fail(**at, reason.clone())).count();
            if news > 0 {
                tracing::warn!(datasets = members.len(), %reason, "upstream not reached, trying again");
            }
            self.federation.plan_views().await;
            return false;
        }
        let loads = self.group().members.clone().into_iter().map(|at| self.load(at));
        let loaded: Vec<bool> =
            futures::stream::iter(loads).buffer_unordered(self.parallel.max(1)).collect().await;
        self.federation.plan_views().await;
        loaded.into_iter().all(|ready| ready)
    }

    fn member_upstream(&self) -> Option<Arc<Upstream>> {
        self.group().upstream(&self.federation.inner.entries)
    }

    /// Asks for the schema of one dataset and puts its table into the catalog.
    async fn load(&self, at: usize) -> bool {
        let entry = &self.federation.inner.entries[at];
        let Kind::Dataset { upstream, remote, rows } = &entry.kind else { return true };
        match remote_schema(upstream, remote).await {
            Ok(schema) => match self.federation.register(entry, (upstream, remote, rows), &schema) {
                Ok(()) => true,
                Err(error) => self.not_loaded(at, Reason::Unusable(error.to_string())),
            },
            Err(error) => self.not_loaded(at, Reason::Upstream(error)),
        }
    }

    fn not_loaded(&self, at: usize, reason: Reason) -> bool {
        if self.fail(at, reason.clone()) {
            let dataset = &self.federation.inner.entries[at].name;
            tracing::warn!(%dataset, %reason, "dataset not loaded, trying again");
        }
        false
    }

    /// Whether this reason is news: a change is logged once, not every attempt.
    fn fail(&self, at: usize, reason: Reason) -> bool {
        let entry = &self.federation.inner.entries[at];
        let was = entry.state.load();
        let (same, since) = match was.as_ref() {
            State::Error { reason: old, since, .. } => (old.is_same(&reason), *since),
            _ => (false, SystemTime::now()),
        };
        metrics::counter!("dataset_load_errors", "dataset" => entry.name.to_string()).increment(1);
        let schema = was.schema().cloned();
        entry.state.store(Arc::new(State::Error { reason, schema, since }));
        !same
    }
}

impl Reason {
    /// Whether it says nothing new. An open circuit says for how long, which is no news.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Upstream(old), Self::Upstream(new)) if new.kind == ErrorKind::CircuitOpen => {
                old.kind == new.kind
            }
            _ => self.to_string() == other.to_string(),
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upstream(error) => error.fmt(f),
            Self::Loading { dataset, why } => {
                write!(f, "Acceleration not ready; loading initial data for {dataset}")?;
                why.iter().try_for_each(|why| write!(f, ": {why}"))
            }
            Self::Unusable(message) => f.write_str(message),
        }
    }
}

impl Federation {
    /// Asks for the schema of `name` again: a table that was changed upstream is read as it is now. Where it cannot be
    /// had, what was known stays, and the upstream's keeper looks.
    pub async fn look_again(&self, name: &DatasetName) {
        let Some(at) = self.inner.entries.iter().position(|entry| entry.name == *name) else { return };
        let Some(place) = self.inner.groups.iter().position(|group| group.members.contains(&at)) else {
            return;
        };
        let keeper = Keeper { federation: self.clone(), place, parallel: 1 };
        if !keeper.load(at).await {
            keeper.group().alarm.notify_one();
        }
    }

    /// The remote table of `entry` has these columns: it can be queried.
    fn register(
        &self,
        entry: &Entry,
        (upstream, remote, rows): (&Arc<Upstream>, &RemoteTableName, &Arc<RowCount>),
        schema: &SchemaRef,
    ) -> datafusion::error::Result<()> {
        let was = entry.state.load();
        if was.schema() != Some(schema) {
            let (upstream, remote) = (Arc::clone(upstream), remote.clone());
            let planner = &self.inner.planner;
            let table =
                RemoteTable::try_new(entry.name.clone(), upstream, remote, Arc::clone(schema), planner)?
                    .counted_by(Arc::clone(rows));
            let table: Arc<dyn TableProvider> = Arc::new(table);
            self.inner.sources.register_table(entry.reference(), Arc::clone(&table))?;
            if entry.is_remote() {
                self.inner.context.register_table(entry.reference(), table)?;
                // Perhaps it was taken here meanwhile.
                self.restore_here(entry)?;
            }
        }
        if !matches!(was.as_ref(), State::Ready { .. }) {
            tracing::info!(dataset = %entry.name, columns = schema.fields().len(), "dataset ready");
        }
        entry.state.store(Arc::new(State::Ready { schema: Arc::clone(schema) }));
        self.inner.changed.notify_waiters();
        Ok(())
    }

    /// Begins with what `former` knows of the datasets that are the same tables of the same upstreams: they are answered at
    /// once.
    pub fn begin_as(&self, former: &Self) {
        for entry in &self.inner.entries {
            let Kind::Dataset { upstream, remote, rows } = &entry.kind else { continue };
            let known = former.inner.entries.iter().find(|known| known.name == entry.name);
            let Some(Entry { kind: Kind::Dataset { upstream: by, remote: of, .. }, state, .. }) = known
            else {
                continue;
            };
            let state = state.load();
            let (true, Some(schema)) = (upstream.id() == by.id() && remote == of, state.schema()) else {
                continue;
            };
            if let Err(error) = self.register(entry, (upstream, remote, rows), schema) {
                // Its keeper tells why, should it stay so.
                tracing::debug!(dataset = %entry.name, %error, "not taken from the former configuration");
                continue;
            }
            entry.state.store(state.clone());
        }
    }

    /// Plans the views again over the schemas that are known now. Views come after what they depend on.
    pub(super) async fn plan_views(&self) {
        // Keepers take turns: an older look at the states must not overwrite a newer one.
        let _turn = self.inner.views.lock().await;
        for entry in &self.inner.entries {
            if let Kind::View(view) = &entry.kind {
                let state = self.plan_view(entry, view).await;
                if matches!(state, State::Error { .. }) {
                    metrics::counter!("view_load_errors", "view" => entry.name.to_string()).increment(1);
                }
                entry.state.store(Arc::new(state));
            }
        }
    }

    async fn plan_view(&self, entry: &Entry, view: &View) -> State {
        let mut stale: Option<(Reason, SystemTime)> = None;
        for at in &view.depends {
            let source = &self.inner.entries[*at];
            match source.answering().as_ref() {
                State::Ready { .. } => {}
                State::Initializing | State::Error { reason: Reason::Loading { why: None, .. }, .. } => {
                    return State::Initializing;
                }
                State::Error { reason, schema, since } => {
                    let reason = Reason::Unusable(format!("`{}` is not ready: {reason}", source.name));
                    match schema {
                        // Away for as long as the first of its sources.
                        Some(_) if stale.as_ref().is_some_and(|(_, earlier)| earlier <= since) => {}
                        Some(_) => stale = Some((reason, *since)),
                        None => return State::Error { reason, schema: None, since: *since },
                    }
                }
            }
        }
        match (self.register_view(entry, view).await, stale) {
            (Ok(schema), None) => State::Ready { schema },
            (Ok(schema), Some((reason, since))) => State::Error { reason, schema: Some(schema), since },
            (Err(error), _) => State::Error {
                reason: Reason::Unusable(format!("the view cannot be planned: {error}")),
                schema: None,
                since: SystemTime::now(),
            },
        }
    }

    async fn register_view(&self, entry: &Entry, view: &View) -> datafusion::error::Result<SchemaRef> {
        let context = &self.inner.context;
        let statement = Statement::Statement(Box::new(SqlStatement::Query(view.query.clone())));
        let plan = context.state().statement_to_plan(statement).await?;
        let table = ViewTable::new(plan, Some(view.sql.clone()));
        let schema = TableProvider::schema(&table);
        context.register_table(entry.reference(), Arc::new(table))?;
        Ok(schema)
    }
}

/// Between half of `wait` and the whole of it.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..=1.0))
}
