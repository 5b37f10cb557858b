//! YAML text -> a tree in which every key and value knows its place. The library's event layer is
//! used instead of its serde layer, because that one stops at the first problem and we report all.
//!
//! Budgets grow with the file: nodes and alias copies are bounded by the number of bytes read, so
//! a large honest file loads and a small file that unfolds into a large one does not.

use std::collections::HashMap;
use std::ops::ControlFlow;

use serde_json::Number;
use tidegate_yaml::{ErrorKind, Event, ScalarStyle};

use super::hide::{Above, Hidden, is_doubtful};
use super::problems::Problems;
use super::scalar::{is_null, plain_or_text, scalar};
use super::source::Mark;
use crate::report::Report;

/// The code of a file without content.
pub(super) const EMPTY: &str = "config/empty";
/// The code of a character that YAML does not allow.
const BAD_CHARACTER: &str = "config/bad-character";
/// Deepest nesting of lists and maps.
pub(super) const DEPTH_MAX: usize = 64;
/// Nodes any file may have; one more for every [`BYTES_PER_NODE`] bytes.
const NODES_BASE: usize = 250_000;
const BYTES_PER_NODE: usize = 8;
/// Nodes and bytes that aliases may copy, whatever the file's size.
const COPIED_NODES_BASE: usize = 10_000;
const COPIED_BYTES_BASE: usize = 1 << 20;
/// Maps up to this size look for duplicate keys one by one.
const SMALL_MAP: usize = 16;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// What it is.
    pub(super) kind: NodeKind,
    /// Where it stands; for a list or map, where it begins.
    pub(super) at: Mark,
}

/// What a [`Node`] is.
#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    Text(String),
    /// Digits that YAML versions read differently; an error when the value is used.
    Ambiguous(&'static str),
    /// A list.
    List(Vec<Node>),
    /// A map, in file order.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// Where the key stands.
    pub(super) key_at: Mark,
    /// The value.
    pub(super) value: Node,
}

impl Node {
    /// What people call this kind of value.
    pub(super) fn noun(&self) -> &'static str {
        match self.kind {
            NodeKind::Null => "nothing",
            NodeKind::Bool(_) => "true or false",
            NodeKind::Number(_) | NodeKind::Ambiguous(_) => "a number",
            NodeKind::Text(_) => "text",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
        }
    }

    /// True for null.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.kind, NodeKind::Null)
    }

    /// The text of a text.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entries of a map.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.kind {
            NodeKind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// A map's entry by key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// Nodes and text bytes in this tree.
    fn size(&self) -> (usize, usize) {
        match &self.kind {
            NodeKind::Text(text) => (1, text.len()),
            NodeKind::List(items) => items.iter().map(Self::size).fold((1, 0), add),
            NodeKind::Map(entries) => entries
                .iter()
                .map(|entry| add(entry.value.size(), (1, entry.key.len())))
                .fold((1, 0), add),
            NodeKind::Null | NodeKind::Bool(_) | NodeKind::Number(_) | NodeKind::Ambiguous(_) => {
                (1, 0)
            }
        }
    }
}

fn add(a: (usize, usize), b: (usize, usize)) -> (usize, usize) {
    (a.0 + b.0, a.1 + b.1)
}

/// An open list or map.
struct Frame {
    at: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        index: HashMap<String, usize>,
        pending: Option<Key>,
        merges: Vec<Node>,
    },
}

/// A key that waits for its value.
struct Key {
    text: String,
    at: Mark,
    merge: bool,
}

struct Builder<'p> {
    source: u16,
    problems: &'p mut Problems,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes_left: usize,
    copied_nodes_left: usize,
    copied_bytes_left: usize,
}

/// Reads a source that is already in `problems`. `None` when it has a mistake after which nothing
/// can be read, or no content; either is reported.
pub(super) fn read(source: u16, problems: &mut Problems) -> Option<Node> {
    let text = problems.sources.shared_text(source);
    let mut builder = Builder {
        source,
        problems,
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        nodes_left: NODES_BASE + text.len() / BYTES_PER_NODE,
        copied_nodes_left: COPIED_NODES_BASE + text.len() / BYTES_PER_NODE / 2,
        copied_bytes_left: COPIED_BYTES_BASE + text.len(),
    };
    let outcome = builder.run(&text);
    let root = builder.root.take();
    let mut hidden = Hidden::default();
    let inside = builder.look_through(&mut hidden);
    if let Some(root) = &root {
        hidden.value(root, "", Above::default());
    }
    problems.hide(hidden);
    match outcome {
        Err(flaw) => {
            if flaw.report.code == BAD_CHARACTER {
                problems.sources.hide_all(source);
            } else if inside.is_secret() || is_doubtful(&text, flaw.at.start as usize) {
                problems.sources.hide_line(flaw.at);
            }
            problems.error(flaw.at, flaw.report);
            None
        }
        Ok(()) => match root {
            Some(root) if !root.is_null() => Some(root),
            _ => {
                let path = problems.sources.path(source).display().to_string();
                problems.error(
                    Mark {
                        source,
                        start: 0,
                        end: 0,
                    },
                    Report::error(EMPTY, format!("`{path}` has no content")).fix(
                        "describe at least one resource under `modules:`, or name another file",
                    ),
                );
                None
            }
        },
    }
}

