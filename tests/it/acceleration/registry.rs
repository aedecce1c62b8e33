//! No setting of an accelerated dataset is forgotten: each is exercised by a test that is named here, or refused by its
//! name.

use std::collections::BTreeSet;

use super::*;
use crate::support::sidecar::repository_file;

/// Where a setting is proven.
#[derive(Debug, Clone, Copy)]
enum Proof {
    /// A test of `tests/it/acceleration*` or `tests/it/publishing*`.
    Test(&'static str),
    /// `check` names it, with this value.
    Refused(&'static str),
}

use Proof::{Refused, Test};

const ACCELERATION: &[(&str, Proof)] = &[
    ("enabled", Test("a_disabled_dataset_is_filled_only_when_asked_and_one_that_is_not_enabled_is_remote")),
    ("mode", Test("file_create_begins_anew_and_file_update_needs_what_was_there")),
    ("engine", Test("files_lie_beside_the_spicepod_or_in_the_data_folder")),
    ("engine", Refused("duckdb")),
    ("engine", Refused("sqlite")),
    ("engine", Refused("postgres")),
    ("engine", Refused("cayenne")),
    ("engine", Refused("turso")),
    ("refresh_mode", Test("lives_of_a_dataset_hold_what_the_upstream_says")),
    (
        "refresh_mode",
        Test("a_disabled_dataset_is_filled_only_when_asked_and_one_that_is_not_enabled_is_remote"),
    ),
    ("refresh_mode", Refused("changes")),
    ("refresh_mode", Refused("caching")),
    ("refresh_mode", Refused("snapshot")),
    ("refresh_check_interval", Test("intervals_cron_lines_and_jitter_refresh_by_themselves")),
    ("refresh_cron", Test("intervals_cron_lines_and_jitter_refresh_by_themselves")),
    ("refresh_jitter_enabled", Test("intervals_cron_lines_and_jitter_refresh_by_themselves")),
    ("refresh_jitter_max", Test("intervals_cron_lines_and_jitter_refresh_by_themselves")),
    ("refresh_sql", Test("refresh_sql_chooses_rows_and_columns_and_is_changed_until_the_restart")),
    ("refresh_data_window", Test("a_data_window_leaves_old_rows_out")),
    ("refresh_append_overlap", Test("an_append_takes_what_is_new_and_nothing_twice")),
    ("refresh_retry_enabled", Test("a_failing_refresh_keeps_the_old_generation_and_says_why")),
    ("refresh_retry_max_attempts", Test("a_failed_refresh_is_tried_again_as_often_as_is_said")),
    ("refresh_on_startup", Test("a_start_refreshes_what_was_restored_always_or_when_due")),
    ("params", Test("a_table_in_files_is_served_after_a_restart_without_its_upstream")),
    ("params", Test("stream_retention_bounds_how_long_is_waited_for_a_subscriber")),
    ("params", Test("stream_retention_bounds_how_much_is_held_for_subscribers")),
    ("retention_period", Test("retention_takes_rows_out_without_the_upstream")),
    ("retention_sql", Test("retention_takes_rows_out_without_the_upstream")),
    ("retention_check_interval", Test("retention_takes_rows_out_without_the_upstream")),
    ("retention_check_enabled", Test("rows_that_grew_old_while_nothing_ran_go_before_the_next_refresh")),
    ("on_zero_results", Test("where_no_row_is_held_the_source_answers")),
    ("indexes", Test("keys_that_are_held_twice_are_named")),
    ("primary_key", Test("keys_that_are_held_twice_are_named")),
    ("on_conflict", Test("conflicts_in_a_unique_index_are_settled_beside_a_primary_key")),
    ("on_conflict", Test("lives_of_a_dataset_hold_what_the_upstream_says")),
    ("on_conflict", Refused("{id: upsert_dedup}")),
    ("on_conflict", Refused("{id: upsert_dedup_by_row_id}")),
    ("partition_by", Refused("id")),
    ("snapshots", Refused("enabled")),
    ("snapshots", Refused("bootstrap_only")),
    ("snapshots", Refused("create_only")),
    ("snapshots_trigger", Refused("refresh_complete")),
    ("snapshots_threshold", Refused("10m")),
    ("snapshots_compaction", Refused("enabled")),
    ("disable_query_push_down", Refused("true")),
];

/// Fields of the dataset itself that say how it is kept.
const DATASET: &[(&str, Proof)] = &[
    ("time_column", Test("an_append_takes_what_is_new_and_nothing_twice")),
    ("time_format", Test("lives_of_a_dataset_hold_what_the_upstream_says")),
    ("ready_state", Test("before_the_first_load_queries_are_refused_or_fall_through")),
    ("ready_state", Refused("on_schema_resolved")),
    ("on_schema_change", Test("a_changed_schema_is_followed_refused_or_begun_anew")),
    ("on_schema_change", Test("a_new_column_is_blocked_or_taken")),
    ("unsupported_type_action", Refused("string")),
    ("check_availability", Refused("disabled")),
    ("replication", Refused("{enabled: true}")),
    ("time_partition_column", Refused("id")),
    ("time_partition_format", Refused("date")),
];

/// The names of the fields of one section, as `sidewing schema` gives them.
async fn fields_of_acceleration() -> BTreeSet<String> {
    let schema = Sidecar::builder().finish("schema").await;
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    // The one object that has both.
    fn find(node: &Value) -> Option<&serde_json::Map<String, Value>> {
        let own = node.get("properties").and_then(Value::as_object);
        let is_it = |fields: &&serde_json::Map<String, Value>| {
            fields.contains_key("refresh_mode") && fields.contains_key("retention_sql")
        };
        own.filter(is_it).or_else(|| match node {
            Value::Object(map) => map.values().find_map(find),
            Value::Array(items) => items.iter().find_map(find),
            _ => None,
        })
    }
    find(&schema).expect("a section with refresh_mode").keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_has_its_proof() {
    let known: BTreeSet<String> = ACCELERATION.iter().map(|(field, _)| (*field).to_owned()).collect();
    let missing: Vec<String> = fields_of_acceleration().await.difference(&known).cloned().collect();
    assert!(missing.is_empty(), "fields without a proof: {missing:?}");
    let mut tests = std::fs::read_to_string(repository_file("tests/it/acceleration.rs")).unwrap();
    for folder in ["tests/it/acceleration", "tests/it/publishing"] {
        for entry in std::fs::read_dir(repository_file(folder)).unwrap() {
            let path = entry.unwrap().path();
            // A folder is one of snapshots.
            if path.is_file() {
                tests += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    for (field, proof) in ACCELERATION.iter().chain(DATASET) {
        if let Test(name) = proof {
            assert!(tests.contains(&format!("async fn {name}()")), "{field}: no test `{name}`");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_built_is_refused_by_name() {
    let refused = |all: &'static [(&str, Proof)]| {
        all.iter().filter_map(|(field, proof)| match proof {
            Refused(value) => Some((*field, *value)),
            Test(_) => None,
        })
    };
    let bare = || Dataset::at("t", "http://127.0.0.1:1");
    let kept = refused(ACCELERATION).map(|(field, value)| {
        let key = if field == "on_conflict" { "primary_key: id, " } else { "" };
        (field, value, bare().accelerated(&format!("{key}{field}: {value}")))
    });
    let own = refused(DATASET).map(|(field, value)| {
        let dataset = bare().accelerated("").field("time_column: at").field(&format!("{field}: {value}"));
        (field, value, dataset)
    });
    for (field, value, dataset) in kept.chain(own) {
        let told = Sidecar::builder().spicepod(&spicepod(&[dataset], "")).finish("check").await;
        let said = format!("{}{}", told.stdout, told.stderr);
        assert_eq!(told.code, Some(2), "{field}: {value}\n{said}");
        let word = value.trim_matches(['{', '}']).split(' ').next_back().unwrap();
        assert!(
            said.contains(field) && (said.contains("not supported") || said.contains(word)),
            "{field}: {value}\n{said}"
        );
    }
}
