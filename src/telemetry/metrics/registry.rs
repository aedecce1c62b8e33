//! Where numbers stand: counters, gauges and histograms by name and labels, for as long as the process lives.
//!
//! Bounded: a label that takes ever new values would make ever new series. Past the bound further ones count nowhere, and
//! `metrics_series_refused` tells how often.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::buckets::{Buckets, Counted};
use super::catalogue::{self, Kind};

/// Of each kind.
const SERIES_MAX: usize = 20_000;
const REFUSED: &str = "metrics_series_refused";
/// Of two counters, and therefore not counted itself.
const HIT_RATIO: &str = "results_cache_hit_ratio";
const HITS: &str = "results_cache_hits";
const LOOKS: &str = "results_cache_requests";

/// The numbers of a process. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    counters: Cells<AtomicU64>,
    gauges: Cells<AtomicU64>,
    histograms: Cells<Buckets>,
    /// Words of metrics that are not in the catalogue, as the rooms describe them.
    described: RwLock<HashMap<String, Described>>,
    refused: Arc<AtomicU64>,
    /// Writes gauges that are measured when somebody looks.
    measure: ArcSwapOption<Measure>,
    started: SystemTime,
}

/// See [`Registry::measured_by`].
type Measure = Box<dyn Fn() + Send + Sync>;

struct Cells<T>(RwLock<HashMap<Key, Arc<T>>>);

#[derive(Clone)]
struct Described {
    help: String,
    unit: &'static str,
}

/// All series of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    pub help: String,
    /// `milliseconds`, `bytes`, or empty.
    pub unit: &'static str,
    pub kind: Kind,
    /// Sorted by their labels.
    pub series: Vec<Series>,
}

/// One number and what it is the number of.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: Vec<(String, String)>,
    pub number: Number,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Number {
    Counter(u64),
    Gauge(f64),
    Histogram(Counted),
}

impl<T> Default for Cells<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Cells<T> {
    /// None past the bound.
    fn get(&self, key: &Key, new: impl FnOnce() -> T) -> Option<Arc<T>> {
        if let Some(cell) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(Arc::clone(cell));
        }
        let mut cells = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if cells.len() >= SERIES_MAX && !cells.contains_key(key) {
            return None;
        }
        Some(Arc::clone(cells.entry(key.to_retained()).or_insert_with(|| Arc::new(new()))))
    }

    fn each(&self, mut visit: impl FnMut(&Key, &T)) {
        for (key, cell) in self.0.read().unwrap_or_else(PoisonError::into_inner).iter() {
            visit(key, cell);
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        let registry = Self(Arc::new(Inner {
            counters: Cells::default(),
            gauges: Cells::default(),
            histograms: Cells::default(),
            described: RwLock::default(),
            refused: Arc::default(),
            measure: ArcSwapOption::empty(),
            started: SystemTime::now(),
        }));
        metrics::with_local_recorder(&registry, catalogue::announce);
        registry
    }
}

impl Registry {
    /// That of the process.
    #[must_use]
    pub fn global() -> Self {
        static GLOBAL: OnceLock<Registry> = OnceLock::new();
        GLOBAL
            .get_or_init(|| {
                let registry = Self::default();
                // It fails where a recorder was set by somebody else: then nothing is counted here.
                let _ = metrics::set_global_recorder(registry.clone());
                registry
            })
            .clone()
    }

    /// Lets `measure` write its gauges before each look at the numbers, in the place of whatever did before.
    pub fn measured_by(&self, measure: impl Fn() + Send + Sync + 'static) {
        self.0.measure.store(Some(Arc::new(Box::new(measure))));
    }

