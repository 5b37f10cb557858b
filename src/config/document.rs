//! A YAML file that is not `infra.yaml`, read by the same reader: duplicate keys, alias budgets and
//! ambiguous numbers are its business, shapes are the caller's. Every value knows its bytes, so
//! that a caller can change one and leave the rest of the text alone.

use std::path::Path;

use serde_json::Number;

use super::problems::Problems;
use super::yaml::{self, Node, NodeKind};
use crate::report::{Report, Span};

/// A parsed file and the tree of what it holds.
#[derive(Debug)]
pub struct Document {
    problems: Problems,
    source: u16,
    /// The value at the top.
    pub root: Tree,
}

/// A value and the bytes it was read from.
#[derive(Clone, Debug)]
pub struct Tree {
    /// What it is.
    pub kind: TreeKind,
    /// First byte; for a list or map, where it begins.
    pub start: usize,
    /// One past the last byte; meaningless for a list or map.
    pub end: usize,
}

/// What a [`Tree`] is.
#[derive(Clone, Debug)]
pub enum TreeKind {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text (also digits that YAML versions read differently, as they are written).
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// A map, in file order.
    Map(Vec<Field>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Field {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub start: usize,
    /// The value.
    pub value: Tree,
}

impl Tree {
    /// The text of a text.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            TreeKind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The fields of a map; none for anything else.
    pub fn fields(&self) -> &[Field] {
        match &self.kind {
            TreeKind::Map(fields) => fields,
            _ => &[],
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.fields()
            .iter()
            .find(|field| field.key == key)
            .map(|field| &field.value)
    }

    /// True for nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.kind, TreeKind::Null)
    }
}

impl Document {
    /// Reads a text. On failure: everything that is wrong with it as YAML.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Report>> {
        let mut problems = Problems::default();
        let source = problems.sources.add(path, text.to_owned());
        let root = yaml::read(source, &mut problems);
        match root {
            Some(root) if !problems.has_errors() => Ok(Self {
                root: tree(&root, &problems),
                problems,
                source,
            }),
            _ => Err(problems.finish().0),
        }
    }

    /// A place as people read it.
    pub fn span(&self, start: usize, end: usize) -> Span {
        let clip = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.problems.span(super::source::Mark {
            source: self.source,
            start: clip(start),
            end: clip(end),
        })
    }
}

fn tree(node: &Node, problems: &Problems) -> Tree {
    let kind = match &node.kind {
        NodeKind::Null => TreeKind::Null,
        NodeKind::Bool(value) => TreeKind::Bool(*value),
        NodeKind::Number(number) => TreeKind::Number(number.clone()),
        NodeKind::Text(text) => TreeKind::Text(text.clone()),
        NodeKind::Ambiguous(_) => TreeKind::Text(problems.sources.slice(node.at).to_owned()),
        NodeKind::List(items) => {
            TreeKind::List(items.iter().map(|item| tree(item, problems)).collect())
        }
        NodeKind::Map(entries) => TreeKind::Map(
            entries
                .iter()
                .map(|entry| Field {
                    key: entry.key.clone(),
                    start: entry.key_at.start as usize,
                    value: tree(&entry.value, problems),
                })
                .collect(),
        ),
    };
    Tree {
        kind,
        start: node.at.start as usize,
        end: node.at.end as usize,
    }
}
