//! A plan in SQL.
//!
//! An optimised plan whose tables all live on one upstream enters; one SELECT in that upstream's table names
//! leaves. Nodes are gathered into one SELECT while SQL's own order of clauses allows it, and become a
//! derived table where it does not; a derived table names every column (`c0`, `c1`, …), so that nothing
//! above depends on what an engine calls an unnamed expression. The text is a try: `prove` plans it again.

use datafusion::common::{Column, DFSchema, NullEquality};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Filter, Join, JoinType, Limit, LogicalPlan, Projection, Sort, TableScan,
    Union, Values, Window,
};

use super::super::filter::quoted;
use super::super::table::remote_sql;
use super::form::limits;
use super::home;
use super::words::{Spelling, Words};
use super::{Unsent, unsent};

/// One SELECT, and what it calls its columns: the plan's own names where these are words and unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::federation) struct Select {
    pub sql: String,
    pub names: Vec<String>,
}

/// `plan` as one SELECT.
///
/// # Errors
/// A node or an expression that SQL does not say, or not safely.
pub(super) fn select(plan: &LogicalPlan, spelling: Spelling) -> Result<Select, Unsent> {
    let mut writer = Writer { words: Words::new(spelling), aliases: 0 };
    let block = writer.block(plan)?;
    match block.columns.iter().any(Text::is_nameless) {
        true => Err(unsent("grouping() looks at a column that SQL does not name")),
        false => {
            let names = output_names(plan.schema());
            Ok(Select { sql: block.text(&names), names })
        }
    }
}

/// The plan's own names where they are words and unique, numbers otherwise.
fn output_names(schema: &DFSchema) -> Vec<String> {
    let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
    let is_word = |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let is_unique = |name: &String| names.iter().filter(|other| **other == name).count() == 1;
    let name = |(at, name): (usize, &&String)| match is_word(name) && is_unique(name) {
        true => (*name).clone(),
        false => format!("c{at}"),
    };
    names.iter().enumerate().map(name).collect()
}

/// Gives every table and derived table a name of its own.
struct Writer {
    words: Words,
    aliases: usize,
}

/// How far SQL's order of clauses has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// FROM, joins and WHERE.
    Rows,
    Grouped,
    /// Columns hold window functions.
    Windowed,
    Distinct,
    /// ORDER BY or LIMIT.
    Limited,
}

/// A SELECT that grows.
struct Block {
    stage: Stage,
    /// What stands after FROM; empty for rows out of nothing.
    from: String,
    /// Whether `from` is one table or derived table.
    is_single: bool,
    wheres: Vec<String>,
    /// `None` without GROUP BY.
    groups: Option<Vec<String>>,
    is_distinct: bool,
    order: Vec<String>,
    limit: Option<usize>,
    skip: usize,
    /// The SQL of each output column of the plan so far; safe as an operand.
    columns: Vec<Text>,
}

/// The SQL of a column.
#[derive(Clone)]
struct Text {
    sql: String,
    /// A column of a table, not an expression over it.
    is_column: bool,
}

impl Text {
    fn column(sql: String) -> Self {
        Self { sql, is_column: true }
    }

    /// A column that no SQL can name, such as the one that `grouping()` looks at.
    fn nameless() -> Self {
        Self { sql: String::new(), is_column: true }
    }

    fn is_nameless(&self) -> bool {
        self.sql.is_empty()
    }

    fn expr(sql: String) -> Self {
        let is_call_or_word = sql.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '"' | '.'));
        let sql = if is_call_or_word { sql } else { format!("({sql})") };
        Self { sql, is_column: false }
    }

    /// Without the parentheses that make it an operand.
    fn alone(&self) -> &str {
        match self.is_column {
            true => &self.sql,
            false => self.sql.strip_prefix('(').and_then(|sql| sql.strip_suffix(')')).unwrap_or(&self.sql),
        }
    }
}

impl Block {
    fn over(from: String, columns: Vec<Text>) -> Self {
        Self {
            stage: Stage::Rows,
            from,
            is_single: true,
            wheres: Vec::new(),
            groups: None,
            is_distinct: false,
            order: Vec::new(),
            limit: None,
            skip: 0,
            columns,
        }
    }

