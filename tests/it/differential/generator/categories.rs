//! What each statement is about.

use super::queries::{Item, Naming};
use super::{Column, Generator, Kind, Query};

type Write = fn(&mut Generator) -> Query;

/// Every category with the one who writes its statements; a seed takes one after the other.
pub(super) const CATEGORIES: [(&str, Write); 26] = [
    ("filters", |g| g.plain(1, 0, Naming::Some)),
    ("joins", |g| g.plain(5, 0, Naming::Some)),
    ("joins of subqueries", |g| g.plain(3, 2, Naming::Some)),
    ("semi and anti joins", semi_and_anti),
    ("NOT IN", not_in),
    ("correlated subqueries", correlated),
    ("DISTINCT", |g| g.distinct(1, Naming::Some)),
    ("DISTINCT ON", |g| g.distinct_on(1)),
    ("groups", |g| g.grouped(1, Naming::Some)),
    ("CASE groups", |g| g.grouped_by_case(1)),
    ("ordered aggregates", |g| g.ordered_aggregates(1)),
    ("rollup and cube", |g| g.grouped_by_sets(1)),
    ("windows", |g| g.windowed(1, Naming::Some)),
    ("set operations", |g| g.set_operation(1)),
    ("limits", |g| g.limited(1, Naming::Some)),
    ("filters over limits", over_limit),
    ("CTEs", |g| g.with_ctes(1, Naming::Some)),
    ("recursive CTEs", recursive),
    ("VALUES joins", values_join),
    ("lateral", lateral),
    ("nested aggregates", nested_aggregates),
    ("joins by keys", joins_by_keys),
    ("parameters", parameters),
    ("merging joins", merging_joins),
    ("structs", structs),
    ("errors", errors),
];

fn written(sql: String) -> Query {
    Query { sql, columns: Vec::new(), is_ordered: false }
}

fn semi_and_anti(g: &mut Generator) -> Query {
    let left = g.relation(&[], 1);
    let right = g.relation(std::slice::from_ref(&left.name), 1);
    let items = g.items(&left.columns);
    let (list, columns) = g.list(items, Naming::Some);
    let pair = g.pair(&left.columns, &right.columns);
    let rest = match (g.dice.below(3), pair) {
        (0, _) => format!("WHERE {}", g.exists(&left.columns)),
        (1, _) | (_, None) => format!("WHERE {}", g.in_subquery(&left.columns)),
        (_, Some((l, r))) => {
            let kind = g.dice.pick(&["LEFT SEMI", "LEFT ANTI"]);
            format!("{kind} JOIN {} ON {l} = {r}", right.sql)
        }
    };
    let thin = match left.is_big {
        true => g.thinned(&left.columns).unwrap_or_default(),
        false => String::new(),
    };
    let rest = match (thin.as_str(), rest.starts_with("WHERE")) {
        ("", _) => rest,
        (thin, true) => format!("{rest} AND {thin}"),
        (thin, false) => format!("{rest} WHERE {thin}"),
    };
    Query { sql: format!("SELECT {list} FROM {} {rest}", left.sql), columns, is_ordered: false }
}

/// NOT IN over lists with NULLs, and of NULLs.
fn not_in(g: &mut Generator) -> Query {
    let outer = g.dice.pick(&["t.k", "t.id", "t.k + 1", "nullif(t.id, 2)", "u.id", "u.v / 10", "o.k"]);
    let from = match outer.chars().next() {
        Some('u') => "u",
        Some('o') => "sales.orders AS o",
        _ => {
            g.dice.pick(&["t", "t JOIN keys ON keys.k = t.k", "t LEFT JOIN sales.orders AS s ON s.id = t.id"])
        }
    };
    let inner = g.dice.pick(&[
        "SELECT id FROM crm.orders",
        "SELECT k FROM sales.orders",
        "SELECT k FROM keys",
        "SELECT k FROM keys WHERE k IS NOT NULL",
        "SELECT k FROM keys WHERE k > 1",
        "SELECT v FROM sales.orders",
        "SELECT id FROM sales.orders WHERE id > 2",
        "SELECT id FROM big WHERE k = 49",
        "SELECT k FROM big WHERE id % 100 < 3",
        "SELECT k FROM big WHERE id < 10",
        "SELECT x.k FROM keys AS x WHERE x.w > 100",
        "SELECT max(k) FROM big GROUP BY g",
        "SELECT k FROM keys UNION ALL SELECT NULL",
        "SELECT id FROM crm.orders ORDER BY id LIMIT 2",
        "VALUES (1), (NULL)",
    ]);
    let verb = g.dice.pick(&["NOT IN", "NOT IN", "IN"]);
    let and = g.dice.pick(&["", " AND TRUE", " OR 1 = 0"]);
    written(format!(
        "SELECT {outer}, count(*) FROM {from} WHERE ({outer} {verb} ({inner})){and} GROUP BY {outer}"
    ))
}

