//! The peers: found or installed when they are first needed. One that is not to be had says why.

use tokio::sync::OnceCell;

use crate::Result;
use crate::context::Bench;
use crate::install::{self, Tool};
use crate::proxy::{Proxies, Proxy};
use crate::ways::{ENVOY, NGINX};

const NOT_WANTED: &str = "not wanted";

/// Found when they are first needed, or the reason why not.
#[derive(Default)]
pub struct Peers {
    nginx: OnceCell<Result<Tool, String>>,
    envoy: OnceCell<Result<Tool, String>>,
    duckdb: OnceCell<Result<Tool, String>>,
}

impl Peers {
    /// None of them.
    pub fn without() -> Self {
        let none = || OnceCell::from(Err(NOT_WANTED.to_owned()));
        Self { nginx: none(), envoy: none(), duckdb: none() }
    }

    /// Both proxies before one upstream.
    pub async fn proxies(&self, bench: &Bench, upstream: &str) -> Result<Proxies> {
        let mut proxies = Proxies::default();
        for name in [NGINX, ENVOY] {
            let tool = match name {
                NGINX => self.nginx.get_or_init(install::nginx).await,
                _ => self.envoy.get_or_init(install::envoy).await,
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
        self.duckdb.get_or_init(install::duckdb).await.as_ref().map_err(Clone::clone)
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

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
