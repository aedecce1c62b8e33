//! `runtime.caching.sql_results`, or `runtime.results_cache`, the form that it had before.
//!
//! What is written and would change nothing earns a warning that says so.

use super::Diagnostic;
use super::decode::{Decoder, parsed, text};
use super::types::{CacheKeyType, Eviction, ResultsCache};
use super::yaml::{Key, Node};

/// The fields that act only on statements that read an upstream.
const OF_UPSTREAMS: &[&str] = &["item_ttl", "stale_while_revalidate_ttl"];

/// The settings of whichever form is written.
pub(super) fn read_results_cache(decoder: &mut Decoder<'_>, runtime: Option<&Node>) -> ResultsCache {
    let older = runtime.and_then(|runtime| runtime.entry("results_cache"));
    let newer = runtime.and_then(|runtime| runtime.get("caching")?.entry("sql_results"));
    match (newer, older) {
        (None, None) => ResultsCache::default(),
        (Some((_, node)), None) => read(decoder, node, "runtime.caching.sql_results", "max_size"),
        (None, Some((key, node))) => {
            decoder.warnings.push(deprecated(key));
            read(decoder, node, "runtime.results_cache", "cache_max_size")
        }
        (Some(_), Some((key, _))) => {
            let message =
                "`runtime.results_cache` and `runtime.caching.sql_results` are two names of one cache";
            let help = "keep `runtime.caching.sql_results`";
            decoder.problem(Diagnostic::new("InvalidValue", message).at(key.at).help(help));
            ResultsCache::default()
        }
    }
}

fn deprecated(key: &Key) -> Diagnostic {
    let message = "`runtime.results_cache` is called `runtime.caching.sql_results` now";
    let help = "move its fields there; `cache_max_size` is called `max_size` there";
    Diagnostic::new("DeprecatedField", message).at(key.at).help(help)
}

fn read(decoder: &mut Decoder<'_>, node: &Node, section: &str, max_size: &str) -> ResultsCache {
    let enabled = node.get("enabled").and_then(Node::as_bool);
    if enabled != Some(false) {
        advise(decoder, node, section, enabled);
    }
    ResultsCache {
        enabled,
        max_size: parsed(Some(node), max_size),
        item_ttl: parsed(Some(node), "item_ttl"),
        eviction: text(node, "eviction_policy").and_then(|name| match name.as_str() {
            "lru" => Some(Eviction::Lru),
            "tiny_lfu" => Some(Eviction::TinyLfu),
            _ => None,
        }),
        key: text(node, "cache_key_type").and_then(|name| match name.as_str() {
            "plan" => Some(CacheKeyType::Plan),
            "sql" => Some(CacheKeyType::Sql),
            _ => None,
        }),
        stale_ttl: parsed(Some(node), "stale_while_revalidate_ttl"),
    }
}

fn advise(decoder: &mut Decoder<'_>, node: &Node, section: &str, enabled: Option<bool>) {
    if let Some((key, _)) = node.entry("hashing_algorithm") {
        let message = format!("`{section}.hashing_algorithm` makes no difference: keys are compared whole");
        decoder.warnings.push(Diagnostic::new("NoEffect", message).at(key.at).help("leave it out"));
    }
    let idle = OF_UPSTREAMS.iter().filter_map(|field| node.entry(field)).filter(|_| enabled.is_none());
    for (key, _) in idle {
        let message = format!(
            "`{section}.{}` acts on statements that read an upstream, which are not cached",
            key.name
        );
        let help = "write `enabled: true` beside it to cache them, or leave it out: results of accelerated data \
                    stay as long as they are exact";
        decoder.warnings.push(Diagnostic::new("NoEffect", message).at(key.at).help(help));
    }
}