fn correlated(g: &mut Generator) -> Query {
    let relations = g.dice.between(1, 2);
    let from = g.from(relations, 0);
    let mut items = g.items(&from.columns);
    let (sql, kind) = g.scalar_subquery(&from.columns);
    items.push(Item { sql, kind, name: None });
    let (list, columns) = g.list(items, Naming::Some);
    let mut condition = g.condition(&from, 3);
    if g.dice.once_in(2) {
        let more = match g.dice.once_in(2) {
            true => g.exists(&from.columns),
            false => g.subquery_predicate(&from.columns),
        };
        let word = if condition.is_empty() { " WHERE" } else { " AND" };
        condition.push_str(&format!("{word} {more}"));
    }
    Query { sql: format!("SELECT {list} FROM {}{condition}", from.sql), columns, is_ordered: false }
}

/// What is above a LIMIT must not sink below it.
fn over_limit(g: &mut Generator) -> Query {
    let inner = g.limited(1, Naming::All);
    let scope = columns_of("l", &inner.columns);
    let limited = format!("({}) AS l", inner.sql);
    let predicate = g.predicate(&scope, 2);
    match g.dice.below(3) {
        0 => {
            let aggregate = g.aggregate(&scope);
            written(format!("SELECT {} FROM {limited} WHERE {predicate}", aggregate.sql))
        }
        1 => {
            let other = g.relation(&["l".to_owned()], 0);
            match g.pair(&scope, &other.columns) {
                Some((l, r)) => {
                    let kind = g.dice.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "LEFT ANTI JOIN"]);
                    let on = format!("{l} = {r}");
                    written(format!("SELECT count(*) FROM {limited} {kind} {} ON {on}", other.sql))
                }
                None => written(format!("SELECT * FROM {limited} WHERE {predicate}")),
            }
        }
        _ => written(format!("SELECT * FROM {limited} WHERE {predicate}")),
    }
}

fn columns_of(qualifier: &str, columns: &[(String, Kind)]) -> Vec<Column> {
    let column = |(name, kind): &(String, Kind)| Column {
        sql: format!("{qualifier}.{}", super::quoted(name)),
        name: name.clone(),
        kind: *kind,
    };
    columns.iter().map(column).collect()
}

fn recursive(g: &mut Generator) -> Query {
    let name = g.dice.pick(&["r", "n", "t", "orders", "facts"]);
    let shadows = name == "t";
    let t = if shadows { "public.t" } else { "t" };
    let depth = g.dice.between(1, 4);
    let all = g.dice.pick(&["UNION ALL", "UNION"]);
    let join = g.dice.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
    let (body, rest) = match g.dice.below(4) {
        0 => (
            format!("SELECT 1 AS i UNION ALL SELECT i + 1 FROM {name} WHERE i < {depth}"),
            format!("SELECT {name}.i, x.id FROM {name} {join} {t} AS x ON x.id = {name}.i"),
        ),
        1 => (
            format!(
                "SELECT id AS i, 0 AS deep FROM {t} AS s WHERE id < {} UNION ALL \
                 SELECT o.k, deep + 1 FROM {name} JOIN sales.orders AS o ON o.id = {name}.i WHERE deep < {depth}",
                g.dice.between(1, 5)
            ),
            format!("SELECT i, max(deep), count(*) FROM {name} GROUP BY i"),
        ),
        2 => (
            format!("SELECT k AS i FROM keys WHERE k < 50 {all} SELECT i / 2 FROM {name} WHERE i > {depth}"),
            format!("SELECT b.k, count(*) FROM big AS b JOIN {name} ON b.k = {name}.i GROUP BY b.k"),
        ),
        _ => (
            format!(
                "SELECT id AS i FROM u WHERE id IS NOT NULL {all} SELECT i + 1 FROM {name} WHERE i < {depth}"
            ),
            format!(
                "SELECT i FROM {name} WHERE i {} (SELECT k FROM sales.orders)",
                g.dice.pick(&["IN", "NOT IN"])
            ),
        ),
    };
    written(format!("WITH RECURSIVE {name} AS ({body}) {rest}"))
}

