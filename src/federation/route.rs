//! Which way a statement is answered: forwarded whole, or planned here over scans.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use datafusion::common::TableReference;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{Query, Statement as SqlStatement, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;

use crate::config::{self, Diagnostic};
use crate::name::DatasetName;
use crate::upstream::Upstream;

use super::registry::{Entry, Kind, Named, Names, Reason, State, View, parts_of};
use super::rewrite::{Meaning, normalised, rewrite};
use super::table::speaks_datafusion;
use super::{Federation, RemoteDataset};

/// A forwarded statement may not be longer than this, in bytes: views on views grow it.
const FORWARD_LEN_MAX: usize = 4 << 20;
/// How many of the known names an error lists.
const NAMES_SHOWN_MAX: usize = 10;

/// The way to answer a statement.
pub enum Route {
    Forward(Forward),
    /// Planned here; why it was not forwarded.
    Scan {
        reason: String,
    },
}

/// A statement in the words of the one upstream that has all of its tables.
#[derive(Clone)]
pub struct Forward {
    pub upstream: Arc<Upstream>,
    pub sql: String,
    /// The upstream may name unaliased columns differently: the local plan's names hold.
    pub requalified: bool,
    /// The datasets it reads.
    pub datasets: Vec<DatasetName>,
}

/// A statement that names something that cannot be asked now.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// No dataset or view of that name.
    Unknown { name: String, help: String },
    /// It exists and was never reached, or its schema is not known.
    NotReady { name: DatasetName, endpoint: Option<String>, reason: Option<Reason> },
}

impl Forward {
    /// The same without its SQL.
    #[must_use]
    pub fn without_text(&self) -> Self {
        let (upstream, datasets) = (Arc::clone(&self.upstream), self.datasets.clone());
        Self { upstream, sql: String::new(), requalified: self.requalified, datasets }
    }
}

impl Federation {
    /// Checks that all that `statement` names can be asked.
    ///
    /// # Errors
    /// The first name that cannot.
    pub fn check(&self, statement: &Statement) -> Result<(), Refusal> {
        for reference in references(statement) {
            let parts = parts_of(&reference);
            match self.inner.names.find(&parts) {
                Some(Named::Local) => {}
                Some(Named::Entry(at)) => self.check_entry(at)?,
                None => return Err(self.unknown(&reference.to_string())),
            }
        }
        Ok(())
    }

    fn check_entry(&self, at: usize) -> Result<(), Refusal> {
        let entry = &self.inner.entries[at];
        let not_ready = |reason| {
            let endpoint = match &entry.kind {
                Kind::Dataset { upstream, .. } => Some(upstream.endpoint().to_owned()),
                Kind::View(_) => None,
            };
            Err(Refusal::NotReady { name: entry.name.clone(), endpoint, reason })
        };
        // A view that is not ready is best explained by the dataset under it.
        if let Kind::View(view) = &entry.kind {
            view.depends.iter().try_for_each(|below| self.check_entry(*below))?;
        }
        match entry.answering().as_ref() {
            State::Initializing => not_ready(None),
            State::Error { reason, schema: None, .. } => not_ready(Some(reason.clone())),
            State::Ready { .. } | State::Error { .. } => Ok(()),
        }
    }

    fn unknown(&self, name: &str) -> Refusal {
        let names: Vec<String> = self.inner.entries.iter().map(|entry| entry.name.to_string()).collect();
        Refusal::Unknown { name: name.to_owned(), help: suggest(name, &names) }
    }

    /// Decides how `statement` is answered. It has been planned already: its names are good.
    #[must_use]
    pub fn route(&self, statement: &Statement) -> Route {
        match self.try_forward(statement) {
            Ok(forward) => Route::Forward(forward),
            Err(reason) => Route::Scan { reason },
        }
    }

