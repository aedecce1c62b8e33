//! `sidewing sql`: one query, or a prompt. SQL goes to a Flight endpoint; rows are printed.
//!
//! Rows go to stdout, everything else to stderr, so that output can be piped.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures::StreamExt;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use thiserror::Error;

use crate::config::BindAddress;
use crate::name::{EndpointError, EndpointUrl};
use crate::serve::http::{Format, RowWriter};
use crate::upstream::{Pool, Target, Upstream, UpstreamError};

use super::reach::ReachArgs;

/// Exit code of a process that Ctrl-C ended, by the shells' convention.
const INTERRUPTED: u8 = 130;
const HELP: &str = "end a statement with `;`; \\q or Ctrl-D leaves, Ctrl-C drops the statement";

/// Arguments of `sidewing sql`.
#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    /// Flight endpoint to ask: a URL, or unix:/path/of/socket
    #[arg(short, long, default_value = "http://127.0.0.1:50051", value_name = "URL", value_parser = endpoint)]
    endpoint: EndpointUrl,
    /// How rows are printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    reach: ReachArgs,
    /// SQL to run; without it, a prompt
    query: Option<String>,
}

/// As upstreams are named, and sockets of this machine.
fn endpoint(text: &str) -> Result<EndpointUrl, String> {
    match text.parse::<BindAddress>() {
        Ok(BindAddress::Unix(path)) => Ok(EndpointUrl::of_socket(path)),
        Err(error) if text.starts_with("unix:") => Err(error.to_string()),
        _ => text.parse().map_err(|error: EndpointError| error.to_string()),
    }
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Csv,
    Json,
}

impl Output {
    fn format(self) -> Format {
        match self {
            Self::Table => Format::Plain,
            Self::Csv => Format::Csv,
            Self::Json => Format::Json,
        }
    }
}

