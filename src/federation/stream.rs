//! What an append stream asks of the upstream of its dataset: the name enters, messages or a fresh count leave.
//!
//! Nothing is cached here, and nothing is tried again: the subscriber knows when.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::name::DatasetName;
use crate::upstream::{ErrorKind, RemoteTableName, Step, Subscription, Upstream, UpstreamError};

use super::Federation;
use super::registry::Kind;
use super::rows::RowCount;
use super::scan::total_of;
use super::table::count_as_sql;

/// Where a dataset lives.
struct Source<'a> {
    upstream: &'a Arc<Upstream>,
    remote: &'a RemoteTableName,
    rows: &'a RowCount,
}

impl Federation {
    /// Subscribes to the rows that the table of `name` takes; `hello` goes beside the table's name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a name that is no dataset, otherwise what the call met. What ends the stream later
    /// is its last item. The keeper of the upstream hears of either.
    pub async fn subscribe(&self, name: &DatasetName, hello: Bytes) -> Result<Subscription, UpstreamError> {
        let source = self.source(name)?;
        let opened = source.upstream.subscribe(source.remote, hello).await;
        let opened = opened.inspect_err(|error| self.report(source.upstream, error))?;
        let (federation, upstream) = (self.clone(), Arc::clone(source.upstream));
        let messages = opened.messages.inspect_err(move |error| federation.report(&upstream, error)).boxed();
        Ok(Subscription { messages })
    }

    /// How many rows the table of `name` has upstream, counted now: no cache of the upstream can answer it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a name that is no dataset, [`ErrorKind::Protocol`] for an answer that is no
    /// number, otherwise what the call met. The keeper of the upstream hears of it.
    pub async fn count_rows(&self, name: &DatasetName) -> Result<u64, UpstreamError> {
        let source = self.source(name)?;
        let counted = source.count().await;
        counted.inspect_err(|error| self.report(source.upstream, error))
    }

    fn source(&self, name: &DatasetName) -> Result<Source<'_>, UpstreamError> {
        let entry = self.inner.entries.iter().find(|entry| entry.name == *name);
        match entry.map(|entry| &entry.kind) {
            Some(Kind::Dataset { upstream, remote, rows }) => Ok(Source { upstream, remote, rows }),
            Some(Kind::View(_)) | None => Err(UpstreamError {
                kind: ErrorKind::NotFound,
                step: Step::Query,
                endpoint: "none".to_owned(),
                message: format!("`{name}` is no dataset of this spicepod"),
                help: None,
            }),
        }
    }
}

impl Source<'_> {
    async fn count(&self) -> Result<u64, UpstreamError> {
        let alias = format!("n_{:016x}", rand::random::<u64>());
        let sql = count_as_sql(self.remote, &alias);
        let batches: Vec<_> = self.upstream.query(&sql).await?.batches.try_collect().await?;
        let rows = total_of(&batches).ok_or_else(|| UpstreamError {
            kind: ErrorKind::Protocol,
            step: Step::Query,
            endpoint: self.upstream.endpoint().to_owned(),
            message: "count(*) did not answer one number".to_owned(),
            help: None,
        })? as u64;
        self.rows.learn(rows);
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tonic::Code;

    use super::*;
    use crate::federation::{Options, RemoteDataset};
    use crate::upstream::testing::{Script, Sent, Server, spice};

    /// A federation of the dataset `hot`, which is `remote` on the server.
    fn federation(server: &Server, remote: &str) -> Federation {
        let dataset = RemoteDataset {
            name: "hot".parse().unwrap(),
            from: format!("spice.ai:{}", server.http()),
            upstream: spice(&server.http(), &[]),
            remote: RemoteTableName { parts: vec![remote.to_owned()] },
        };
        Federation::try_new(vec![dataset], &[], Options::default())
            .unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    #[tokio::test]
    async fn each_count_is_another_statement() {
        let server = Server::plain(Script::default()).await;
        let federation = federation(&server, "counted");
        for _ in 0..2 {
            assert_eq!(federation.count_rows(&"hot".parse().unwrap()).await.unwrap(), 7);
        }
        let statements = server.script.statements.lock().unwrap();
        // The first is planned and fetched, the second fetched.
        assert_eq!(statements.len(), 3);
        assert_eq!(statements[0], statements[1]);
        assert_ne!(statements[1], statements[2]);
    }

    #[tokio::test]
    async fn what_is_no_count_is_an_error() {
        let server = Server::plain(Script::default()).await;
        let error = federation(&server, "other").count_rows(&"hot".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol);
        assert!(error.message.contains("did not answer one number"), "{error}");
    }

    #[tokio::test]
    async fn a_subscription_asks_for_the_remote_name_and_ends_with_its_error() {
        let exchange = Mutex::new(vec![Sent::Status(Code::DataLoss, "fell behind")]);
        let server = Server::plain(Script { exchange, ..Script::default() }).await;
        let federation = federation(&server, "counted");
        let subscription =
            federation.subscribe(&"hot".parse().unwrap(), Bytes::from_static(b"hello")).await.unwrap();
        let messages: Vec<_> = subscription.messages.collect().await;
        assert_eq!(messages.len(), 1);
        assert!(messages[0].as_ref().unwrap_err().message.contains("fell behind"));
        let asked = server.script.asked.lock().unwrap();
        assert_eq!((asked[0].path[0].as_str(), asked[0].hello.as_ref()), ("counted", &b"hello"[..]));
    }

    #[tokio::test]
    async fn a_name_that_is_no_dataset_is_not_found() {
        let server = Server::plain(Script::default()).await;
        let federation = federation(&server, "counted");
        let name: DatasetName = "other".parse().unwrap();
        assert_eq!(federation.count_rows(&name).await.unwrap_err().kind, ErrorKind::NotFound);
        assert_eq!(federation.subscribe(&name, Bytes::new()).await.err().unwrap().kind, ErrorKind::NotFound);
        assert_eq!(server.script.calls.load(std::sync::atomic::Ordering::SeqCst), 0);
    }
}
