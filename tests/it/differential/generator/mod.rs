//! Writes statements: a seed enters, one statement leaves, the same everywhere.
//!
//! Statements are right as multisets: where DataFusion is free to choose (rows under a LIMIT, ties in
//! an ordered aggregate), they order by all that can be seen. Sums of floats are left out, their last bits
//! go by the order of rows.

mod categories;
mod dice;
mod expressions;
mod groups;
mod parameters;
mod queries;
mod relations;

use sidewing::query::{Parameters, Request};

use crate::support::client::Order;

use categories::CATEGORIES;
use dice::Dice;

/// How many kinds of statements there are; as many seeds in a row ask one of each.
pub const CATEGORY_COUNT: u64 = CATEGORIES.len() as u64;

/// A statement and how to ask it.
#[derive(Debug, Clone)]
pub struct Statement {
    pub seed: u64,
    pub category: &'static str,
    pub sql: String,
    pub parameters: Parameters,
    /// The same statement for engines that are given no parameters.
    pub plain: String,
    pub order: Order,
}

impl Statement {
    /// The statement of `seed`.
    pub fn of_seed(seed: u64) -> Self {
        let (category, write) = CATEGORIES[seed as usize % CATEGORIES.len()];
        let mut generator = Generator::new(seed);
        let query = write(&mut generator);
        let order = if query.is_ordered { Order::Kept } else { Order::Any };
        let (sql, plain, parameters) = parameters::take(&query.sql, &mut generator.dice);
        Self { seed, category, sql, parameters, plain, order }
    }

    /// A statement that somebody thought of.
    pub fn by_hand(sql: &str) -> Self {
        Self {
            seed: 0,
            category: "by hand",
            sql: sql.to_owned(),
            parameters: Parameters::None,
            plain: sql.to_owned(),
            order: Order::Any,
        }
    }

    pub fn request(&self) -> Request {
        Request { parameters: self.parameters.clone(), ..Request::new(&self.sql) }
    }
}

/// What the grammar knows of a value's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Decimal,
    Text,
    Bool,
    Float,
    Date,
    Time,
    /// Lists and structs: selected and counted, nothing else.
    Other,
}

/// A column in scope.
#[derive(Debug, Clone)]
struct Column {
    /// How an expression calls it.
    sql: String,
    /// What it is called where it came from.
    name: String,
    kind: Kind,
}

/// A query and what it answers.
struct Query {
    sql: String,
    columns: Vec<(String, Kind)>,
    /// Its rows have one order.
    is_ordered: bool,
}

/// What is in scope while a statement is written.
struct Generator {
    dice: Dice,
    /// CTEs in scope, innermost last.
    ctes: Vec<(String, Vec<(String, Kind)>)>,
    /// Numbers the aliases.
    aliases: usize,
    /// Subqueries in expressions that may still be written.
    subqueries: usize,
    /// Tables of many rows that may still be read.
    bigs: usize,
    /// Some literals become parameters.
    has_parameters: bool,
}

impl Generator {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice::of_seed(seed),
            ctes: Vec::new(),
            aliases: 0,
            subqueries: 2,
            bigs: 1,
            has_parameters: false,
        }
    }

    /// A name that nothing else has.
    fn fresh(&mut self, prefix: &str) -> String {
        self.aliases += 1;
        format!("{prefix}{}", self.aliases)
    }
}

/// `name` as an identifier that keeps its letters.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
