//! A proxy as a peer: started on a free port before one upstream, ended by its own id.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::Result;
use crate::install::Tool;
use crate::peers::cores;
use crate::process;
use crate::ways::NGINX;

const STARTED_WITHIN: Duration = Duration::from_secs(10);
const ENDED_WITHIN: Duration = Duration::from_secs(10);

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

impl Proxy {
    /// Returns when it listens.
    pub async fn start(name: &'static str, tool: &Tool, home: &Path, upstream: &str) -> Result<Self> {
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
        process::ask_to_end(&self.child);
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

pub async fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string())
}

/// A worker for each core; connections that stay open: otherwise it would open one to the upstream for each call; and
/// a larger buffer than its page of memory, with which the same gigabyte cost it twice the CPU seconds.
fn nginx_config(address: &str, upstream: &str) -> String {
    format!(
        "daemon off;\npid nginx.pid;\nworker_processes auto;\nerror_log stderr crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_body_temp_path body;\n  \
         proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  \
         upstream flight {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n  \
         server {{ listen {address} http2; grpc_buffer_size 64k; grpc_read_timeout 1h; \
         location / {{ grpc_pass grpc://flight; }} }}\n}}\n"
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
