//! A spicepod enters, and leaves with everything built that can be known without asking an upstream: secrets, connections,
//! views, the catalog. Nothing runs yet.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use crate::acceleration::{Acceleration, GroupByNumbers, GroupDirectly, JoinKeys};
use crate::config::{self, ByteSize, Dataset, Diagnostic, Diagnostics, Runtime, Spicepod};
use crate::federation::{self, Federation, RemoteDataset, Resources};
use crate::name::DatasetName;
use crate::secrets::Secrets;
use crate::task::Scope;
use crate::upstream::{Limits, Pool, PoolOptions, Target};

use crate::telemetry::{Otlp, Registry, Tracer};

use super::outward;
use super::protection::Protection;

/// The inbound message limit of datasets that set none.
const MESSAGE_SIZE_VARIABLE: &str = "SIDEWING_MAX_MESSAGE_SIZE";

/// A spicepod with its secrets resolved, its connections described and its views laid out: everything
/// that can be known without asking an upstream is right.
pub struct Plan {
    pub spicepod: Spicepod,
    pub datasets: Vec<RemoteDataset>,
    pub federation: Federation,
    pub acceleration: Acceleration,
    secrets: Arc<Secrets>,
    protection: Protection,
    otlp: Option<Otlp>,
    basis: Basis,
}

/// What a generation is made of.
pub(super) struct Built {
    pub spicepod: Spicepod,
    pub federation: Federation,
    pub acceleration: Acceleration,
}

/// What guards a generation.
pub(super) struct Guarding {
    pub secrets: Arc<Secrets>,
    pub protection: Protection,
    /// The collector of traces and metrics, where there is one.
    pub otlp: Option<Otlp>,
}

/// What stays for as long as the process: every configuration of it is built on this.
#[derive(Clone)]
pub(super) struct Basis {
    pub resources: Resources,
    pub registry: Registry,
    pub pool: Arc<Pool>,
    /// Who records what is done for whom.
    pub tracer: Tracer,
    /// Owns the connections to upstreams.
    pub connections: Scope,
}

impl Plan {
    /// What is begun, what guards it, and what stays.
    pub(super) fn parts(self) -> (Built, Guarding, Basis) {
        let Self { spicepod, datasets, federation, acceleration, secrets, protection, otlp, basis } = self;
        datasets.iter().for_each(|dataset| dataset.upstream.announce());
        let built = Built { spicepod, federation, acceleration };
        (built, Guarding { secrets, protection, otlp }, basis)
    }

    /// The plan of the spicepod at `path`, a file or a directory.
    ///
    /// # Errors
    /// Every problem of the spicepod, or of what it describes.
    pub async fn load(path: &Path) -> Result<Self, Diagnostics> {
        Self::try_new(config::load(path)?).await
    }

    /// Reads the secret stores, resolves secrets, applies the endpoint rules, checks the views, and makes the directory
    /// for temporary files.
    ///
    /// # Errors
    /// Every problem of every dataset and view at once.
    pub async fn try_new(mut spicepod: Spicepod) -> Result<Self, Diagnostics> {
        let basis = Basis::try_new(&spicepod);
        let pool = basis.as_ref().map(|basis| Arc::clone(&basis.pool)).unwrap_or_default();
        let resolved = resolved(&spicepod, &pool).await;
        let (basis, resolved) = match (basis, resolved) {
            (Ok(basis), Ok(resolved)) => (basis, resolved),
            (basis, resolved) => {
                let mut problems = view_problems(&spicepod);
                problems.extend(basis.err().into_iter().flatten());
                problems.extend(resolved.err().into_iter().flatten());
                return Err(Diagnostics::new(Arc::clone(&spicepod.source), problems));
            }
        };
        spicepod.warnings.extend(basis.resources.warning().cloned());
        Self::build(spicepod, resolved, basis, None)
    }

    /// The plan of another spicepod for a process that runs on `basis`: connections that stay the same are shared, and what
    /// `former` holds in the same way is taken from there.
    ///
    /// # Errors
    /// Every problem of every dataset and view at once.
    pub(super) async fn after(
        spicepod: Spicepod,
        basis: &Basis,
        former: &Acceleration,
    ) -> Result<Self, Diagnostics> {
        match resolved(&spicepod, &basis.pool).await {
            Ok(resolved) => Self::build(spicepod, resolved, basis.clone(), Some(former)),
            Err(more) => {
                let problems = view_problems(&spicepod).into_iter().chain(more).collect();
                Err(Diagnostics::new(Arc::clone(&spicepod.source), problems))
            }
        }
    }

