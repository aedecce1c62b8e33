//! What statements read, for the metrics: a run's batches enter, the same batches leave, and its figures are counted when
//! they are dropped.
//!
//! The figures are DataFusion's own, of the plan's leaves; of a forwarded statement, what came of its upstream. Nothing is
//! counted twice that several clients share: a run is counted, not its answers.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;

use super::QueryError;
use super::cached::holding;
use super::parts::{Batches, Parts};
use crate::upstream::Received;
use crate::wire::Part;

#[derive(Default)]
struct Figures {
    rows: usize,
    bytes: usize,
    spills: usize,
    spilled_rows: usize,
    spilled_bytes: usize,
}

struct OfPlan(Arc<dyn ExecutionPlan>);

struct OfUpstream {
    rows: usize,
    received: Received,
}

/// Counts what a plan has read.
pub(super) fn of_plan(batches: Batches, plan: Arc<dyn ExecutionPlan>) -> Batches {
    holding(batches, OfPlan(plan))
}

/// Counts what has come of an upstream.
pub(super) fn of_upstream(parts: Parts, received: Received) -> Parts {
    let mut counted = OfUpstream { rows: 0, received };
    parts.inspect(move |part| counted.add(part)).boxed()
}

impl OfUpstream {
    fn add(&mut self, part: &Result<Part, QueryError>) {
        self.rows += part.as_ref().map_or(0, Part::rows);
    }
}

impl Drop for OfPlan {
    fn drop(&mut self) {
        let mut figures = Figures::default();
        // The visitor cannot fail.
        let _ = self.0.apply(|node| {
            figures.add(node.as_ref());
            Ok(TreeNodeRecursion::Continue)
        });
        figures.count();
    }
}

impl Drop for OfUpstream {
    fn drop(&mut self) {
        Figures { rows: self.rows, bytes: self.received.bytes(), ..Figures::default() }.count();
    }
}

impl Figures {
    fn add(&mut self, node: &dyn ExecutionPlan) {
        let Some(metrics) = node.metrics() else { return };
        self.spills += metrics.spill_count().unwrap_or_default();
        self.spilled_rows += metrics.spilled_rows().unwrap_or_default();
        self.spilled_bytes += metrics.spilled_bytes().unwrap_or_default();
        if node.children().is_empty() {
            let sum = |name: &str| metrics.sum_by_name(name).map_or(0, |sum| sum.as_usize());
            self.rows += metrics.output_rows().unwrap_or_default();
            // Of upstreams and files as they came, else as they are in memory.
            self.bytes += match sum("bytes_received") + sum("bytes_read") {
                0 => sum("output_bytes"),
                came => came,
            };
        }
    }

    fn count(&self) {
        let counted = [
            ("query_processed_rows", self.rows),
            ("query_processed_bytes", self.bytes),
            ("query_produced_spills", self.spills),
            ("query_spilled_rows", self.spilled_rows),
            ("query_spilled_bytes", self.spilled_bytes),
        ];
        // Each is there from the start.
        for (name, more) in counted.into_iter().filter(|(_, more)| *more > 0) {
            metrics::counter!(name).increment(more as u64);
        }
    }
}
