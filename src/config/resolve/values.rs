//! Nodes -> values: variables filled in, references and declared secrets kept as templates, and
//! everything that must stay secret turned into a secret before anyone else sees it.

use std::collections::HashSet;
use std::fmt;

use zeroize::Zeroizing;

use super::names::{Found, Meaning};
use super::sensitive::{SECRET_MAPS, is_sensitive, is_sensitive_literal};
use super::{Bare, Resolver};
use crate::config::decode::printable;
use crate::config::expression::{Piece, pieces};
use crate::config::resolved::Resource;
use crate::config::source::Mark;
use crate::config::yaml::{Entry, Node, NodeKind};
use crate::config::{ENVIRONMENT_VARIABLE, unset_variable};
use crate::report::{Exit, Report};
use crate::resource::{Map, Part, Reference, Template, Value};
use crate::secret::{Masker, Secret};

/// The sub-map whose values are nobody's but the deployed program's.
const PLAIN_MAP: &str = "env_vars";

/// Where a value stands, for messages: `modules.web.config.env_vars.PORT`.
#[derive(Clone, Copy)]
pub(super) struct KeyPath<'p> {
    parent: Option<&'p KeyPath<'p>>,
    segment: Segment<'p>,
}

#[derive(Clone, Copy)]
enum Segment<'p> {
    Key(&'p str),
    Position(usize),
}

impl<'p> KeyPath<'p> {
    /// A path of one key.
    pub(super) fn root(key: &'p str) -> Self {
        Self {
            parent: None,
            segment: Segment::Key(key),
        }
    }

    /// One key further.
    pub(super) fn key<'c>(&'c self, key: &'c str) -> KeyPath<'c> {
        KeyPath {
            parent: Some(self),
            segment: Segment::Key(key),
        }
    }

    fn is_under(&self, key: &str) -> bool {
        matches!(self.segment, Segment::Key(this) if this == key)
            || self.parent.is_some_and(|parent| parent.is_under(key))
    }

    fn position(&self, position: usize) -> KeyPath<'_> {
        KeyPath {
            parent: Some(self),
            segment: Segment::Position(position),
        }
    }
}

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.segment {
            Segment::Key(key) if self.parent.is_some() => write!(f, ".{}", printable(key)),
            Segment::Key(key) => f.write_str(&printable(key)),
            Segment::Position(position) => write!(f, "[{position}]"),
        }
    }
}

/// What may stand at a place, and how secret it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// `${module.field}` may stand here.
    pub(super) references: bool,
    /// Declared secrets may stand here.
    pub(super) declared: bool,
    /// Everything here is a secret (`env_vars_secret`).
    pub(super) secret: bool,
    /// A key above promises a secret: variables here are secrets.
    pub(super) sensitive: bool,
    /// The key itself promises a secret: text written out here is one.
    pub(super) literal: bool,
}

impl Place {
    /// A resource's config.
    pub(super) const RESOURCE: Self = Self {
        references: true,
        declared: true,
        secret: false,
        sensitive: false,
        literal: false,
    };

    /// A provider's config: known before any resource, so without references.
    pub(super) const PROVIDER: Self = Self {
        references: false,
        ..Self::RESOURCE
    };

    /// Config of the state and of secret stores: known before any secret.
    pub(super) const EARLY: Self = Self {
        declared: false,
        ..Self::PROVIDER
    };

    /// One key deeper.
    pub(super) fn under(self, key: &str) -> Self {
        let sensitive = is_sensitive(key);
        Self {
            secret: self.secret || SECRET_MAPS.contains(&key),
            sensitive: self.sensitive || sensitive,
            literal: sensitive && is_sensitive_literal(key),
            ..self
        }
    }

    fn hides_all(self) -> bool {
        self.secret || self.sensitive
    }
}

/// A variable's value on its way into a text.
struct Filled {
    text: Zeroizing<String>,
    secret: Option<Secret>,
}

