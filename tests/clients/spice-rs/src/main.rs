//! The `spiceai` crate against a sidewing: what a program does with a client, told as JSON.
//!
//!     spice-rs FLIGHT_URL HTTP_URL

use std::error::Error;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use futures::TryStreamExt;
use serde_json::{Value, json};
use spiceai::{Client, ClientBuilder, QueryParameters};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [flight, http] = args.as_slice() else { return Err("spice-rs FLIGHT_URL HTTP_URL".into()) };
    let client = ClientBuilder::new().flight_url(flight).http_url(http).build().await?;
    let keyed = ClientBuilder::new().flight_url(flight).http_url(http).api_key("any").build().await?;
    let all = "select id, name from items order by id";
    let bound = QueryParameters::new().push(3_i64).push("c");
    let bound =
        client.sql_with_bindings("select id, name from items where id = $1 and name = $2", bound).await?;
    let id = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as _)])?;
    let batch = client.sql_with_params("select id, name from items where id = $id", Some(id)).await?;
    let told = json!({
        "all": sql(&client, all).await?,
        "with_key": sql(&keyed, all).await?,
        "bound": rows(bound.try_collect().await?)?,
        "batch": rows(batch.try_collect().await?)?,
        "ready": client.is_ready().await?,
        "refused": sql(&client, "select * from nowhere").await.err().map(|error| error.to_string()),
    });
    println!("{told}");
    Ok(())
}

async fn sql(client: &Client, sql: &str) -> Result<Value, Failure> {
    rows(client.sql(sql).await?.try_collect().await?)
}

fn rows(batches: Vec<RecordBatch>) -> Result<Value, Failure> {
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    Ok(serde_json::from_slice(&writer.into_inner())?)
}