    fn try_forward(&self, statement: &Statement) -> Result<Forward, String> {
        if !self.inner.push_down {
            return Err("push_down is off".to_owned());
        }
        let query = query_of(statement).ok_or("only queries are forwarded")?;
        let datasets = self.datasets_below(statement)?;
        let (first, rest) = datasets.split_first().ok_or("it reads no dataset")?;
        let first_upstream = self.upstream(*first)?;
        if !speaks_datafusion(first_upstream.flavor()) {
            return Err(format!("{} is not known to speak DataFusion's SQL", first_upstream.endpoint()));
        }
        for at in rest {
            if self.upstream(*at)?.id() != first_upstream.id() {
                return Err("its datasets live on more than one upstream".to_owned());
            }
        }
        // What this statement does not read must not be sent, whatever the names are.
        let lookup = |parts: &[String]| self.meaning(parts, &datasets);
        let rewritten = rewrite(query, &lookup).map_err(|reason| reason.0)?;
        let sql = rewritten.query.to_string();
        if sql.len() > FORWARD_LEN_MAX {
            return Err("with its views inlined it is too long".to_owned());
        }
        if parse_query(&sql).as_ref() != Ok(&rewritten.query) {
            return Err("its text does not read back as it was written".to_owned());
        }
        Ok(Forward {
            upstream: self.roomiest(&datasets)?,
            sql,
            requalified: rewritten.requalified,
            datasets: datasets.iter().map(|at| self.inner.entries[*at].name.clone()).collect(),
        })
    }

    /// Of connections that differ only in their message size limit, the one with the largest.
    fn roomiest(&self, datasets: &[usize]) -> Result<Arc<Upstream>, String> {
        let mut best: Option<&Arc<Upstream>> = None;
        for at in datasets {
            let upstream = self.upstream(*at)?;
            if best.is_none_or(|best| best.max_message_size() < upstream.max_message_size()) {
                best = Some(upstream);
            }
        }
        best.cloned().ok_or_else(|| "it reads no dataset".to_owned())
    }

    fn upstream(&self, at: usize) -> Result<&Arc<Upstream>, String> {
        match &self.inner.entries[at].kind {
            Kind::Dataset { upstream, .. } => Ok(upstream),
            Kind::View(_) => Err("a view is not a dataset".to_owned()),
        }
    }

    /// The datasets that a statement reads, through its views too.
    fn datasets_below(&self, statement: &Statement) -> Result<Vec<usize>, String> {
        let mut found = Vec::new();
        let mut waiting = Vec::new();
        for reference in references(statement) {
            match self.inner.names.find(&parts_of(&reference)) {
                Some(Named::Entry(at)) => waiting.push(at),
                _ => return Err(format!("`{reference}` is known only here")),
            }
        }
        let mut seen = vec![false; self.inner.entries.len()];
        while let Some(at) = waiting.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            match &self.inner.entries[at].kind {
                Kind::Dataset { .. } if !self.inner.entries[at].is_remote() => {
                    return Err(format!("`{}` is kept here", self.inner.entries[at].name));
                }
                Kind::Dataset { .. } => found.push(at),
                Kind::View(view) => waiting.extend(&view.depends),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn meaning(&self, parts: &[String], datasets: &[usize]) -> Option<Meaning<'_>> {
        match self.inner.names.find(parts)? {
            Named::Local => Some(Meaning::Local),
            Named::Entry(at) => {
                let entry = &self.inner.entries[at];
                match &entry.kind {
                    Kind::Dataset { remote, .. } => {
                        datasets.contains(&at).then_some(Meaning::Dataset { name: &entry.name, remote })
                    }
                    Kind::View(view) => Some(Meaning::View { name: &entry.name, query: &view.query }),
                }
            }
        }
    }
}

/// "did you mean" the nearest name, or the names there are.
fn suggest(name: &str, names: &[String]) -> String {
    let near = names
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= known.len() / 3 + 1);
    match near {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None if names.is_empty() => "the spicepod has no datasets".to_owned(),
        None => {
            let shown: Vec<&str> = names.iter().take(NAMES_SHOWN_MAX).map(String::as_str).collect();
            let more = if names.len() > shown.len() { ", …" } else { "" };
            format!("datasets are: {}{more}", shown.join(", "))
        }
    }
}

