//! Small YAML files beside the config: rules and test cases. Their shapes are their readers'; the
//! text is read by the reader of configs, so budgets, bare words and duplicate keys mean the same.

use std::path::Path;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::problems::Problems;
use super::source::Mark;
use super::yaml::{self, Entry, Node, NodeKind};

/// A value from YAML text.
///
/// # Errors
/// The first thing that is wrong, with line and column.
pub fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut problems = Problems::default();
    let source = problems.sources.add(Path::new(""), text.to_owned());
    let root = yaml::read(source, &mut problems);
    if problems.has_errors() {
        let (errors, _) = problems.finish();
        return Err(errors
            .first()
            .map_or_else(String::new, |report| match &report.at {
                _ if report.code == yaml::EMPTY => "it is empty".to_owned(),
                Some(span) => format!(
                    "{}; line {}, column {}",
                    report.message, span.line, span.column
                ),
                None => report.message.clone(),
            }));
    }
    let Some(root) = root else {
        return Err("it is empty".to_owned());
    };
    T::deserialize(&root).map_err(|misfit| match misfit.at {
        Some(at) => {
            let span = problems.span(at);
            format!(
                "{}; line {}, column {}",
                misfit.sentence, span.line, span.column
            )
        }
        None => misfit.sentence,
    })
}

/// A value that does not fit, and the innermost place that is known for it.
#[derive(Debug)]
pub(super) struct Misfit {
    at: Option<Mark>,
    sentence: String,
}

impl Misfit {
    fn or_at(self, at: Mark) -> Self {
        Self {
            at: self.at.or(Some(at)),
            ..self
        }
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.sentence)
    }
}

impl std::error::Error for Misfit {}

impl serde::de::Error for Misfit {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self {
            at: None,
            sentence: message.to_string(),
        }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.kind {
            NodeKind::Null => visitor.visit_unit(),
            NodeKind::Bool(value) => visitor.visit_bool(*value),
            NodeKind::Number(number) => number.deserialize_any(visitor).map_err(Misfit::custom),
            NodeKind::Text(text) => visitor.visit_str(text),
            NodeKind::Ambiguous(why) => Err(Misfit::custom(format!(
                "this number is not clear: {why}; put it in quotes"
            ))),
            NodeKind::List(items) => visitor.visit_seq(Items(items.iter())),
            NodeKind::Map(entries) => visitor.visit_map(Entries {
                left: entries.iter(),
                value: None,
            }),
        }
        .map_err(|misfit| misfit.or_at(self.at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.kind {
            NodeKind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let chosen = match &self.kind {
            NodeKind::Text(name) => visitor.visit_enum(Choice { name, value: None }),
            NodeKind::Map(entries) => match entries.as_slice() {
                [entry] => visitor.visit_enum(Choice {
                    name: &entry.key,
                    value: Some(&entry.value),
                }),
                _ => Err(Misfit::custom(
                    "a name, or a map with one key, belongs here",
                )),
            },
            _ => Err(Misfit::custom(format!(
                "a name belongs here, not {}",
                self.noun()
            ))),
        };
        chosen.map_err(|misfit| misfit.or_at(self.at))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misfit> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Entries<'de> {
    left: std::slice::Iter<'de, Entry>,
    value: Option<&'de Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misfit> {
        let Some(entry) = self.left.next() else {
            return Ok(None);
        };
        self.value = Some(&entry.value);
        let key: StrDeserializer<'_, Misfit> = entry.key.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|misfit| misfit.or_at(entry.key_at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        match self.value.take() {
            Some(value) => seed.deserialize(value),
            None => Err(Misfit::custom("a value was asked for before its key")),
        }
    }
}

/// The variant of an enum: its name alone, or a name with a value.
struct Choice<'de> {
    name: &'de str,
    value: Option<&'de Node>,
}

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = Misfit;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Misfit> {
        let name: StrDeserializer<'_, Misfit> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> Choice<'de> {
    fn value(self) -> Result<&'de Node, Misfit> {
        self.value
            .ok_or_else(|| Misfit::custom(format!("`{}` needs a value", self.name)))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        match self.value {
            Some(value) if !value.is_null() => {
                Err(Misfit::custom(format!("`{}` takes no value", self.name)))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misfit> {
        seed.deserialize(self.value()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misfit> {
        self.value()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.value()?.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::from_yaml;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shelf {
        name: String,
        #[serde(default)]
        books: Vec<Book>,
        #[serde(default)]
        rest: BTreeMap<String, serde_json::Value>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Book {
        Lost,
        Titled(String),
        Counted { pages: u32, weight: Option<f64> },
    }

    #[test]
    fn what_serde_can_ask_for_is_answered() {
        let shelf: Shelf = from_yaml(
            "name: a\nbooks:\n- lost\n- titled: b\n- counted: {pages: 3, weight: null}\n\
             rest: {x: [1, -2, 1.5, true, ~, 'text']}\n",
        )
        .unwrap();
        let json = serde_json::json!([1, -2, 1.5, true, null, "text"]);
        assert_eq!(
            shelf,
            Shelf {
                name: "a".to_owned(),
                books: vec![
                    Book::Lost,
                    Book::Titled("b".to_owned()),
                    Book::Counted {
                        pages: 3,
                        weight: None
                    }
                ],
                rest: BTreeMap::from([("x".to_owned(), json)]),
            }
        );
    }

    #[test]
    fn a_misfit_is_named_with_its_place() {
        for (text, sentence) in [
            ("", "it is empty"),
            (
                "name: a\nbook: []",
                "unknown field `book`, expected one of `name`, `books`, `rest`; line 2, column 1",
            ),
            ("name: a\nname: b", "line 2, column 1"),
            (
                "name: a\nbooks: [{counted: {pages: many}}]",
                "line 2, column 27",
            ),
            (
                "name: a\nbooks: [titled]",
                "`titled` needs a value; line 2, column 9",
            ),
            (
                "name: a\nbooks: [{lost: 1}]",
                "`lost` takes no value; line 2, column 9",
            ),
            ("name: a\nbooks: [gone]", "unknown variant `gone`"),
            ("name: [", "line 1"),
            ("books: []", "missing field `name`; line 1, column 1"),
            ("name: a\nrest: {x: 012}", "put it in quotes"),
        ] {
            let error = from_yaml::<Shelf>(text).unwrap_err();
            assert!(error.contains(sentence), "{text}: {error}");
        }
    }
}