fn values_join(g: &mut Generator) -> Query {
    let values = g.values();
    let mut relations = vec![values.clone()];
    let mut taken = vec![values.name];
    for _ in 0..g.dice.between(1, 2) {
        let relation = g.relation(&taken, 0);
        taken.push(relation.name.clone());
        relations.push(relation);
    }
    if g.dice.once_in(2) {
        relations.swap(0, 1);
    }
    let from = g.join(relations);
    g.select(&from, Naming::Some)
}

fn lateral(g: &mut Generator) -> Query {
    let left = g.relation(&[], 0);
    let inner = g.relation(&[left.name.clone(), "l".to_owned()], 0);
    let Some((outer, own)) = g.pair(&left.columns, &inner.columns) else {
        return g.plain(2, 0, Naming::Some);
    };
    let aggregate = g.aggregate(&inner.columns);
    let body =
        format!("SELECT {} AS m, count(*) AS c FROM {} WHERE {own} = {outer}", aggregate.sql, inner.sql);
    let joined = match g.dice.below(3) {
        0 => format!("{}, LATERAL ({body}) AS l", left.sql),
        1 => format!("{} CROSS JOIN LATERAL ({body}) AS l", left.sql),
        _ => format!("{} LEFT JOIN LATERAL ({body}) AS l ON TRUE", left.sql),
    };
    let column = g.any(&left.columns);
    let filter = if left.is_big { " WHERE l.c < 3" } else { "" };
    written(format!("SELECT {column}, l.m, l.c FROM {joined}{filter}"))
}

/// Aggregates of aggregates, and of whole subqueries.
fn nested_aggregates(g: &mut Generator) -> Query {
    let inner = match g.dice.below(3) {
        0 => g.distinct(1, Naming::All),
        1 => g.set_operation(1),
        _ => g.grouped(1, Naming::All),
    };
    let scope = columns_of("n", &inner.columns);
    let aggregates: Vec<String> = (0..2).map(|_| g.aggregate(&scope).sql).collect();
    let list = if aggregates[0] == aggregates[1] { aggregates[0].clone() } else { aggregates.join(", ") };
    let filter = if g.dice.once_in(2) { format!(" WHERE {}", g.predicate(&scope, 1)) } else { String::new() };
    written(format!("SELECT {list} FROM ({}) AS n{filter}", inner.sql))
}

