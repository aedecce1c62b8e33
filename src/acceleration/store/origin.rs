//! Where a column of a join's output comes from.

use datafusion::common::{JoinSide, JoinType};
use datafusion::physical_plan::joins::HashJoinExec;

/// The side that the output's column at `at` comes from, and its position there. None for the mark of a mark join.
pub(super) fn origin(join: &HashJoinExec, at: usize) -> Option<(JoinSide, usize)> {
    let joined = match &join.projection {
        None => at,
        Some(outputs) => *outputs.get(at)?,
    };
    let left = join.left().schema().fields().len();
    match join.join_type() {
        JoinType::LeftSemi | JoinType::LeftAnti => Some((JoinSide::Left, joined)),
        JoinType::RightSemi | JoinType::RightAnti => Some((JoinSide::Right, joined)),
        JoinType::LeftMark | JoinType::RightMark => None,
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => match joined.checked_sub(left)
        {
            None => Some((JoinSide::Left, joined)),
            Some(column) => Some((JoinSide::Right, column)),
        },
    }
}
