//! The demo's queries: asked, shown with their answer, time, and what went upstream; and what is answered without one.

use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use bytes::Bytes;
use futures::TryStreamExt;
use http::Request;
use http_body_util::Full;

use crate::app::Addresses;
use crate::cli::fetch::fetch;
use crate::cli::place::Place;
use crate::cli::reach::ReachArgs;
use crate::upstream::{ClientTlsFiles, Pool, Target};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// How a query is asked.
#[derive(Debug, Clone, Copy)]
enum Front {
    Http,
    Flight,
}

const QUERIES: [(&str, Front, &str); 4] = [
    (
        "A join with an aggregate goes upstream as one statement",
        Front::Http,
        "SELECT c_mktsegment AS segment, count(*) AS orders, sum(o_totalprice) AS total
FROM orders JOIN customer ON o_custkey = c_custkey
WHERE o_orderdate >= DATE '1995-01-01'
GROUP BY c_mktsegment
ORDER BY total DESC",
    ),
    (
        "A view of the spicepod, over Flight",
        Front::Flight,
        "SELECT nation, revenue FROM revenue_by_nation ORDER BY revenue DESC LIMIT 5",
    ),
    (
        "Remote rows joined with what only this process knows",
        Front::Http,
        "SELECT t.table_name, r.r_name
FROM information_schema.tables AS t JOIN region AS r ON r.r_name = 'ASIA'
WHERE t.table_name IN ('orders', 'region')
ORDER BY t.table_name",
    ),
    (
        "A dataset that is kept here (acceleration: enabled)",
        Front::Http,
        "SELECT l_returnflag AS flag, l_linestatus AS status, count(*) AS items, sum(l_quantity) AS quantity
FROM lineitem
WHERE l_shipdate <= DATE '1998-09-02'
GROUP BY l_returnflag, l_linestatus
ORDER BY flag, status",
    ),
];

/// Asked without the upstream: of what is kept here, and of what is not.
const KEPT: &str = "SELECT count(*) AS items, max(l_shipdate) AS last FROM lineitem";
const NOT_KEPT: &str = "SELECT count(*) AS orders FROM orders";

/// Asked of the table that grows.
const HELD: &str = "SELECT count(*) AS readings FROM readings";
/// Readings are numbered from zero on.
const IS_WHOLE: &str =
    "SELECT count(*) = max(id) + 1 AS none_missing, count(*) = count(DISTINCT id) AS none_twice
FROM readings";
/// How many rows a person waits for.
const SEEN_GROWING: i64 = 2;
const GROW_WAIT_MAX: Duration = Duration::from_secs(60);
const GROW_POLL: Duration = Duration::from_millis(20);

/// Asks all and prints what a person wants to see.
///
/// # Errors
/// The first query that fails.
pub(super) async fn all(addresses: &Addresses) -> Result<(), Failure> {
    for (at, (title, front, sql)) in QUERIES.iter().enumerate() {
        say!("{}. {title}\n", at + 1);
        say!("{}\n", indented(sql));
        let begun = Instant::now();
        let (answer, over) = match front {
            Front::Http => (over_http(addresses, sql).await?, "HTTP"),
            Front::Flight => (pretty(&over_flight(addresses, sql).await?)?, "Flight"),
        };
        let elapsed_ms = begun.elapsed().as_secs_f64() * 1000.0;
        say!("{}\n", indented(answer.trim_end()));
        let sent = sent_upstream(addresses, sql).await?;
        let heading = if sent.is_empty() { "nothing went upstream" } else { "sent upstream:" };
        say!("   answered over {over} in {elapsed_ms:.1} ms; {heading}");
        for sent in sent {
            say!("     {sent}");
        }
        say!();
    }
    Ok(())
}

/// Shows what an application meets while the upstream is away.
///
/// # Errors
/// What is kept here is not answered, or what is not kept is.
pub(super) async fn without_upstream(addresses: &Addresses) -> Result<(), Failure> {
    say!("{}. The upstream is stopped: what is kept here is answered all the same\n", QUERIES.len() + 2);
    say!("{}\n", indented(KEPT));
    say!("{}\n", indented(over_http(addresses, KEPT).await?.trim_end()));
    say!("   What is not kept says so within seconds, and heals by itself:\n");
    say!("{}\n", indented(NOT_KEPT));
    match over_http(addresses, NOT_KEPT).await {
        Ok(answer) => Err(format!("an upstream that was stopped has answered: {answer}").into()),
        Err(error) => {
            say!("{}\n", indented(error.to_string().trim_end()));
            Ok(())
        }
    }
}

