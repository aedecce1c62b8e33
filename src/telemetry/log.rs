//! The log: events enter, lines on standard error leave, for people or as JSON. What it tells can be changed while it runs.
//!
//! Warnings and errors that say the same again are counted and not written: an upstream that is away must not fill a disk.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Equal warnings within this time are one.
const REPEAT_WINDOW: Duration = Duration::from_secs(10);
/// How often what was repeated is told.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
/// Kinds of lines that are told apart; others are written as they come.
const KINDS_MAX: usize = 1_024;
/// The log's own words are never held back.
const OWN_TARGET: &str = "sidewing::log";

/// How much the log tells when `RUST_LOG` does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verbosity {
    /// Errors alone, for a command that stops what others would be warned of.
    Silent,
    /// Warnings and errors, for commands that print their own result.
    Quiet,
    #[default]
    Info,
    Verbose,
    VeryVerbose,
}

/// For whom lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Human,
    /// One object a line, the event's fields flat in it.
    Json,
}

/// Directives that are none.
#[derive(Debug, Error)]
#[error(
    "`{directives}` does not say what is logged: {reason}; write for example `info` or `warn,sidewing=debug`"
)]
pub struct InvalidDirectives {
    directives: String,
    reason: String,
}

/// The log of this process, once it was begun.
struct Log {
    filter: Handle<EnvFilter, Registry>,
    /// What holds now.
    directives: RwLock<String>,
    /// Whether the environment decided: the spicepod has no say then.
    is_from_environment: bool,
    repeats: Repeats,
}

static LOG: OnceLock<Log> = OnceLock::new();

impl Verbosity {
    /// Without rmcp's own log, which calls it an error when a client goes away.
    fn directives(self) -> &'static str {
        match self {
            Self::Silent => "error,rmcp=off",
            Self::Quiet => "warn,rmcp=off",
            Self::Info => "warn,rmcp=off,sidewing=info",
            Self::Verbose => "info,rmcp=off,sidewing=debug",
            Self::VeryVerbose => "debug,sidewing=trace",
        }
    }
}

/// Sends the log to standard error; `RUST_LOG` wins over `verbosity`. Later calls change nothing.
pub fn init_log(verbosity: Verbosity) {
    init_log_to(verbosity, LogFormat::default(), std::io::stderr);
}

/// The same by way of `writer`, for who draws on the terminal that standard error is.
pub fn init_log_to<W>(verbosity: Verbosity, format: LogFormat, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty());
    let from_environment = from_environment.filter(|text| text.parse::<EnvFilter>().is_ok());
    let is_from_environment = from_environment.is_some();
    let directives = from_environment.unwrap_or_else(|| verbosity.directives().to_owned());
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&directives));
    let repeats = Repeats::default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(format == LogFormat::Human && std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = Registry::default().with(filter).with(lines.with_filter(repeats.clone()));
    // A second call in one process (tests, the demo) keeps the first log.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let directives = RwLock::new(directives);
        let _ = LOG.set(Log { filter: handle, directives, is_from_environment, repeats });
    }
}

