//! When and how the next generation of each accelerated dataset is made.
//!
//! A checked spicepod and a federation enter; tables that are always whole leave, into the federation's catalog, and
//! what is known of each. Rows are fetched through federation alone; nothing here opens a connection.

mod definition;
mod error;

mod asks;
mod progress;
mod status;

mod cadence;
mod schedule;

mod fetch;
mod home;
mod retention;
mod since;
mod source;

mod build;
mod filed;
mod lineage;
mod resident;
mod rows;

mod holder;
mod keeper;
pub(crate) mod puts;
mod stream;
mod write;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use tokio::sync::Semaphore;

use crate::acceleration::publish::{Publication, Retention};
use crate::acceleration::store::Budget;
use crate::config::{self, Diagnostic, Spicepod};
use crate::federation::Federation;
use crate::name::DatasetName;
use crate::task::Scope;

pub use asks::{Ask, AskError, AskMode, RefreshFailure, Refreshes};
use definition::Definition;
use holder::Holder;
use home::Home;
use keeper::Keeper;
pub use progress::Progress;
use puts::Puts;
pub use puts::{PutError, Stored, Writer};
use status::Board;
pub use status::{Phase, Status};
pub use stream::StreamStatus;
use stream::{Follower, Remote};

/// The accelerated datasets of one spicepod. Cheap to clone.
#[derive(Clone, Default)]
pub struct Acceleration {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Every dataset of the spicepod; those that are not accelerated have no board.
    datasets: Vec<(DatasetName, Option<Arc<Board>>)>,
    /// Taken by the start.
    waiting: Mutex<Vec<(Definition, Arc<Board>)>>,
    /// Kept before by another configuration: their keepers run, and go on by these definitions.
    kept: Vec<(Definition, Arc<Board>)>,
}

impl Acceleration {
    /// Lays out what is accelerated and lets its queries wait; nothing is fetched yet. What `former` holds already, and in
    /// the same way, is taken from there, with its rows.
    ///
    /// # Errors
    /// Every dataset whose settings do not go together.
    pub fn try_new(
        spicepod: &Spicepod,
        federation: &Federation,
        former: Option<&Self>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let folder = spicepod.source.path.parent().unwrap_or(Path::new(""));
        let data_dir = spicepod.runtime.data_dir.as_deref();
        let (mut datasets, mut waiting, mut kept, mut problems) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for dataset in &spicepod.datasets {
            match Definition::try_new(dataset, folder, data_dir) {
                Ok(None) => datasets.push((dataset.name.clone(), None)),
                Ok(Some(definition)) => {
                    if let Some(board) = former.and_then(|former| former.holding_as(&definition)) {
                        datasets.push((dataset.name.clone(), Some(Arc::clone(&board))));
                        kept.push((definition, board));
                        continue;
                    }
                    let home = Home::new(dataset.name.clone(), federation);
                    let board = Board::new(&definition, home, publication(dataset, federation));
                    datasets.push((dataset.name.clone(), Some(Arc::clone(&board))));
                    waiting.push((definition, board));
                }
                Err(message) => problems.push(Diagnostic {
                    code: Some("InvalidAcceleration"),
                    message: format!("dataset `{}`: {message}", dataset.name),
                    at: Some(dataset.at),
                    help: None,
                }),
            }
        }
        problems.extend(shared_folders(spicepod, &waiting));
        if !problems.is_empty() {
            return Err(problems);
        }
        for (_, board) in waiting.iter().filter(|(definition, _)| definition.is_awaited) {
            board.home.await_table(None);
        }
        Ok(Self { inner: Arc::new(Inner { datasets, waiting: Mutex::new(waiting), kept }) })
    }

    /// The board of the same rows, held in the same way.
    fn holding_as(&self, definition: &Definition) -> Option<Arc<Board>> {
        let boards = self.inner.datasets.iter().filter_map(|(_, board)| board.as_ref());
        let mut living = boards.filter(|board| !board.retired.is_cancelled());
        living.find(|board| board.definition().holds_as(definition)).cloned()
    }

    /// Shows in `federation` what is taken from a former configuration, which goes on showing it as well.
    ///
    /// # Errors
    /// A table that the catalog does not take.
    pub async fn show_kept(&self, federation: &Federation) -> datafusion::error::Result<()> {
        for (_, board) in &self.inner.kept {
            board.home.show_in(federation).await?;
        }
        Ok(())
    }

    /// Takes over from `former`: what both hold moves to `federation` and goes on by its definition of now, and what this
    /// one does not hold is given up.
    ///
    /// # Errors
    /// A table that the catalog does not take.
    pub async fn succeed(&self, former: &Self, federation: &Federation) -> datafusion::error::Result<()> {
        for (definition, board) in &self.inner.kept {
            board.home.move_to(federation).await?;
            if *definition != *board.definition() {
                board.redefine(definition.clone());
            }
        }
        let given_up = former.boards().filter(|board| !self.has(board));
        given_up.for_each(|board| board.retire());
        Ok(())
    }