    /// Since when counters count.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.0.started
    }

    /// Everything as it is now, by name; the second spellings of the catalogue are there as well.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        if let Some(measure) = self.0.measure.load_full() {
            measure();
        }
        let mut families = BTreeMap::new();
        self.0.counters.each(|key, cell| {
            self.add(&mut families, key, Number::Counter(cell.load(Ordering::Relaxed)));
        });
        let refused = Number::Counter(self.0.refused.load(Ordering::Relaxed));
        self.add(&mut families, &Key::from_static_name(REFUSED), refused);
        self.0.gauges.each(|key, cell| {
            self.add(&mut families, key, Number::Gauge(f64::from_bits(cell.load(Ordering::Relaxed))));
        });
        self.0.histograms.each(|key, cell| self.add(&mut families, key, Number::Histogram(cell.counted())));
        if let (Some(hits), Some(requests)) = (total(&families, HITS), total(&families, LOOKS)) {
            let ratio = if requests == 0 { 0.0 } else { hits as f64 / requests as f64 };
            families.remove(HIT_RATIO);
            self.add(&mut families, &Key::from_static_name(HIT_RATIO), Number::Gauge(ratio));
        }
        for (also, of) in catalogue::ALIASES {
            let Some(family) = families.get(*of).cloned() else { continue };
            let help = format!("{} The same as `{of}`.", family.help);
            families.insert((*also).to_owned(), Family { name: (*also).to_owned(), help, ..family });
        }
        let mut families: Vec<Family> = families.into_values().collect();
        for family in &mut families {
            family.series.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        families
    }

    /// Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        super::prometheus::text(&self.families())
    }

    fn add(&self, families: &mut BTreeMap<String, Family>, key: &Key, number: Number) {
        let name = key.name();
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        let series = Series { labels: labels.collect(), number };
        let family = families.entry(name.to_owned()).or_insert_with(|| self.family(name, &series.number));
        // A name of two kinds is somebody's mistake: the first kind stays.
        if family.kind.holds(&series.number) {
            family.series.push(series);
        }
    }

    fn family(&self, name: &str, number: &Number) -> Family {
        let (help, unit) = match catalogue::find(name) {
            Some(metric) => (metric.help.to_owned(), metric.unit.word()),
            None => {
                let described = self.0.described.read().unwrap_or_else(PoisonError::into_inner);
                described
                    .get(name)
                    .map_or_else(|| (String::new(), ""), |described| (described.help.clone(), described.unit))
            }
        };
        Family { name: name.to_owned(), help, unit, kind: Kind::of(number), series: Vec::new() }
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, help: &SharedString) {
        let unit = match unit {
            None | Some(Unit::Count) => "",
            Some(unit) => unit.as_str(),
        };
        let described = Described { help: help.to_string(), unit };
        let mut all = self.0.described.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.as_str().to_owned(), described);
    }

    fn refuse(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// All series of a counter.
fn total(families: &BTreeMap<String, Family>, name: &str) -> Option<u64> {
    let count = |series: &Series| match series.number {
        Number::Counter(count) => count,
        Number::Gauge(_) | Number::Histogram(_) => 0,
    };
    Some(families.get(name)?.series.iter().map(count).sum())
}

impl Recorder for Registry {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(&name, unit, &help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(&name, unit, &help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(&name, unit, &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.0.counters.get(key, AtomicU64::default) {
            Some(cell) => Counter::from_arc(cell),
            None => {
                self.refuse();
                Counter::noop()
            }
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.0.gauges.get(key, || AtomicU64::new(0f64.to_bits())) {
            Some(cell) => Gauge::from_arc(cell),
            None => {
                self.refuse();
                Gauge::noop()
            }
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.0.histograms.get(key, || Buckets::new(catalogue::bounds(key.name()))) {
            Some(cell) => Histogram::from_arc(cell),
            None => {
                self.refuse();
                Histogram::noop()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(registry: &Registry, name: &str) -> Vec<Number> {
        let families = registry.families();
        let family = families.into_iter().find(|family| family.name == name).unwrap();
        family.series.into_iter().map(|series| series.number).collect()
    }

    #[test]
    fn a_second_spelling_is_the_same_number() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            let labels = [("protocol", "http"), ("err_code", "SyntaxError")];
            metrics::counter!("query_failures", &labels).increment(3);
        });
        let failures = numbers(&registry, "query_failures");
        assert!(failures.contains(&Number::Counter(3)), "{failures:?}");
        assert_eq!(failures, numbers(&registry, "query_failures_total"));
    }

    #[test]
    fn series_are_bounded() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            for number in 0..=SERIES_MAX {
                metrics::gauge!("dataset_load_state", "dataset" => number.to_string()).set(1.0);
            }
        });
        assert!(numbers(&registry, "dataset_load_state").len() < SERIES_MAX);
        assert!(matches!(numbers(&registry, REFUSED)[..], [Number::Counter(refused)] if refused > 0));
    }

    #[test]
    fn words_of_other_rooms_are_kept() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            metrics::describe_gauge!("some_bytes", Unit::Bytes, "What some take.");
            metrics::gauge!("some_bytes").set(7.0);
        });
        let families = registry.families();
        let family = families.iter().find(|family| family.name == "some_bytes").unwrap();
        assert_eq!((family.help.as_str(), family.unit), ("What some take.", "bytes"));
        assert_eq!(family.series, [Series { labels: Vec::new(), number: Number::Gauge(7.0) }]);
    }
}
