//! Rules over a resolved config and its plan: `align` says where parts of a config contradict each
//! other, `security` where it opens what should be closed, `secrets` what is odd about the credentials
//! it wants to be made. One rule a file, each with a test and a heading in `docs/rules.md`; a test
//! holds the three together.
//!
//! Pure: everything a rule looks at is in [`Subject`]. A finding names keys and paths, never a value
//! that could be a secret.

mod align;
mod custom;
mod network;
mod planned;
mod secrets;
mod security;

use serde_json::{Map, Value as Json};

use crate::config::{Config, Credential};
use crate::report::Span;
use crate::resource::{ActionKind, Address, FieldChange, Kind, public_map};
use crate::secret::Keyring;

pub use custom::{CustomRule, parse as parse_custom};
pub use planned::read as read_plan;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Probably not meant; fails with `--strict`.
    Warn,
    /// Fails.
    Fail,
}

impl Severity {
    /// The word used in JSON and listings.
    pub fn word(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What a rule found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule's id, such as `R-A1`.
    pub rule: String,
    /// How much it matters.
    pub severity: Severity,
    /// The resource, if it is about one.
    pub resource: Option<Address>,
    /// What is wrong, one sentence without a final full stop.
    pub message: String,
    /// What the reader can do.
    pub fix: String,
    /// Where in the config.
    pub at: Option<Span>,
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its id, such as `R-A1`: stable, and its heading in `docs/rules.md`.
    pub id: &'static str,
    /// Its name, which is its file's too.
    pub name: &'static str,
    check: fn(&Subject, &mut Findings<'_>),
}

/// One resource as rules see it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Resolved name.
    pub address: Address,
    /// Its type.
    pub kind: Kind,
    /// The type of its provider, such as `local`.
    pub provider: String,
    /// Its config: secrets are `{"$secret": …}`, what is known only after apply `{"$unknown": …}`.
    pub config: Map<String, Json>,
    /// What it waits for.
    pub depends_on: Vec<Address>,
    /// Where it stands.
    pub at: Span,
}

impl Item {
    /// True for the given type.
    fn is(&self, kind: &str) -> bool {
        self.kind.as_str() == kind
    }

    /// Every `env_vars` map of a service and of its parts, by where it stands.
    fn env_vars(&self) -> Vec<(String, &Map<String, Json>)> {
        let mut all = Vec::new();
        if let Some(Json::Object(map)) = self.config.get("env_vars") {
            all.push(("env_vars".to_owned(), map));
        }
        for list in ["jobs", "workers", "static_sites", "sidecars"] {
            for (at, part) in items(self.config.get(list)).iter().enumerate() {
                if let Some(Json::Object(map)) = part.get("env_vars") {
                    all.push((format!("{list}[{at}].env_vars"), map));
                }
            }
        }
        all
    }
}

/// One planned action as rules see it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resource.
    pub address: Address,
    /// Its type.
    pub kind: Kind,
    /// What is done.
    pub action: ActionKind,
    /// True when it needs to be named to be replaced or deleted.
    pub protected: bool,
    /// Every difference.
    pub changes: Vec<FieldChange>,
}

/// A provider's remark about what is desired.
#[derive(Clone, Debug)]
pub struct Remark {
    /// It will not work.
    pub is_error: bool,
    /// The resource it is about.
    pub resource: Option<String>,
    /// The field it is about.
    pub field: Option<String>,
    /// What is wrong. Text from outside.
    pub message: String,
}

/// What the flags of a check set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// More changes than this fail.
    pub max_changes: usize,
    /// A missing health check fails.
    pub strict_health: bool,
    /// Every change of an address range fails.
    pub strict_cidr: bool,
}

/// Everything a rule may look at.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Resources, in file order.
    pub items: Vec<Item>,
    /// The state backend's own settings and where they stand.
    pub state: Option<(Map<String, Json>, Span)>,
    /// Names of declared secrets and where they stand.
    pub secrets: Vec<(String, Span)>,
    /// Credentials that providers make.
    pub credentials: Vec<Credential>,
    /// Provider modules and the type of each.
    pub providers: Vec<(String, String)>,
    /// What is planned.
    pub plan: Vec<Change>,
    /// What providers say about it.
    pub remarks: Vec<Remark>,
    /// Lines of the config in which a secret is written out.
    pub literals: Vec<Span>,
    /// What the flags set.
    pub limits: Limits,
}