    /// Gives up what was started for this configuration alone: another one stays.
    pub fn abandon(&self) {
        let is_kept = |board: &Board| self.inner.kept.iter().any(|(_, kept)| std::ptr::eq(&**kept, board));
        self.boards().filter(|board| !is_kept(board)).for_each(|board| board.retire());
    }

    /// Whether the folder of `name` is held by a keeper of `former`, who has to let it go first.
    #[must_use]
    pub fn waits_for_folder_of(&self, name: &DatasetName, former: &Self) -> bool {
        let folder = |board: &Board| board.definition().disk.as_ref().map(|disk| disk.folder.clone());
        let Some(board) = self.boards().find(|board| board.name == *name) else { return false };
        let Some(wanted) = folder(board) else { return false };
        former.boards().any(|other| !std::ptr::eq(other, board) && folder(other).as_ref() == Some(&wanted))
    }

    fn boards(&self) -> impl Iterator<Item = &Board> {
        self.inner.datasets.iter().filter_map(|(_, board)| board.as_deref())
    }

    fn has(&self, board: &Board) -> bool {
        self.boards().any(|own| std::ptr::eq(own, board))
    }

    /// Starts one keeper for each dataset of `which` that has none; at most `parallel` first loads run at a time.
    pub fn start(&self, scope: &Scope, parallel: usize, which: impl Fn(&DatasetName) -> bool) {
        let loads = Arc::new(Semaphore::new(parallel.max(1)));
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (definition, board) in waiting.extract_if(.., |(definition, _)| which(&definition.name)) {
            let dataset = definition.name.to_string();
            // There from the start, so that its first increase is one.
            metrics::counter!("dataset_acceleration_refresh_errors", "dataset" => dataset).absolute(0);
            board.publication.announce();
            let puts = board.puts.clone();
            let stop = board.stop_with(&scope.token());
            let (stream, told) = (definition.stream, board.stream.clone());
            let home = board.home.clone();
            let held = Holder::new(definition, board);
            // Both hear of the end themselves, to say so.
            if let (Some(stream), Some(told)) = (stream, told) {
                let origin = Remote::new(home, held.name().clone());
                let follower = Follower::new(held, told, origin, stream.check_interval, rand::random());
                scope.spawn_draining("append stream", follower.keep(stop));
                continue;
            }
            let keeper = Keeper::new(held, Arc::clone(&loads));
            scope.spawn_draining("accelerated dataset", async move {
                let _ends = puts.as_ref().map(Puts::ends_with_this);
                keeper.keep(stop).await;
            });
        }
    }

    /// What is known of `name`; none when it is not accelerated.
    #[must_use]
    pub fn status(&self, name: &DatasetName) -> Option<Status> {
        let (_, board) = self.inner.datasets.iter().find(|(known, _)| known == name)?;
        board.as_ref().map(|board| board.status())
    }

    /// The columns of the primary key of `name`; none where none is declared.
    #[must_use]
    pub fn primary_key(&self, name: &DatasetName) -> Vec<String> {
        let found = self.inner.datasets.iter().find(|(known, _)| known == name);
        let board = found.and_then(|(_, board)| board.as_ref());
        board.map(|board| board.primary_key.clone()).unwrap_or_default()
    }

    /// The rows of `name` as a stream; none when it is not accelerated.
    #[must_use]
    pub fn publication(&self, name: &DatasetName) -> Option<Arc<Publication>> {
        let (_, board) = self.inner.datasets.iter().find(|(known, _)| known == name)?;
        board.as_ref().map(|board| Arc::clone(&board.publication))
    }

    /// Asks for a refresh of `name`: it joins an equal one that waits, and follows one that runs. Its number, by
    /// which [`Status::refreshes`] tells when it has ended.
    ///
    /// # Errors
    /// An unknown or not accelerated dataset, one that is written to, a statement that is no query, an append without a
    /// time column, too many refreshes that wait.
    pub fn refresh(&self, name: &str, ask: Ask) -> Result<u64, AskError> {
        let board = self.refreshed(name)?;
        if board.stream.is_some() && (ask.sql.is_some() || ask.mode == Some(AskMode::Append)) {
            let message = "the dataset follows an append stream: a refresh compares all of its rows with the upstream's, \
                           without refresh_sql and refresh_mode";
            return Err(AskError::Invalid(message.to_owned()));
        }
        ask.sql.as_deref().map_or(Ok(()), is_query)?;
        if ask.mode == Some(AskMode::Append) && !board.has_time {
            let message = "refresh_mode append needs a time_column of the dataset, to tell what is new";
            return Err(AskError::Invalid(message.to_owned()));
        }
        board.ask(ask)
    }

