//! The ways to one upstream: direct, through sidewing, through each proxy. All take turns in each round.

use crate::Result;
use crate::calls::{self, Client};
use crate::context::{Bench, NO_CACHE, dataset};
use crate::proc;
use crate::process::Process;
use crate::proxy::Proxies;
use crate::report::Spread;
use crate::shelf;

pub const DIRECT: &str = "direct";
pub const SIDEWING: &str = "sidewing";
pub const NGINX: &str = "nginx";
pub const ENVOY: &str = "Envoy";

/// One way, and what was measured on it so far.
pub struct Way {
    pub name: &'static str,
    pub address: String,
    pub client: Client,
    /// Who does the work between client and upstream.
    pub processes: Vec<u32>,
}

/// All of them, and the processes behind them.
pub struct Ways {
    pub ways: Vec<Way>,
    upstream: Process,
    sidecar: Process,
    proxies: Proxies,
}

impl Ways {
    /// The shelf as the upstream, its `tables` as datasets of a sidecar without a cache, and both proxies.
    pub async fn start(bench: &Bench, tables: &[String]) -> Result<Self> {
        let upstream = bench.upstream("--shelf").await?;
        let address = upstream.address("flight")?.to_owned();
        let datasets: String = tables.iter().map(|table| dataset(&address, table, "")).collect();
        let sidecar = bench.sidecar(NO_CACHE, &datasets).await?;
        let proxies = bench.peers.proxies(bench, &address).await?;
        let mut ways = vec![
            Way::to(DIRECT, &address, Vec::new()).await?,
            Way::to(SIDEWING, sidecar.address("flight")?, vec![sidecar.id()?]).await?,
        ];
        for proxy in &proxies.running {
            ways.push(Way::to(proxy.name, &proxy.address, proc::family(proxy.id()?)?).await?);
        }
        Ok(Self { ways, upstream, sidecar, proxies })
    }

    /// Why a proxy is not among them.
    pub fn missing(&self) -> &[String] {
        &self.proxies.missing
    }

    pub async fn stop(self) -> Result<()> {
        drop(self.ways);
        self.sidecar.stop().await?;
        self.proxies.stop().await?;
        self.upstream.stop().await
    }
}

impl Way {
    async fn to(name: &'static str, address: &str, processes: Vec<u32>) -> Result<Self> {
        let client = calls::connect(address).await?;
        Ok(Self { name, address: address.to_owned(), client, processes })
    }

    /// Asks for the one row `id` and holds the answer to it.
    pub async fn row(client: &mut Client, id: usize) -> Result<()> {
        let read = calls::read(client, &shelf::row_sql(id)).await?;
        match read.first == i64::try_from(id).ok() {
            true => Ok(()),
            false => Err(format!("row {:?} instead of {id}", read.first).into()),
        }
    }
}

/// One figure of each round, by way.
#[derive(Default)]
pub struct Samples(Vec<(&'static str, Vec<f64>)>);

impl Samples {
    pub fn add(&mut self, way: &'static str, value: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == way) {
            Some((_, values)) => values.push(value),
            None => self.0.push((way, vec![value])),
        }
    }

    pub fn of(&self, way: &str) -> Option<&[f64]> {
        self.0.iter().find(|(name, _)| *name == way).map(|(_, values)| values.as_slice())
    }

    pub fn median(&self, way: &str) -> Option<f64> {
        self.of(way).map(|values| Spread::of(values.iter().copied()).median)
    }

    /// Round by round, one way ÷ another.
    pub fn ratio(&self, over: &str, under: &str) -> Option<Spread> {
        Some(ratio(self.of(over)?, self.of(under)?))
    }

    /// Those two alone.
    pub fn pair(&self, one: &str, other: &str) -> Self {
        Self(self.0.iter().filter(|(name, _)| [one, other].contains(name)).cloned().collect())
    }

    /// `direct 2232 (2100 – 2300), sidewing …`
    pub fn shown(&self, factor: f64, decimals: usize, unit: &str) -> String {
        let all = self.0.iter().map(|(name, values)| {
            format!("{name} {}", Spread::of(values.iter().copied()).shown(factor, decimals, unit))
        });
        all.collect::<Vec<_>>().join(", ")
    }
}

/// Round by round, `over` ÷ `under`.
pub fn ratio(over: &[f64], under: &[f64]) -> Spread {
    Spread::of(over.iter().zip(under).map(|(over, under)| over / under))
}

/// The value below which so many percent are.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// What was seen, and who was not there.
pub fn figures(seen: String, missing: &[String]) -> String {
    std::iter::once(seen).chain(missing.iter().cloned()).collect::<Vec<_>>().join("; ")
}
