//! Accelerations good and bad, and what is said about them.

use std::path::Path;

use super::super::{Dataset, SourceFile, parse};
use super::*;

const HEAD: &str = "version: v1\nkind: Spicepod\nname: t\ndatasets:\n  - from: t\n    name: orders\n";

/// Every field that is built, none at its default.
const FULL: &str = "    time_column: at
    time_format: unix_millis
    ready_state: on_registration
    on_schema_change: sync_all_columns
    acceleration:
      enabled: true
      engine: arrow
      mode: file_update
      refresh_mode: append
      refresh_check_interval: 1m
      refresh_sql: SELECT * FROM orders WHERE site = 7
      refresh_data_window: 7d
      refresh_append_overlap: 10s
      refresh_retry_enabled: false
      refresh_retry_max_attempts: 3
      refresh_on_startup: always
      refresh_jitter_enabled: true
      params: {file_path: data/orders, resident: true, stream_retention: 1m, stream_retention_bytes: 8MiB}
      retention_check_enabled: true
      retention_check_interval: 1h
      retention_period: 30d
      retention_sql: DELETE FROM orders WHERE done
      on_zero_results: use_source
      primary_key: (site, id)
      indexes: {customer: enabled, '(number)': unique, '(id, site)': unique}
      on_conflict: {'(id, site)': upsert, number: drop}
";

fn dataset(lines: &str) -> Dataset {
    let source = SourceFile { path: "spicepod.yaml".into(), text: format!("{HEAD}{lines}") };
    parse(source).unwrap_or_else(|problems| panic!("{problems}")).datasets.remove(0)
}

fn accelerated(lines: &str) -> Acceleration {
    dataset(lines).acceleration.expect("an accelerated dataset")
}

/// What is said about a dataset with these lines.
fn said(lines: &str) -> String {
    let source = SourceFile { path: "spicepod.yaml".into(), text: format!("{HEAD}{lines}") };
    parse(source).expect_err("the spicepod was taken").to_string()
}

