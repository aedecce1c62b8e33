//! "Rows at or after a moment" as a condition that an upstream can apply.

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, cast, ident, lit};

use crate::acceleration::store::TimeFormat;

const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Rows whose `column` is at or after `from` (ns since the epoch). The bound is rounded down to what the column can
/// say, so that it never loses a row.
///
/// # Errors
/// A bound that the column's type cannot hold.
pub(super) fn at_or_after(column: &Field, format: TimeFormat, from: i64) -> Result<Expr> {
    let name = ident(column.name());
    let bound = match column.data_type() {
        DataType::Timestamp(unit, zone) => {
            let value = Some(from.div_euclid(nanoseconds(*unit)));
            match unit {
                TimeUnit::Second => ScalarValue::TimestampSecond(value, zone.clone()),
                TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(value, zone.clone()),
                TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(value, zone.clone()),
                TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(value, zone.clone()),
            }
        }
        DataType::Date32 => ScalarValue::Date32(i32::try_from(from.div_euclid(DAY)).ok()),
        DataType::Date64 => ScalarValue::Date64(Some(from.div_euclid(MILLISECOND))),
        // Texts are compared as the moments that they mean: their zones may differ.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let moment = cast(name, DataType::Timestamp(TimeUnit::Nanosecond, None));
            return Ok(moment.gt_eq(lit(ScalarValue::TimestampNanosecond(Some(from), None))));
        }
        kind => {
            let unit = if format == TimeFormat::UnixMillis { MILLISECOND } else { SECOND };
            number(from.div_euclid(unit), kind)?
        }
    };
    Ok(name.gt_eq(lit(bound)))
}

fn nanoseconds(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => SECOND,
        TimeUnit::Millisecond => MILLISECOND,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// `value` in the column's own type, or the next below; what is below the type's range is its end.
fn number(value: i64, kind: &DataType) -> Result<ScalarValue> {
    if *kind == DataType::Float32 {
        let near = value as f32;
        let is_above = f64::from(near) > value as f64;
        return Ok(ScalarValue::Float32(Some(if is_above { near.next_down() } else { near })));
    }
    let value = if kind.is_unsigned_integer() { value.max(0) } else { value };
    ScalarValue::Int64(Some(value)).cast_to(kind)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A bound in the middle of every unit.
    const FROM: i64 = 1_700_000_000_123_456_789;

    #[test]
    fn bounds_are_rounded_down_in_the_columns_own_type() {
        let zone: Arc<str> = "+00:00".into();
        let timestamp = |unit| DataType::Timestamp(unit, None);
        let zoned = DataType::Timestamp(TimeUnit::Millisecond, Some(zone));
        let of = |kind: DataType, format| {
            at_or_after(&Field::new("At", kind, true), format, FROM).unwrap().to_string()
        };
        let all = [
            of(timestamp(TimeUnit::Second), TimeFormat::Timestamp),
            of(timestamp(TimeUnit::Microsecond), TimeFormat::Timestamp),
            of(timestamp(TimeUnit::Nanosecond), TimeFormat::Timestamp),
            of(zoned, TimeFormat::TimestampTz),
            of(DataType::Int64, TimeFormat::UnixSeconds),
            of(DataType::Int64, TimeFormat::UnixMillis),
            of(DataType::Float64, TimeFormat::UnixSeconds),
            of(DataType::Date32, TimeFormat::Date),
            of(DataType::Utf8, TimeFormat::Iso8601),
        ];
        insta::assert_snapshot!(all.join("\n"));
        let early =
            at_or_after(&Field::new("at", DataType::UInt32, true), TimeFormat::UnixSeconds, -1).unwrap();
        assert_eq!(early.to_string(), "at >= UInt32(0)");
        // The nearest number that 32 bits can say is 1,700,000,000, after the bound.
        let from = 1_699_999_990 * SECOND;
        let short = Field::new("at", DataType::Float32, true);
        let short = at_or_after(&short, TimeFormat::UnixSeconds, from).unwrap();
        assert_eq!(short.to_string(), "at >= Float32(1699999900)");
    }
}
