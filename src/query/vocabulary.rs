//! The words of the SQL that is read here: functions by what they are about, and keywords.

use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

use super::Engine;

/// Names in alphabetical order.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    pub keywords: Vec<String>,
    pub numeric: Vec<String>,
    pub string: Vec<String>,
    pub datetime: Vec<String>,
    /// All other functions of values.
    pub other: Vec<String>,
}

impl Engine {
    /// The words that a statement may use.
    #[must_use]
    pub fn vocabulary(&self) -> Vocabulary {
        let mut vocabulary = Vocabulary {
            keywords: ALL_KEYWORDS.iter().map(|word| (*word).to_owned()).collect(),
            ..Vocabulary::default()
        };
        let state = self.federation.context().state();
        for (name, function) in state.scalar_functions() {
            let about = function.documentation().map_or("", |documentation| documentation.doc_section.label);
            let names = match about {
                "Math Functions" => &mut vocabulary.numeric,
                "String Functions" | "Binary String Functions" | "Regular Expression Functions" => {
                    &mut vocabulary.string
                }
                "Time and Date Functions" => &mut vocabulary.datetime,
                _ => &mut vocabulary.other,
            };
            names.push(name.clone());
        }
        let Vocabulary { keywords: _, numeric, string, datetime, other } = &mut vocabulary;
        [numeric, string, datetime, other].into_iter().for_each(|names| names.sort_unstable());
        vocabulary
    }
}