/// Why a statement printed nothing, or not all.
#[derive(Debug, Error)]
enum SqlError {
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    #[error("the rows cannot be printed: {0}")]
    Print(#[from] arrow::error::ArrowError),
    #[error("writing to stdout: {0}")]
    Output(#[from] io::Error),
    #[error("interrupted")]
    Interrupted,
}

/// Runs the query, or the prompt. Exits 0 when all went well, 1 after an error, 130 after Ctrl-C.
pub(super) async fn run(args: SqlArgs) -> ExitCode {
    let connected = Target::for_endpoint(args.endpoint, args.reach.api_key(), &args.reach.tls())
        .and_then(|target| Pool::new().connect(&target));
    let upstream = match connected {
        Ok(upstream) => upstream,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let session = Session { upstream, format: args.output.format() };
    match args.query {
        Some(query) => session.one(statement_text(&query)).await,
        None => session.prompt().await,
    }
}

struct Session {
    upstream: Arc<Upstream>,
    format: Format,
}

impl Session {
    async fn one(&self, sql: &str) -> ExitCode {
        match self.ask(sql).await {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever read the rows has seen enough.
            Err(SqlError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                match error {
                    SqlError::Interrupted => ExitCode::from(INTERRUPTED),
                    _ => ExitCode::FAILURE,
                }
            }
        }
    }

    /// Runs a statement and prints its rows; Ctrl-C ends it.
    async fn ask(&self, sql: &str) -> Result<(), SqlError> {
        let started = Instant::now();
        let rows = tokio::select! {
            rows = self.print(sql) => rows?,
            _ = tokio::signal::ctrl_c() => return Err(SqlError::Interrupted),
        };
        eprintln!("{}", summary(rows, started.elapsed()));
        Ok(())
    }

    async fn print(&self, sql: &str) -> Result<usize, SqlError> {
        let mut answer = self.upstream.query(sql).await?;
        let mut writer = RowWriter::try_new(self.format, &answer.schema)?;
        let mut rows = 0;
        let mut stdout = io::stdout();
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            rows += batch.num_rows();
            for chunk in RowWriter::chunks(&batch) {
                stdout.write_all(&writer.encode(&chunk)?)?;
            }
        }
        stdout.write_all(&writer.finish()?)?;
        if self.format == Format::Json {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()?;
        Ok(rows)
    }

    /// Reads statements until `\q` or the end of input. Errors end the statement, not the prompt.
    async fn prompt(&self) -> ExitCode {
        let is_terminal = io::stdin().is_terminal();
        let mut editor = match DefaultEditor::new() {
            Ok(editor) => editor,
            Err(error) => {
                eprintln!("error: the terminal cannot be used: {error}");
                return ExitCode::FAILURE;
            }
        };
        let history = history_file();
        if is_terminal {
            eprintln!("{} · {HELP}", self.upstream.endpoint());
            // A missing or unreadable history only means that there is none.
            let _ = history.as_ref().map(|path| editor.load_history(path));
        }
        let mut text = String::new();
        let mut worst = ExitCode::SUCCESS;
        loop {
            let prompt = match (is_terminal, text.is_empty()) {
                // On a terminal without capabilities it would go to stdout, between the rows.
                (false, _) => "",
                (true, true) => "sql> ",
                (true, false) => "  -> ",
            };
            // Reading blocks: the runtime goes on elsewhere, with its pings and timers.
            let Ok((returned, line)) = tokio::task::spawn_blocking(move || {
                let line = editor.readline(prompt);
                (editor, line)
            })
            .await
            else {
                return ExitCode::FAILURE;
            };
            editor = returned;
            match line {
                Ok(line) if text.is_empty() && is_quit(&line) => break,
                Ok(line) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                Err(ReadlineError::Interrupted) => text.clear(),
                Err(ReadlineError::Eof) => break,
                Err(error) => {
                    eprintln!("error: {error}");
                    return ExitCode::FAILURE;
                }
            }
            while let Some((sql, rest)) = split_statement(&text) {
                let (sql, rest) = (sql.trim().to_owned(), rest.trim_start().to_owned());
                text = rest;
                if is_terminal {
                    let _ = editor.add_history_entry(format!("{sql};"));
                }
                if !sql.is_empty() && self.one(&sql).await != ExitCode::SUCCESS {
                    worst = ExitCode::FAILURE;
                }
            }
            if text.trim().is_empty() {
                text.clear();
            }
        }
        // The last statement of a file or a pipe may lack its semicolon.
        if !is_terminal
            && !text.trim().is_empty()
            && self.one(statement_text(&text)).await != ExitCode::SUCCESS
        {
            worst = ExitCode::FAILURE;
        }
        if is_terminal {
            save_history(&mut editor, history);
            return ExitCode::SUCCESS;
        }
        worst
    }
}

fn is_quit(line: &str) -> bool {
    matches!(line.trim().trim_end_matches(';'), "\\q" | "quit" | "exit")
}

/// A statement without the semicolon that ends it.
fn statement_text(text: &str) -> &str {
    text.trim().trim_end_matches(|c: char| c == ';' || c.is_whitespace())
}

fn summary(rows: usize, took: Duration) -> String {
    let noun = if rows == 1 { "row" } else { "rows" };
    match took.as_secs() {
        0 => format!("{rows} {noun} in {} ms", took.as_millis()),
        _ => format!("{rows} {noun} in {:.2} s", took.as_secs_f64()),
    }
}

/// Splits at the first `;` that stands outside quotes and comments.
fn split_statement(text: &str) -> Option<(&str, &str)> {
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        // How far the token that begins here reaches; unclosed ones reach to the end.
        let step = match rest.chars().next()? {
            ';' => return Some((&text[..at], &text[at + 1..])),
            quote @ ('\'' | '"') => rest[1..].find(quote).map(|end| end + 2),
            '-' if rest.starts_with("--") => rest.find('\n').map(|end| end + 1),
            '/' if rest.starts_with("/*") => rest.find("*/").map(|end| end + 2),
            other => Some(other.len_utf8()),
        };
        at += step?;
    }
    None
}

/// `$XDG_STATE_HOME/sidewing/history`, by default under `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("sidewing").join("history"))
}

/// A history that cannot be kept is no reason to fail.
fn save_history(editor: &mut DefaultEditor, path: Option<PathBuf>) {
    let Some(path) = path else { return };
    let made = path.parent().map(std::fs::create_dir_all);
    if matches!(made, Some(Ok(()))) {
        let _ = editor.save_history(&path);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_statement_ends_at_its_own_semicolon() {
        assert_eq!(split_statement("select 1; select 2;"), Some(("select 1", " select 2;")));
        assert_eq!(
            split_statement("select ';' as \"a;b\" -- ;\n /* ; */;x"),
            Some(("select ';' as \"a;b\" -- ;\n /* ; */", "x"))
        );
        for open in ["", "select 1", "select 'a;", "select 'it''s;", "-- ;", "/* ; "] {
            assert_eq!(split_statement(open), None, "{open}");
        }
    }

    #[test]
    fn the_summary_counts() {
        assert_eq!(summary(1, Duration::from_millis(12)), "1 row in 12 ms");
        assert_eq!(summary(3, Duration::from_millis(2500)), "3 rows in 2.50 s");
    }

    #[test]
    fn quitting_and_trimming() {
        assert!(is_quit(" \\q ") && is_quit("quit;") && !is_quit("select 1"));
        assert_eq!(statement_text(" select 1 ; \n"), "select 1");
    }

    #[test]
    fn an_endpoint_is_a_url_or_a_socket() {
        let shown = |text: &str| endpoint(text).map(|endpoint| endpoint.to_string());
        assert_eq!(shown("grpc+tls://core:1").unwrap(), "https://core:1");
        assert_eq!(shown("unix:///run/f.sock").unwrap(), "unix:/run/f.sock");
        assert!(shown("unix:f.sock").unwrap_err().contains("absolute path"));
        assert!(shown("127.0.0.1:1").is_err());
    }

    proptest! {
        #[test]
        fn splitting_loses_nothing(text in "[a;'\"\\-/* \né]{0,30}") {
            if let Some((head, rest)) = split_statement(&text) {
                prop_assert_eq!(format!("{head};{rest}"), text);
            }
        }
    }
}
