//! The upstream of TPC-H: tables that this process has generated, served by it as well. Each is encoded when it is asked
//! for.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use sidewing::cli::demo::tpch::Table;
use sidewing::task::Scope;
use tokio::net::TcpListener;
use tonic::Status;

use crate::Result;
use crate::upstream::{self, Tables};

/// A running one; it ends when it is dropped.
pub struct Served {
    pub address: String,
    scope: Scope,
}

/// Batches by the name of their table.
struct Generated(Vec<Table>);

impl Served {
    pub async fn start(tables: &[Table]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, scope) = (listener.local_addr()?.to_string(), Scope::new());
        let tables = Generated(tables.to_vec());
        scope.spawn("tables", async move {
            if let Err(error) = upstream::serve_on(listener, tables).await {
                eprintln!("goals: the upstream of the tables ended: {error}");
            }
        });
        Ok(Self { address, scope })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl Generated {
    /// The table that stands in `text` as a word of its own: no column has the name of a table.
    fn find(&self, text: &str) -> Result<&Table, Status> {
        let words = |name: &str| {
            text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                .any(|word| word == name)
        };
        let found = self.0.iter().find(|(name, ..)| words(name));
        found.ok_or_else(|| Status::not_found(format!("no table in: {text}")))
    }
}

impl Tables for Generated {
    fn schema(&self, text: &str) -> Result<SchemaRef, Status> {
        Ok(Arc::clone(&self.find(text)?.1))
    }

    fn frames(&self, text: &str) -> Result<Vec<FlightData>, Status> {
        let (_, schema, batches) = self.find(text)?;
        let frames = upstream::encoded(Arc::clone(schema), batches.clone());
        futures::executor::block_on(frames).map_err(|error| Status::internal(error.to_string()))
    }
}