impl Resolver<'_> {
    /// The value of a node.
    pub(super) fn value(&mut self, node: &Node, path: &KeyPath<'_>, place: Place) -> Value {
        match &node.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Text(text) => self.text_value(text, node.at, path, place),
            NodeKind::Bool(_) | NodeKind::Number(_) | NodeKind::Ambiguous(_) if place.secret => {
                let raw = self.problems.sources.slice(node.at).trim().to_owned();
                Value::Secret(self.masker.admit(&path.to_string(), raw))
            }
            NodeKind::Bool(flag) => Value::Bool(*flag),
            NodeKind::Number(number) => Value::Number(number.clone()),
            NodeKind::Ambiguous(why) => {
                self.problems.error(
                    node.at,
                    Report::error(
                        "config/ambiguous-number",
                        format!("the number at `{path}` cannot be read without doubt"),
                    )
                    .because(*why)
                    .fix("put it in quotes if it is text, or write it in another way"),
                );
                Value::Null
            }
            NodeKind::List(items) => Value::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(position, item)| self.value(item, &path.position(position), place))
                    .collect(),
            ),
            NodeKind::Map(entries) => Value::Map(self.map(entries, path, place, &[])),
        }
    }

    /// The values of a map, without the keys in `skipped`.
    pub(super) fn map(
        &mut self,
        entries: &[Entry],
        path: &KeyPath<'_>,
        place: Place,
        skipped: &[&str],
    ) -> Map {
        let mut map = Map::new();
        for entry in entries {
            if !skipped.contains(&entry.key.as_str()) {
                let value =
                    self.value(&entry.value, &path.key(&entry.key), place.under(&entry.key));
                map.insert(entry.key.clone(), value);
            }
        }
        map
    }

    /// The value of a text.
    pub(super) fn text_value(
        &mut self,
        text: &str,
        at: Mark,
        path: &KeyPath<'_>,
        place: Place,
    ) -> Value {
        if !text.contains('$') {
            return self.literal(text, path, place);
        }
        let found = pieces(text);
        if let Some(bare) = found.bare {
            self.note_bare(at, bare, path, place);
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut joined = Zeroizing::new(String::new());
        let mut known = true;
        let mut plain = Vec::new();
        for piece in found.pieces {
            match piece {
                Piece::Literal(text) => {
                    joined.push_str(text);
                    push_literal(&mut parts, text);
                }
                Piece::Variable { name, raw, .. } if self.declared.contains(name) => {
                    known = false;
                    self.declared_part(name, raw, at, path, place, &mut parts);
                }
                Piece::Variable { name, default, raw } => {
                    let Some(filled) = self.variable(name, default, raw, at, path, place) else {
                        if self.keeps_unset {
                            known = false;
                            parts.push(Part::Unset(name.to_owned()));
                        }
                        continue;
                    };
                    joined.push_str(&filled.text);
                    match filled.secret {
                        Some(secret) => parts.push(Part::Secret(secret)),
                        None => {
                            plain.push(name);
                            push_literal(&mut parts, &filled.text);
                        }
                    }
                }
                Piece::Other { inner, raw } if self.declared.contains(inner) => {
                    known = false;
                    self.declared_part(inner, raw, at, path, place, &mut parts);
                }
                Piece::Other { inner, raw } => {
                    known = false;
                    if let Some(reference) = self.reference(inner, raw, at, path, place) {
                        parts.push(Part::Reference(reference));
                    }
                }
                Piece::Unclosed { raw } => {
                    self.malformed(at, raw, path, place, "it is never closed");
                }
            }
        }
        for name in plain {
            for part in &parts {
                if let Part::Literal(text) = part {
                    self.in_plain_sight.push((name.to_owned(), text.clone()));
                }
            }
        }
        if !known {
            return Value::Template(Template {
                parts,
                secret: place.hides_all(),
            });
        }
        match parts.as_slice() {
            [Part::Secret(secret)] => Value::Secret(secret.clone()),
            parts if parts.iter().any(|part| matches!(part, Part::Secret(_))) => Value::Secret(
                self.masker
                    .admit(&path.to_string(), std::mem::take(&mut *joined)),
            ),
            _ => self.literal(&joined, path, place),
        }
    }

    /// Text that only variables may stand in, and no secret: names, places, addresses of sinks.
    pub(super) fn plain_text(
        &mut self,
        text: &str,
        at: Mark,
        path: &KeyPath<'_>,
    ) -> Option<String> {
        let errors = self.problems.count();
        // A name is needed by everybody.
        let keeps_unset = std::mem::take(&mut self.keeps_unset);
        let value = self.text_value(text, at, path, Place::EARLY);
        self.keeps_unset = keeps_unset;
        match value {
            Value::String(text) => Some(text),
            Value::Secret(_) => {
                self.problems.error(
                    at,
                    Report::error(
                        "config/secret-out-of-place",
                        format!("`{path}` is shown to everyone, so no secret can stand there"),
                    )
                    .fix("use a variable whose name does not promise a secret"),
                );
                None
            }
            _ => {
                debug_assert!(self.problems.count() > errors, "reported");
                None
            }
        }
    }

    /// A variable may stand in plain sight in one place and be a secret in another. Which it is, is known
    /// when all is read: what carries one is a secret wherever it stands.
    pub(super) fn hide_twofold(&mut self, resources: &mut [Resource]) {
        let admitted = &self.admitted;
        self.in_plain_sight
            .retain(|(name, _)| admitted.contains_key(name));
        let texts: HashSet<String> = self
            .in_plain_sight
            .drain(..)
            .map(|(_, text)| text)
            .collect();
        if texts.is_empty() && self.masker.pattern_count() == 0 {
            return;
        }
        let modules = KeyPath::root("modules");
        for resource in resources {
            let module = modules.key(&resource.base_name);
            let config = module.key("config");
            for (key, value) in &mut resource.config {
                hide(value, &config.key(key), &texts, self.masker);
            }
        }
    }

    fn literal(&mut self, text: &str, path: &KeyPath<'_>, place: Place) -> Value {
        if (place.secret || place.literal) && !text.is_empty() {
            Value::Secret(self.masker.admit(&path.to_string(), text.to_owned()))
        } else {
            Value::String(text.to_owned())
        }
    }

    fn declared_part(
        &mut self,
        name: &str,
        raw: &str,
        at: Mark,
        path: &KeyPath<'_>,
        place: Place,
        parts: &mut Vec<Part>,
    ) {
        if place.declared {
            parts.push(Part::Declared(name.to_owned()));
            return;
        }
        let at = self.problems.sources.within(at, raw);
        self.problems.error(
            at,
            Report::error(
                "config/secret-too-early",
                format!("`{path}` is needed before the secret `{name}` can be fetched"),
            )
            .fix("use a variable that is not declared under `secrets:`"),
        );
    }

    fn variable(
        &mut self,
        name: &str,
        default: Option<&str>,
        raw: &str,
        at: Mark,
        path: &KeyPath<'_>,
        place: Place,
    ) -> Option<Filled> {
        if name == ENVIRONMENT_VARIABLE
            && let Some(environment) = self.environment
        {
            return Some(Filled {
                text: Zeroizing::new(environment.to_owned()),
                secret: None,
            });
        }
        if !self.used.contains(name) {
            self.used.insert(name.to_owned());
        }
        if self.variables.is_unreadable(name) && !self.keeps_unset {
            let at = self.problems.sources.within(at, raw);
            self.problems.error(
                at,
                Report::error(
                    "config/unreadable-variable",
                    format!("the variable `{name}` is set to something that is not UTF-8; `{path}` needs it"),
                )
                .label("no text")
                .fix("set it to text, such as the Base64 of these bytes")
                .exit(Exit::Usage),
            );
            return None;
        }
        let set = match default {
            None => self.variables.get(name),
            Some(_) => self.variables.non_empty(name),
        };
        let Some(text) = set.or(default) else {
            if !self.keeps_unset {
                let at = self.problems.sources.within(at, raw);
                let report = unset_variable(name, &format!("`{path}`"));
                self.problems.error(at, report);
            }
            return None;
        };
        let is_secret = place.hides_all() || is_sensitive(name);
        let secret = (is_secret && !text.is_empty()).then(|| {
            let from_environment = set.is_some();
            match self.admitted.get(name) {
                Some(secret) if from_environment => secret.clone(),
                _ => {
                    let secret = self.masker.admit(name, text.to_owned());
                    if from_environment {
                        self.admitted.insert(name.to_owned(), secret.clone());
                    }
                    secret
                }
            }
        });
        Some(Filled {
            text: Zeroizing::new(text.to_owned()),
            secret,
        })
    }

    /// What stands where a secret does may be one whole, `$` and all: it is not repeated there.
    fn malformed(&mut self, at: Mark, raw: &str, path: &KeyPath<'_>, place: Place, why: &str) {
        let (at, what) = if place.hides_all() {
            (at, "an expression".to_owned())
        } else {
            let narrow = self.problems.sources.within(at, raw);
            (narrow, format!("`{}`", printable(raw)))
        };
        self.problems.error(
            at,
            Report::error(
                "config/bad-expression",
                format!("{what} at `{path}` means nothing: {why}"),
            )
            .fix("write `${NAME}`, `${NAME:-default}` or `${module.field}`")
            .fix("to mean the characters `${` themselves, write `$${`"),
        );
    }

    /// What stands between braces and is neither variable nor declared secret.
    fn reference(
        &mut self,
        inner: &str,
        raw: &str,
        at: Mark,
        path: &KeyPath<'_>,
        place: Place,
    ) -> Option<Reference> {
        let (module, field) = match self.names.split(inner) {
            // A known module may be called anything, even something that begins with a dot.
            Some((module, field))
                if !field.is_empty()
                    && (!module.is_empty() && !module.starts_with('.')
                        || self.names.find(module) != Found::Unknown) =>
            {
                (module, field)
            }
            _ => {
                let why = if inner.is_empty() {
                    "there is no name in it"
                } else if inner.starts_with('.') {
                    "the module is missing before the dot"
                } else if inner.ends_with('.') {
                    "the field is missing after the dot"
                } else if self.names.find(inner) == Found::Unknown {
                    "it is no variable name, and a reference has a dot"
                } else {
                    "a reference to a module needs a field, such as `.id`"
                };
                self.malformed(at, raw, path, place, why);
                return None;
            }
        };
        let within = self.problems.sources.within(at, raw);
        if !place.references {
            self.problems.error(
                within,
                Report::error(
                    "config/reference-out-of-place",
                    format!("`{path}` is needed before any resource exists"),
                )
                .label("an output cannot stand here")
                .fix("use a variable, or write the value out"),
            );
            return None;
        }
        let module_at = self.problems.sources.within(within, module);
        let address = self.resource_named(module, module_at, &format!("`{path}` refers to"))?;
        if field.starts_with('.') || field.ends_with('.') {
            self.malformed(at, raw, path, place, "the field has a dot too many");
            return None;
        }
        self.links.push((address.clone(), within));
        self.named_outputs
            .push((address.clone(), field.to_owned(), within));
        Some(Reference {
            address,
            field: field.to_owned(),
        })
    }

    /// The resource a name means, or a report that begins with `who`.
    pub(super) fn resource_named(
        &mut self,
        name: &str,
        at: Mark,
        who: &str,
    ) -> Option<crate::resource::Address> {
        let shown = printable(name);
        let report = match self.names.find(name) {
            Found::Meaning(Meaning::Resource(address)) => return Some(address),
            Found::Meaning(Meaning::Absent) => Report::error(
                "config/absent-module",
                format!(
                    "{who} `{shown}`, which the environment `{}` leaves out",
                    self.environment.unwrap_or(super::DEFAULT_ENVIRONMENT)
                ),
            )
            .fix("override this value for the environment, or keep the module in it"),
            Found::Meaning(Meaning::Other(what)) => Report::error(
                "config/not-a-resource",
                format!("{who} `{shown}`, which is {what} and has no outputs"),
            )
            .fix("refer to an `infra.*` module"),
            Found::Ambiguous { base, other } => Report::error(
                "config/ambiguous-name",
                format!(
                    "{who} `{shown}`, which may mean the module `{shown}` (here `{base}`) or the module `{}` (here `{shown}`)",
                    printable(&other)
                ),
            )
            .fix("rename one of the two"),
            Found::Unknown => {
                let near = self
                    .problems
                    .nearest(name, self.names.resources())
                    .map(ToOwned::to_owned);
                let mut report = Report::error(
                    "config/unknown-module",
                    format!("{who} `{shown}`, and no module has that name"),
                );
                // `${{ secrets.TOKEN }}`, as a workflow has it.
                if name.starts_with('{') {
                    let report = report
                        .label("an expression of GitHub's")
                        .because("GitHub evaluates these in workflow files, not in this one")
                        .fix("set a variable to it in the workflow (`env: {TOKEN: ${{ secrets.TOKEN }}}`), and write `${TOKEN}` here");
                    self.problems.error(at, report);
                    return None;
                }
                report = match near {
                    Some(near) => report.label(format!("did you mean `{}`?", printable(&near))),
                    None => report.label("no such module"),
                };
                report.fix("name a module of this config, by its name or its name in this environment")
            }
        };
        self.problems.error(at, report);
        None
    }

    fn note_bare(&mut self, at: Mark, bare: &str, path: &KeyPath<'_>, place: Place) {
        match &mut self.bare {
            Some(bare) => bare.count += 1,
            None => {
                self.bare = Some(if place.hides_all() {
                    Bare {
                        at,
                        what: format!("a `$` in `{path}`"),
                        name: "NAME".to_owned(),
                        count: 1,
                    }
                } else {
                    Bare {
                        at: self.problems.sources.within(at, bare),
                        what: format!("`{bare}`"),
                        name: bare.trim_start_matches('$').to_owned(),
                        count: 1,
                    }
                });
            }
        }
    }
}

