//! The generic dialect with an end to its patience: how often the parser may begin an expression.
//!
//! sqlparser tries some words (`CAST`, `CASE`, `NOT (`, `ARRAY[`, …) in one way and, when that fails, in another; nested,
//! each level doubles the work, and a statement of two hundred bytes would keep a thread for hours. A parser cannot be
//! stopped from outside, but it asks its dialect before each expression: there the count is kept. What is read at all is
//! read as by [`GenericDialect`].

use std::any::TypeId;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// So many expressions may begin in any statement.
const BEGINNINGS_MIN: usize = 20_000;
/// And so many more for each byte of it; the densest list begins one every other byte.
const BEGINNINGS_PER_BYTE: usize = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Patient {
    left: AtomicUsize,
}

impl Patient {
    /// For one parse of this text.
    pub fn new(sql: &str) -> Self {
        Self { left: AtomicUsize::new(BEGINNINGS_MIN + sql.len().saturating_mul(BEGINNINGS_PER_BYTE)) }
    }

    /// Whether the parse was given up.
    pub fn is_exhausted(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// As the generic dialect answers.
macro_rules! generic {
    ($($question:ident),* $(,)?) => {
        $(fn $question(&self) -> bool {
            GenericDialect {}.$question()
        })*
    };
}

impl Dialect for Patient {
    /// The parser asks some questions by type.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    /// Takes no part in parsing: it counts. This error alone is not taken for a wrong turn.
    fn parse_prefix(&self, _parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let counted =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        counted.is_err().then_some(Err(ParserError::RecursionLimitExceeded))
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect {}.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect {}.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect {}.is_identifier_part(ch)
    }

    generic!(
        supports_unicode_string_literal,
        supports_partition_by_after_order_by,
        supports_array_join_syntax,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
        supports_connect_by,
        supports_match_recognize,
        supports_pipe_operator,
        supports_start_transaction_modifier,
        supports_window_function_null_treatment_arg,
        supports_dictionary_syntax,
        supports_window_clause_named_window_reference,
        supports_parenthesized_set_variables,
        supports_select_wildcard_except,
        support_map_literal_syntax,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_extract_comma_syntax,
        supports_create_view_comment_syntax,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_limit_comma,
        supports_update_order_by,
        supports_from_first_select,
        supports_projection_trailing_commas,
        supports_asc_desc_in_column_definition,
        supports_try_convert,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_assignment_operator,
        supports_struct_literal,
        supports_empty_projections,
        supports_nested_comments,
        supports_multiline_comment_hints,
        supports_user_host_grantee,
        supports_string_escape_constant,
        supports_array_typedef_with_brackets,
        supports_match_against,
        supports_set_names,
        supports_comma_separated_set_assignments,
        supports_filter_during_aggregation,
        supports_select_wildcard_exclude,
        supports_data_type_signed_suffix,
        supports_interval_options,
        supports_quote_delimited_string,
        supports_select_wildcard_replace,
        supports_select_wildcard_ilike,
        supports_select_wildcard_rename,
        supports_optimize_table,
        supports_install,
        supports_detach,
        supports_prewhere,
        supports_with_fill,
        supports_limit_by,
        supports_interpolate,
        supports_settings,
        supports_select_format,
        supports_comment_optimizer_hint,
        supports_constraint_keyword_without_name,
        supports_key_column_option,
        supports_comma_separated_trim,
        supports_cte_without_as,
        supports_select_item_multi_column_alias,
        supports_xml_expressions,
    );
}

#[cfg(test)]
mod tests {
    use crate::query::Parameters;
    use crate::query::statement::parse;

    /// What is said of so many levels, closed or not.
    fn said(open: &str, close: &str, levels: usize) -> String {
        let sql = format!("SELECT {}1{}", open.repeat(levels), close.repeat(levels));
        parse(&sql, &Parameters::None).map_or_else(|error| error.to_string(), |_| "read".to_owned())
    }

    #[test]
    fn levels_that_double_the_work_end() {
        let nests = [
            ("CAST(", " AS INT)"),
            ("TRY_CAST(", " AS INT)"),
            ("CASE WHEN true THEN ", " END"),
            ("SUBSTRING(", ")"),
            ("ARRAY[", "]"),
            ("NOT (", ")"),
            ("{a: ", "}"),
        ];
        for (open, close) in nests {
            assert_eq!(said(open, close, 8), "read", "{open}");
            // Neither ends late: the test would not.
            for levels in [30, 60, 5_000] {
                said(open, close, levels);
                said(open, " @@ , ;", levels);
            }
        }
        assert!(said("CAST(", " @@ ,", 60).contains("nests too deeply"), "{}", said("CAST(", " @@ ,", 60));
    }

    #[test]
    fn long_statements_are_read() {
        let list = format!("SELECT 1 IN (1{})", ",1".repeat(50_000));
        assert!(parse(&list, &Parameters::None).is_ok());
    }
}
