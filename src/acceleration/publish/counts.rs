//! What is counted of a dataset's subscribers, for the metrics.

use metrics::Counter;

use crate::name::DatasetName;

/// The label of one dataset's figures.
#[derive(Debug)]
pub(super) struct Counts {
    dataset: String,
}

/// What goes out to one subscriber.
pub(super) struct Outgoing {
    rows: Counter,
    bytes: Counter,
    updates: Counter,
}

impl Outgoing {
    pub(super) fn add(&self, rows: u64, bytes: u64) {
        self.rows.increment(rows);
        self.bytes.increment(bytes);
        self.updates.increment(u64::from(rows > 0));
    }
}

impl Counts {
    pub(super) fn of(dataset: &DatasetName) -> Self {
        Self { dataset: dataset.to_string() }
    }

    /// All of them, as they are now or zero.
    pub(super) fn announce(&self) {
        self.subscribers(0.0);
        self.outgoing().add(0, 0);
        self.begun(0, 0);
        self.lost(0);
    }

    /// So many more.
    pub(super) fn subscribers(&self, more: f64) {
        metrics::gauge!("append_stream_subscribers", "dataset" => self.dataset.clone()).increment(more);
    }

    /// Looked up once for each subscriber, not for each message.
    pub(super) fn outgoing(&self) -> Outgoing {
        Outgoing {
            rows: metrics::counter!("append_stream_sent_rows", "dataset" => self.dataset.clone()),
            bytes: metrics::counter!("append_stream_sent_bytes", "dataset" => self.dataset.clone()),
            updates: metrics::counter!(
                "flight_do_exchange_data_updates_sent",
                "dataset" => self.dataset.clone()
            ),
        }
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
