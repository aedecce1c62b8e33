//! `sidewing sql` against a live endpoint: rows on stdout, everything else on stderr, exit codes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray};

use crate::support::client::batch;
use crate::support::pki::Pki;
use crate::support::sidecar::Sidecar;
use crate::support::upstream::{self, Upstream};

const QUERY: &str = "select id, name from items order by id";

fn items() -> upstream::Builder {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let names: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None]));
    Upstream::builder().table("items", batch([("id", ids), ("name", names)]))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_query_is_printed_in_every_form() {
    let upstream = items().start().await;
    for (output, expected) in [
        (
            "table",
            "+----+------+\n| id | name |\n+----+------+\n| 1  | a    |\n| 2  | NULL |\n+----+------+\n",
        ),
        ("csv", "id,name\n1,a\n2,\n"),
        ("json", "[{\"id\":1,\"name\":\"a\"},{\"id\":2,\"name\":null}]\n"),
    ] {
        let sql = Sidecar::builder().args(["--endpoint", &upstream.url(), "--output", output, QUERY]);
        let finished = sql.finish("sql").await;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), expected), "{finished:?}");
        assert!(finished.stderr.starts_with("2 rows in "), "{finished:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_told_on_stderr_and_exits_1() {
    let upstream = items().start().await;
    let sql = Sidecar::builder().args(["--endpoint", &upstream.url(), "select nothing from items"]);
    let finished = sql.finish("sql").await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{finished:?}");
    assert!(finished.stderr.starts_with("error: ") && finished.stderr.contains("nothing"), "{finished:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_ca_and_a_key_open_a_tls_endpoint() {
    let pki = Pki::new();
    let upstream = items().tls(pki.server("localhost")).api_key("key-of-the-prompt").start().await;
    let ca = pki.ca_file().display().to_string();
    let ask = || Sidecar::builder().args(["--endpoint", &upstream.url(), "--ca", &ca, "-o", "csv", QUERY]);
    let finished = ask().secret("SIDEWING_API_KEY", "key-of-the-prompt").finish("sql").await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "id,name\n1,a\n2,\n"), "{finished:?}");
    let refused = ask().secret("SIDEWING_API_KEY", "some-other-key").finish("sql").await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_come_from_a_pipe_whatever_the_terminal() {
    let upstream = items().start().await;
    for term in ["dumb", "xterm"] {
        let ask = |text: &str| {
            let sql = Sidecar::builder().env("TERM", term).stdin(text);
            sql.args(["--endpoint", &upstream.url(), "-o", "csv"])
        };
        let one = ask("select 1 as one\n").finish("sql").await;
        assert_eq!((one.code, one.stdout.as_str()), (Some(0), "one\n1\n"), "{one:?}");
        let several = ask("select 1\n  as a; select nothing;\nselect ';' as b").finish("sql").await;
        assert_eq!((several.code, several.stdout.as_str()), (Some(1), "a\n1\nb\n;\n"), "{several:?}");
    }
}