    fn text(&self, names: &[String]) -> String {
        let columns = self.columns.iter().zip(names);
        let columns: Vec<String> = columns
            .filter(|(text, _)| !text.is_nameless())
            .map(|(text, name)| format!("{} AS {}", text.alone(), quoted(name)))
            .collect();
        let distinct = if self.is_distinct { "DISTINCT " } else { "" };
        let columns = if columns.is_empty() { "1".to_owned() } else { columns.join(", ") };
        let mut sql = format!("SELECT {distinct}{columns}");
        if !self.from.is_empty() {
            sql.push_str(&format!(" FROM {}", self.from));
        }
        if !self.wheres.is_empty() {
            sql.push_str(&format!(" WHERE {}", self.wheres.join(" AND ")));
        }
        if let Some(groups) = self.groups.as_ref().filter(|groups| !groups.is_empty()) {
            sql.push_str(&format!(" GROUP BY {}", groups.join(", ")));
        }
        if !self.order.is_empty() {
            sql.push_str(&format!(" ORDER BY {}", self.order.join(", ")));
        }
        if let Some(limit) = self.limit {
            sql.push_str(&format!(" LIMIT {limit}"));
        }
        if self.skip > 0 {
            sql.push_str(&format!(" OFFSET {}", self.skip));
        }
        sql
    }

    fn numbered(&self) -> String {
        let names: Vec<String> = (0..self.columns.len()).map(|at| format!("c{at}")).collect();
        self.text(&names)
    }

    fn has_only_columns(&self) -> bool {
        self.columns.iter().all(|text| text.is_column)
    }

    fn lookup(&self, schema: &DFSchema, column: &Column) -> Option<String> {
        let text = &self.columns[schema.maybe_index_of_column(column)?];
        (!text.is_nameless()).then(|| text.sql.clone())
    }
}