impl Subject {
    /// The config's part; the rest is empty.
    pub fn of(config: &Config, keyring: &Keyring, limits: Limits) -> Self {
        Self {
            items: config
                .resources
                .iter()
                .map(|resource| Item {
                    address: resource.address.clone(),
                    kind: resource.kind.clone(),
                    provider: config
                        .providers
                        .get(&resource.provider)
                        .map_or_else(String::new, |declared| declared.provider.clone()),
                    config: public_map(&resource.config, keyring),
                    depends_on: resource.depends_on.iter().cloned().collect(),
                    at: resource.at.clone(),
                })
                .collect(),
            state: config
                .state
                .as_ref()
                .map(|state| (public_map(&state.config, keyring), state.at.clone())),
            secrets: config
                .generate
                .iter()
                .map(|item| (item.key.clone(), item.at.clone()))
                .chain(
                    config
                        .entries
                        .iter()
                        .map(|item| (item.name.clone(), item.at.clone())),
                )
                .collect(),
            credentials: config.credentials.clone(),
            providers: config
                .providers
                .iter()
                .map(|(module, declared)| (module.to_string(), declared.provider.clone()))
                .collect(),
            plan: Vec::new(),
            remarks: Vec::new(),
            literals: Vec::new(),
            limits,
        }
    }

    fn item(&self, address: &Address) -> Option<&Item> {
        self.items.iter().find(|item| item.address == *address)
    }
}

/// Where a rule puts what it found.
#[derive(Debug)]
struct Findings<'a> {
    rule: &'a str,
    all: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, severity: Severity, item: Option<&Item>, message: String, fix: &str) {
        self.all.push(Finding {
            rule: self.rule.to_owned(),
            severity,
            resource: item.map(|item| item.address.clone()),
            message,
            fix: fix.to_owned(),
            at: item.map(|item| item.at.clone()),
        });
    }

    fn fail(&mut self, item: &Item, message: String, fix: &str) {
        self.add(Severity::Fail, Some(item), message, fix);
    }

    /// About something that is no resource.
    fn fail_at(&mut self, at: &Span, message: String, fix: &str) {
        self.add(Severity::Fail, None, message, fix);
        if let Some(last) = self.all.last_mut() {
            last.at = Some(at.clone());
        }
    }

    fn warn(&mut self, item: &Item, message: String, fix: &str) {
        self.add(Severity::Warn, Some(item), message, fix);
    }

    /// About a planned action, whose resource the config may not hold any more.
    fn planned(
        &mut self,
        subject: &Subject,
        severity: Severity,
        change: &Change,
        message: String,
        fix: &str,
    ) {
        self.add(severity, subject.item(&change.address), message, fix);
        if let Some(last) = self.all.last_mut() {
            last.resource = Some(change.address.clone());
        }
    }
}

/// The rules of `infra align`, in the order of their ids.
pub fn align() -> &'static [Rule] {
    &align::RULES
}

/// The rules of `infra security-check`, in the order of their ids.
pub fn security() -> &'static [Rule] {
    &security::RULES
}

/// The rules of `infra audit-secrets`, in the order of their ids.
pub fn secrets() -> &'static [Rule] {
    &secrets::RULES
}

/// Everything these rules find, in their order.
pub fn check(rules: &[Rule], custom: &[CustomRule], subject: &Subject) -> Vec<Finding> {
    let mut all = Vec::new();
    for rule in rules {
        let mut findings = Findings {
            rule: rule.id,
            all: Vec::new(),
        };
        (rule.check)(subject, &mut findings);
        all.append(&mut findings.all);
    }
    for rule in custom {
        all.extend(rule.check(subject));
    }
    all
}

/// The elements of a list; none when it is no list.
fn items(value: Option<&Json>) -> &[Json] {
    match value {
        Some(Json::Array(items)) => items,
        _ => &[],
    }
}

/// True for a value that cannot be judged here: a secret, or known only after apply.
fn is_hidden(value: &Json) -> bool {
    value
        .as_object()
        .is_some_and(|map| map.contains_key("$secret") || map.contains_key("$unknown"))
}

/// True for nothing, an empty text, list or map.
fn is_blank(value: Option<&Json>) -> bool {
    match value {
        None | Some(Json::Null) => true,
        Some(Json::String(text)) => text.is_empty(),
        Some(Json::Array(items)) => items.is_empty(),
        Some(Json::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

/// Calls `visit` with the path and text of every plain text inside a config.
fn texts(config: &Map<String, Json>, visit: &mut dyn FnMut(&str, &str)) {
    let mut pending: Vec<(String, &Json)> = config
        .iter()
        .map(|(key, value)| (key.clone(), value))
        .collect();
    while let Some((path, value)) = pending.pop() {
        match value {
            Json::String(text) => visit(&path, text),
            Json::Array(items) => pending.extend(
                items
                    .iter()
                    .enumerate()
                    .map(|(at, item)| (format!("{path}[{at}]"), item)),
            ),
            Json::Object(map) if !is_hidden(value) => pending.extend(
                map.iter()
                    .map(|(key, value)| (format!("{path}.{key}"), value)),
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod testing;
