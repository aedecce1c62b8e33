//! What the server and its SQL can do, as `SqlInfo` numbers it. What has no true answer is left out.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow_flight::error::Result;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{CommandGetSqlInfo, SqlInfo};
use arrow_flight::sql::{
    SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedGroupBy,
    SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions,
    SqlTransactionIsolationLevel, SupportedSqlGrammar,
};

use crate::query::{STATEMENT_BYTES_MAX, Vocabulary};

/// # Errors
/// What Arrow cannot encode.
pub(super) fn batch(vocabulary: &Vocabulary, asked: CommandGetSqlInfo) -> Result<RecordBatch> {
    let data = data(vocabulary)?;
    if asked.info.is_empty() {
        return data.record_batch([]);
    }
    // Each number once, and those that have no answer as one: each is compared with every row.
    let known: BTreeSet<u32> = asked.info.into_iter().map(|number| number.min(NUMBER_MAX)).collect();
    data.record_batch(known)
}

/// No number is greater.
const NUMBER_MAX: u32 = 1_000;

fn data(vocabulary: &Vocabulary) -> Result<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    server(&mut info);
    names(&mut info);
    words(&mut info, vocabulary);
    grammar(&mut info);
    limits(&mut info);
    info.build()
}

fn server(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::FlightSqlServerName, "sidewing");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    // SQL only reads; rows are put by bulk ingestion alone.
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0);
}

fn names(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    let lower = SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase;
    info.append(SqlInfo::SqlIdentifierCase, lower as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // Kept as they are, for which there is no word.
    let kept = SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown;
    info.append(SqlInfo::SqlQuotedIdentifierCase, kept as i32);
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlProcedureTerm, "");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlSchemasSupportedActions, 0);
    info.append(SqlInfo::SqlCatalogsSupportedActions, 0);
}

fn words(info: &mut SqlInfoDataBuilder, vocabulary: &Vocabulary) {
    info.append(SqlInfo::SqlKeywords, vocabulary.keywords.clone());
    info.append(SqlInfo::SqlNumericFunctions, vocabulary.numeric.clone());
    info.append(SqlInfo::SqlStringFunctions, vocabulary.string.clone());
    info.append(SqlInfo::SqlSystemFunctions, vocabulary.other.clone());
    info.append(SqlInfo::SqlDatetimeFunctions, vocabulary.datetime.clone());
}

fn grammar(info: &mut SqlInfoDataBuilder) {
    for yes in [
        SqlInfo::SqlSupportsColumnAliasing,
        SqlInfo::SqlNullPlusNullIsNull,
        SqlInfo::SqlSupportsTableCorrelationNames,
        SqlInfo::SqlSupportsExpressionsInOrderBy,
        SqlInfo::SqlSupportsOrderByUnrelated,
        SqlInfo::SqlSupportsLikeEscapeClause,
        SqlInfo::SqlSupportsNonNullableColumns,
        SqlInfo::SqlCorrelatedSubqueriesSupported,
    ] {
        info.append(yes, true);
    }
    for no in [
        SqlInfo::SqlSupportsDifferentTableCorrelationNames,
        SqlInfo::SqlSupportsIntegrityEnhancementFacility,
        SqlInfo::SqlSelectForUpdateSupported,
        SqlInfo::SqlStoredProceduresSupported,
        SqlInfo::SqlTransactionsSupported,
        SqlInfo::SqlDataDefinitionCausesTransactionCommit,
        SqlInfo::SqlDataDefinitionsInTransactionsIgnored,
        SqlInfo::SqlBatchUpdatesSupported,
        SqlInfo::SqlSavepointsSupported,
        SqlInfo::SqlNamedParametersSupported,
        SqlInfo::SqlLocatorsUpdateCopy,
        SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported,
    ] {
        info.append(no, false);
    }
    let groups =
        [SqlSupportedGroupBy::SqlGroupByUnrelated as u8, SqlSupportedGroupBy::SqlGroupByBeyondSelect as u8];
    info.append(SqlInfo::SqlSupportedGroupBy, bits(groups));
    let grammar = [SupportedSqlGrammar::SqlMinimumGrammar as u8, SupportedSqlGrammar::SqlCoreGrammar as u8];
    info.append(SqlInfo::SqlSupportedGrammar, bits(grammar));
    // Bit 0 is entry SQL; arrow-flight does not name it.
    info.append(SqlInfo::SqlAnsi92SupportedLevel, bits([0]));
    let joins = SqlOuterJoinsSupportLevel::SqlFullOuterJoins;
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, joins as i32);
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as u8,
        SqlSupportedSubqueries::SqlSubqueriesInExists as u8,
        SqlSupportedSubqueries::SqlSubqueriesInIns as u8,
    ];
    info.append(SqlInfo::SqlSupportedSubqueries, bits(subqueries));
    let unions = [SqlSupportedUnions::SqlUnion as u8, SqlSupportedUnions::SqlUnionAll as u8];
    info.append(SqlInfo::SqlSupportedUnions, bits(unions));
    info.append(SqlInfo::SqlSupportedPositionedCommands, 0);
    let none = SqlTransactionIsolationLevel::SqlTransactionNone;
    info.append(SqlInfo::SqlDefaultTransactionIsolation, none as i32);
    info.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, bits([none as u8]));
    let forward = SqlSupportedResultSetType::SqlResultSetTypeForwardOnly;
    info.append(SqlInfo::SqlSupportedResultSetTypes, bits([forward as u8]));
}

fn limits(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::SqlMaxStatementLength, i64::try_from(STATEMENT_BYTES_MAX).unwrap_or(i64::MAX));
}

/// A mask with these bits.
fn bits<const N: usize>(places: [u8; N]) -> i32 {
    places.into_iter().fold(0, |mask, place| mask | (1 << place))
}
