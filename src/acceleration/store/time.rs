//! Values of the time column as nanoseconds since the epoch, whatever they are written as.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit};
use datafusion::error::{DataFusionError, Result};

use super::StoreError;
use super::TimeFormat;
use super::layout::{Layout, Time};

const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;

/// First and last moment of some rows, in ns since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// None when every value is NULL.
    pub bounds: Option<(i64, i64)>,
    pub has_nulls: bool,
}

impl Span {
    pub(super) fn of(times: &Int64Array) -> Self {
        Self { bounds: min(times).zip(max(times)), has_nulls: times.null_count() > 0 }
    }

    /// Whether a row of the one could have the same time as a row of the other.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let cross = match (self.bounds, other.bounds) {
            (Some((from, to)), Some((other_from, other_to))) => from <= other_to && other_from <= to,
            _ => false,
        };
        cross || (self.has_nulls && other.has_nulls)
    }

    pub(super) fn joined(&self, other: &Self) -> Self {
        let bounds = match (self.bounds, other.bounds) {
            (Some((from, to)), Some((other_from, other_to))) => {
                Some((from.min(other_from), to.max(other_to)))
            }
            (one, other) => one.or(other),
        };
        Self { bounds, has_nulls: self.has_nulls || other.has_nulls }
    }
}

/// Moments outside of 1677 to 2262 count as the nearest one inside; NULL stays NULL.
///
/// # Errors
/// [`StoreError::Time`] names the first text that is no time.
pub(super) fn nanoseconds(layout: &Layout, time: Time, column: &ArrayRef) -> Result<Int64Array, StoreError> {
    if let Some(texts) = texts(column).map_err(StoreError::compute(layout.name()))? {
        return parsed(layout, time, &texts);
    }
    numbers(time.format, column).map_err(StoreError::compute(layout.name()))
}

fn numbers(format: TimeFormat, column: &ArrayRef) -> Result<Int64Array> {
    let unit = match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => SECOND,
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => MILLISECOND,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
        DataType::Date32 => 86_400 * SECOND,
        _ if format == TimeFormat::UnixMillis => MILLISECOND,
        _ => SECOND,
    };
    let column = match column.data_type() {
        DataType::Date32 => &cast(column, &DataType::Int32)?,
        DataType::UInt64 => &cast(column, &DataType::Decimal128(38, 9))?,
        _ => column,
    };
    Ok(match column.data_type() {
        kind if kind.is_floating() => {
            let floats = cast(column, &DataType::Float64)?;
            floats.as_primitive::<Float64Type>().unary(|value| (value * unit as f64) as i64)
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) => {
            let decimals = cast(column, &DataType::Decimal128(38, 9))?;
            // Nine places: the number counts billionths of the unit.
            let scaled = |value: i128| value.saturating_mul(i128::from(unit)) / i128::from(SECOND);
            decimals.as_primitive::<Decimal128Type>().unary(|value| saturated(scaled(value)))
        }
        _ => {
            let integers = cast(column, &DataType::Int64)?;
            integers.as_primitive::<Int64Type>().unary(|value| value.saturating_mul(unit))
        }
    })
}

fn saturated(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn texts(column: &ArrayRef) -> Result<Option<ArrayRef>, DataFusionError> {
    match column.data_type() {
        DataType::Utf8View => Ok(Some(Arc::clone(column))),
        DataType::Utf8 | DataType::LargeUtf8 => Ok(Some(cast(column, &DataType::Utf8View)?)),
        _ => Ok(None),
    }
}

fn parsed(layout: &Layout, time: Time, texts: &ArrayRef) -> Result<Int64Array, StoreError> {
    let parse = |text: &str| {
        string_to_timestamp_nanos(text.trim()).map_err(|_| StoreError::Time {
            table: layout.name().clone(),
            column: time.field(layout.schema()).name().clone(),
            format: time.format.word(),
            value: text.chars().take(64).collect(),
        })
    };
    texts.as_string_view().iter().map(|text| text.map(parse).transpose()).collect()
}
