//! Nodes -> typed shapes. A shape is written once, with [`shape!`] or [`words!`]; its reader and
//! its JSON Schema both come from that one place, so they cannot drift apart.
//!
//! A reader never stops at the first problem. What could not be read is `None` in the shape, and
//! already reported: whoever uses the shape skips it without a word.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::problems::Problems;
use super::source::Mark;
use super::yaml::{Entry, Node, NodeKind};
use crate::report::Report;

/// Something that can be read from a node.
pub(super) trait Decode: Sized {
    /// Reads it. `what` names the key it stands under. `None` means reported.
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self>;

    /// The same for shapes that care where their key stands.
    fn decode_at(node: Node, _: Mark, what: &str, problems: &mut Problems) -> Option<Self> {
        Self::decode(node, what, problems)
    }
}

/// Reports a value of the wrong type.
pub(super) fn wrong_type(node: &Node, what: &str, expected: &str, problems: &mut Problems) {
    let report = Report::error(
        "config/wrong-type",
        format!("`{what}` must be {expected}, and here is {}", node.noun()),
    )
    .label(format!("expected {expected}"));
    let report = match (&node.kind, expected) {
        (NodeKind::Bool(_) | NodeKind::Number(_) | NodeKind::Ambiguous(_), "text") => {
            report.fix("put the value in quotes")
        }
        (NodeKind::Text(text), "true or false") => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => report.fix("write true, without quotes"),
            "no" | "off" | "n" | "false" => report.fix("write false, without quotes"),
            _ => report,
        },
        (NodeKind::Text(text), "a list") if !text.contains('\n') => {
            report.fix("write it as a list: put it in square brackets")
        }
        _ => report,
    };
    problems.error(node.at, report);
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marked<T> {
    /// The value.
    pub(super) value: T,
    /// Where it stands.
    pub(super) at: Mark,
}

/// Text with its place.
pub(super) type Text = Marked<String>;

impl Text {
    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.value
    }
}

impl<T: JsonSchema> JsonSchema for Marked<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl Decode for Text {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        match node.kind {
            NodeKind::Text(value) => Some(Self { value, at: node.at }),
            _ => {
                wrong_type(&node, what, "text", problems);
                None
            }
        }
    }
}

impl Decode for Marked<bool> {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        match node.kind {
            NodeKind::Bool(value) => Some(Self { value, at: node.at }),
            _ => {
                wrong_type(&node, what, "true or false", problems);
                None
            }
        }
    }
}

impl Decode for Marked<u32> {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        let value = match &node.kind {
            NodeKind::Number(number) => number.as_u64().or_else(|| {
                // `3.0` is a whole number to JSON Schema, so it is one here.
                number
                    .as_f64()
                    .filter(|float| {
                        float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(float)
                    })
                    .map(|float| float as u64)
            }),
            _ => None,
        };
        match value.and_then(|value| u32::try_from(value).ok()) {
            Some(value) => Some(Self { value, at: node.at }),
            None => {
                wrong_type(&node, what, "a whole number, 0 or more", problems);
                None
            }
        }
    }
}

/// Something that is accepted and not acted on, whatever it is; only its place is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle(pub(super) Mark);

impl JsonSchema for Idle {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Any".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::from(true)
    }
}

impl Decode for Idle {
    fn decode(node: Node, _: &str, _: &mut Problems) -> Option<Self> {
        Some(Self(node.at))
    }

    fn decode_at(_: Node, key_at: Mark, _: &str, _: &mut Problems) -> Option<Self> {
        Some(Self(key_at))
    }
}

/// A map whose content belongs to someone else.
#[derive(Clone, Debug)]
pub(super) struct RawMap(pub(super) Node);

impl JsonSchema for RawMap {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "AnyMap".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

impl Decode for RawMap {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        if matches!(node.kind, NodeKind::Map(_)) {
            Some(Self(node))
        } else {
            wrong_type(&node, what, "a map", problems);
            None
        }
    }
}

/// Text, a number, or true/false, taken as text: an environment variable's value.
#[derive(Clone, Debug)]
pub(super) struct Plain(pub(super) Node);

impl JsonSchema for Plain {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Plain".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

impl Decode for Plain {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        match node.kind {
            NodeKind::Text(_)
            | NodeKind::Number(_)
            | NodeKind::Ambiguous(_)
            | NodeKind::Bool(_) => Some(Self(node)),
            NodeKind::Null | NodeKind::List(_) | NodeKind::Map(_) => {
                wrong_type(&node, what, "text, a number, true or false", problems);
                None
            }
        }
    }
}