/// The relations that a statement reads, CTEs and table functions left out. A statement that cannot be
/// walked has none: it does not plan either.
fn references(statement: &Statement) -> Vec<TableReference> {
    let mut tables = resolve_table_references(statement, true).map(|(tables, _)| tables).unwrap_or_default();
    let mut factors = Factors::default();
    if let Statement::Statement(inner) = statement {
        // It never breaks.
        let _ = inner.visit(&mut factors);
    }
    tables.retain(|table| {
        let parts = parts_of(table);
        !factors.functions.contains(&parts) || factors.tables.contains(&parts)
    });
    tables
}

/// The names that stand in FROM: those that are called, `generate_series(1, 3)`, and those that are not.
#[derive(Default)]
struct Factors {
    functions: HashSet<Vec<String>>,
    tables: HashSet<Vec<String>>,
}

impl Visitor for Factors {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: None, .. } => self.tables.extend(normalised(name)),
            TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => {
                self.functions.extend(normalised(name));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The query inside a statement, where it is one.
fn query_of(statement: &Statement) -> Option<&Query> {
    match statement {
        Statement::Statement(inner) => match inner.as_ref() {
            SqlStatement::Query(query) => Some(query),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn parse_query(sql: &str) -> Result<Query, String> {
    let statements = DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| error.to_string())?;
    match (statements.len(), statements.front().and_then(query_of)) {
        (1, Some(query)) => Ok(query.clone()),
        _ => Err("expected one SELECT statement".to_owned()),
    }
}

/// Lays out datasets and views, views after all that they depend on.
pub(super) fn entries(
    datasets: Vec<RemoteDataset>,
    views: &[config::View],
) -> Result<(Vec<Entry>, Names), Vec<Diagnostic>> {
    let mut entries: Vec<Entry> = datasets
        .into_iter()
        .map(|dataset| Entry {
            name: dataset.name,
            from: dataset.from,
            kind: Kind::Dataset { upstream: dataset.upstream, remote: dataset.remote, rows: Arc::default() },
            state: ArcSwap::from_pointee(State::Initializing),
            here: ArcSwap::default(),
            since: SystemTime::now(),
        })
        .collect();
    let (parsed, problems) = parse_views(views);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut names = Names::default();
    for (at, entry) in entries.iter().enumerate() {
        names.insert(&entry.name, at);
    }
    place_views(parsed, &mut entries, &mut names)?;
    Ok((entries, names))
}

/// Everything that is wrong with `views` over the datasets called `names`: text that does not parse,
/// unknown tables, circles.
#[must_use]
pub fn view_problems(names: &[&DatasetName], views: &[config::View]) -> Vec<Diagnostic> {
    let (parsed, mut problems) = parse_views(views);
    let known: Vec<&DatasetName> = names.iter().copied().chain(views.iter().map(|view| &view.name)).collect();
    let unknown = unknown_names(&parsed, &known);
    let is_whole = problems.is_empty() && unknown.is_empty();
    problems.extend(unknown);
    if is_whole {
        let mut placed = Names::default();
        for (at, name) in names.iter().enumerate() {
            placed.insert(name, at);
        }
        problems.extend(in_order(parsed, placed).err().unwrap_or_default());
    }
    problems
}

struct ParsedView<'a> {
    view: &'a config::View,
    query: Query,
    references: Vec<Vec<String>>,
}

fn problem(view: &config::View, message: String, help: Option<String>) -> Diagnostic {
    let message = format!("view `{}`: {message}", view.name);
    Diagnostic { code: None, message, at: Some(view.at), help }
}

fn parse_views(views: &[config::View]) -> (Vec<ParsedView<'_>>, Vec<Diagnostic>) {
    let mut parsed = Vec::new();
    let mut problems = Vec::new();
    for view in views {
        match parse_query(&view.sql) {
            Ok(query) => {
                let statement = Statement::Statement(Box::new(SqlStatement::Query(Box::new(query.clone()))));
                let references = references(&statement).iter().map(parts_of).collect();
                parsed.push(ParsedView { view, query, references });
            }
            Err(error) => problems.push(problem(view, error, None)),
        }
    }
    (parsed, problems)
}

fn unknown_names(parsed: &[ParsedView<'_>], known: &[&DatasetName]) -> Vec<Diagnostic> {
    let mut names = Names::default();
    for (at, name) in known.iter().enumerate() {
        names.insert(name, at);
    }
    let shown: Vec<String> = known.iter().map(ToString::to_string).collect();
    let mut problems = Vec::new();
    for ParsedView { view, references, .. } in parsed {
        for parts in references.iter().filter(|parts| names.find(parts).is_none()) {
            let name = parts.join(".");
            problems.push(problem(view, format!("unknown table `{name}`"), Some(suggest(&name, &shown))));
        }
    }
    problems
}

/// Views after all that they name; what remains goes in circles.
fn in_order<'a>(
    mut waiting: Vec<ParsedView<'a>>,
    mut names: Names,
) -> Result<Vec<ParsedView<'a>>, Vec<Diagnostic>> {
    let mut placed = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let (ready, blocked): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|view| view.references.iter().all(|parts| names.find(parts).is_some()));
        if ready.is_empty() {
            let circle = |view: &ParsedView<'_>| {
                problem(view.view, "it depends on itself, or on views that do".to_owned(), None)
            };
            return Err(blocked.iter().map(circle).collect());
        }
        for view in ready {
            names.insert(&view.view.name, usize::MAX);
            placed.push(view);
        }
        waiting = blocked;
    }
    Ok(placed)
}

