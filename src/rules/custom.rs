//! Rules of your own: one condition on one path, in a file. A file that is not understood is an
//! error, never a rule that finds nothing.

use serde::Deserialize;
use serde_json::Value as Json;

use super::{Finding, Item, Severity, Subject};

/// A rule from a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomRule {
    /// Its id; must not be one of ours.
    pub id: String,
    /// How much a finding matters.
    #[serde(default)]
    severity: Level,
    /// Resource type it is about; `*` stands for anything.
    #[serde(rename = "type")]
    kind: String,
    /// Dotted path into the config.
    path: String,
    /// What must not be.
    deny: Deny,
    /// What `deny` compares with.
    #[serde(default)]
    value: Option<Json>,
    /// What is wrong, one sentence.
    message: String,
    /// What the reader can do.
    #[serde(default)]
    fix: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    #[default]
    Fail,
    Warn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Deny {
    Absent,
    Present,
    Equal,
    Different,
    OneOf,
    NoneOf,
    MoreThan,
    LessThan,
}

/// One rule from what its file says.
///
/// # Errors
/// One sentence.
pub fn parse(rule: CustomRule) -> Result<CustomRule, String> {
    let ours = super::align().iter().chain(super::security());
    if rule.id.is_empty() || rule.path.is_empty() || rule.kind.is_empty() {
        return Err("`id`, `type` and `path` must not be empty".to_owned());
    }
    if ours.into_iter().any(|known| known.id == rule.id) {
        return Err(format!("`{}` is the id of a built-in rule", rule.id));
    }
    let word = match (rule.deny, &rule.value) {
        (Deny::Absent | Deny::Present, None)
        | (Deny::Equal | Deny::Different, Some(_))
        | (Deny::OneOf | Deny::NoneOf, Some(Json::Array(_)))
        | (Deny::MoreThan | Deny::LessThan, Some(Json::Number(_))) => return Ok(rule),
        (Deny::Absent | Deny::Present, Some(_)) => "no `value`",
        (Deny::Equal | Deny::Different, None) => "a `value`",
        (Deny::OneOf | Deny::NoneOf, _) => "a list as `value`",
        (Deny::MoreThan | Deny::LessThan, _) => "a number as `value`",
    };
    Err(format!("this `deny` takes {word}"))
}

impl CustomRule {
    pub(super) fn check(&self, subject: &Subject) -> Vec<Finding> {
        subject
            .items
            .iter()
            .filter(|item| self.is_about(item) && self.is_violated(item))
            .map(|item| Finding {
                rule: self.id.clone(),
                severity: match self.severity {
                    Level::Fail => Severity::Fail,
                    Level::Warn => Severity::Warn,
                },
                resource: Some(item.address.clone()),
                message: format!("`{}`: {}", item.address, self.message),
                fix: self.fix.clone(),
                at: Some(item.at.clone()),
            })
            .collect()
    }

    fn is_about(&self, item: &Item) -> bool {
        match self.kind.split_once('*') {
            None => item.kind.as_str() == self.kind,
            Some((start, end)) => {
                let kind = item.kind.as_str();
                kind.len() >= start.len() + end.len()
                    && kind.starts_with(start)
                    && kind.ends_with(end)
            }
        }
    }

    fn is_violated(&self, item: &Item) -> bool {
        let mut parts = self.path.split('.');
        let first = parts.next().and_then(|part| item.config.get(part));
        let found = parts
            .fold(first, |value, part| value.and_then(|value| value.get(part)))
            .filter(|value| !value.is_null());
        self.compare(found)
    }

    fn compare(&self, found: Option<&Json>) -> bool {
        let wanted = self.value.as_ref();
        let listed = |value: &Json| super::items(wanted).contains(value);
        let number = |value: &Json| Some((value.as_f64()?, wanted?.as_f64()?));
        match (self.deny, found) {
            (Deny::Absent, found) => found.is_none(),
            (Deny::Present, found) => found.is_some(),
            // What is hidden cannot be compared; a rule about it would guess.
            (_, Some(value)) if super::is_hidden(value) => false,
            (Deny::Equal, found) => found == wanted,
            (Deny::Different, found) => found != wanted,
            (Deny::OneOf, found) => found.is_some_and(listed),
            (Deny::NoneOf, found) => !found.is_some_and(listed),
            (Deny::MoreThan, found) => found.and_then(number).is_some_and(|(a, b)| a > b),
            (Deny::LessThan, found) => found.and_then(number).is_some_and(|(a, b)| a < b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::super::testing::{module, subject};
    use super::*;

    fn rule(more: &str) -> Result<CustomRule, String> {
        let text = format!(
            r#"{{"id": "X1", "type": "infra.data*", "path": "size", "message": "too small", {more}}}"#
        );
        parse(serde_json::from_str(&text).map_err(|error| error.to_string())?)
    }

    #[test]
    fn each_condition_finds_what_it_denies() {
        let subject = subject(&module("db", "infra.database", "size: db-xs, num_nodes: 3"));
        for (more, found) in [
            (r#""deny": "present""#, 1),
            (r#""deny": "absent""#, 0),
            (r#""deny": "equal", "value": "db-xs""#, 1),
            (r#""deny": "different", "value": "db-xs""#, 0),
            (r#""deny": "one-of", "value": ["db-xs"]"#, 1),
            (r#""deny": "none-of", "value": ["db-s"]"#, 1),
        ] {
            let rule = rule(more).unwrap();
            assert_eq!(check(&[], &[rule], &subject).len(), found, "{more}");
        }
    }

    #[test]
    fn malformed_rules_are_errors() {
        for (more, piece) in [
            (r#""deny": "sometimes""#, "sometimes"),
            (r#""deny": "present", "extra": 1"#, "extra"),
            (r#""deny": "equal""#, "a `value`"),
            (r#""deny": "one-of", "value": "db""#, "a list"),
            (r#""deny": "more-than", "value": "db""#, "a number"),
        ] {
            let error = rule(more).unwrap_err();
            assert!(error.contains(piece), "{error}");
        }
    }
}
