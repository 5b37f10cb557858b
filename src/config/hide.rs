//! What excerpts must not show: values where secrets stand. Told from the keys alone, so that a file
//! which is refused before anything is resolved shows no more than one that is read to its end.

use zeroize::Zeroizing;

use super::expression::{Piece, pieces};
use super::resolve::sensitive::{SECRET_MAPS, is_sensitive, is_sensitive_literal};
use super::source::Mark;
use super::yaml::{Entry, Node, NodeKind};

/// Our own keys that have a word of secrets in them and hold none.
const OUR_KEYS: [&str; 5] = [
    "secrets",
    "secretStores",
    "secretsStoreOverride",
    "secretsProvider",
    "secretsPrefix",
];

/// Keys whose maps have names that users choose: a name is not what a value stands under.
const TABLES: [&str; 4] = ["outputs", "secretStores", "environments", "pipelines"];

/// Below these, keys are nobody's but the user's.
const FOREIGN: [&str; 4] = ["config", "env_vars", "envVars", "headers"];

/// What a tree holds that must not be shown.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Where it stands, in no order.
    pub(super) places: Vec<Mark>,
    /// Values written out in full, each with its key.
    pub(super) written_out: Vec<(String, Zeroizing<String>)>,
}

/// What is known about a place from the keys above it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Above {
    /// A key above promises a secret.
    secret: bool,
    /// Text written out here is one.
    literal: bool,
    /// The keys of this map are names.
    is_table: bool,
    /// The keys are the user's.
    is_foreign: bool,
}

impl Above {
    /// One key deeper.
    pub(super) fn under(self, key: &str, is_nested: bool) -> Self {
        let is_ours = !self.is_foreign && OUR_KEYS.contains(&key);
        let is_name = self.is_table && is_nested;
        let is_map = SECRET_MAPS.contains(&key);
        let promises = is_map || (!is_ours && !is_name && is_sensitive(key));
        Self {
            secret: self.secret || promises,
            literal: is_map
                || (self.literal && self.secret)
                || (promises && is_sensitive_literal(key)),
            is_table: !self.is_foreign && TABLES.contains(&key),
            is_foreign: self.is_foreign || FOREIGN.contains(&key),
        }
    }

    /// True when whatever stands here is kept from view.
    pub(super) fn is_secret(self) -> bool {
        self.secret
    }
}

impl Hidden {
    /// Looks through a value.
    pub(super) fn value(&mut self, node: &Node, key: &str, above: Above) {
        match &node.kind {
            NodeKind::List(items) => {
                for item in items {
                    self.value(item, key, above);
                }
            }
            NodeKind::Map(entries) => {
                for entry in entries {
                    self.entry(entry, above);
                }
            }
            NodeKind::Text(text) if above.secret && !only_names(text) => {
                self.places.push(node.at);
                if above.literal && !text.contains("${") {
                    self.written_out
                        .push((key.to_owned(), Zeroizing::new(text.clone())));
                }
            }
            NodeKind::Number(_) | NodeKind::Ambiguous(_) if above.secret => {
                self.places.push(node.at);
            }
            NodeKind::Bool(_) if above.literal => self.places.push(node.at),
            NodeKind::Null
            | NodeKind::Text(_)
            | NodeKind::Bool(_)
            | NodeKind::Number(_)
            | NodeKind::Ambiguous(_) => {}
        }
    }

    /// Looks through what stands under a key.
    pub(super) fn entry(&mut self, entry: &Entry, above: Above) {
        let is_nested = matches!(
            entry.value.kind,
            NodeKind::Map(_) | NodeKind::List(_) | NodeKind::Null
        );
        self.value(&entry.value, &entry.key, above.under(&entry.key, is_nested));
    }
}

/// True for text that only says where its value comes from.
fn only_names(text: &str) -> bool {
    pieces(text).pieces.iter().all(|piece| match piece {
        Piece::Variable { default, .. } => default.is_none_or(str::is_empty),
        Piece::Other { inner, .. } => !inner.contains(":-"),
        Piece::Literal(text) => text.trim().is_empty(),
        Piece::Unclosed { .. } => false,
    })
}

/// True when the line at `position` of a text that is no YAML may hold a secret: a word that promises
/// one is on it, or on a line above that it is indented under.
pub(super) fn is_doubtful(text: &str, position: usize) -> bool {
    let end = text
        .get(position..)
        .and_then(|after| after.find(['\n', '\r']))
        .map_or(text.len(), |length| position + length);
    let mut indentation = usize::MAX;
    for line in text
        .get(..end)
        .unwrap_or_default()
        .rsplit(['\n', '\r'])
        .filter(|line| !line.trim().is_empty())
    {
        let own = line.len() - line.trim_start().len();
        if own >= indentation {
            continue;
        }
        let is_ours = own == 0 && OUR_KEYS.contains(&line.trim().trim_end_matches(':'));
        if !is_ours
            && line
                .split([':', '=', ',', '{', '"', '\'', ' '])
                .any(is_sensitive)
        {
            return true;
        }
        if own == 0 {
            return false;
        }
        indentation = own;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_read_is_doubted_by_its_words_and_by_those_above() {
        for (text, expected) in [
            ("a: b\nc: [", false),
            ("password: \"x", true),
            ("a: {env_vars_secret: {A: \"x\"", true),
            ("env_vars_secret:\n  A: \"x", true),
            ("env_vars_secret:\n  A: 1\nb: \"x", false),
            ("secrets:\n  generate: [", false),
            ("machine a login b password c d: [", true),
        ] {
            assert_eq!(is_doubtful(text, text.len() - 1), expected, "{text}");
        }
    }

    #[test]
    fn text_that_only_names_its_source_may_be_shown() {
        for (text, expected) in [
            ("${A}", true),
            ("${db.uri}", true),
            ("${A} ${B:-}", true),
            ("${A:-x}", false),
            ("x${A}", false),
            ("${A", false),
            ("x", false),
        ] {
            assert_eq!(only_names(text), expected, "{text}");
        }
    }
}