impl Writer {
    fn block(&mut self, plan: &LogicalPlan) -> Result<Block, Unsent> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(node) => self.projection(node),
            LogicalPlan::Filter(node) => self.filter(node),
            LogicalPlan::SubqueryAlias(node) => self.block(&node.input),
            LogicalPlan::Join(node) => self.join(node),
            LogicalPlan::Aggregate(node) => self.aggregate(node),
            LogicalPlan::Window(node) => self.window(node),
            LogicalPlan::Sort(node) => self.sort(node),
            LogicalPlan::Limit(node) => self.limit(node),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Union(node) => self.union(node),
            LogicalPlan::Values(node) => self.values(node),
            LogicalPlan::EmptyRelation(node) if node.produce_one_row => {
                Ok(Block { is_single: false, ..Block::over(String::new(), Vec::new()) })
            }
            LogicalPlan::EmptyRelation(_) => Err(unsent("no rows at all")),
            LogicalPlan::Unnest(_) => Err(unsent("UNNEST")),
            LogicalPlan::RecursiveQuery(_) => Err(unsent("a recursive query")),
            other => Err(unsent(format!("{} has no SQL", other.display()))),
        }
    }

    fn alias(&mut self, prefix: char) -> String {
        self.aliases += 1;
        format!("{prefix}{}", self.aliases)
    }

    /// `block` as a derived table, so that a new SELECT can begin over it.
    fn derived(&mut self, block: &Block) -> Block {
        let alias = self.alias('d');
        let column = |(at, text): (usize, &Text)| match text.is_nameless() {
            true => Text::nameless(),
            false => Text::column(format!("{alias}.\"c{at}\"")),
        };
        let columns = block.columns.iter().enumerate().map(column).collect();
        Block::over(format!("({}) AS {alias}", block.numbered()), columns)
    }

    /// `block` where a clause of `stage` may still be added.
    fn at_most(&mut self, stage: Stage, block: Block) -> Block {
        match block.stage <= stage {
            true => block,
            false => self.derived(&block),
        }
    }

    fn expr(&mut self, expr: &Expr, schema: &DFSchema, block: &Block) -> Result<String, Unsent> {
        self.expr_of(expr, &|column| block.lookup(schema, column))
    }

    fn expr_of(
        &mut self,
        expr: &Expr,
        columns: &dyn Fn(&Column) -> Option<String>,
    ) -> Result<String, Unsent> {
        if expr.is_volatile() {
            return Err(unsent("an expression that is not the same twice"));
        }
        let Self { words, aliases } = self;
        // A subquery that names nothing outside has a scope of its own; aliases go on counting.
        let spelling = words.spelling();
        words.expr(expr, columns, &mut |plan| {
            let mut inner = Writer { words: Words::new(spelling), aliases: *aliases };
            let block = inner.block(plan)?;
            *aliases = inner.aliases;
            Ok(block.numbered())
        })
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Block, Unsent> {
        let table = home::remote_table(scan).ok_or_else(|| unsent("a table that is known only here"))?;
        let alias = self.alias('t');
        let column = |name: &str| Text::column(format!("{alias}.{}", quoted(name)));
        let columns = scan.projected_schema.fields().iter().map(|field| column(field.name())).collect();
        let mut block = Block::over(format!("{} AS {alias}", remote_sql(&table.remote)), columns);
        for filter in &scan.filters {
            let all = |named: &Column| Some(column(&named.name).sql);
            let condition = self.expr_of(filter, &all)?;
            block.wheres.push(condition);
        }
        if let Some(fetch) = scan.fetch {
            block.limit = Some(fetch);
            block.stage = Stage::Limited;
        }
        Ok(block)
    }

    fn projection(&mut self, node: &Projection) -> Result<Block, Unsent> {
        let block = self.block(&node.input)?;
        let mut block = match block.is_distinct {
            true => self.derived(&block),
            false => block,
        };
        let schema = node.input.schema();
        let columns = node.expr.iter().map(|expr| match expr.clone().unalias_nested().data {
            Expr::Column(column) => {
                let at = schema.maybe_index_of_column(&column);
                at.map(|at| block.columns[at].clone())
                    .ok_or_else(|| unsent(format!("`{column}` is not below")))
            }
            expr => Ok(Text::expr(self.expr(&expr, schema, &block)?)),
        });
        block.columns = columns.collect::<Result<_, _>>()?;
        Ok(block)
    }

    fn filter(&mut self, node: &Filter) -> Result<Block, Unsent> {
        let block = self.block(&node.input)?;
        let mut block = self.at_most(Stage::Rows, block);
        let condition = self.expr(&node.predicate, node.input.schema(), &block)?;
        block.wheres.push(condition);
        Ok(block)
    }

    fn join(&mut self, node: &Join) -> Result<Block, Unsent> {
        let (left, right) = (self.block(&node.left)?, self.block(&node.right)?);
        let left = self.left_side(left, node.join_type);
        let mut right = self.right_side(right, node.join_type);
        let condition = self.condition(node, &left, &right)?;
        let condition = match condition.as_slice() {
            [] => "true".to_owned(),
            all => all.join(" AND "),
        };
        match node.join_type {
            JoinType::LeftMark => return self.mark(node, left, &right, &condition),
            JoinType::LeftAnti if node.null_aware => return self.not_in(node, left, right),
            _ if node.null_aware => return Err(unsent("a join that knows nulls")),
            _ => {}
        }
        let (words, columns) = match node.join_type {
            JoinType::Inner => ("JOIN", [left.columns.clone(), right.columns].concat()),
            JoinType::Left => ("LEFT JOIN", [left.columns.clone(), right.columns].concat()),
            JoinType::Right => ("RIGHT JOIN", [left.columns.clone(), right.columns].concat()),
            JoinType::Full => ("FULL JOIN", [left.columns.clone(), right.columns].concat()),
            JoinType::LeftSemi => ("LEFT SEMI JOIN", left.columns.clone()),
            JoinType::LeftAnti => ("LEFT ANTI JOIN", left.columns.clone()),
            JoinType::RightSemi => ("RIGHT SEMI JOIN", right.columns),
            JoinType::RightAnti => ("RIGHT ANTI JOIN", right.columns),
            JoinType::LeftMark | JoinType::RightMark => return Err(unsent("a right mark join")),
        };
        let from = format!("{} {words} {} ON {condition}", left.from, right.from);
        let mut wheres = left.wheres;
        wheres.append(&mut right.wheres);
        Ok(Block { wheres, is_single: false, ..Block::over(from, columns) })
    }

    /// The left side of a join: FROM with joins, and WHERE where the join keeps it true.
    fn left_side(&mut self, left: Block, kind: JoinType) -> Block {
        let keeps_where = matches!(
            kind,
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
        );
        let is_filled = matches!(kind, JoinType::Right | JoinType::Full);
        let fits = left.stage == Stage::Rows
            && !left.from.is_empty()
            && (left.wheres.is_empty() || keeps_where)
            && (left.has_only_columns() || !is_filled);
        match fits {
            true => left,
            false => self.derived(&left),
        }
    }

    /// The right side of a join: one table, with its WHERE only where that may stand after the join.
    fn right_side(&mut self, right: Block, kind: JoinType) -> Block {
        let is_filled = matches!(kind, JoinType::Left | JoinType::Full);
        let fits = right.stage == Stage::Rows
            && right.is_single
            && (right.wheres.is_empty() || kind == JoinType::Inner)
            && (right.has_only_columns() || !is_filled);
        match fits {
            true => right,
            false => self.derived(&right),
        }
    }

    fn condition(&mut self, node: &Join, left: &Block, right: &Block) -> Result<Vec<String>, Unsent> {
        let lookup = either_side(node, left, right);
        let equals = match node.null_equality {
            NullEquality::NullEqualsNothing => "=",
            NullEquality::NullEqualsNull => "IS NOT DISTINCT FROM",
        };
        let mut all = Vec::with_capacity(node.on.len() + 1);
        for (of_left, of_right) in &node.on {
            let (of_left, of_right) = (self.expr_of(of_left, &lookup)?, self.expr_of(of_right, &lookup)?);
            all.push(format!("({of_left} {equals} {of_right})"));
        }
        if let Some(filter) = &node.filter {
            all.push(self.expr_of(filter, &lookup)?);
        }
        Ok(all)
    }

    /// A join that only marks: an EXISTS that is a column.
    fn mark(&mut self, node: &Join, left: Block, right: &Block, condition: &str) -> Result<Block, Unsent> {
        if node.null_aware {
            return Err(unsent("a mark join that knows nulls"));
        }
        let wheres: Vec<&str> = right.wheres.iter().map(String::as_str).chain([condition]).collect();
        let mark = format!("EXISTS (SELECT 1 FROM {} WHERE {})", right.from, wheres.join(" AND "));
        let mut block = left;
        block.columns.push(Text { sql: mark, is_column: false });
        Ok(block)
    }

    /// An anti join for which a null on the right means that nothing is surely absent: NOT IN.
    fn not_in(&mut self, node: &Join, left: Block, right: Block) -> Result<Block, Unsent> {
        let [(of_left, of_right)] = node.on.as_slice() else {
            return Err(unsent("NOT IN of several columns"));
        };
        let key = self.expr(of_left, node.left.schema(), &left)?;
        let column = self.expr(of_right, node.right.schema(), &right)?;
        let mut wheres = right.wheres.clone();
        if let Some(filter) = &node.filter {
            wheres.push(self.expr_of(filter, &either_side(node, &left, &right))?);
        }
        let mut inner = format!("SELECT {column} FROM {}", right.from);
        if !wheres.is_empty() {
            inner.push_str(&format!(" WHERE {}", wheres.join(" AND ")));
        }
        let mut block = left;
        block.wheres.push(format!("{key} NOT IN ({inner})"));
        Ok(block)
    }

    fn aggregate(&mut self, node: &Aggregate) -> Result<Block, Unsent> {
        let block = self.block(&node.input)?;
        let mut block = self.at_most(Stage::Rows, block);
        if block.from.is_empty() {
            block = self.derived(&block);
        }
        let schema = node.input.schema();
        let is_set = node.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
        let mut columns = Vec::with_capacity(node.schema.fields().len());
        let mut groups = Vec::with_capacity(node.group_expr.len());
        for group in &node.group_expr {
            groups.push(self.group(group, schema, &block)?);
        }
        let keys = grouping_set_to_exprlist(&node.group_expr).map_err(|error| unsent(error.to_string()))?;
        for key in keys {
            let sql = self.expr(key, schema, &block)?;
            columns.push(Text::expr(sql));
        }
        if is_set {
            columns.push(Text::nameless());
        }
        for aggregate in &node.aggr_expr {
            let sql = self.expr(aggregate, schema, &block)?;
            columns.push(Text::expr(sql));
        }
        Ok(Block { stage: Stage::Grouped, groups: Some(groups), columns, ..block })
    }

    fn group(&mut self, expr: &Expr, schema: &DFSchema, block: &Block) -> Result<String, Unsent> {
        if matches!(expr, Expr::Literal(..)) {
            // A number in GROUP BY is a position.
            return Err(unsent("a group that is a constant"));
        }
        let columns = |column: &Column| block.lookup(schema, column);
        self.words.group(expr, &columns, &mut |_| Err(unsent("a subquery as a group")))
    }

    fn window(&mut self, node: &Window) -> Result<Block, Unsent> {
        let block = self.block(&node.input)?;
        let mut block = self.at_most(Stage::Rows, block);
        for function in &node.window_expr {
            let sql = self.expr(function, node.input.schema(), &block)?;
            block.columns.push(Text::expr(sql));
        }
        block.stage = Stage::Windowed;
        Ok(block)
    }

    fn sort(&mut self, node: &Sort) -> Result<Block, Unsent> {
        let fetch = node.fetch.ok_or_else(|| unsent("an order without a limit"))?;
        let block = self.block(&node.input)?;
        let mut block = self.at_most(Stage::Windowed, block);
        for sort in &node.expr {
            let columns = |column: &Column| block.lookup(node.input.schema(), column);
            let by = self.words.sort(sort, &columns, &mut |_| Err(unsent("a subquery in ORDER BY")))?;
            block.order.push(by);
        }
        block.limit = Some(fetch);
        block.stage = Stage::Limited;
        Ok(block)
    }

    fn limit(&mut self, node: &Limit) -> Result<Block, Unsent> {
        let (skip, fetch) = limits(node)?;
        let block = self.block(&node.input)?;
        let mut block = match block.skip > 0 {
            true => self.derived(&block),
            false => block,
        };
        let below = block.limit.map(|limit| limit.saturating_sub(skip));
        block.limit = match (fetch, below) {
            (Some(fetch), Some(below)) => Some(fetch.min(below)),
            (fetch, below) => fetch.or(below),
        };
        block.skip = skip;
        block.stage = Stage::Limited;
        Ok(block)
    }

    fn distinct(&mut self, input: &LogicalPlan) -> Result<Block, Unsent> {
        let block = self.block(input)?;
        let mut block = self.at_most(Stage::Windowed, block);
        block.is_distinct = true;
        block.stage = Stage::Distinct;
        Ok(block)
    }

    fn union(&mut self, node: &Union) -> Result<Block, Unsent> {
        let mut branches = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            let block = self.block(input)?;
            let block = self.at_most(Stage::Distinct, block);
            branches.push(block.numbered());
        }
        let alias = self.alias('d');
        let column = |at| Text::column(format!("{alias}.\"c{at}\""));
        let columns = (0..node.schema.fields().len()).map(column).collect();
        Ok(Block::over(format!("({}) AS {alias}", branches.join(" UNION ALL ")), columns))
    }

    fn values(&mut self, node: &Values) -> Result<Block, Unsent> {
        let mut rows = Vec::with_capacity(node.values.len());
        for row in &node.values {
            let cells = row.iter().map(|value| self.expr_of(value, &|_| None));
            rows.push(format!("({})", cells.collect::<Result<Vec<_>, _>>()?.join(", ")));
        }
        let alias = self.alias('v');
        let names: Vec<String> = (0..node.schema.fields().len()).map(|at| format!("\"c{at}\"")).collect();
        let columns = names.iter().map(|name| Text::column(format!("{alias}.{name}"))).collect();
        let from = format!("(VALUES {}) AS {alias} ({})", rows.join(", "), names.join(", "));
        Ok(Block::over(from, columns))
    }
}

/// Finds a column on the left of a join, else on its right.
fn either_side<'a>(
    node: &'a Join,
    left: &'a Block,
    right: &'a Block,
) -> impl Fn(&Column) -> Option<String> + 'a {
    move |column| {
        left.lookup(node.left.schema(), column).or_else(|| right.lookup(node.right.schema(), column))
    }
}