/// What the log tells now, as directives; none before it was begun.
#[must_use]
pub fn log_directives() -> Option<String> {
    LOG.get().map(|log| log.directives.read().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Lets the log tell something else from now on, in the words of `RUST_LOG`.
///
/// # Errors
/// Directives that cannot be read.
pub fn set_directives(directives: &str) -> Result<(), InvalidDirectives> {
    let invalid = |reason: String| InvalidDirectives { directives: directives.trim().to_owned(), reason };
    let text = directives.trim();
    if text.is_empty() {
        return Err(invalid("it is empty".to_owned()));
    }
    let filter = EnvFilter::builder().parse(text).map_err(|error| invalid(error.to_string()))?;
    if let Some(log) = LOG.get() {
        log.filter.reload(filter).map_err(|error| invalid(error.to_string()))?;
        text.clone_into(&mut log.directives.write().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(())
}

/// The same by the spicepod's `output_level`, unless `RUST_LOG` has said what is logged.
pub fn set_verbosity(verbosity: Verbosity) {
    if LOG.get().is_some_and(|log| !log.is_from_environment) {
        // Our own directives can be read.
        let _ = set_directives(verbosity.directives());
    }
}

/// Tells how often lines were repeated that were held back, again and again, until it is dropped.
pub async fn tell_repeats() {
    let mut looks = tokio::time::interval(TELL_INTERVAL);
    loop {
        looks.tick().await;
        let Some(log) = LOG.get() else { continue };
        for (line, times) in log.repeats.ended(Instant::now()) {
            tracing::warn!(target: OWN_TARGET, times, line, "repeated");
        }
    }
}

/// Lines by what they say.
#[derive(Clone, Default)]
struct Repeats(Arc<Mutex<HashMap<u64, Repeated>>>);

struct Repeated {
    line: String,
    since: Instant,
    times: u64,
}

impl Repeats {
    /// Whether to write a line that is identified so.
    fn is_new(&self, key: u64, line: impl FnOnce() -> String, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&key) {
            Some(known) if now.duration_since(known.since) < REPEAT_WINDOW => {
                known.times += 1;
                false
            }
            // It is told before the line is written again, by `ended`.
            Some(known) if known.times > 0 => {
                known.times += 1;
                false
            }
            Some(known) => {
                known.since = now;
                true
            }
            None => {
                if all.len() < KINDS_MAX {
                    all.insert(key, Repeated { line: line(), since: now, times: 0 });
                }
                true
            }
        }
    }

    /// What is to be told now; what is over is forgotten.
    fn ended(&self, now: Instant) -> Vec<(String, u64)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = all.extract_if(|_, known| now.duration_since(known.since) >= REPEAT_WINDOW);
        over.filter(|(_, known)| known.times > 0).map(|(_, known)| (known.line, known.times)).collect()
    }
}

impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let about = event.metadata();
        if *about.level() > Level::WARN || about.target() == OWN_TARGET {
            return true;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let mut hasher = DefaultHasher::new();
        (about.target(), &words.0).hash(&mut hasher);
        let is_new = self.is_new(hasher.finish(), || words.0, Instant::now());
        if !is_new {
            metrics::counter!("log_lines_repeated").increment(1);
        }
        is_new
    }
}

/// The message and the fields that are words: numbers differ from line to line.
#[derive(Default)]
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let gap = if self.0.is_empty() { "" } else { " " };
        // A string takes everything.
        let _ = match field.name() {
            "message" => write!(self.0, "{gap}{value:?}"),
            name => write!(self.0, "{gap}{name}={value:?}"),
        };
    }

    fn record_f64(&mut self, _: &Field, _: f64) {}

    fn record_i64(&mut self, _: &Field, _: i64) {}

    fn record_u64(&mut self, _: &Field, _: u64) {}
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A writer that keeps what it is given.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn equal_warnings_are_written_once() {
        let (kept, repeats) = (Kept::default(), Repeats::default());
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).without_time();
        let lines = lines.with_writer(move || writer.clone()).with_filter(repeats.clone());
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            for attempt in 0..5 {
                tracing::warn!(attempt, dataset = "a", "away");
                tracing::info!("told");
            }
            tracing::warn!(attempt = 9, dataset = "b", "away");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let count = |words: &str| text.matches(words).count();
        assert_eq!((count("dataset=\"a\""), count("dataset=\"b\""), count("told")), (1, 1, 5), "{text}");
        assert!(repeats.ended(Instant::now()).is_empty());
        let told = repeats.ended(Instant::now() + REPEAT_WINDOW);
        assert_eq!(told, [("away dataset=\"a\"".to_owned(), 4)]);
        assert!(repeats.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_line_is_written_again_when_it_was_told_how_often_it_came() {
        let (repeats, begin) = (Repeats::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let is_new = |seconds| repeats.is_new(1, String::new, at(seconds));
        assert_eq!([is_new(0), is_new(5), is_new(11)], [true, false, false]);
        assert_eq!(repeats.ended(at(12)), [(String::new(), 2)]);
        assert!(is_new(12));
        assert_eq!(repeats.ended(at(30)), []);
        assert!(is_new(30));
    }

    #[test]
    fn directives_that_are_none_are_refused_in_words() {
        let refused = |directives: &str| set_directives(directives).unwrap_err().to_string();
        assert!(refused(" ").contains("it is empty"));
        assert!(refused("sidewing=loud").contains("write for example"), "{}", refused("sidewing=loud"));
        set_directives("warn,sidewing=debug").unwrap();
    }
}
