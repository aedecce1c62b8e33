//! Spicepods good and bad, and what is said about them.

use proptest::prelude::*;

use super::*;

mod access;
mod secret_stores;

const HEAD: &str = "version: v1\nkind: Spicepod\nname: t\n";

const GOOD: &str = r"version: v1
kind: Spicepod
name: app
metadata:
  team: data
runtime:
  http: {bind_address: 127.0.0.1:8090}
  flight:
    bind_address: '[::1]:50051'
    max_message_size: 16MiB
  metrics: {bind_address: 0.0.0.0:9090}
  query: {timeout: 30, target_partitions: 4}
  dataset_load_parallelism: 2
  shutdown_timeout: 1m30s
  output_level: very_verbose
  params: {push_down: off}
  tls: {enabled: false, key_file: /k}
  cors: {allowed_origins: ['*']}
  task_history: {enabled: false}
  telemetry: {enabled: false}
  caching: {sql_results: {enabled: false, item_ttl: 1s}}
secrets:
  - {from: env, name: env}
  - {from: env, name: file, params: {file_path: x.env}}
models: []
datasets:
  - from: spice.ai:https://core:50051/sales.orders
    name: Orders
    access: read
    description: All orders
    metadata: {owner: me, tags: [a, 1]}
    has_metadata_table: false
    params:
      spiceai_api_key: key-${file:K}
      max_message_size: 8MB
    acceleration:
      enabled: false
      refresh_check_interval: 30s
  - from: flightsql:s.t
    name: sales.t
    params: {flightsql_endpoint: 'http://h:1', flightsql_max_message_size: 1000000, flightsql_dialect: datafusion}
views:
  - name: v
    sql: SELECT 1
";

fn pod(text: &str) -> Result<Spicepod, Diagnostics> {
    parse(SourceFile { path: "spicepod.yaml".into(), text: text.to_owned() })
}

/// What is said about a bad spicepod; the head is added.
fn said(body: &str) -> String {
    pod(&format!("{HEAD}{body}")).expect_err("the spicepod was taken").to_string()
}

/// What is said about one dataset with these lines.
fn said_of_dataset(lines: &str) -> String {
    said(&format!("datasets:\n  - from: spice.ai:https://h:1\n    name: orders\n{lines}"))
}

