//! The schemas of the specification, and what a door with datasets tells.

use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::{CommandGetCrossReference, CommandGetExportedKeys};
use futures::executor::block_on;
use proptest::prelude::*;
use tonic::Code;

use super::*;
use crate::serve::fake::Fake;

fn door() -> Fake {
    let batch = RecordBatch::try_from_iter([(
        "a",
        std::sync::Arc::new(arrow::array::Int64Array::from(vec![1])) as _,
    )]);
    let batch = batch.unwrap();
    let mut door = Fake::default().table("orders", vec![batch.clone()]).table("Über_all", vec![batch]);
    let mut view = door.datasets[0].clone();
    // It has no table behind it: its upstream was never reached.
    view.name = "shop.goods".parse().unwrap();
    view.is_view = true;
    door.datasets.push(view);
    door
}

fn told(metadata: Metadata) -> RecordBatch {
    let schema = metadata.schema();
    let batch = block_on(metadata.batch(&door())).unwrap();
    assert_eq!(batch.schema(), schema);
    batch
}

fn tables(schema: Option<&str>, table: Option<&str>, types: &[&str]) -> Vec<String> {
    let batch = told(Metadata::Tables(CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: schema.map(str::to_owned),
        table_name_filter_pattern: table.map(str::to_owned),
        table_types: types.iter().map(|kind| (*kind).to_owned()).collect(),
        include_schema: true,
    }));
    let column = |at: usize| arrow::array::AsArray::as_string::<i32>(batch.column(at)).clone();
    let (schemas, names) = (column(1), column(2));
    (0..batch.num_rows()).map(|row| format!("{}.{}", schemas.value(row), names.value(row))).collect()
}

#[test]
fn all_that_is_told() {
    let all = [
        Metadata::Catalogs,
        Metadata::DbSchemas(CommandGetDbSchemas::default()),
        Metadata::Tables(CommandGetTables::default()),
        Metadata::TableTypes,
        Metadata::XdbcTypeInfo(CommandGetXdbcTypeInfo::default()),
    ];
    let shown: Vec<String> = all
        .into_iter()
        .map(|metadata| pretty_format_batches(&[told(metadata)]).unwrap().to_string())
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn tables_are_found_by_pattern_and_type() {
    assert_eq!(tables(None, None, &[]), ["public.orders", "public.über_all", "shop.goods"]);
    assert_eq!(tables(Some("p%"), Some("_rders"), &[]), ["public.orders"]);
    assert_eq!(tables(None, Some("%\\_%"), &[]), ["public.über_all"]);
    assert_eq!(tables(None, None, &["VIEW"]), ["shop.goods"]);
    assert_eq!(tables(None, None, &["VIEW", "BASE TABLE", "VIEW"]).len(), 3);
    assert!(tables(None, None, &["SYSTEM TABLE", "?"]).is_empty());
    let long = CommandGetTables { table_name_filter_pattern: Some("_".repeat(10_000)), ..Default::default() };
    let refused = block_on(Metadata::Tables(long).batch(&door())).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[test]
fn keys_have_their_schema_without_rows() {
    for command in [
        Command::CommandGetExportedKeys(CommandGetExportedKeys::default()),
        Command::CommandGetCrossReference(CommandGetCrossReference::default()),
    ] {
        let batch = told(Metadata::of(command).unwrap());
        assert_eq!((batch.num_columns(), batch.num_rows()), (13, 0));
    }
    let batch = told(Metadata::PrimaryKeys(CommandGetPrimaryKeys::default()));
    assert_eq!((batch.num_columns(), batch.num_rows()), (6, 0));
}

#[test]
fn info_and_types_are_told_by_number() {
    let info =
        |numbers: &[u32]| told(Metadata::SqlInfo(CommandGetSqlInfo { info: numbers.to_vec() })).num_rows();
    assert!(info(&[]) > 60);
    assert_eq!(info(&[0, 1, 0, 508]), 3);
    assert_eq!(info(&[70_000, 999_999]), 0);
    let types = |number: i32| {
        told(Metadata::XdbcTypeInfo(CommandGetXdbcTypeInfo { data_type: Some(number) })).num_rows()
    };
    assert_eq!((types(4), types(12), types(77)), (2, 1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_pattern_makes_it_panic(
        pattern in "[%_\\\\a-z(\\[*ü]{0,12}",
        numbers in proptest::collection::vec(any::<u32>(), 0..8),
        number: i32,
    ) {
        let door = door();
        let asked = [
            Metadata::DbSchemas(CommandGetDbSchemas {
                catalog: Some(pattern.clone()),
                db_schema_filter_pattern: Some(pattern.clone()),
            }),
            Metadata::Tables(CommandGetTables {
                catalog: None,
                db_schema_filter_pattern: Some(pattern.clone()),
                table_name_filter_pattern: Some(pattern.clone()),
                table_types: vec![pattern],
                include_schema: false,
            }),
            Metadata::SqlInfo(CommandGetSqlInfo { info: numbers }),
            Metadata::XdbcTypeInfo(CommandGetXdbcTypeInfo { data_type: Some(number) }),
        ];
        for metadata in asked {
            prop_assert!(block_on(metadata.batch(&door)).is_ok());
        }
    }
}