/// Shows that rows are here as they are made.
///
/// # Errors
/// The table is not answered, or does not grow.
pub(super) async fn growing(addresses: &Addresses) -> Result<(), Failure> {
    say!("{}. A dataset that is followed as it grows (refresh_mode: append)\n", QUERIES.len() + 1);
    say!("{}\n", indented(HELD));
    let (first, begun) = (held(addresses).await?, Instant::now());
    let later = held_beyond(addresses, first + SEEN_GROWING - 1).await?;
    let seconds = begun.elapsed().as_secs_f64();
    say!(
        "   held here: {first} readings, {seconds:.1} s later {later}; nobody asked the upstream for them\n"
    );
    Ok(())
}

/// Shows that nothing is missing of what was made while the upstream was away, and nothing is there twice.
///
/// # Errors
/// The stream does not go on after the `before` rows that were held.
pub(super) async fn caught_up(addresses: &Addresses, before: i64) -> Result<(), Failure> {
    held_beyond(addresses, before).await?;
    say!("   So is the stream of readings, which goes on where it was:\n");
    say!("{}\n", indented(IS_WHOLE));
    say!("{}\n", indented(over_http(addresses, IS_WHOLE).await?.trim_end()));
    Ok(())
}

/// How many readings the sidecar holds.
///
/// # Errors
/// They are not answered.
pub(super) async fn held(addresses: &Addresses) -> Result<i64, Failure> {
    let batches = over_flight(addresses, HELD).await?;
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).ok_or("no count was answered")?;
    Ok(batch.column(0).as_primitive::<Int64Type>().value(0))
}

/// Waits until more than `rows` are held.
async fn held_beyond(addresses: &Addresses, rows: i64) -> Result<i64, Failure> {
    let begun = Instant::now();
    loop {
        let now = held(addresses).await?;
        if now > rows {
            return Ok(now);
        }
        if begun.elapsed() > GROW_WAIT_MAX {
            return Err(format!("the readings do not grow: {now} are held").into());
        }
        tokio::time::sleep(GROW_POLL).await;
    }
}

async fn over_http(addresses: &Addresses, sql: &str) -> Result<String, Failure> {
    let place: Place = addresses.http.to_string().parse()?;
    let request = Request::post("/v1/sql")
        .header("accept", "text/plain")
        .body(Full::new(Bytes::from(sql.to_owned())))?;
    let (status, body) = fetch(&place, &ReachArgs::default(), request, ANSWER_WAIT_MAX).await?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() { Ok(text) } else { Err(text.into()) }
}

async fn over_flight(addresses: &Addresses, sql: &str) -> Result<Vec<RecordBatch>, Failure> {
    let endpoint = format!("http://{}", addresses.flight).parse()?;
    let sidecar = Pool::new().connect(&Target::for_endpoint(endpoint, None, &ClientTlsFiles::default())?)?;
    Ok(sidecar.query(sql).await?.batches.try_collect().await?)
}

/// The SQL that a statement sends upstream, read from EXPLAIN.
async fn sent_upstream(addresses: &Addresses, sql: &str) -> Result<Vec<String>, Failure> {
    let plan = over_flight(addresses, &format!("EXPLAIN {sql}")).await?;
    let text = pretty(&plan)?;
    let mut sent = Vec::new();
    for batch in &plan {
        let [kinds, plans] = batch.columns() else { return Err(text.into()) };
        let (kinds, plans) = (strings(kinds)?, strings(plans)?);
        for (kind, plan) in kinds.iter().zip(&plans) {
            match kind.as_str() {
                "upstream_sql" => sent.push(plan.clone()),
                "physical_plan" => sent.extend(scans(plan)),
                _ => {}
            }
        }
    }
    Ok(sent)
}

fn strings(column: &arrow::array::ArrayRef) -> Result<Vec<String>, Failure> {
    let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8)?;
    let column = arrow::array::AsArray::as_string::<i32>(column.as_ref());
    Ok(column.iter().map(|text| text.unwrap_or_default().to_owned()).collect())
}

/// The `sql=` of every remote scan in a physical plan.
fn scans(plan: &str) -> impl Iterator<Item = String> + '_ {
    plan.lines().filter_map(|line| line.split_once("sql=")).map(|(_, sql)| sql.to_owned())
}

fn pretty(batches: &[RecordBatch]) -> Result<String, Failure> {
    Ok(pretty_format_batches(batches)?.to_string())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}")).collect::<Vec<_>>().join("\n")
}