/// Turns texts that carry a secret into secrets. Under `env_vars` every text is looked through; elsewhere
/// the words of a config may well be a weak password too (`engine: postgres`).
fn hide(value: &mut Value, path: &KeyPath<'_>, texts: &HashSet<String>, masker: &Masker) {
    match value {
        Value::String(text)
            if texts.contains(text) || (path.is_under(PLAIN_MAP) && masker.is_sensitive(text)) =>
        {
            *value = Value::Secret(masker.admit(&path.to_string(), std::mem::take(text)));
        }
        Value::Template(template) if !template.secret => {
            template.secret = template
                .parts
                .iter()
                .any(|part| matches!(part, Part::Literal(text) if texts.contains(text)));
        }
        Value::List(items) => {
            for (position, item) in items.iter_mut().enumerate() {
                hide(item, &path.position(position), texts, masker);
            }
        }
        Value::Map(map) => {
            for (key, value) in map {
                hide(value, &path.key(key), texts, masker);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Secret(_)
        | Value::Template(_)
        | Value::Unknown(_) => {}
    }
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    if text.is_empty() {
        return;
    }
    if let Some(Part::Literal(before)) = parts.last_mut() {
        before.push_str(text);
    } else {
        parts.push(Part::Literal(text.to_owned()));
    }
}
