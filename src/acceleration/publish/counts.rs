//! What is counted of a dataset's subscribers, for the metrics.

use crate::name::DatasetName;

/// The label of one dataset's figures.
#[derive(Debug)]
pub(super) struct Counts {
    dataset: String,
}

impl Counts {
    pub(super) fn of(dataset: &DatasetName) -> Self {
        Self { dataset: dataset.to_string() }
    }

    /// All of them, as they are now or zero.
    pub(super) fn announce(&self) {
        self.subscribers(0.0);
        self.sent(0, 0);
        self.begun(0, 0);
        self.lost(0);
    }

    /// So many more.
    pub(super) fn subscribers(&self, more: f64) {
        metrics::gauge!("append_stream_subscribers", "dataset" => self.dataset.clone()).increment(more);
    }

    pub(super) fn sent(&self, rows: u64, bytes: u64) {
        metrics::counter!("append_stream_sent_rows", "dataset" => self.dataset.clone()).increment(rows);
        metrics::counter!("append_stream_sent_bytes", "dataset" => self.dataset.clone()).increment(bytes);
    }

    pub(super) fn begun(&self, resumes: u64, snapshots: u64) {
        metrics::counter!("append_stream_resumes", "dataset" => self.dataset.clone()).increment(resumes);
        metrics::counter!("append_stream_snapshots", "dataset" => self.dataset.clone()).increment(snapshots);
    }

    pub(super) fn lost(&self, subscribers: u64) {
        metrics::counter!("append_stream_data_loss", "dataset" => self.dataset.clone())
            .increment(subscribers);
    }
}
