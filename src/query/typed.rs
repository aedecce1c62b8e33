//! Parameters of whole types: one row of Arrow columns enters, SQL literals leave that mean the same values.
//!
//! A literal keeps type and every digit, and is planned, forwarded and compared like one that the user wrote. Each text
//! that a cast reads is read here first; what does not come back as it was is refused by name.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, IntervalUnit, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion::sql::sqlparser::ast::{Expr, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::QueryError;

/// One row of parameters: each has a name, which may be `$1`, `$name`, `name` or anything else, and a typed value.
#[derive(Debug, Clone)]
pub struct TypedParameters {
    all: Arc<[Typed]>,
    /// Where the parameter of each number is, where all are called like `$2`.
    numbers: Option<Arc<HashMap<usize, usize>>>,
}

#[derive(Debug)]
struct Typed {
    name: String,
    kind: DataType,
    literal: Expr,
    /// What tells its value from every other one of the type.
    told: String,
}

/// How SQL names a type.
enum Named {
    /// `CAST(… AS it)`
    Sql(String),
    /// `arrow_cast(…, 'it')`
    Arrow(String),
}

/// How the values of a type are written: cast to `named`, which is `exact` in Arrow.
struct Form {
    named: Named,
    exact: DataType,
    is_quoted: bool,
}

impl TypedParameters {
    /// The columns of `row` in their order.
    ///
    /// # Errors
    /// Not one row, or a value that no literal says: [`QueryError::Invalid`] names it, and what to do.
    pub fn try_new(row: &RecordBatch) -> Result<Self, QueryError> {
        if row.num_rows() != 1 {
            let message = format!("parameters should contain a single row, {} were sent", row.num_rows());
            return Err(QueryError::Invalid { message });
        }
        let schema = row.schema();
        let columns = schema.fields().iter().zip(row.columns());
        let typed = columns.map(|(field, column)| {
            Typed::try_new(field.name(), column).map_err(|why| QueryError::Invalid {
                message: format!("parameter `{}` is {}: {why}", field.name(), field.data_type()),
            })
        });
        let all: Arc<[Typed]> = typed.collect::<Result<_, _>>()?;
        let number = |(at, typed): (usize, &Typed)| Some((typed.name.strip_prefix('$')?.parse().ok()?, at));
        let numbers = all.iter().enumerate().map(number).collect::<Option<HashMap<usize, usize>>>();
        Ok(Self { all, numbers: numbers.map(Arc::new) })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn name(&self, at: usize) -> Option<&str> {
        self.all.get(at).map(|typed| typed.name.as_str())
    }

    pub(super) fn literal(&self, at: usize) -> Option<Expr> {
        self.all.get(at).map(|typed| typed.literal.clone())
    }

    /// Where the parameter of this number is, from 1: by names like `$2` where all have such, else by place.
    pub(super) fn numbered(&self, number: usize) -> Option<usize> {
        match &self.numbers {
            Some(numbers) => numbers.get(&number).copied(),
            None => number.checked_sub(1).filter(|at| *at < self.len()),
        }
    }

    /// Where the parameter of this name is; it may be sent with or without its `$`.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|typed| typed.name.trim_start_matches('$') == name)
    }

    /// Equal for equal names, types and values, and for nothing else.
    pub(super) fn told(&self) -> String {
        let told: Vec<_> = self.all.iter().map(|typed| (&typed.name, &typed.kind, &typed.told)).collect();
        format!("typed{told:?}")
    }
}

impl Typed {
    fn try_new(name: &str, column: &ArrayRef) -> Result<Self, String> {
        let (name, kind) = (name.to_owned(), column.data_type().clone());
        let column = plain(column)?;
        if let Some(text) = text(&column) {
            let literal = Expr::value(Value::SingleQuotedString(text.to_owned()));
            return Ok(Self { name, kind, literal, told: format!("'{text}") });
        }
        let told = sql(&column)?;
        let literal = Parser::new(&GenericDialect {}).try_with_sql(&told).and_then(|mut it| it.parse_expr());
        let literal = literal.map_err(|error| format!("it cannot be written as a literal: {error}"))?;
        Ok(Self { name, kind, literal, told })
    }
}

/// The value without a dictionary or runs around it.
fn plain(column: &ArrayRef) -> Result<ArrayRef, String> {
    match column.data_type() {
        DataType::Dictionary(_, value) => cast(column, value).map_err(|error| error.to_string()),
        DataType::RunEndEncoded(_, values) => {
            cast(column, values.data_type()).map_err(|error| error.to_string())
        }
        _ => Ok(Arc::clone(column)),
    }
}

fn text(column: &ArrayRef) -> Option<&str> {
    if column.is_null(0) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(0)),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(0)),
        DataType::Utf8View => Some(column.as_string_view().value(0)),
        _ => None,
    }
}

