//! The arguments: what to measure, how large, and whether to keep it.

use crate::Result;
use crate::rows;

const USAGE: &str = "--write, --scale N, --only ROW[,ROW] and --without-peers are known";

/// What a process of this bench is.
pub enum Mode {
    /// The upstream of messages that never change.
    Shelf,
    /// The upstream of tables by their number of rows.
    Growing,
    Measure(Options),
    Nothing,
}

pub struct Options {
    pub write: bool,
    /// Sizes are divided by it.
    pub scale: usize,
    /// Nobody else's program is looked for: what is wanted is the work, not the ratios.
    pub without_peers: bool,
    /// Rows of the table; none are all.
    only: Option<Vec<String>>,
}

impl Mode {
    /// `cargo bench` adds `--bench`; a plain `cargo test --all-targets` does not, and is not kept waiting.
    pub fn read() -> Result<Self> {
        let (mut bench, mut options) =
            (false, Options { write: false, scale: 1, without_peers: false, only: None });
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--shelf" => return Ok(Self::Shelf),
                "--growing" => return Ok(Self::Growing),
                "--bench" => bench = true,
                "--write" => options.write = true,
                "--scale" => options.scale = value()?.parse::<usize>()?.max(1),
                "--without-peers" => options.without_peers = true,
                "--only" => options.only = Some(known(&value()?)?),
                other => return Err(format!("unknown argument {other}: {USAGE}").into()),
            }
        }
        if options.write && (options.only.is_some() || options.without_peers) {
            return Err("--write keeps whole tables: not with --only or --without-peers".into());
        }
        Ok(if bench { Self::Measure(options) } else { Self::Nothing })
    }
}

/// The rows of a list with commas; every name must be one.
fn known(list: &str) -> Result<Vec<String>> {
    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    match names.iter().find(|name| rows::find(name).is_none()) {
        None => Ok(names),
        Some(name) => {
            let all: Vec<&str> = rows::ROWS.iter().map(|row| row.name).collect();
            Err(format!("no row {name}: there are {}", all.join(", ")).into())
        }
    }
}

impl Options {
    pub fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == row))
    }
}
