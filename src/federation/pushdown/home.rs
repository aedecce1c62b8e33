//! On which upstream the tables of a plan live.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::DefaultTableSource;
use datafusion::logical_expr::{LogicalPlan, TableScan};

use crate::name::DatasetName;
use crate::upstream::Upstream;

use super::super::table::RemoteTable;

/// Where the tables of a plan live.
pub(super) enum Home {
    /// It reads no table.
    Nowhere,
    /// All on one upstream.
    One(Tables),
    /// On several, or here.
    Several,
}

/// The remote tables of a plan that all live on one upstream.
#[derive(Clone)]
pub(super) struct Tables {
    /// Of connections that differ only in their message size limit, the one with the largest.
    pub upstream: Arc<Upstream>,
    pub datasets: Vec<DatasetName>,
}

impl Home {
    pub fn of(plan: &LogicalPlan) -> Self {
        let mut home = Self::Nowhere;
        let walked = plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => home.add(remote_table(scan)),
                LogicalPlan::Extension(_) => home = Self::Several,
                _ => {}
            }
            Ok(match home {
                Self::Several => TreeNodeRecursion::Stop,
                _ => TreeNodeRecursion::Continue,
            })
        });
        match walked {
            Ok(_) => home,
            Err(_) => Self::Several,
        }
    }

    fn add(&mut self, table: Option<&RemoteTable>) {
        let Some(table) = table else {
            *self = Self::Several;
            return;
        };
        match self {
            Self::Nowhere => *self = Self::One(Tables::of(table)),
            Self::One(tables) if tables.upstream.id() == table.upstream.id() => tables.add(table),
            Self::One(_) | Self::Several => *self = Self::Several,
        }
    }
}

impl Tables {
    fn of(table: &RemoteTable) -> Self {
        Self { upstream: Arc::clone(&table.upstream), datasets: vec![table.name.clone()] }
    }

    fn add(&mut self, table: &RemoteTable) {
        if self.upstream.max_message_size() < table.upstream.max_message_size() {
            self.upstream = Arc::clone(&table.upstream);
        }
        if !self.datasets.contains(&table.name) {
            self.datasets.push(table.name.clone());
        }
    }
}

/// The remote table that `scan` reads; none for a table that is known only here.
pub(in crate::federation) fn remote_table(scan: &TableScan) -> Option<&RemoteTable> {
    let source = scan.source.as_ref().downcast_ref::<DefaultTableSource>()?;
    source.table_provider.downcast_ref::<RemoteTable>()
}