/// A mistake after which the rest of the file cannot be read.
struct Flaw {
    at: Mark,
    report: Report,
}

impl Builder<'_> {
    /// Looks through what was read before a mistake; says in what the mistake stands.
    fn look_through(&self, hidden: &mut Hidden) -> Above {
        let mut above = Above::default();
        for frame in &self.stack {
            match &frame.content {
                Content::List(items) => {
                    for item in items {
                        hidden.value(item, "", above);
                    }
                }
                Content::Map {
                    entries, pending, ..
                } => {
                    for entry in entries {
                        hidden.entry(entry, above);
                    }
                    if let Some(key) = pending {
                        above = above.under(&key.text, true);
                    }
                }
            }
        }
        above
    }

    fn mark(&self, span: &tidegate_yaml::Span) -> Mark {
        let start = span.start.byte_offset().unwrap_or(0);
        let end = span.end.byte_offset().unwrap_or(start).max(start);
        Mark {
            source: self.source,
            start: u32::try_from(start).unwrap_or(u32::MAX),
            end: u32::try_from(end).unwrap_or(u32::MAX),
        }
    }

    fn run(&mut self, text: &str) -> Result<(), Box<Flaw>> {
        if let Some(position) = control_character(text) {
            let start = u32::try_from(position).unwrap_or(u32::MAX);
            let code = text[position..].chars().next().map_or(0, u32::from);
            return Err(Box::new(Flaw {
                at: Mark {
                    source: self.source,
                    start,
                    end: start + 1,
                },
                report: Report::error(
                    BAD_CHARACTER,
                    format!("the control character U+{code:04X} may not stand in YAML"),
                )
                .fix("remove it, or write it as an escape inside double quotes"),
            }));
        }
        let mut documents = 0_usize;
        let mut flaw = None;
        let parsed = tidegate_yaml::parse(text, DEPTH_MAX + 1, &mut |event, span| match self.take(
            event,
            &span,
            &mut documents,
        ) {
            Ok(()) => ControlFlow::Continue(()),
            Err(found) => {
                flaw = Some(found);
                ControlFlow::Break(())
            }
        });
        match (flaw, parsed) {
            (Some(flaw), _) => Err(flaw),
            (None, Err(error)) => Err(Box::new(self.syntax_flaw(text, &error))),
            (None, Ok(())) => Ok(()),
        }
    }

    fn take(
        &mut self,
        event: Event<'_>,
        span: &tidegate_yaml::Span,
        documents: &mut usize,
    ) -> Result<(), Box<Flaw>> {
        let at = self.mark(span);
        match event {
            Event::DocumentStart(..) => {
                *documents += 1;
                if *documents > 1 {
                    return Err(Box::new(Flaw {
                        at,
                        report: Report::error(
                            "config/several-documents",
                            "a config is one YAML document, and here a second one begins",
                        )
                        .fix("move it to a file of its own and name that under `imports:`"),
                    }));
                }
            }
            Event::Scalar(text, style, _, None)
                if self.at_key() && !(style == ScalarStyle::Plain && is_null(&text)) =>
            {
                self.count_node(at)?;
                self.key(Key {
                    merge: style == ScalarStyle::Plain && text == "<<",
                    text: text.into_owned(),
                    at,
                });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = match &tag {
                    None => plain_or_text(&text, style),
                    Some(tag) => match tag.core_suffix() {
                        Some("str") => NodeKind::Text(text.into_owned()),
                        Some("null" | "bool" | "int" | "float") => scalar(&text),
                        _ if tag.handle().is_empty() && tag.suffix() == "!" => {
                            NodeKind::Text(text.into_owned())
                        }
                        _ => {
                            self.refuse_tag(at, &tag.original());
                            NodeKind::Text(text.into_owned())
                        }
                    },
                };
                self.leaf(Node { kind, at }, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some("seq")) {
                    self.refuse_tag(at, &tag.original());
                }
                self.open(at, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some("map")) {
                    self.refuse_tag(at, &tag.original());
                }
                let content = Content::Map {
                    entries: Vec::new(),
                    index: HashMap::new(),
                    pending: None,
                    merges: Vec::new(),
                };
                self.open(at, anchor, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(id) => self.alias(id, at)?,
            _ => {}
        }
        Ok(())
    }

    fn refuse_tag(&mut self, at: Mark, tag: &str) {
        self.problems.error(
            at,
            Report::error(
                "config/unsupported-tag",
                format!("the YAML tag `{tag}` means nothing here"),
            )
            .fix("remove the tag"),
        );
    }

    fn count_node(&mut self, at: Mark) -> Result<(), Box<Flaw>> {
        match self.nodes_left.checked_sub(1) {
            Some(left) => {
                self.nodes_left = left;
                Ok(())
            }
            None => Err(Box::new(Flaw {
                at,
                report: Report::error(
                    "config/too-many-values",
                    "the file holds more values than one of its size may",
                )
                .because(format!(
                    "the limit is {NODES_BASE} values plus one for every {BYTES_PER_NODE} bytes"
                ))
                .fix("split the file and use `imports:`"),
            })),
        }
    }

    /// True when the next node is a key.
    fn at_key(&self) -> bool {
        matches!(
            self.stack.last(),
            Some(Frame {
                content: Content::Map { pending: None, .. },
                ..
            })
        )
    }

    fn key(&mut self, key: Key) {
        if let Some(Frame {
            content: Content::Map { pending, .. },
            ..
        }) = self.stack.last_mut()
        {
            *pending = Some(key);
        }
    }

    fn leaf(&mut self, node: Node, anchor: usize) -> Result<(), Box<Flaw>> {
        self.count_node(node.at)?;
        self.anchor(anchor, &node)?;
        self.place(node)
    }

    fn open(&mut self, at: Mark, anchor: usize, content: Content) -> Result<(), Box<Flaw>> {
        self.count_node(at)?;
        if self.stack.len() >= DEPTH_MAX {
            return Err(Box::new(too_deep(at)));
        }
        if self.at_key() {
            return Err(Box::new(Flaw {
                at,
                report: Report::error("config/bad-key", "a key must be text, not a list or a map"),
            }));
        }
        self.stack.push(Frame {
            at,
            anchor,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Box<Flaw>> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let mut at = frame.at;
        let kind = match frame.content {
            Content::List(items) => NodeKind::List(items),
            Content::Map {
                mut entries,
                merges,
                ..
            } => {
                for merged in merges {
                    self.merge(&mut entries, merged);
                }
                if let Some(first) = entries.first()
                    && at.start == at.end
                {
                    at = first.key_at;
                }
                NodeKind::Map(entries)
            }
        };
        let node = Node { kind, at };
        self.anchor(frame.anchor, &node)?;
        self.place(node)
    }

    /// `<<: *base`: keys that are not there yet come from the base.
    fn merge(&mut self, entries: &mut Vec<Entry>, merged: Node) {
        match merged.kind {
            NodeKind::Map(others) => {
                for other in others {
                    if !entries.iter().any(|entry| entry.key == other.key) {
                        entries.push(other);
                    }
                }
            }
            NodeKind::List(items) if items.iter().all(|item| !item.entries().is_empty()) => {
                for item in items {
                    self.merge(entries, item);
                }
            }
            _ => self.problems.error(
                merged.at,
                Report::error("config/wrong-type", "`<<` merges maps, and this is none"),
            ),
        }
    }

    fn alias(&mut self, id: usize, at: Mark) -> Result<(), Box<Flaw>> {
        let Some(target) = self.anchors.get(&id) else {
            return Err(Box::new(Flaw {
                at,
                report: Report::error("config/endless-alias", "this alias stands inside itself")
                    .fix("write the value out"),
            }));
        };
        let size = target.size();
        let copy = target.clone();
        self.charge(size, at)?;
        if self.stack.len() + depth(&copy) > DEPTH_MAX {
            return Err(Box::new(too_deep(at)));
        }
        self.place(copy)
    }

    fn anchor(&mut self, id: usize, node: &Node) -> Result<(), Box<Flaw>> {
        if id > 0 {
            self.charge(node.size(), node.at)?;
            self.anchors.insert(id, node.clone());
        }
        Ok(())
    }

    fn charge(&mut self, (nodes, bytes): (usize, usize), at: Mark) -> Result<(), Box<Flaw>> {
        match (
            self.copied_nodes_left.checked_sub(nodes),
            self.copied_bytes_left.checked_sub(bytes),
        ) {
            (Some(nodes), Some(bytes)) => {
                self.copied_nodes_left = nodes;
                self.copied_bytes_left = bytes;
                Ok(())
            }
            _ => Err(Box::new(Flaw {
                at,
                report: Report::error(
                    "config/alias-bomb",
                    "the aliases of this file unfold into far more than the file holds",
                )
                .because(format!(
                    "aliases may copy {COPIED_NODES_BASE} values and {COPIED_BYTES_BASE} bytes, \
                     and more only in step with the file's size"
                ))
                .fix("write the values out, or nest fewer aliases in each other"),
            })),
        }
    }

    fn place(&mut self, node: Node) -> Result<(), Box<Flaw>> {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map {
                entries,
                index,
                pending,
                merges,
            } => match pending.take() {
                None => {
                    let text = match node.kind {
                        NodeKind::Text(text) if !text.is_empty() => text,
                        _ => {
                            return Err(Box::new(Flaw {
                                at: node.at,
                                report: Report::error(
                                    "config/bad-key",
                                    "a key must be text; this one is empty or not text",
                                ),
                            }));
                        }
                    };
                    *pending = Some(Key {
                        merge: false,
                        text,
                        at: node.at,
                    });
                }
                Some(key) if key.merge => merges.push(node),
                Some(key) => {
                    if let Some(first) = known_key(entries, index, &key.text) {
                        let first = self.problems.span(first);
                        self.problems.error(
                            key.at,
                            Report::error(
                                "config/duplicate-key",
                                format!("the key `{}` stands here twice", key.text),
                            )
                            .because(format!("it is first at {first}"))
                            .fix("keep one of the two"),
                        );
                    } else {
                        if entries.len() >= SMALL_MAP {
                            if index.is_empty() {
                                index.extend(
                                    entries
                                        .iter()
                                        .enumerate()
                                        .map(|(position, entry)| (entry.key.clone(), position)),
                                );
                            }
                            index.insert(key.text.clone(), entries.len());
                        }
                        entries.push(Entry {
                            key: key.text,
                            key_at: key.at,
                            value: node,
                        });
                    }
                }
            },
        }
        Ok(())
    }

    fn syntax_flaw(&self, text: &str, error: &tidegate_yaml::ScanError) -> Flaw {
        let position = error.marker().byte_offset().unwrap_or(0).min(text.len());
        let start = u32::try_from(position).unwrap_or(u32::MAX);
        let at = Mark {
            source: self.source,
            start,
            end: start + 1,
        };
        let info = error.info();
        if let Some(tab) = indenting_tab(text, position, error.kind()) {
            let start = u32::try_from(tab).unwrap_or(u32::MAX);
            return Flaw {
                at: Mark {
                    start,
                    end: start + 1,
                    ..at
                },
                report: Report::error("config/tab", "this line is indented with a tab")
                    .because(info)
                    .fix("indent with spaces; YAML does not allow tabs there"),
            };
        }
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            return too_deep(at);
        }
        let mut report = Report::error("config/syntax", format!("this is not valid YAML: {info}"));
        let before = text.get(..position).unwrap_or_default();
        if before.ends_with("${") || before.ends_with('$') {
            report =
                report.fix("put the `${…}` in double quotes: a bare `{` opens a YAML map here");
        }
        Flaw {
            at,
            report: report
                .fix("check indentation, quotes and brackets at and just above this line"),
        }
    }
}

/// The tab that broke the parse, if one did: in the indentation of the line at `position`, or,
/// when the parser speaks of a tab, of the first such line after it.
fn indenting_tab(text: &str, position: usize, kind: &ErrorKind) -> Option<usize> {
    let speaks_of_tab = matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    );
    let before = text.get(..position)?;
    let mut line_start = before.rfind(['\n', '\r']).map_or(0, |newline| newline + 1);
    loop {
        let line = text.get(line_start..)?;
        let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = line[..indentation].find('\t') {
            return Some(line_start + tab);
        }
        if !speaks_of_tab {
            return None;
        }
        line_start += line.find('\n')? + 1;
    }
}

