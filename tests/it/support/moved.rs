//! Which metrics have ever shown another number than zero: every page that a test reads, and the last one of every
//! sidecar, is looked through. What none of the tests moves is found when all of them have run, by
//! `telemetry::metrics::every_metric_has_moved`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// A page that takes longer is not waited for: the sidecar is stopped or busy on purpose.
const PAGE_MAX: Duration = Duration::from_millis(500);

static NOTED: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// Where the names are kept, one a line, over all runs since the file was removed.
pub fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("metrics-moved")
}

/// Looks through a page of metrics.
pub fn note(page: &str) {
    let moved = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let has_moved = value.parse::<f64>().is_ok_and(|value| value != 0.0);
        has_moved.then(|| series.split('{').next().unwrap_or(series).to_owned())
    });
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    let new: String = moved.filter(|name| noted.insert(name.clone())).map(|name| name + "\n").collect();
    if !new.is_empty() {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(file());
        opened.and_then(|mut file| file.write_all(new.as_bytes())).expect("a file among the build's own");
    }
}

/// Reads and looks through the page at this address, if there is one in plain text.
pub fn note_last(address: &str) {
    let Ok(address) = address.parse::<SocketAddr>() else { return };
    let read = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect_timeout(&address, PAGE_MAX)?;
        socket.set_read_timeout(Some(PAGE_MAX))?;
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut page = Vec::new();
        socket.read_to_end(&mut page)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    };
    if let Ok(page) = read() {
        note(&page);
    }
}