fn duration(text: &str) -> Duration {
    text.parse().unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_field_is_read() {
    let orders = dataset(FULL);
    let time = TimeColumn { name: "at".to_owned(), format: TimeFormat::UnixMillis };
    assert_eq!(orders.time_column, Some(time));
    assert_eq!(orders.ready_state, ReadyState::OnRegistration);
    assert_eq!(orders.on_schema_change, SchemaChange::SyncAllColumns);
    let Acceleration {
        mode,
        refresh,
        retention,
        stream,
        on_zero_results,
        primary_key,
        indexes,
        on_conflict,
        at,
    } = orders.acceleration.unwrap();
    let path = Some(Path::new("data/orders").to_owned());
    assert_eq!(mode, Mode::File { create: FileMode::FileUpdate, path, resident: true });
    assert_eq!(refresh.mode, RefreshMode::Append);
    assert_eq!(refresh.schedule, Schedule::Every(duration("1m")));
    assert_eq!(refresh.sql.as_deref(), Some("SELECT * FROM orders WHERE site = 7"));
    assert_eq!(refresh.data_window, Some(duration("7d")));
    assert_eq!(refresh.append_overlap, duration("10s"));
    assert_eq!(refresh.retry, Retry { enabled: false, attempts_max: Some(3) });
    assert_eq!(refresh.on_startup, OnStartup::Always);
    assert_eq!(refresh.jitter, Some(duration("6s")), "a tenth of the interval");
    assert!(retention.enabled);
    assert_eq!(retention.period, Some(duration("30d")));
    assert_eq!(retention.sql.as_deref(), Some("DELETE FROM orders WHERE done"));
    assert_eq!(retention.check_interval, duration("1h"));
    let bytes = Some(ByteSize::new(8 << 20));
    assert_eq!(stream, StreamRetention { time: Some(duration("1m")), bytes });
    assert_eq!(on_zero_results, ZeroResults::UseSource);
    assert_eq!(primary_key, Some(names(&["site", "id"])));
    let customer = IndexOf { columns: names(&["customer"]), unique: false };
    let number = IndexOf { columns: names(&["number"]), unique: true };
    assert_eq!(indexes, [customer, number], "the primary key is an index already");
    let upsert = Conflict { key: names(&["site", "id"]), action: OnConflict::Upsert };
    let drop = Conflict { key: names(&["number"]), action: OnConflict::Drop };
    assert_eq!(on_conflict, [upsert, drop]);
    assert_eq!(at.line, 11);
}

#[test]
fn defaults() {
    let orders = dataset("    acceleration: {}\n");
    assert_eq!(orders.time_column, None);
    assert_eq!(orders.ready_state, ReadyState::OnLoad);
    assert_eq!(orders.on_schema_change, SchemaChange::Block);
    let acceleration = orders.acceleration.unwrap();
    assert_eq!(acceleration.mode, Mode::Memory);
    let refresh = acceleration.refresh;
    assert_eq!((refresh.mode, refresh.schedule), (RefreshMode::Full, Schedule::Once));
    assert_eq!((refresh.append_overlap, refresh.jitter), (Duration::ZERO, None));
    assert_eq!(refresh.retry, Retry { enabled: true, attempts_max: None });
    assert_eq!(refresh.on_startup, OnStartup::Auto);
    assert!(!acceleration.retention.enabled);
    assert_eq!(acceleration.stream, StreamRetention { time: None, bytes: None });
    assert_eq!(acceleration.on_zero_results, ZeroResults::ReturnEmpty);
    assert!(acceleration.indexes.is_empty() && acceleration.on_conflict.is_empty());
    assert!(dataset("").acceleration.is_none());
    assert!(dataset("    acceleration:\n").acceleration.is_none());
}

#[test]
fn a_schedule_by_cron() {
    let refresh = accelerated(
        "    acceleration: {refresh_cron: '*/15 * * * *', refresh_jitter_enabled: true, refresh_jitter_max: 5s}\n",
    )
    .refresh;
    assert_eq!(refresh.schedule, Schedule::Cron("*/15 * * * *".to_owned()));
    assert_eq!(refresh.jitter, Some(duration("5s")));
}

#[test]
fn switched_off_asks_for_nothing() {
    let off = "    acceleration:\n      enabled: false\n      engine: duckdb\n      mode: file\n      \
               refresh_mode: append\n      params: {duckdb_file: x}\n      partition_by: a\n";
    assert!(dataset(off).acceleration.is_none());
    let parts = "    time_column: at\n    acceleration:\n      retention_check_enabled: false\n      \
                 retention_period: 1d\n      refresh_jitter_enabled: false\n      refresh_jitter_max: 1s\n      \
                 snapshots: disabled\n      disable_query_push_down: false\n";
    let acceleration = accelerated(parts);
    assert!(!acceleration.retention.enabled);
    assert_eq!(acceleration.refresh.jitter, None);
}

#[test]
fn switched_off_is_still_checked() {
    insta::assert_snapshot!(said(
        "    acceleration:\n      enabled: false\n      refresh_mod: full\n      refresh_check_interval: 0s\n      \
         retention_check_enabled: true\n"
    ));
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    insta::assert_snapshot!(said(
        "    ready_state: on_schema_resolved\n    acceleration:\n      engine: duckdb\n      \
         refresh_mode: changes\n      params: {duckdb_file: x, file_pth: y}\n      partition_by: a\n      \
         primary_key: id\n      on_conflict: {id: upsert_dedup}\n      snapshots: enabled\n      \
         disable_query_push_down: true\n"
    ));
    insta::assert_snapshot!(said(
        "    acceleration:\n      mode: file\n      params: {resident: false}\n      primary_key: id\n      \
         indexes: {a: enabled}\n"
    ));
}

#[test]
fn values_of_no_meaning() {
    insta::assert_snapshot!(said(
        "    time_column: ''\n    time_format: iso8601\n    on_schema_change: blok\n    acceleration:\n      \
         engine: arow\n      mode: files\n      refresh_mode: apend\n      refresh_check_interval: -1s\n      \
         refresh_cron: every day\n      refresh_sql: ' '\n      refresh_retry_max_attempts: many\n      \
         retention_sql: ''\n      on_zero_results: source\n      primary_key: (a, a)\n      \
         indexes: {'(a': enabled, b: uniqe, '(b)': enabled}\n      params: {resident: sometimes, stream_retention: long, stream_retention_bytes: much}\n"
    ));
    insta::assert_snapshot!(said("    acceleration: {refresh_cron: 0 0 31 2 *}\n"));
    let many = accelerated("    acceleration: {refresh_retry_max_attempts: 5000000000}\n");
    assert_eq!(many.refresh.retry.attempts_max, Some(u32::MAX));
}

#[test]
fn fields_that_contradict_each_other() {
    insta::assert_snapshot!(said(
        "    time_format: date\n    acceleration:\n      refresh_check_interval: 1m\n      \
         refresh_cron: 0 * * * *\n      refresh_data_window: 1d\n      refresh_append_overlap: 1s\n      \
         refresh_jitter_max: 1s\n      retention_period: 1d\n      retention_check_interval: 1h\n      \
         params: {file_path: x, resident: false}\n      primary_key: id\n      indexes: {a: enabled}\n      \
         on_conflict: {a: drop, id: drop, (id): upsert}\n"
    ));
    insta::assert_snapshot!(said(
        "    acceleration:\n      refresh_mode: disabled\n      refresh_check_interval: 1m\n      \
         retention_check_enabled: true\n"
    ));
    insta::assert_snapshot!(said("    acceleration: {refresh_jitter_enabled: true}\n"));
    insta::assert_snapshot!(said("    ready_state: on_registration\n    on_schema_change: fail\n"));
}

fn stream(lines: &str) -> AppendStream {
    match accelerated(lines).refresh.mode {
        RefreshMode::Stream(stream) => stream,
        other => panic!("{other:?} is no stream"),
    }
}

#[test]
fn an_append_without_a_time_column_is_a_stream() {
    let defaults = AppendStream { check_interval: Some(duration("30s")), acceptable_lag: duration("60s") };
    assert_eq!(stream("    acceleration: {refresh_mode: append}\n"), defaults);
    for zero in ["0", "0s"] {
        let lines = format!("    acceleration: {{refresh_mode: append, refresh_check_interval: {zero}}}\n");
        assert_eq!(stream(&lines).check_interval, None);
    }
    for key in ["append_stream_acceptable_lag", "spiceai_append_stream_acceptable_lag"] {
        let lines = format!(
            "    params: {{{key}: 5m}}\n    acceleration:\n      mode: file\n      refresh_mode: append\n      \
             refresh_check_interval: 20s\n      refresh_jitter_enabled: true\n      primary_key: id\n"
        );
        let stream = stream(&lines);
        let expected = AppendStream { check_interval: Some(duration("20s")), acceptable_lag: duration("5m") };
        assert_eq!(stream, expected);
        let refresh = accelerated(&lines).refresh;
        assert_eq!((refresh.schedule, refresh.jitter), (Schedule::Once, Some(duration("2s"))));
    }
    let lines = "    acceleration: {refresh_mode: append, refresh_jitter_enabled: true}\n";
    assert_eq!(accelerated(lines).refresh.jitter, Some(duration("3s")), "a tenth of the default");
    assert_eq!(
        accelerated(&lines.replace(", refresh_jitter_enabled: true", "")).refresh.jitter,
        Some(duration("3s"))
    );
    assert_eq!(accelerated(&lines.replace("true", "false")).refresh.jitter, None);
    let with_time = "    time_column: at\n    acceleration: {refresh_mode: append}\n";
    assert_eq!(accelerated(with_time).refresh.mode, RefreshMode::Append);
    let off = "    acceleration: {refresh_mode: append, retention_check_enabled: false, retention_sql: DELETE FROM t}\n";
    assert!(!accelerated(off).retention.enabled);
}

#[test]
fn what_chooses_rows_or_moments_is_nothing_to_a_stream() {
    insta::assert_snapshot!(said(
        "    acceleration:\n      refresh_mode: append\n      refresh_sql: SELECT * FROM orders\n      \
         refresh_cron: 0 * * * *\n      refresh_data_window: 1d\n      refresh_append_overlap: 1s\n      \
         refresh_retry_enabled: true\n      refresh_retry_max_attempts: 3\n      refresh_on_startup: always\n      \
         primary_key: id\n      on_conflict: {id: upsert}\n      retention_check_enabled: true\n      \
         retention_check_interval: 1h\n      retention_period: 1d\n      retention_sql: DELETE FROM orders\n"
    ));
    insta::assert_snapshot!(said(
        "    acceleration: {refresh_mode: append, refresh_check_interval: 0, refresh_jitter_enabled: true}\n"
    ));
}

#[test]
fn flight_sql_has_no_append_streams() {
    let lines = "    acceleration: {refresh_mode: append}\n";
    let text = format!("{HEAD}{lines}").replace("from: t", "from: flightsql:t");
    let source = SourceFile { path: "spicepod.yaml".into(), text };
    insta::assert_snapshot!(parse(source).expect_err("the spicepod was taken"));
}

#[test]
fn an_acceptable_lag_is_a_duration_of_a_stream() {
    insta::assert_snapshot!(said("    params: {append_stream_acceptable_lag: 1m}\n"));
    insta::assert_snapshot!(said(
        "    time_column: at\n    params: {spiceai_append_stream_acceptable_lag: 1m}\n    \
         acceleration: {refresh_mode: append}\n"
    ));
    for wrong in ["0s", "soon", "'${secrets:LAG}'"] {
        insta::assert_snapshot!(said(&format!(
            "    params: {{append_stream_acceptable_lag: {wrong}}}\n    acceleration: {{refresh_mode: append}}\n"
        )));
    }
}

#[test]
fn what_is_written_to_is_never_refreshed() {
    let written =
        |acceleration: &str| dataset(&format!("    access: read_write\n    acceleration: {acceleration}\n"));
    let plain = written("{refresh_mode: disabled}");
    assert_eq!((plain.access, plain.acceleration.unwrap().mode), (Access::ReadWrite, Mode::Memory));
    let rich = "{refresh_mode: disabled, mode: file, params: {resident: false}, retention_check_enabled: true, \
                retention_check_interval: 1h, retention_sql: DELETE FROM orders WHERE done}";
    assert!(written(rich).acceleration.unwrap().retention.enabled);
    assert_eq!(dataset("    access: read\n").access, Access::Read);
    assert_eq!(dataset("").access, Access::Read);

    insta::assert_snapshot!(said("    access: read_write\n"));
    insta::assert_snapshot!(said(
        "    access: read_write\n    acceleration: {enabled: false, refresh_mode: disabled}\n"
    ));
    insta::assert_snapshot!(said("    access: read_write\n    acceleration: {mode: file}\n"));
    insta::assert_snapshot!(said(
        "    access: read_write\n    on_schema_change: fail\n    time_column: at\n    acceleration:\n      \
         mode: file_create\n      refresh_mode: append\n      refresh_sql: SELECT 1\n      \
         refresh_retry_enabled: false\n      refresh_retry_max_attempts: 3\n      refresh_on_startup: always\n"
    ));
}
