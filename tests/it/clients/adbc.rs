//! adbc-driver-flightsql, the driver in Go behind Python's ADBC: queries, parameters, metadata, ingest, errors.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use serde_json::{Value, json};

use super::tools;
use crate::support::client::batch;
use crate::support::sidecar::Sidecar;
use crate::support::spicepod::{Dataset, spicepod};
use crate::support::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn adbc_does_what_a_program_does_with_a_connection() {
    let Some(python) = tools::python() else { return };
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let names: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("c")]));
    let upstream = Upstream::builder().table("items", batch([("id", ids), ("name", names)])).start().await;
    let written = Dataset::of("written", &upstream).table("items").accelerated("refresh_mode: disabled");
    let datasets = [
        Dataset::of("items", &upstream),
        Dataset::of("shop.goods", &upstream).table("items"),
        written.field("access: read_write"),
    ];
    let view = "views:\n  - name: named\n    sql: select id from items where name is not null\n";
    let sidecar = Sidecar::builder().spicepod(&spicepod(&datasets, view)).start().await;
    sidecar.wait_ready().await;
    let uri = format!("grpc://{}", sidecar.flight_addr());
    let told = tools::script(&python, "adbc/session.py", &[&uri]).await;

    assert_eq!(
        told["query"],
        json!([{"id": 1, "name": "a"}, {"id": 2, "name": null}, {"id": 3, "name": "c"}])
    );
    assert_eq!(told["positional"], json!([{"name": "c"}]));
    assert_eq!(told["again"], json!([{"name": "a"}]));
    assert_eq!(told["named"], json!([{"name": "a"}]));
    assert_eq!(told["typed"], json!(vec![true; 11]), "{}", told["typed"]);
    assert_eq!(told["ingested"], json!(2));
    let rows = sidecar.sql("select count(*) as n, max(id) as m from written").await;
    assert_eq!(rows, json!([{"n": 2, "m": 8}]));
    metadata(&told);
    errors(&told);
}

fn metadata(told: &Value) {
    let depths = &told["depths"];
    assert_eq!(depths["catalogs"], json!(["spice"]));
    assert_eq!(depths["db_schemas"], json!(["spice.public", "spice.shop"]));
    let tables = [
        "public.items BASE TABLE",
        "public.named VIEW",
        "public.written BASE TABLE",
        "shop.goods BASE TABLE",
    ];
    assert_eq!(depths["tables"], json!(tables));
    let columns = json!(["id", "name"]);
    assert_eq!(
        depths["all"],
        json!({"public.items": columns, "public.named": ["id"], "public.written": columns, "shop.goods": columns})
    );
    assert_eq!(told["table_schema"], columns);
    assert_eq!(told["schema"], columns);
    assert_eq!(told["partitions"], json!(1));
    assert_eq!(told["table_types"], json!(["BASE TABLE", "LOCAL TEMPORARY", "VIEW"]));
    assert_eq!(told["info"], json!({"vendor_name": "sidewing", "vendor_version": env!("CARGO_PKG_VERSION")}));
}

/// Each is of the class that its code stands for, and says what is wrong.
fn errors(told: &Value) {
    for (what, class, words) in [
        ("bad_sql", "ProgrammingError", "selec"),
        ("no_table", "ProgrammingError", "nowhere"),
        ("write", "ProgrammingError", "only"),
        ("many", "NotSupportedError", "CommandPreparedStatementUpdate"),
        ("rows", "ProgrammingError", "parameters should contain a single row"),
        ("unknown_schema", "ProgrammingError", "No table found"),
        ("not_writable", "ProgrammingError", "read only"),
    ] {
        let (found, said) = (&told[what][0], told[what][1].as_str().unwrap_or_default());
        assert_eq!((found, said.contains(words)), (&json!(class), true), "{what}: {}", told[what]);
    }
}