#[test]
fn a_good_spicepod() {
    let pod = pod(GOOD).unwrap_or_else(|problems| panic!("{problems}"));
    let runtime = &pod.runtime;
    assert_eq!(runtime.http_bind, "127.0.0.1:8090".parse().ok());
    assert_eq!(runtime.flight_bind, "[::1]:50051".parse().ok());
    assert_eq!(runtime.metrics_bind, "0.0.0.0:9090".parse().ok());
    assert_eq!(runtime.max_message_size, Some(ByteSize::new(16 << 20)));
    assert_eq!(runtime.query_timeout.map(|timeout| timeout.get().as_secs()), Some(30));
    assert_eq!((runtime.target_partitions, runtime.dataset_load_parallelism), (Some(4), Some(2)));
    assert_eq!(runtime.shutdown_timeout.map(|timeout| timeout.get().as_secs()), Some(90));
    assert_eq!(runtime.output_level, Some(LogLevel::VeryVerbose));
    assert_eq!(runtime.push_down, Some(false));
    let stores: Vec<&str> = pod.secrets.iter().map(|store| store.name.as_str()).collect();
    assert_eq!(stores, ["file", "env"]);
    let [orders, t] = pod.datasets.as_slice() else { panic!("two datasets") };
    assert_eq!(
        (orders.name.to_string().as_str(), orders.from.path.as_str()),
        ("orders", "https://core:50051/sales.orders")
    );
    assert_eq!(orders.metadata["tags"], r#"["a",1]"#);
    assert_eq!(orders.params["api_key"].key, "spiceai_api_key");
    assert_eq!(orders.params["max_message_size"].value.literal(), Some("8MB"));
    assert_eq!(
        (t.from.connector, t.params["dialect"].value.literal()),
        (Connector::FlightSql, Some("datafusion"))
    );
    assert!(orders.acceleration.is_none() && orders.time_column.is_none());
    assert_eq!(pod.views[0].sql, "SELECT 1");
    assert_eq!(orders.at.line, 27);
}

/// The settings of the results cache under `runtime:`, and all warnings.
fn results_cache(lines: &str) -> (ResultsCache, String) {
    let pod = pod(&format!("{HEAD}runtime:\n{lines}")).unwrap_or_else(|problems| panic!("{problems}"));
    let warnings = pod.shown_warnings();
    (pod.runtime.results_cache, warnings)
}

#[test]
fn the_results_cache_in_both_its_forms() {
    let newer = "  caching:\n    sql_results: {enabled: true, max_size: 1MiB, item_ttl: 5s, eviction_policy: tiny_lfu, \
                 cache_key_type: sql, encoding: none, stale_while_revalidate_ttl: 1m}\n";
    let (read, warnings) = results_cache(newer);
    assert_eq!((read.enabled, read.max_size), (Some(true), Some(ByteSize::new(1 << 20))));
    assert_eq!((read.eviction, read.key), (Some(Eviction::TinyLfu), Some(CacheKeyType::Sql)));
    let seconds = |ttl: Option<Duration>| ttl.map(|ttl| ttl.get().as_secs());
    assert_eq!((seconds(read.item_ttl), seconds(read.stale_ttl)), (Some(5), Some(60)));
    assert_eq!(warnings, "");

    let (read, warnings) = results_cache("  results_cache: {cache_max_size: 2MB, item_ttl: 1s}\n");
    assert_eq!((read.enabled, read.max_size), (None, Some(ByteSize::new(2_000_000))));
    insta::assert_snapshot!("results_cache_older_form", warnings);
}

#[test]
fn what_the_results_cache_does_not_do_is_said() {
    let (read, warnings) = results_cache("  caching: {sql_results: {hashing_algorithm: xxh3}}\n");
    assert_eq!(read.enabled, None);
    insta::assert_snapshot!("results_cache_no_effect", warnings);
    insta::assert_snapshot!(
        "results_cache_refused",
        said(
            "runtime:\n  caching:\n    sql_results:\n      encoding: zstd\n      cache_max_size: 1MB\n  \
             results_cache:\n    enabled: true\n"
        )
    );
    let (read, _) = results_cache("  caching: {sql_results: {enabled: false, encoding: zstd}}\n");
    assert_eq!(read.enabled, Some(false));
}

#[test]
fn a_misspelt_field() {
    insta::assert_snapshot!(said_of_dataset("    accelaration:\n      enabled: true\n"));
}

#[test]
fn several_errors_in_one_file() {
    insta::assert_snapshot!(said(
        "runtime:\n  htpp:\n    bind_address: 127.0.0.1:8090\n  query:\n    timeout: soon\ndatasets:\n  \
         - from: postgres:t\n    name: select\n  - name: b\n    form: x\nview: []\n"
    ));
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(said(
        "runtime:\n  query: fast\n  dataset_load_parallelism: 0\n  output_level: verbos\n  http:\n    \
         bind_address: :8090\n  tls:\n    enabled: 'no'\ndatasets:\n  from: x\nviews:\n  - sql: 1\n    name: v\n  -\n"
    ));
}

#[test]
fn an_unknown_connector() {
    insta::assert_snapshot!(said(
        "datasets:\n  - {from: 'postgres:public.orders', name: a}\n  - {from: 'https://h:1', name: b}\n  \
         - {from: 'flighsql:x', name: c}\n"
    ));
}

#[test]
fn unknown_params() {
    insta::assert_snapshot!(said_of_dataset(
        "    params:\n      spiceai_api_kye: ${secrets:K}\n      api_key: hunter2\n      \
         flightsql_endpoint: https://h:1\n      zzz: 1\n      spiceai_region:\n      \
         max_message_size: 0\n      spiceai_max_message_size: 1MB\n"
    ));
}

#[test]
fn bad_durations_and_sizes() {
    insta::assert_snapshot!(said(
        "runtime:\n  query:\n    timeout: 0s\n  shutdown_timeout: -5s\n  flight:\n    max_message_size: 4 bananas\n"
    ));
}

#[test]
fn not_supported_yet() {
    insta::assert_snapshot!(said(
        "runtime:\n  task_history:\n    enabled: true\n    captured_outptu: x\n  metrics:\n    - name: m\n  \
         telemetry: {enabled: true}\nsecrets:\n  - {from: keyring, name: k}\nmodels:\n  - a\ndatasets:\n  \
         - from: t\n    name: t\n    mode: read\n    access: read_write\n    time_column: at\n    acceleration:\n      \
         refresh_mode: apend\n      refresh_check_interval: 30s\n      refresh_cron: '0 * * * *'\n"
    ));
}

#[test]
fn push_down_is_on_or_off() {
    let read = |value: &str| {
        let text = format!("{HEAD}runtime: {{params: {{push_down: {value}}}}}\n");
        pod(&text).map(|pod| pod.runtime.push_down).ok()
    };
    for (value, meant) in [
        ("on", Some(true)),
        ("true", Some(true)),
        ("'on'", Some(true)),
        ("Off", Some(false)),
        ("off", Some(false)),
        ("false", Some(false)),
        ("", None),
    ] {
        assert_eq!(read(value), Some(meant), "{value}");
    }
    assert_eq!(pod(&format!("{HEAD}runtime: {{params: }}\n")).unwrap().runtime.push_down, None);
    for value in ["yes", "1", "[on]", "{on: 1}"] {
        assert_eq!(read(value), None, "{value}");
    }
}

#[test]
fn runtime_params() {
    insta::assert_snapshot!(said(
        "runtime:\n  params:\n    push_down: of\n    push-down: on\n    other: 1\n    more: [1]\n    none:\n"
    ));
    insta::assert_snapshot!(said("runtime:\n  params: [push_down]\n"));
    insta::assert_snapshot!(said("runtime:\n  params: {push_down: [off]}\n"));
}

#[test]
fn duplicates() {
    insta::assert_snapshot!(said(
        "name: again\ndatasets:\n  - {from: a, name: Orders}\n  - {from: b, name: orders}\nviews:\n  \
         - {name: ORDERS, sql: SELECT 1, sql_ref: x}\n  - {name: v}\n  - {name: w, sql_ref: no/such.sql}\n"
    ));
}

#[test]
fn bad_templates() {
    insta::assert_snapshot!(said_of_dataset(
        "    params:\n      spiceai_api_key: ${secrets:KEY\n      spiceai_region: us-${REGION}\n      \
         spiceai_endpoint: ${evn:HOST}\n"
    ));
}

#[test]
fn tabs_are_no_indentation() {
    insta::assert_snapshot!(said("runtime:\n\thttp: x\n"));
}

#[test]
fn a_secret_in_clear_is_masked() {
    let text = said_of_dataset("    params:\n      api-key: hunter2\n      spiceai_token: [hunter2]\n");
    assert!(!text.contains("hunter2"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_secret_in_clear_is_a_warning() {
    let text = format!("{HEAD}datasets:\n  - {{from: t, name: t, params: {{spiceai_api_key: hunter2}}}}\n");
    insta::assert_snapshot!(pod(&text).unwrap().shown_warnings());
}

#[test]
fn missing_and_wrong_heads() {
    insta::assert_snapshot!(pod("version: v2\nkind: Pod\n").unwrap_err().to_string());
}

#[test]
fn no_spicepod() {
    let dir = tempfile::tempdir().unwrap();
    let said =
        |path: &Path| load(path).unwrap_err().to_string().replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(format!("{}\n\n{}", said(dir.path()), said(&dir.path().join("x.yaml"))));
    std::fs::write(dir.path().join("spicepod.yml"), "# nothing\n").unwrap();
    assert!(said(dir.path()).contains("the spicepod is empty"));
    std::fs::write(dir.path().join("spicepod.yaml"), format!("{HEAD}views: [{{name: v, sql_ref: v.sql}}]"))
        .unwrap();
    std::fs::write(dir.path().join("v.sql"), "SELECT 2").unwrap();
    assert_eq!(load(dir.path()).unwrap().views[0].sql, "SELECT 2");
}

#[test]
fn hostile_yaml() {
    let bomb: String = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let aliases = vec![format!("*a{}", level - 1); 9].join(",");
        format!("{text}a{level}: &a{level} [{aliases}]\n")
    });
    let chain: String = (1..200).fold("a0: &a0 x\n".to_owned(), |text, level| {
        format!("{text}a{level}: &a{level} {}*a{}{}\n", "[".repeat(50), level - 1, "]".repeat(50))
    });
    let cases = [
        bomb,
        chain,
        "[".repeat(5_000),
        format!("a: {}", "{b: ".repeat(5_000)),
        "- ".repeat(5_000),
        "a: &a [*a]\n".to_owned(),
        "--- \na: 1\n---\nb: 2\n".to_owned(),
        "? [x]\n: y\n".to_owned(),
        "a: !!python/object x\n".to_owned(),
        "\"\\u001b[31m\": 1\n".to_owned(),
        "a: \"unclosed\n".to_owned(),
        "a: *nowhere\n".to_owned(),
        "just text".to_owned(),
        String::new(),
    ];
    let said: Vec<String> = cases
        .iter()
        .map(|text| pod(text).unwrap_err().problems[0].message.chars().take(100).collect())
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn many_problems_are_bounded() {
    let body: String = (0..5_000).map(|index| format!("zz{index}: 1\n")).collect();
    let text = said(&body);
    assert!(text.contains("and 900 more"), "{}", &text[text.len() - 200..]);
}

#[test]
fn large_documents_end_soon() {
    let started = std::time::Instant::now();
    for text in [
        "[".repeat(1 << 20),
        "a".repeat(1 << 20),
        "- ".repeat(1 << 19),
        "a: b\n".repeat(1 << 17),
        "{a: ".repeat(1 << 18),
    ] {
        assert!(pod(&text).is_err());
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn the_json_schema() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&json_schema()).unwrap());
}

/// A good spicepod with some of its characters changed.
fn mutated() -> impl Strategy<Value = String> {
    let change = (0..GOOD.len(), "[\\PC\n\t]{0,3}", 0usize..6);
    prop::collection::vec(change, 1..5).prop_map(|changes| {
        let mut text: Vec<char> = GOOD.chars().collect();
        for (at, with, removed) in changes {
            let at = at.min(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, with.chars());
        }
        text.into_iter().collect()
    })
}

/// A million with `SIDEWING_LONG`.
fn cases() -> u32 {
    if std::env::var_os("SIDEWING_LONG").is_some() { 1_000_000 } else { 300 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn no_text_panics(text in "([\\PC\n\t]|: |- |\n  |\\$\\{|&a |\\*a|\\[|\\{){0,60}") {
        if let Err(problems) = pod(&text) {
            prop_assert!(!problems.problems.is_empty());
            let _ = problems.to_string();
        }
    }

    #[test]
    fn no_mutation_panics(text in mutated()) {
        if let Err(problems) = pod(&text) {
            prop_assert!(!problems.problems.is_empty());
            let _ = problems.to_string();
        }
    }

    #[test]
    fn no_secret_is_shown(text in "[a-z]{1,8}", key in "(spiceai_api_key|api_key|spiceai_token|spiceai_tokne|password|flightsql_password)") {
        let secret = format!("hunter2{text}");
        let source = said_of_dataset(&format!("    zz: 1\n    params:\n      {key}: {secret}\n      {key}: {secret}\n"));
        prop_assert!(!source.contains(&secret), "{}", source);
    }
}
