//! Plans that compute for longer run on threads of their own: those of the network stay free to answer others.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use tokio::runtime::Handle;

use crate::task;

/// Batches that are computed before somebody takes them.
const AHEAD: usize = 2;

/// The rows of `plan`. Dropping them ends the work; a panic in it is one where they are read.
///
/// # Errors
/// What the plan fails with before its first row.
pub(super) fn rows(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    match task::computing() {
        Some(threads) => apart(plan, task, &threads),
        None => execute_stream(plan, task),
    }
}

fn apart(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    threads: &Handle,
) -> Result<SendableRecordBatchStream> {
    // Nodes start tasks when they are executed, and these belong there too.
    let mut rows = {
        let _there = threads.enter();
        execute_stream(plan, task)?
    };
    let mut apart = RecordBatchReceiverStream::builder(rows.schema(), AHEAD);
    let sender = apart.tx();
    let compute = async move {
        while let Some(batch) = rows.next().await {
            if sender.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    apart.spawn_on(compute, threads);
    Ok(apart.build())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::prelude::SessionContext;
    use futures::TryStreamExt;

    use super::*;

    async fn planned(sql: &str) -> (Arc<dyn ExecutionPlan>, Arc<TaskContext>) {
        let context = SessionContext::new();
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        (plan, context.task_ctx())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn rows_and_errors_arrive() {
        let (plan, task) = planned("SELECT value % 7 AS v, count(*) FROM range(100000) GROUP BY 1").await;
        let batches: Vec<_> = rows(plan, task).unwrap().try_collect().await.unwrap();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 7);

        let (plan, task) = planned("SELECT 1 / (value - 5000) FROM range(10000)").await;
        let error = rows(plan, task).unwrap().try_collect::<Vec<_>>().await.unwrap_err();
        assert!(error.to_string().contains("ivide by zero"), "{error}");
    }

    /// One thread has the network, and goes on while a query would need minutes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_computes_keeps_nobody_waiting_and_ends_when_dropped() {
        let endless =
            "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.value * b.value % 7 = 8";
        let (plan, task) = planned(endless).await;
        let held = Arc::downgrade(&task);
        let mut computed = rows(plan, task).unwrap();
        let scope = task::Scope::new();
        let first = scope.spawn_owned("first", async move { drop(computed.next().await) });
        for _ in 0..5 {
            tokio::time::timeout(Duration::from_secs(5), tokio::time::sleep(Duration::from_millis(20)))
                .await
                .expect("the timer of the network's only thread");
        }
        drop(first);
        tokio::time::timeout(Duration::from_secs(30), async {
            while held.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the work ends with its reader");
    }
}