/// Appends views in an order in which each finds what it names.
fn place_views(
    parsed: Vec<ParsedView<'_>>,
    entries: &mut Vec<Entry>,
    names: &mut Names,
) -> Result<(), Vec<Diagnostic>> {
    for ParsedView { view, query, references } in in_order(parsed, names.clone())? {
        let depends = references
            .iter()
            .filter_map(|parts| match names.find(parts) {
                Some(Named::Entry(at)) => Some(at),
                _ => None,
            })
            .collect();
        let kind = Kind::View(View { sql: view.sql.clone(), query: Box::new(query), depends });
        let state = ArcSwap::from_pointee(State::Initializing);
        entries.push(Entry {
            name: view.name.clone(),
            from: "view".to_owned(),
            kind,
            state,
            here: ArcSwap::default(),
            since: SystemTime::now(),
        });
        names.insert(&view.name, entries.len() - 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::config::Span;

    use super::*;

    fn problems(views: &[(&str, &str)]) -> Vec<String> {
        let names: Vec<DatasetName> = ["orders", "sales.items"].map(|name| name.parse().unwrap()).into();
        let views: Vec<config::View> = views
            .iter()
            .map(|(name, sql)| config::View {
                name: name.parse().unwrap(),
                description: None,
                metadata: BTreeMap::new(),
                sql: (*sql).to_owned(),
                file: None,
                at: Span { line: 1, column: 1, len: 1 },
            })
            .collect();
        let names: Vec<&DatasetName> = names.iter().collect();
        let told = view_problems(&names, &views).into_iter();
        told.map(|problem| format!("{} | {}", problem.message, problem.help.unwrap_or_default())).collect()
    }

    #[test]
    fn views_may_stand_in_any_order() {
        let none: Vec<String> = Vec::new();
        assert_eq!(problems(&[("b", "SELECT * FROM a"), ("a", "SELECT * FROM orders, sales.items")]), none);
        assert_eq!(problems(&[("t", "SELECT * FROM information_schema.tables")]), none);
    }

    #[test]
    fn every_view_that_is_wrong_is_told() {
        let told = problems(&[
            ("a", "SELECT * FROM oders"),
            ("b", "SELECT FROM WHERE"),
            ("c", "DELETE FROM orders"),
            ("d", "SELECT 1; SELECT 2"),
        ]);
        insta::assert_snapshot!(told.join("\n"));
        let circle =
            problems(&[("x", "SELECT * FROM y"), ("y", "SELECT * FROM x"), ("z", "SELECT * FROM orders")]);
        insta::assert_snapshot!(circle.join("\n"));
        let itself = problems(&[("x", "SELECT * FROM x")]);
        insta::assert_snapshot!(itself.join("\n"));
    }
}