/// A duration: text such as `1h30m`, or a number of seconds.
#[derive(Clone, Debug)]
pub(super) struct Lasting(pub(super) Node);

impl JsonSchema for Lasting {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration such as 250ms, 10s, 5m or 1h30m; a number means seconds.",
            "type": ["string", "number"],
        })
    }
}

impl Decode for Lasting {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        match node.kind {
            NodeKind::Text(_) | NodeKind::Number(_) => Some(Self(node)),
            _ => {
                wrong_type(&node, what, "a duration such as 10s, or seconds", problems);
                None
            }
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        match node.kind {
            NodeKind::List(items) => Some(
                items
                    .into_iter()
                    .enumerate()
                    .filter_map(|(index, item)| {
                        T::decode(item, &format!("{what}[{index}]"), problems)
                    })
                    .collect(),
            ),
            _ => {
                wrong_type(&node, what, "a list", problems);
                None
            }
        }
    }
}

/// Something that may be null, where null means something.
#[derive(Clone, Debug)]
pub(super) struct Nullable<T>(pub(super) Option<T>);

impl<T: JsonSchema> JsonSchema for Nullable<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Nullable_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<T>::json_schema(generator)
    }
}

impl<T: Decode> Decode for Nullable<T> {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        if node.is_null() {
            return Some(Self(None));
        }
        T::decode(node, what, problems).map(|value| Self(Some(value)))
    }
}

/// A map from names that users choose.
#[derive(Clone, Debug)]
pub(super) struct Table<T>(pub(super) Vec<(Text, T)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Table<T> {
    /// The value under `name`.
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.0
            .iter()
            .find(|(key, _)| key.value == name)
            .map(|(_, value)| value)
    }

    /// Names and values, in file order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Text, T)> {
        self.0.iter()
    }
}

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Table_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }
}

impl<T: Decode> Decode for Table<T> {
    fn decode(node: Node, what: &str, problems: &mut Problems) -> Option<Self> {
        match node.kind {
            NodeKind::Map(entries) => Some(Self(
                entries
                    .into_iter()
                    .filter_map(|entry| {
                        let value = T::decode(entry.value, &entry.key, problems)?;
                        let name = Text {
                            value: entry.key,
                            at: entry.key_at,
                        };
                        Some((name, value))
                    })
                    .collect(),
            )),
            _ => {
                wrong_type(&node, what, "a map", problems);
                None
            }
        }
    }
}

/// The fields of one shape while it is read.
pub(super) struct Fields {
    entries: Vec<Option<Entry>>,
    /// Where the shape begins.
    pub(super) at: Mark,
    /// `module`, or ``module `web` `` when it has a name.
    subject: String,
    missing: Vec<&'static str>,
}

impl Fields {
    /// Opens a map. `noun` is what a reader calls the shape.
    pub(super) fn open(
        node: Node,
        what: &str,
        noun: &str,
        problems: &mut Problems,
    ) -> Option<Self> {
        let at = node.at;
        let subject = ["name", "key"]
            .iter()
            .find_map(|key| node.entry(key)?.value.as_text())
            .filter(|name| !name.chars().any(char::is_control))
            .map_or_else(|| noun.to_owned(), |name| [noun, " `", name, "`"].concat());
        match node.kind {
            NodeKind::Map(entries) => Some(Self {
                entries: entries.into_iter().map(Some).collect(),
                at,
                subject,
                missing: Vec::new(),
            }),
            _ => {
                wrong_type(&node, what, "a map", problems);
                None
            }
        }
    }

    fn take(&mut self, key: &str) -> Option<Entry> {
        self.entries
            .iter_mut()
            .find(|entry| entry.as_ref().is_some_and(|entry| entry.key == key))?
            .take()
    }

    /// A key that must be there.
    pub(super) fn required<T: Decode>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<T> {
        match self.take(key) {
            Some(entry) if entry.value.is_null() => {
                problems.error(
                    entry.key_at,
                    Report::error("config/missing-value", format!("`{key}` needs a value")),
                );
                None
            }
            Some(entry) => T::decode_at(entry.value, entry.key_at, key, problems),
            None => {
                self.missing.push(key);
                None
            }
        }
    }

    /// A key that may be absent; null counts as absent.
    pub(super) fn optional<T: Decode>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<T> {
        let entry = self.take(key)?;
        if entry.value.is_null() {
            return None;
        }
        T::decode_at(entry.value, entry.key_at, key, problems)
    }

