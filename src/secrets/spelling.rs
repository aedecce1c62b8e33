//! One key, the names that stores may have for it.
//!
//! `SPICE_` before a name keeps it apart from what others put into the same place, and is tried first.

/// As variables are written: `SPICE_API_KEY`, `API_KEY`.
pub(super) fn of_variables(key: &str) -> Vec<String> {
    let key = key.to_uppercase();
    vec![format!("SPICE_{key}"), key]
}

/// As fields of a secret are written: `spice_api_key`, `api_key`; then as a variable, and in the two ways in which
/// people write files and fields.
pub(super) fn of_fields(key: &str) -> Vec<String> {
    let lower = key.to_lowercase();
    let mut names = vec![format!("spice_{key}"), key.to_owned()];
    names.extend(of_variables(key));
    names.extend([format!("spice_{lower}"), lower.replace('_', "-"), lower]);
    without_repeats(names)
}

/// As files are named: a variable's name first, then as a field.
pub(super) fn of_files(key: &str) -> Vec<String> {
    let mut names = of_variables(key);
    names.extend(of_fields(key));
    without_repeats(names)
}

/// Where names are letters, digits and `-`, and case does not matter: `spice-api-key`, `api-key`.
#[cfg(feature = "azure")]
pub(super) fn of_hyphens(key: &str) -> Vec<String> {
    let key = key.replace('_', "-").to_lowercase();
    vec![format!("spice-{key}"), key]
}

fn without_repeats(names: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_names_that_people_give_it() {
        assert_eq!(of_variables("api_Key"), ["SPICE_API_KEY", "API_KEY"]);
        assert_eq!(
            of_fields("API_KEY"),
            ["spice_API_KEY", "API_KEY", "SPICE_API_KEY", "spice_api_key", "api-key", "api_key"]
        );
        assert_eq!(of_files("key"), ["SPICE_KEY", "KEY", "spice_key", "key"]);
    }
}