/// Where the first control character stands that YAML does not allow.
fn control_character(text: &str) -> Option<usize> {
    // One pass over bytes that is done many at a time; 0xC2 begins those past ASCII.
    let suspicious = text.bytes().fold(false, |found, byte| {
        found
            | ((byte < b' ') & !matches!(byte, b'\t' | b'\n' | b'\r'))
            | (byte == 0x7f)
            | (byte == 0xc2)
    });
    if !suspicious {
        return None;
    }
    text.find(|character: char| {
        character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\u{85}')
    })
}

fn known_key(entries: &[Entry], index: &HashMap<String, usize>, key: &str) -> Option<Mark> {
    if index.is_empty() {
        entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| entry.key_at)
    } else {
        index.get(key).map(|&position| entries[position].key_at)
    }
}

fn too_deep(at: Mark) -> Flaw {
    Flaw {
        at,
        report: Report::error(
            "config/too-deep",
            format!("lists and maps are nested more than {DEPTH_MAX} deep"),
        )
        .fix("flatten the structure"),
    }
}

fn depth(node: &Node) -> usize {
    match &node.kind {
        NodeKind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        NodeKind::Map(entries) => {
            1 + entries
                .iter()
                .map(|entry| depth(&entry.value))
                .max()
                .unwrap_or(0)
        }
        _ => 0,
    }
}
