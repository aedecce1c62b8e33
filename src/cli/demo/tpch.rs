//! TPC-H data for the demo and the tests: a scale factor enters, eight tables of Arrow batches leave.
//!
//! The data are the generator's own, deterministic for a scale; strings are string views, money is
//! `Decimal128(15, 2)`. Nothing is read from or written to disk.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RecordBatchIterator,
    RegionArrow, SupplierArrow,
};

/// One generated table: name, schema, rows.
pub type Table = (&'static str, SchemaRef, Vec<RecordBatch>);

/// The tables in the order of [`tables`].
pub const TABLES: [&str; 8] =
    ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"];

/// What the demo takes: 600 000 line items, a second or so to make.
pub const SCALE_DEFAULT: f64 = 0.1;

/// The largest scale factor that is generated in memory: about 1 GB of batches.
const SCALE_MAX: f64 = 1.0;

/// Reads a scale factor that fits in memory.
///
/// # Errors
/// Text that is not a number above 0 and up to 1, in words for the person who typed it.
pub fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= SCALE_MAX => Ok(scale),
        _ => Err(format!("expected a number above 0 and up to {SCALE_MAX}, such as 0.01")),
    }
}

/// All eight tables at `scale` (1.0 is six million line items; the demo and the tests use hundredths).
///
/// ```
/// let tables = sidewing::cli::demo::tpch::tables(0.001).unwrap();
/// let (name, _, batches) = &tables[0];
/// assert_eq!((*name, batches[0].num_rows()), ("region", 5));
/// ```
///
/// # Errors
/// A scale that is not above zero, or would not fit in memory.
pub fn tables(scale: f64) -> Result<Vec<Table>, ArrowError> {
    if !(scale > 0.0 && scale <= SCALE_MAX) {
        return Err(ArrowError::InvalidArgumentError(format!(
            "TPC-H scale {scale} is not between 0 and {SCALE_MAX}"
        )));
    }
    Ok(vec![
        collect("region", RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
        collect("nation", NationArrow::new(NationGenerator::new(scale, 1, 1))),
        collect("supplier", SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
        collect("customer", CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
        collect("part", PartArrow::new(PartGenerator::new(scale, 1, 1))),
        collect("partsupp", PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
        collect("orders", OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
        collect("lineitem", LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
    ])
}

fn collect(name: &'static str, rows: impl RecordBatchIterator) -> Table {
    let schema = Arc::clone(rows.schema());
    (name, schema, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        assert_eq!(parse_scale("0.01"), Ok(0.01));
        for bad in ["", "0", "-1", "1.01", "NaN", "inf", "small"] {
            assert!(parse_scale(bad).unwrap_err().contains("up to 1"), "{bad}");
        }
    }

    #[test]
    fn a_hundredth_has_the_row_counts_of_the_specification() {
        let rows: Vec<_> = tables(0.01)
            .unwrap()
            .into_iter()
            .map(|(name, _, batches)| (name, batches.iter().map(RecordBatch::num_rows).sum::<usize>()))
            .collect();
        let expected = [
            ("region", 5),
            ("nation", 25),
            ("supplier", 100),
            ("customer", 1_500),
            ("part", 2_000),
            ("partsupp", 8_000),
            ("orders", 15_000),
            ("lineitem", 60_175),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_scale_that_makes_no_sense_is_refused() {
        for scale in [0.0, -1.0, f64::NAN, 1000.0] {
            assert!(tables(scale).is_err(), "{scale}");
        }
    }
}
