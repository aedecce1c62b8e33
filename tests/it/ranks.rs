//! Holds the rooms to ARCHITECTURE.md's table of who may know whom.
//!
//! Source text enters; a list of forbidden imports leaves, which must be empty. A `crate::X` anywhere in a
//! file, a comment aside, counts as an import of room X.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::sidecar::repository_file;

/// The rank of each room. A file may import strictly lower ranks, its own room, and rank 0. The command line
/// starts the app, and therefore stands above it.
const RANKS: [(&str, u8); 16] = [
    ("name", 0),
    ("task", 0),
    ("telemetry", 0),
    ("proto", 0),
    ("settled", 0),
    ("slots", 0),
    ("wire", 0),
    ("config", 1),
    ("secrets", 2),
    ("upstream", 3),
    ("federation", 4),
    ("acceleration", 5),
    ("query", 6),
    ("serve", 7),
    ("app", 8),
    ("cli", 9),
];

/// The two files outside of every room: the map, which names all of them, and the process shell.
const OUTSIDE: [&str; 2] = ["lib", "main"];

#[test]
fn rooms_import_only_what_stands_below_them() {
    let mut seen = 0;
    let mut broken = Vec::new();
    walk(&repository_file("src"), &mut |path, source| {
        seen += 1;
        broken.extend(violations(path, source));
    });
    assert!(seen > 10, "only {seen} source files found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_room_has_a_rank() {
    let mut rooms = BTreeSet::new();
    walk(&repository_file("src"), &mut |path, _| rooms.extend([room_of(path).to_owned()]));
    for room in rooms {
        assert!(OUTSIDE.contains(&&*room) || rank(&room).is_some(), "`{room}` is not in the table of ranks");
    }
}

#[test]
fn a_room_that_looks_up_is_found() {
    let up = violations("upstream/tls.rs", "use crate::query::Engine;\n");
    assert_eq!(up, ["upstream/tls.rs:1: `upstream` (rank 3) imports `query` (rank 6)"]);
    let sideways = violations("app.rs", "fn f() { crate::cli::main() }");
    assert_eq!(sideways, ["app.rs:1: `app` (rank 8) imports `cli` (rank 9)"]);
    let group = violations("config/mod.rs", "use crate::{\n    name::X,\n    secrets::Y,\n};");
    assert_eq!(group, ["config/mod.rs:1: `config` (rank 1) imports `secrets` (rank 2)"]);
    let unknown = violations("name.rs", "use crate::nowhere::X;");
    assert_eq!(unknown, ["name.rs:1: `nowhere` is not in the table of ranks"]);
    let fine = "// crate::serve\nuse crate::config::A;\nuse crate::name::B;\nuse crate::secrets::C;\n";
    assert!(violations("secrets/mod.rs", fine).is_empty());
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&str, &str)) {
    let src = repository_file("src");
    for entry in std::fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            walk(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            visit(&path.strip_prefix(&src).expect("a path below src").to_string_lossy(), &text);
        }
    }
}

/// Every import of `source` that the table forbids.
fn violations(path: &str, source: &str) -> Vec<String> {
    let room = room_of(path);
    if OUTSIDE.contains(&room) {
        return Vec::new();
    }
    let text = without_comments(source);
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let line = text[..at].matches('\n').count() + 1;
        for target in targets(&text[at + "crate::".len()..]) {
            let problem = match (rank(room), rank(target)) {
                (_, None) => format!("`{target}` is not in the table of ranks"),
                (None, _) => format!("`{room}` is not in the table of ranks"),
                (Some(_), Some(0)) => continue,
                (Some(own), Some(other)) if target == room || other < own => continue,
                (Some(own), Some(other)) => {
                    format!("`{room}` (rank {own}) imports `{target}` (rank {other})")
                }
            };
            found.push(format!("{path}:{line}: {problem}"));
        }
    }
    found
}

/// The rooms that follow `crate::`: one, or the first words of a group in braces.
fn targets(rest: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let Some(group) = rest.strip_prefix('{') else { return vec![&rest[..word(rest)]] };
    let mut depth = 0;
    let mut found = Vec::new();
    let mut expects_room = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects_room = true,
            c if c.is_whitespace() => {}
            _ if expects_room => {
                found.push(&group[at..at + word(&group[at..])]);
                expects_room = false;
            }
            _ => {}
        }
    }
    found
}

/// Blank lines stay for the comments, so that line numbers hold.
fn without_comments(source: &str) -> String {
    let line = |line: &str| match line.trim_start().starts_with("//") {
        true => String::new(),
        false => line.to_owned(),
    };
    source.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn room_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn rank(room: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == room).map(|(_, rank)| *rank)
}
