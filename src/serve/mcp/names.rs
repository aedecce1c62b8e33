//! Names of tables: what an agent writes enters, a dataset or view leaves; and the other way, for SQL.

use crate::name::DatasetName;
use crate::query::DatasetStatus;
use crate::serve::Door;

use super::failure::Failure;

/// The catalog and schema that a name need not write.
const DEFAULT_CATALOG: &str = "spice.";
const DEFAULT_SCHEMA: &str = "public";
/// So many names are told to who asked for one that there is not.
const NAMES_TOLD_MAX: usize = 30;

/// The name as SQL takes it: as it is, where that means the same, else with its parts in quotes.
pub(super) fn shown(name: &DatasetName) -> String {
    let plain = name.to_string();
    match plain.parse::<DatasetName>() {
        Ok(read) if read == *name => plain,
        _ => quoted(name),
    }
}

/// The name with all of its parts in quotes: whatever they hold, it is this table.
pub(super) fn quoted(name: &DatasetName) -> String {
    let part = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    match name.schema() {
        Some(schema) => format!("{}.{}", part(schema), part(name.table())),
        None => part(name.table()),
    }
}

/// The parts of the name, as a door takes them.
pub(super) fn path(name: &DatasetName) -> Vec<String> {
    name.schema().into_iter().chain([name.table()]).map(str::to_owned).collect()
}

/// The dataset or view that is meant.
///
/// # Errors
/// There is none of this name.
pub(super) fn find<D: Door>(door: &D, text: &str) -> Result<DatasetStatus, Failure> {
    let datasets = door.datasets();
    let wanted = text.trim();
    let short = wanted.strip_prefix(DEFAULT_CATALOG).unwrap_or(wanted);
    let parsed = short.parse::<DatasetName>().ok();
    let is_meant = |dataset: &&DatasetStatus| {
        let name = &dataset.name;
        name.to_string() == wanted || parsed.as_ref().is_some_and(|parsed| is_same(parsed, name))
    };
    let found = datasets.iter().find(is_meant).cloned();
    found.ok_or_else(|| Failure::not_found(wanted, &told(&datasets)))
}

fn is_same(one: &DatasetName, other: &DatasetName) -> bool {
    one.table() == other.table() && schema(one) == schema(other)
}

fn schema(name: &DatasetName) -> &str {
    name.schema().unwrap_or(DEFAULT_SCHEMA)
}

/// The first names, for who has not seen the list.
pub(super) fn told(datasets: &[DatasetStatus]) -> String {
    let names: Vec<String> = datasets.iter().take(NAMES_TOLD_MAX).map(|known| shown(&known.name)).collect();
    match datasets.len().saturating_sub(NAMES_TOLD_MAX) {
        0 if names.is_empty() => "nothing".to_owned(),
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::DatasetState;
    use crate::serve::fake::Fake;

    fn door(names: &[&str]) -> Fake {
        let mut fake = Fake::default();
        for name in names {
            fake.datasets.push(DatasetStatus {
                name: name.parse().unwrap(),
                from: String::new(),
                endpoint: None,
                state: DatasetState::Ready,
                is_view: false,
                acceleration: None,
            });
        }
        fake
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        let name = |text: &str| text.parse::<DatasetName>().unwrap();
        for (text, expected, always) in [
            ("orders", "orders", r#""orders""#),
            ("sales.orders", "sales.orders", r#""sales"."orders""#),
            (r#"sales."Order ""X"".y""#, r#""sales"."Order ""X"".y""#, r#""sales"."Order ""X"".y""#),
            (r#""select""#, r#""select""#, r#""select""#),
        ] {
            assert_eq!((shown(&name(text)), quoted(&name(text))), (expected.into(), always.into()));
            assert_eq!(name(&shown(&name(text))), name(text), "it reads back");
        }
    }

    #[test]
    fn tables_are_found_however_they_are_written() {
        let door = door(&["orders", "sales.items", r#""Odd ""one""""#]);
        let found = |text: &str| find(&door, text).map(|found| found.name.to_string()).map_err(|_| ());
        for text in ["orders", " ORDERS ", "public.orders", "spice.public.orders", r#""orders""#] {
            assert_eq!(found(text), Ok("orders".into()), "{text}");
        }
        assert_eq!(found("spice.sales.items"), Ok("sales.items".into()));
        for text in [r#"Odd "one""#, r#""Odd ""one""""#] {
            assert_eq!(found(text), Ok(r#"Odd "one""#.into()), "{text}");
        }
        for text in ["", "items", "other.orders", "orders; drop table orders", "a.b.c.d"] {
            assert_eq!(found(text), Err(()), "{text}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(told(&[]), "nothing");
        let names: Vec<String> = (0..NAMES_TOLD_MAX + 2).map(|at| format!("t{at}")).collect();
        let told = told(&door(&names.iter().map(String::as_str).collect::<Vec<_>>()).datasets);
        assert!(told.starts_with("t0, t1") && told.ends_with("t29 and 2 more"), "{told}");
    }
}