/// The bigger table, joined with few keys.
fn joins_by_keys(g: &mut Generator) -> Query {
    let big = g.big();
    let few = match g.dice.below(4) {
        0 => g.values(),
        1 => g.derived(0),
        2 => g.relation(std::slice::from_ref(&big.name), 0),
        _ => g.few_keys(std::slice::from_ref(&big.name)),
    };
    let Some((l, r)) = g.pair(&big.columns, &few.columns) else {
        return g.plain(2, 0, Naming::Some);
    };
    let scope = [big.columns.clone(), few.columns.clone()].concat();
    let kind = g.dice.pick(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
    let on = match g.dice.below(5) {
        0 => format!("{l} IS NOT DISTINCT FROM {r}"),
        1 => match g.pair(&big.columns, &few.columns) {
            Some((l2, r2)) => format!("{l} = {r} AND {l2} = {r2}"),
            None => format!("{l} = {r}"),
        },
        2 => format!("{l} = {r} AND {}", g.predicate(&big.columns, 0)),
        _ => format!("{l} = {r}"),
    };
    let joined = match g.dice.once_in(2) {
        true => format!("{} {kind} {} ON {on}", big.sql, few.sql),
        false => format!("{} {kind} {} ON {on}", few.sql, big.sql),
    };
    let aggregates: Vec<String> = (0..3).map(|_| g.aggregate(&scope).sql).collect();
    let list: Vec<String> =
        aggregates.into_iter().enumerate().map(|(at, sql)| format!("{sql} AS c{at}")).collect();
    let filter = if g.dice.once_in(2) { format!(" WHERE {}", g.predicate(&scope, 1)) } else { String::new() };
    let key = g.any(&few.columns[..1]);
    match g.dice.once_in(2) {
        true => written(format!("SELECT {} FROM {joined}{filter}", list.join(", "))),
        false => written(format!("SELECT {key}, {} FROM {joined}{filter} GROUP BY {key}", list.join(", "))),
    }
}

fn parameters(g: &mut Generator) -> Query {
    g.has_parameters = true;
    let query = match g.dice.below(4) {
        0 => g.plain(3, 1, Naming::Some),
        1 => g.limited(0, Naming::Some),
        2 => g.with_ctes(0, Naming::Some),
        _ => g.plain(1, 0, Naming::Some),
    };
    let fewer = g.literal(Kind::Int);
    // A query that has drawn no parameter still gets one.
    match query.sql.contains('\u{27e6}') {
        true => query,
        false => written(format!("SELECT * FROM t WHERE id > {fewer} OR k IS NULL")),
    }
}

/// NATURAL and USING make one column of two.
fn merging_joins(g: &mut Generator) -> Query {
    let kind = g.dice.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
    let (left, right, using) = *g.dice.of(&[
        ("t", "sales.orders", "id"),
        ("t", "sales.orders", "id, k"),
        ("u", "t", "id"),
        ("sales.orders", "keys", "k"),
        ("u", "crm.orders", "id"),
        ("t AS a", "rich AS b", "id"),
        ("public.u", "t", "id, \"Name\""),
    ]);
    let list = g.dice.pick(&["*", "id", "count(*)", "count(id)"]);
    let list = if list == "id" && using == "k" { "k" } else { list };
    let join = match g.dice.once_in(3) {
        true => format!("{left} NATURAL {kind} {right}"),
        false => format!("{left} {kind} {right} USING ({using})"),
    };
    written(format!("SELECT {list} FROM {join}"))
}

/// Fields of a struct, in every spelling.
fn structs(g: &mut Generator) -> Query {
    let (table, alias) = *g.dice.of(&[
        ("keys", "keys"),
        ("keys AS sales", "sales"),
        ("public.keys AS t", "t"),
        ("keys q", "q"),
    ]);
    let mut field = |name: &str| match g.dice.below(3) {
        0 => format!("{alias}.place['{name}']"),
        1 => format!("{alias}.place.{name}"),
        _ => format!("get_field({alias}.place, '{name}')"),
    };
    let (x, y, again) = (field("x"), field("y"), field("x"));
    match g.dice.below(4) {
        0 => written(format!("SELECT {alias}.place, {x} FROM {table} WHERE {again} > 1")),
        1 => written(format!("SELECT {y}, sum({x}) FROM {table} GROUP BY {y}")),
        2 => written(format!(
            "SELECT o.id, {x} FROM {table} JOIN sales.orders AS o ON {again} = o.id WHERE {y} = 'n'"
        )),
        _ => written(format!(
            "SELECT {alias}.k, {x} + 1 FROM {table} WHERE {y} IS NULL OR {again} IN (SELECT id FROM u)"
        )),
    }
}

/// Where the reference fails, so must every tier; where it does not, neither.
fn errors(g: &mut Generator) -> Query {
    let number = g.dice.below(8);
    let sql = match g.dice.below(6) {
        0 => format!("SELECT 1 / (id - {number}) FROM t"),
        1 => format!("SELECT id FROM sales.orders WHERE 10 / (id - {number}) >= 0"),
        2 => format!("SELECT CAST(\"Name\" AS BIGINT) FROM u WHERE id > {number}"),
        3 => format!("SELECT id FROM t WHERE k = (SELECT id FROM u WHERE v > {number})"),
        4 => format!("SELECT no_such_column FROM t WHERE id = {number}"),
        _ => format!("SELECT sum(9223372036854775807 - {number} + id) FROM t"),
    };
    written(sql)
}
