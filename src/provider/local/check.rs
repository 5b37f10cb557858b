//! Reading a resource's config: every problem as (dotted path, sentence), none of them with a
//! value in it.

use crate::config::{Keys, Shape};
use crate::resource::{Map, Value};

/// Keys that describe clouds. A config that serves a cloud and `local` may carry them; they change
/// nothing here.
const PORTABLE: &[&str] = &["hints", "name", "protected", "region", "size"];

/// The settings of a kind of module, for whoever reads a config before anything is opened.
pub(super) fn keys(allowed: &[&str]) -> Keys {
    Keys {
        allowed: allowed.iter().map(|name| (*name).to_owned()).collect(),
        tolerated: PORTABLE.iter().map(|name| (*name).to_owned()).collect(),
        ..Keys::default()
    }
}

/// One shape for each of these settings.
pub(super) fn shapes(keys: &mut Keys, names: &[&str], shape: &Shape) {
    for name in names {
        keys.shapes.push(((*name).to_owned(), shape.clone()));
    }
}

/// A shape of fixed words.
pub(super) fn one_of(words: &[&str]) -> Shape {
    Shape::OneOf(words.iter().map(|word| (*word).to_owned()).collect())
}

/// Problems found so far.
pub(super) type Problems = Vec<(String, String)>;

/// Reports every key that is not in `allowed` (or portable), with the nearest name.
pub(super) fn unknown_keys(config: &Map, what: &str, allowed: &[&str], problems: &mut Problems) {
    for key in config.keys() {
        if allowed.contains(&key.as_str()) || PORTABLE.contains(&key.as_str()) {
            continue;
        }
        let mut sentence = format!("{what} has no setting `{key}` on the `local` provider");
        match nearest(key, allowed) {
            Some(name) => sentence.push_str(&format!("; did you mean `{name}`?")),
            None if allowed.is_empty() => sentence.push_str("; it has none of its own"),
            None => sentence.push_str(&format!("; it has {}", allowed.join(", "))),
        }
        problems.push((key.clone(), sentence));
    }
}

/// The allowed name most like `word`, if one is near enough to be a slip.
pub(super) fn nearest<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    allowed
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// A text setting; absent when missing or not known yet.
pub(super) fn text<'a>(config: &'a Map, key: &str, problems: &mut Problems) -> Option<&'a str> {
    match config.get(key)? {
        Value::String(text) => Some(text),
        Value::Template(_) | Value::Unknown(_) | Value::Null => None,
        other => {
            problems.push((
                key.to_owned(),
                format!("it must be text, not {}", noun(other)),
            ));
            None
        }
    }
}

/// What kind of value it is, for messages.
pub(super) fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Secret(_) => "a secret",
        Value::Template(_) | Value::Unknown(_) => "a reference",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}
