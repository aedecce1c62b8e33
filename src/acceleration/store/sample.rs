//! How many rows of a scan pass its filters, by the rows of a few chunks.
//!
//! What columns lie between says little of `a < b`, of `LIKE`, or of values that are not spread evenly; joins are put in
//! order by what is expected here.

use datafusion::error::Result;

use super::Generation;
use super::chosen::Chosen;
use super::scan::Piece;
use super::sieve::{Filter, Sieve};

/// Pieces that are looked into, spread over all of them, ...
const PIECES: usize = 16;
/// ... and rows of each.
const ROWS_OF_EACH: usize = 256;

/// What share of the rows of `pieces` pass `filters`, above 0: that none of the few pass does not mean that none do.
/// None where there is no row.
///
/// # Errors
/// What a filter fails with on one of the rows.
pub(super) fn share(generation: &Generation, pieces: &[&Piece], filters: &[Filter]) -> Result<Option<f64>> {
    let mut sieve = Sieve::new(filters);
    let (mut seen, mut passed) = (0, 0);
    for nth in spread(PIECES, pieces.len()) {
        let (at, rows) = some_of(generation, pieces[nth]);
        seen += rows.len();
        passed += sieve.sift(&generation.chunks()[at], rows)?.len();
    }
    let passed = if passed == 0 { 0.5 } else { passed as f64 };
    Ok((seen > 0).then(|| passed / seen as f64))
}

fn some_of(generation: &Generation, piece: &Piece) -> (usize, Chosen) {
    let rows = spread(ROWS_OF_EACH, piece.rows(generation));
    match piece {
        Piece::Whole(at) => (*at, Chosen::At(rows.map(|row| row as u32).collect::<Vec<_>>().into())),
        Piece::Rows(at, all) => (*at, Chosen::At(rows.map(|row| all.value(row)).collect::<Vec<_>>().into())),
    }
}

/// At most so many positions below `all`: the middle of each of as many parts.
fn spread(count: usize, all: usize) -> impl Iterator<Item = usize> {
    let count = count.min(all);
    (0..count).map(move |nth| (2 * nth + 1) * all / (2 * count))
}