/// The literal of anything but a string.
fn sql(column: &ArrayRef) -> Result<String, String> {
    let kind = column.data_type();
    if *kind == DataType::Null {
        return Ok("NULL".to_owned());
    }
    if column.is_null(0) {
        return Ok(form(kind)?.named.cast("NULL"));
    }
    match kind {
        DataType::Boolean => Ok(column.as_boolean().value(0).to_string()),
        DataType::Binary => Ok(hex(column.as_binary::<i32>().value(0))),
        DataType::LargeBinary => Ok(hex(column.as_binary::<i64>().value(0))),
        DataType::BinaryView => Ok(hex(column.as_binary_view().value(0))),
        DataType::FixedSizeBinary(_) => Ok(hex(column.as_fixed_size_binary().value(0))),
        DataType::Int64 => Ok(signed(shown(column)?)),
        DataType::Float64 if column.as_primitive::<Float64Type>().value(0).is_finite() => {
            // The shortest text that reads back as this very number, always with a point or an exponent.
            Ok(signed(format!("{:?}", column.as_primitive::<Float64Type>().value(0))))
        }
        DataType::Duration(_) => {
            let count = cast(column, &DataType::Int64).map_err(|error| error.to_string())?;
            Ok(form(kind)?.named.cast(&shown(&count)?))
        }
        _ => cast_literal(column),
    }
}

/// A cast that reads exactly this value.
fn cast_literal(column: &ArrayRef) -> Result<String, String> {
    let Form { named, exact, is_quoted } = form(column.data_type())?;
    let widened = cast(column, &exact).map_err(|error| error.to_string())?;
    let text = shown(&widened)?;
    // Whatever its bits are, it is no number.
    if column.data_type().is_floating() && text == "NaN" {
        return Ok(named.cast("'NaN'"));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let written: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
    let read = cast_with_options(&written, &exact, &options);
    let is_read = read.is_ok_and(|read| read.to_data() == widened.to_data());
    // Nothing narrows an interval again, and nothing is lost by widening one.
    let is_whole = matches!(exact, DataType::Interval(_))
        || cast(&widened, column.data_type()).is_ok_and(|back| back.to_data() == column.to_data());
    match (is_read && is_whole, is_quoted) {
        (false, _) => {
            let shown = shown(column)?;
            Err(format!("no literal says `{shown}` exactly: send it as a string, and cast that in the SQL"))
        }
        (true, true) => Ok(named.cast(&format!("'{text}'"))),
        (true, false) => Ok(named.cast(&text)),
    }
}

/// # Errors
/// What to do with a type that has no literals.
fn form(kind: &DataType) -> Result<Form, String> {
    let sql = |name: &str, exact: &DataType, is_quoted| {
        Ok(Form { named: Named::Sql(name.to_owned()), exact: exact.clone(), is_quoted })
    };
    match kind {
        DataType::Boolean => sql("BOOLEAN", kind, false),
        DataType::Int8 => sql("TINYINT", kind, false),
        DataType::Int16 => sql("SMALLINT", kind, false),
        DataType::Int32 => sql("INT", kind, false),
        DataType::Int64 => sql("BIGINT", kind, false),
        DataType::UInt8 => sql("TINYINT UNSIGNED", kind, false),
        DataType::UInt16 => sql("SMALLINT UNSIGNED", kind, false),
        DataType::UInt32 => sql("INT UNSIGNED", kind, false),
        DataType::UInt64 => sql("BIGINT UNSIGNED", kind, false),
        DataType::Float32 => sql("REAL", kind, true),
        DataType::Float64 => sql("DOUBLE", kind, true),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => sql("VARCHAR", kind, true),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            sql("BYTEA", kind, true)
        }
        DataType::Date32 | DataType::Date64 => sql("DATE", &DataType::Date32, true),
        DataType::Time32(_) | DataType::Time64(_) => sql("TIME", &DataType::Time64(TimeUnit::Nanosecond), true),
        DataType::Interval(_) => sql("INTERVAL", &DataType::Interval(IntervalUnit::MonthDayNano), true),
        DataType::Timestamp(unit, None) => sql(&format!("TIMESTAMP({})", digits(*unit)), kind, true),
        DataType::Timestamp(unit, Some(zone)) if is_zone(zone) => {
            arrow(format!("Timestamp({unit:?}, Some(\"{zone}\"))"), kind)
        }
        DataType::Duration(unit) => arrow(format!("Duration({unit:?})"), kind),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            decimal(*precision, *scale)
        }
        DataType::Float16 => Err("send it as Float32".to_owned()),
        _ => Err(
            "only null, booleans, numbers, strings, binaries, dates, times, timestamps, intervals and durations can \
             be bound: send it as a string, and take that apart in the SQL"
                .to_owned(),
        ),
    }
}

fn arrow(name: String, kind: &DataType) -> Result<Form, String> {
    Ok(Form { named: Named::Arrow(name), exact: kind.clone(), is_quoted: true })
}

fn decimal(precision: u8, scale: i8) -> Result<Form, String> {
    let exact = match precision <= 38 {
        true => DataType::Decimal128(precision, scale),
        false => DataType::Decimal256(precision, scale),
    };
    Ok(Form { named: Named::Sql(format!("DECIMAL({precision},{scale})")), exact, is_quoted: true })
}

impl Named {
    fn cast(&self, value: &str) -> String {
        match self {
            Self::Sql(name) => format!("CAST({value} AS {name})"),
            Self::Arrow(name) => format!("arrow_cast({value}, '{name}')"),
        }
    }
}

/// Digits of a second.
fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// What zones are called; nothing that ends a quoted text.
fn is_zone(zone: &str) -> bool {
    zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-:".contains(&byte))
}

fn shown(column: &ArrayRef) -> Result<String, String> {
    array_value_to_string(column, 0).map_err(|error| error.to_string())
}

/// In parentheses where it has a sign: `x - -1` must not become a comment.
fn signed(number: String) -> String {
    if number.starts_with('-') { format!("({number})") } else { number }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digits = bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    });
    format!("X'{digits}'")
}

#[cfg(test)]
mod tests;