    /// Reports what is left over and what was missing. A misspelt required key is one mistake,
    /// not two.
    pub(super) fn close(self, known: &[&'static str], extensions: bool, problems: &mut Problems) {
        let Self {
            entries,
            at,
            subject,
            mut missing,
        } = self;
        for entry in entries.into_iter().flatten() {
            if extensions && entry.key.starts_with("x-") {
                continue;
            }
            let near = problems.nearest(&entry.key, known.iter().copied());
            let mut report = Report::error(
                "config/unknown-key",
                format!("{subject} has no key `{}`", entry.key),
            );
            if let Some(near) = near {
                missing.retain(|key| *key != near);
                report = report
                    .label(format!("did you mean `{near}`?"))
                    .fix(format!("rename the key to `{near}`, or remove it"));
            } else {
                report = report
                    .label("unknown key")
                    .fix(format!("known keys: {}", known.join(", ")));
            }
            problems.error(entry.key_at, report);
        }
        for key in missing {
            problems.error(
                at,
                Report::error("config/missing-key", format!("{subject} needs `{key}`"))
                    .label(format!("`{key}` is missing"))
                    .fix(format!("add `{key}:`")),
            );
        }
    }
}

/// Writes a map shape: the struct, its reader and its schema. Keys in `required` must be there;
/// any key that is not listed is an error.
macro_rules! shape {
    (
        $(#[$meta:meta])*
        $name:ident, $noun:literal $(, extensions: $extensions:literal)?;
        required { $($(#[$required_meta:meta])* $required:ident: $required_type:ty = $required_key:literal,)* }
        optional { $($(#[$optional_meta:meta])* $optional:ident: $optional_type:ty = $optional_key:literal,)* }
    ) => {
        #[derive(Clone, Debug, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        $(#[$meta])*
        #[allow(dead_code, reason = "keys that are accepted and not acted on are still read")]
        pub(super) struct $name {
            $(
                $(#[$required_meta])*
                #[schemars(rename = $required_key, required)]
                pub(super) $required: Option<$required_type>,
            )*
            $(
                $(#[$optional_meta])*
                #[schemars(rename = $optional_key)]
                pub(super) $optional: Option<$optional_type>,
            )*
            /// Where it begins.
            #[schemars(skip)]
            pub(super) at: $crate::config::source::Mark,
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: $crate::config::yaml::Node,
                what: &str,
                problems: &mut $crate::config::problems::Problems,
            ) -> Option<Self> {
                #[allow(unused_mut, unused_assignments, reason = "only some shapes allow extensions")]
                let mut extensions = false;
                $(extensions = $extensions;)?
                let mut fields =
                    $crate::config::decode::Fields::open(node, what, $noun, problems)?;
                let shape = Self {
                    $($required: fields.required($required_key, problems),)*
                    $($optional: fields.optional($optional_key, problems),)*
                    at: fields.at,
                };
                fields.close(&[$($required_key,)* $($optional_key,)*], extensions, problems);
                Some(shape)
            }
        }
    };
}

/// Writes a closed list of words: the enum, its reader and its schema.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, schemars::JsonSchema)]
        $(#[$meta])*
        pub(super) enum $name {
            $($(#[$variant_meta])* #[schemars(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every word.
            pub(super) const WORDS: &[&str] = &[$($text,)*];

            /// From the word.
            pub(super) fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl $crate::config::decode::Decode for $crate::config::decode::Marked<$name> {
            fn decode(
                node: $crate::config::yaml::Node,
                what: &str,
                problems: &mut $crate::config::problems::Problems,
            ) -> Option<Self> {
                let text = <$crate::config::decode::Text>::decode(node, what, problems)?;
                match $name::from_word(&text.value) {
                    Some(value) => Some(Self { value, at: text.at }),
                    None => {
                        $crate::config::decode::bad_word(&text, what, $name::WORDS, problems);
                        None
                    }
                }
            }
        }
    };
}

pub(super) use {shape, words};

/// Reports a word that is not in a closed list.
pub(super) fn bad_word(text: &Text, what: &str, words: &[&str], problems: &mut Problems) {
    let mut report = Report::error(
        "config/bad-value",
        format!("`{what}` cannot be `{}`", printable(&text.value)),
    )
    .fix(format!("use one of: {}", words.join(", ")));
    if let Some(near) = problems.nearest(&text.value, words.iter().copied()) {
        report = report.label(format!("did you mean `{near}`?"));
    }
    problems.error(text.at, report);
}

/// Text from the file as a message may carry it: one line, no control characters, not long.
pub(super) fn printable(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(80)
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}