    fn build(
        spicepod: Spicepod,
        resolved: Resolved,
        basis: Basis,
        former: Option<&Acceleration>,
    ) -> Result<Self, Diagnostics> {
        let problems = view_problems(&spicepod);
        if !problems.is_empty() {
            return Err(Diagnostics::new(Arc::clone(&spicepod.source), problems));
        }
        let Resolved { secrets, datasets, protection, otlp } = resolved;
        let options = federation::Options {
            push_down: spicepod.runtime.push_down.unwrap_or(true),
            target_partitions: spicepod.runtime.target_partitions,
            resources: Some(basis.resources.clone()),
            rules: vec![Arc::new(GroupByNumbers), Arc::new(JoinKeys), Arc::new(GroupDirectly)],
            telemetry: federation::Telemetry {
                registry: basis.registry.clone(),
                tracer: basis.tracer.clone(),
            },
        };
        let built = Federation::try_new(datasets.clone(), &spicepod.views, options).and_then(|federation| {
            let acceleration = Acceleration::try_new(&spicepod, &federation, former)?;
            Ok((federation, acceleration))
        });
        match built {
            Ok((federation, acceleration)) => {
                Ok(Self { spicepod, datasets, federation, acceleration, secrets, protection, otlp, basis })
            }
            Err(problems) => Err(Diagnostics::new(Arc::clone(&spicepod.source), problems)),
        }
    }
}

impl Basis {
    fn try_new(spicepod: &Spicepod) -> Result<Self, Vec<Diagnostic>> {
        // Before anything is measured.
        let (registry, connections) = (Registry::global(), Scope::new());
        let resources = Resources::try_new(&spicepod.runtime.memory).map_err(|problem| vec![problem]);
        match (resources, pool_options(spicepod, connections.clone())) {
            (Ok(resources), Ok(options)) => {
                let (pool, tracer) =
                    (Arc::new(Pool::with_options(options)), outward::tracer(&spicepod.runtime));
                Ok(Self { resources, registry, pool, tracer, connections })
            }
            (resources, options) => Err(resources.err().into_iter().chain(options.err()).flatten().collect()),
        }
    }
}

fn view_problems(spicepod: &Spicepod) -> Vec<Diagnostic> {
    let names: Vec<&DatasetName> = spicepod.datasets.iter().map(|dataset| &dataset.name).collect();
    federation::view_problems(&names, &spicepod.views)
}

/// All that has secrets.
struct Resolved {
    secrets: Arc<Secrets>,
    datasets: Vec<RemoteDataset>,
    protection: Protection,
    otlp: Option<Otlp>,
}

async fn resolved(spicepod: &Spicepod, pool: &Pool) -> Result<Resolved, Vec<Diagnostic>> {
    let secrets = Arc::new(Secrets::load(spicepod).await?);
    let datasets = remote_datasets(spicepod, &secrets, pool);
    let otlp = outward::otlp(&spicepod.runtime, &secrets);
    match (datasets, Protection::try_new(&spicepod.runtime, &secrets), otlp) {
        (Ok(datasets), Ok(protection), Ok(otlp)) => Ok(Resolved { secrets, datasets, protection, otlp }),
        (datasets, protection, otlp) => {
            let problems = datasets.err().into_iter().chain(protection.err()).chain(otlp.err());
            Err(problems.flatten().collect())
        }
    }
}

fn remote_datasets(
    spicepod: &Spicepod,
    secrets: &Secrets,
    pool: &Pool,
) -> Result<Vec<RemoteDataset>, Vec<Diagnostic>> {
    let mut datasets = Vec::with_capacity(spicepod.datasets.len());
    let mut problems = Vec::new();
    for dataset in &spicepod.datasets {
        match remote_dataset(dataset, secrets, pool) {
            Ok(remote) => datasets.push(remote),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(datasets) } else { Err(problems) }
}

fn remote_dataset(
    dataset: &Dataset,
    secrets: &Secrets,
    pool: &Pool,
) -> Result<RemoteDataset, Vec<Diagnostic>> {
    let params = secrets.resolve(dataset)?;
    let target = Target::try_new(dataset, &params)?;
    let upstream = pool.connect(&target).map_err(|error| {
        vec![Diagnostic {
            message: format!("dataset `{}`: {}", dataset.name, error.message),
            help: error.help,
            code: Some("UnableToCreateFlightClient"),
            at: Some(dataset.at),
        }]
    })?;
    let (name, from) = (dataset.name.clone(), dataset.from.text.clone());
    Ok(RemoteDataset { name, from, upstream, remote: target.table })
}

fn pool_options(spicepod: &Spicepod, scope: Scope) -> Result<PoolOptions, Vec<Diagnostic>> {
    let from_environment = match std::env::var(MESSAGE_SIZE_VARIABLE) {
        Ok(text) => Some(text.parse::<ByteSize>().map_err(|error| {
            vec![Diagnostic {
                code: Some("InvalidParameterValue"),
                message: format!("the environment variable {MESSAGE_SIZE_VARIABLE} is not a size: {error}"),
                at: None,
                help: Some(format!("write for example {MESSAGE_SIZE_VARIABLE}=64MB")),
            }]
        })?),
        Err(_) => None,
    };
    let default_max_message_size = spicepod.runtime.max_message_size.or(from_environment);
    Ok(PoolOptions { default_max_message_size, limits: limits(&spicepod.runtime), scope })
}

/// What every upstream is held to.
fn limits(runtime: &Runtime) -> Limits {
    let default = Limits::default();
    Limits {
        concurrent: runtime.upstream_max_concurrent.map_or(default.concurrent, NonZeroUsize::new),
        establishment: runtime
            .upstream_establishment_timeout
            .map_or(default.establishment, |limit| limit.get()),
        name_server: runtime.upstream_name_server,
    }
}