    /// Replaces `refresh_sql` of `name` until the restart; none gives back the spicepod's.
    ///
    /// # Errors
    /// As for [`Acceleration::refresh`].
    pub fn set_refresh_sql(&self, name: &str, sql: Option<String>) -> Result<(), AskError> {
        let board = self.refreshed(name)?;
        if board.stream.is_some() {
            let message = "the dataset follows an append stream, which has no refresh_sql";
            return Err(AskError::Invalid(message.to_owned()));
        }
        sql.as_deref().map_or(Ok(()), is_query)?;
        board.set_sql(sql);
        Ok(())
    }

    /// Opens a way for one client's rows into `name`, a dataset or view of the spicepod. `upstream` says what is wrong
    /// with its upstream, which has to tell the columns once.
    ///
    /// # Errors
    /// [`PutError::NotWritable`], [`PutError::NotReady`] before the table is here, [`PutError::Stopped`].
    pub fn writer(&self, name: &DatasetName, upstream: Option<String>) -> Result<Writer, PutError> {
        let refused = |why: &str| PutError::NotWritable { path: name.to_string(), why: why.to_owned() };
        let known = self.inner.datasets.iter().find(|(known, _)| known == name);
        let (_, board) = known.ok_or_else(|| refused("it is a view"))?;
        let board = board.as_ref().filter(|board| board.puts.is_some());
        let board = board.ok_or_else(|| {
            refused(
                "it is read only: set `access: read_write`, with `acceleration: {refresh_mode: disabled}`, to write to \
                 the copy that is kept here, or write to its upstream",
            )
        })?;
        board.writer(upstream)
    }

    /// The board of a dataset that refreshes may be asked for.
    fn refreshed(&self, name: &str) -> Result<&Board, AskError> {
        let board = self.board(name)?;
        match &board.puts {
            None => Ok(board),
            Some(_) => Err(AskError::Invalid(format!(
                "Dataset {} is written to (access: read_write) and never refreshed: a refresh would replace what was written",
                board.name
            ))),
        }
    }

    fn board(&self, name: &str) -> Result<&Board, AskError> {
        let found = name
            .parse::<DatasetName>()
            .ok()
            .and_then(|name| self.inner.datasets.iter().find(|(known, _)| *known == name));
        match found {
            None => Err(AskError::NotFound(name.to_owned())),
            Some((known, None)) => Err(AskError::NotAccelerated(known.to_string())),
            Some((_, Some(board))) => Ok(board),
        }
    }
}

fn publication(dataset: &config::Dataset, federation: &Federation) -> Arc<Publication> {
    let default = Retention::default();
    let retention = dataset.acceleration.as_ref().map_or(default, |acceleration| Retention {
        time: acceleration.stream.time.map_or(default.time, |time| time.get()),
        bytes: acceleration.stream.bytes.map_or(default.bytes, |bytes| bytes.bytes()),
    });
    let budget = Budget::new(dataset.name.clone(), &federation.context().runtime_env().memory_pool);
    Publication::within(dataset.name.clone(), retention, Some(budget))
}

/// Datasets that are to be written to a folder of one before them.
fn shared_folders(spicepod: &Spicepod, waiting: &[(Definition, Arc<Board>)]) -> Vec<Diagnostic> {
    let mut owners: HashMap<&Path, &DatasetName> = HashMap::new();
    let mut problems = Vec::new();
    for (definition, _) in waiting {
        let Some(disk) = &definition.disk else { continue };
        let name = &definition.name;
        let Some(owner) = owners.insert(&disk.folder, name) else { continue };
        problems.push(Diagnostic {
            code: Some("InvalidAcceleration"),
            message: format!("dataset `{name}`: its folder {:?} is that of dataset `{owner}`", disk.folder),
            at: spicepod.datasets.iter().find(|dataset| dataset.name == *name).map(|dataset| dataset.at),
            help: Some("give each a folder of its own: `acceleration.params.file_path`".to_owned()),
        });
    }
    problems
}

/// # Errors
/// Words for the one who asked.
fn is_query(sql: &str) -> Result<(), AskError> {
    let statements = DFParser::parse_sql(sql)
        .map_err(|error| AskError::Invalid(format!("refresh_sql cannot be read: {error}")))?;
    let is_one = matches!(statements.iter().collect::<Vec<_>>().as_slice(),
        [Statement::Statement(statement)] if matches!(statement.as_ref(), SqlStatement::Query(_)));
    match is_one {
        true => Ok(()),
        false => Err(AskError::Invalid("refresh_sql must be one SELECT statement".to_owned())),
    }
}
