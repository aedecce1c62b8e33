//! The types of columns, as JDBC and ODBC describe types.

use arrow::array::RecordBatch;
use arrow_flight::error::Result;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};

use XdbcDataType as Xdbc;

/// # Errors
/// What Arrow cannot encode.
pub(super) fn batch(asked: CommandGetXdbcTypeInfo) -> Result<RecordBatch> {
    let mut types = XdbcTypeInfoDataBuilder::new();
    for info in numbers().into_iter().chain(texts()).chain(times()) {
        types.append(info);
    }
    types.build()?.record_batch(asked.data_type)
}

/// A type that may be null and compared, without a literal of its own.
fn named(name: &str, data_type: Xdbc, column_size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        column_size: Some(column_size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        sql_data_type: data_type,
        ..XdbcTypeInfo::default()
    }
}

/// A number of so many digits, in base two or ten.
fn number(name: &str, data_type: Xdbc, column_size: i32, radix: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(name.ends_with("UNSIGNED")),
        auto_increment: Some(false),
        num_prec_radix: Some(radix),
        ..named(name, data_type, column_size)
    }
}

fn numbers() -> Vec<XdbcTypeInfo> {
    let decimal = XdbcTypeInfo {
        create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
        minimum_scale: Some(0),
        maximum_scale: Some(76),
        ..number("DECIMAL", Xdbc::XdbcDecimal, 76, 10)
    };
    vec![
        named("BOOLEAN", Xdbc::XdbcBit, 1),
        number("TINYINT", Xdbc::XdbcTinyint, 8, 2),
        number("TINYINT UNSIGNED", Xdbc::XdbcTinyint, 8, 2),
        number("SMALLINT", Xdbc::XdbcSmallint, 16, 2),
        number("SMALLINT UNSIGNED", Xdbc::XdbcSmallint, 16, 2),
        number("INT", Xdbc::XdbcInteger, 32, 2),
        number("INT UNSIGNED", Xdbc::XdbcInteger, 32, 2),
        number("BIGINT", Xdbc::XdbcBigint, 64, 2),
        number("BIGINT UNSIGNED", Xdbc::XdbcBigint, 64, 2),
        number("REAL", Xdbc::XdbcReal, 24, 2),
        number("DOUBLE", Xdbc::XdbcDouble, 53, 2),
        decimal,
    ]
}

fn texts() -> Vec<XdbcTypeInfo> {
    let quoted = |prefix: &str, info: XdbcTypeInfo| XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".to_owned()),
        ..info
    };
    let text = XdbcTypeInfo { case_sensitive: true, ..named("VARCHAR", Xdbc::XdbcVarchar, i32::MAX) };
    vec![quoted("'", text), quoted("X'", named("BYTEA", Xdbc::XdbcVarbinary, i32::MAX))]
}

fn times() -> Vec<XdbcTypeInfo> {
    let time =
        |name: &str, data_type: Xdbc, column_size: i32, subcode: Option<XdbcDatetimeSubcode>| XdbcTypeInfo {
            literal_prefix: Some(format!("{name} '")),
            literal_suffix: Some("'".to_owned()),
            sql_data_type: if data_type == Xdbc::XdbcInterval { data_type } else { Xdbc::XdbcDatetime },
            datetime_subcode: subcode,
            ..named(name, data_type, column_size)
        };
    // Nine digits of a second.
    let scaled = |info: XdbcTypeInfo| XdbcTypeInfo { minimum_scale: Some(0), maximum_scale: Some(9), ..info };
    vec![
        // The subcode of a date is 1, which arrow-flight calls a year.
        time("DATE", Xdbc::XdbcDate, 10, Some(XdbcDatetimeSubcode::XdbcSubcodeYear)),
        scaled(time("TIME", Xdbc::XdbcTime, 18, Some(XdbcDatetimeSubcode::XdbcSubcodeTime))),
        scaled(time("TIMESTAMP", Xdbc::XdbcTimestamp, 29, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp))),
        time("INTERVAL", Xdbc::XdbcInterval, 64, None),
    ]
}
