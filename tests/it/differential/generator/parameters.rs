//! Literals that become parameters: the grammar marks them, here they are taken out.

use serde_json::{Map, Value};
use sidewing::query::Parameters;

use super::dice::Dice;

const OPEN: char = '\u{27e6}';
const CLOSE: char = '\u{27e7}';

/// A literal that is to be sent as a parameter.
pub(super) fn marked(value: &Value) -> String {
    format!("{OPEN}{value}{CLOSE}")
}

/// The statement with placeholders, the same with literals, and the values.
pub(super) fn take(sql: &str, dice: &mut Dice) -> (String, String, Parameters) {
    let mut pieces = sql.split(OPEN);
    let start = pieces.next().unwrap_or_default().to_owned();
    let (mut with, mut plain, mut values) = (start.clone(), start, Vec::<Value>::new());
    let style = dice.below(3);
    for piece in pieces {
        let (value, rest) = piece.split_once(CLOSE).expect("every mark is closed");
        let value: Value = serde_json::from_str(value).expect("a marked literal is JSON");
        plain.push_str(&literal(&value));
        values.push(value);
        let number = values.len();
        match style {
            0 => with.push('?'),
            1 => with.push_str(&format!("${number}")),
            _ => with.push_str(&format!("$p{number}")),
        }
        with.push_str(rest);
        plain.push_str(rest);
    }
    let parameters = match (values.is_empty(), style) {
        (true, _) => Parameters::None,
        (false, 0 | 1) => Parameters::Positional(values),
        (false, _) => {
            let named = values.into_iter().enumerate().map(|(at, value)| (format!("p{}", at + 1), value));
            Parameters::Named(named.collect::<Map<_, _>>())
        }
    };
    (with, plain, parameters)
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Null => "NULL".to_owned(),
        Value::Number(number) if number.to_string().starts_with('-') => format!("({number})"),
        other => other.to_string(),
    }
}
