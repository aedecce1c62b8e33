//! Which folder belongs to which dataset.
//!
//! Names and settings enter, a path leaves; nothing is looked up on the disk.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::name::DatasetName;

/// Where datasets live without any setting, beside the spicepod.
const DEFAULT_DATA_DIR: &str = ".sidewing/data";

/// The longest path component written, in bytes; file systems allow 255.
const COMPONENT_BYTES_MAX: usize = 200;

/// Where a spicepod says that data goes. Relative paths are relative to the spicepod's folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Roots<'a> {
    /// The folder of the spicepod.
    pub spicepod: &'a Path,
    /// `runtime.params.data_dir`: holds one folder per dataset.
    pub data_dir: Option<&'a Path>,
}

/// The folder of a dataset: `file_path` (`acceleration.params.file_path`) as it is, or else one below the data
/// directory whose name no other dataset's name maps to, on file systems that ignore case or normalise Unicode too.
pub(crate) fn folder_of(roots: Roots<'_>, file_path: Option<&Path>, name: &DatasetName) -> PathBuf {
    match file_path {
        Some(path) => roots.spicepod.join(path),
        None => {
            roots.spicepod.join(roots.data_dir.unwrap_or(Path::new(DEFAULT_DATA_DIR))).join(escaped(name))
        }
    }
}

/// `table` or `schema.table`, each part escaped; a long name is spread over nested folders.
fn escaped(name: &DatasetName) -> PathBuf {
    let text = match name.schema() {
        Some(schema) => format!("{}.{}", escaped_part(schema), escaped_part(name.table())),
        None => escaped_part(name.table()),
    };
    let mut path = PathBuf::new();
    let mut rest = text.as_str();
    // All is ASCII. `+` ends a component that goes on and stands nowhere else, so that a short name's folder is never
    // the parent of a long one's.
    while rest.len() > COMPONENT_BYTES_MAX {
        let (head, tail) = rest.split_at(COMPONENT_BYTES_MAX);
        path.push(format!("{head}+"));
        rest = tail;
    }
    path.push(rest);
    path
}

/// Lower-case ASCII letters, digits and `_` stay; each byte of anything else becomes `%` and two digits.
fn escaped_part(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => text.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(text, "%{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn name(text: &str) -> DatasetName {
        text.parse().unwrap()
    }

    fn default_of(text: &str) -> PathBuf {
        folder_of(Roots { spicepod: Path::new("/pod"), data_dir: None }, None, &name(text))
    }

    #[test]
    fn the_settings_choose_the_root() {
        let roots = Roots { spicepod: Path::new("/pod"), data_dir: Some(Path::new("/var/lib/sidewing")) };
        let orders = name("orders");
        assert_eq!(default_of("sales.orders"), Path::new("/pod/.sidewing/data/sales.orders"));
        assert_eq!(folder_of(roots, None, &orders), Path::new("/var/lib/sidewing/orders"));
        assert_eq!(folder_of(roots, Some(Path::new("hot/o")), &orders), Path::new("/pod/hot/o"));
        assert_eq!(folder_of(roots, Some(Path::new("/hot/o")), &orders), Path::new("/hot/o"));
    }

    #[test]
    fn odd_names_stay_below_the_root_and_apart() {
        let folders =
            [r#""a.b""#, "a.b", r#""A".b"#, r#""../x""#, r#""é""#, "\"e\u{301}\"", r#""""""#, r#""%2e""#]
                .map(|text| default_of(text).strip_prefix("/pod/.sidewing/data").unwrap().to_owned());
        insta::assert_debug_snapshot!(folders.map(|path| path.to_string_lossy().into_owned()));
    }

    fn part() -> impl Strategy<Value = String> {
        prop_oneof![3 => "[aAbB./\"%+_é\u{301}]{1,6}", 1 => "[a%.]{60,260}", 1 => "\\PC{1,20}"]
    }

    fn quoted(schema: Option<&String>, table: &str) -> String {
        let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
        schema.map_or_else(|| quote(table), |schema| format!("{}.{}", quote(schema), quote(table)))
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_two_names_share_or_nest_folders(
            one in (prop::option::of(part()), part()),
            two in (prop::option::of(part()), part()),
        ) {
            let (one, two) = (quoted(one.0.as_ref(), &one.1), quoted(two.0.as_ref(), &two.1));
            let (Ok(first), Ok(second)) = (one.parse::<DatasetName>(), two.parse::<DatasetName>()) else {
                return Ok(());
            };
            let (a, b) = (escaped(&first), escaped(&second));
            for path in [&a, &b] {
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                let text = path.to_str().unwrap();
                prop_assert!(text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()));
                prop_assert!(path.components().all(|part| part.as_os_str().len() <= 255));
            }
            if first != second {
                prop_assert!(!a.starts_with(&b) && !b.starts_with(&a), "{first} {second}: {a:?} {b:?}");
            }
        }
    }
}
