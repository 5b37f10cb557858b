//! The settings inside a module's `config`, held against what its provider says it takes.

use std::collections::BTreeMap;

use super::Resolver;
use super::modules::{Category, Prepared};
use super::resources::ENGINE_KEYS;
use super::secrets::Secrets;
use crate::config::decode::printable;
use crate::config::keys::{Fault, Keys, Rules, Shape};
use crate::config::resolved::{ProviderDeclaration, Resource, StateDeclaration};
use crate::config::source::Mark;
use crate::config::yaml::{Entry, Node, NodeKind};
use crate::report::{Report, Severity};
use crate::resource::ProviderId;

/// What any resource may have: the engine takes it out, or it means something to some provider.
const COMMON_KEYS: [&str; 5] = ["hints", "lifecycle", "protected", "region", "size"];

impl<'a> Resolver<'a> {
    /// Reports settings that the provider of a module does not have.
    pub(super) fn check_keys(
        &mut self,
        prepared: &[Prepared<'a>],
        providers: &BTreeMap<ProviderId, ProviderDeclaration>,
        resources: &[Resource],
        rules: Rules<'_>,
    ) {
        // As many resources as modules that are some, in the same order.
        let mut resources = resources.iter();
        // Few kinds, many modules.
        let mut known: Vec<(&str, Option<&str>, Option<Keys>)> = Vec::new();
        for module in prepared.iter().filter(|module| module.present) {
            let declared = |id: &ProviderId| providers.get(id).map(|one| one.provider.as_str());
            let mut faults = Vec::new();
            let (provider, kind, common): (_, _, &[&str]) = match module.category {
                Category::Provider => {
                    let Some(provider) = declared(&ProviderId::new(module.name.value.clone()))
                    else {
                        continue;
                    };
                    (provider, None, &["provider"])
                }
                Category::Resource => {
                    let Some(resource) = resources.next() else {
                        return;
                    };
                    let Some(provider) = declared(&resource.provider) else {
                        continue;
                    };
                    faults = (rules.resource)(provider, resource);
                    (provider, Some(resource.kind.as_str()), &COMMON_KEYS)
                }
                _ => continue,
            };
            let at = known
                .iter()
                .position(|(one, other, _)| (*one, *other) == (provider, kind))
                .unwrap_or_else(|| {
                    known.push((provider, kind, (rules.keys)(provider, kind)));
                    known.len() - 1
                });
            let Some((_, _, Some(keys))) = known.get(at) else {
                continue;
            };
            if let Some(unknown) = &keys.unknown {
                let named = module.config.iter().find(|entry| entry.key == "provider");
                let at = match (kind, named) {
                    (None, Some(named)) => named.value.at,
                    _ => module.kind.at,
                };
                let report = Report::error("config/unknown-kind", unknown.clone());
                self.problems.error(at, report);
                continue;
            }
            let what = || {
                format!(
                    "`{}` of the provider `{}`",
                    printable(&module.kind.value),
                    printable(provider)
                )
            };
            self.check_map(&module.config, module.name.at, &what, keys, common);
            for fault in faults {
                self.fault(&module.config, module.name.at, fault);
            }
        }
    }

    /// Reports what the state's backend has against its settings.
    pub(super) fn check_state(
        &mut self,
        prepared: &[Prepared<'a>],
        state: Option<&StateDeclaration>,
        rules: Rules<'_>,
    ) {
        let module = prepared
            .iter()
            .find(|module| module.present && matches!(module.category, Category::State));
        if let (Some(module), Some(state)) = (module, state) {
            for fault in (rules.state)(state) {
                self.fault(&module.config, module.name.at, fault);
            }
        }
    }

    /// Reports what the stores that something is kept in have against their options.
    pub(super) fn check_stores(&mut self, secrets: &Secrets, rules: Rules<'_>) {
        let merged = self.merged;
        for (name, store) in &secrets.stores {
            if !secrets.uses(name) {
                continue;
            }
            let declared = merged
                .secret_stores
                .iter()
                .find(|(own, _)| own.value == *name);
            let (config, owner) = match (declared, &merged.secrets.provider) {
                (Some((own, store)), _) => (store.config.as_ref(), own.at),
                (None, Some(provider)) => (merged.secrets.config.as_ref(), provider.at),
                (None, None) => (None, merged.secrets.at),
            };
            let entries = config.map_or(&[][..], |config| config.0.entries());
            for fault in (rules.store)(name, store) {
                self.fault(entries, owner, fault);
            }
        }
    }

    /// A fault where its setting stands, unless something there is wrong in a plainer way.
    fn fault(&mut self, entries: &[Entry], owner: Mark, fault: Fault) {
        let (at, range) = place_of(entries, &fault.path).unwrap_or((owner, owner));
        if range != owner && self.problems.has_error_within(range) {
            return;
        }
        if fault.report.severity == Severity::Error {
            self.problems.error(at, fault.report);
        } else {
            self.problems.warning(at, fault.report);
        }
    }

    fn check_map(
        &mut self,
        entries: &[Entry],
        owner: Mark,
        what: &dyn Fn() -> String,
        keys: &Keys,
        common: &[&str],
    ) {
        for entry in entries {
            let key = entry.key.as_str();
            // Put in words only where something is wrong, which is next to nowhere.
            let shown = || printable(key);
            let no_setting = || format!("{} has no setting `{}`", what(), shown());
            let inner = keys.within.iter().find(|(name, _)| name == key);
            if let (Some((_, inner)), NodeKind::Map(entries)) = (inner, &entry.value.kind) {
                let what = || format!("`{}` of {}", shown(), what());
                self.check_map(entries, entry.key_at, &what, inner, &[]);
            }
            if let Some((_, shape)) = keys.shapes.iter().find(|(name, _)| name == key)
                && let Some(wrong) = mismatch(shape, &entry.value)
            {
                self.problems.error(
                    entry.value.at,
                    Report::error(
                        "config/bad-value",
                        format!("`{}` of {} must be {wrong}", shown(), what()),
                    ),
                );
            }
            if let Some((_, instead)) = keys.refused.iter().find(|(name, _)| name == key) {
                self.problems.error(
                    entry.key_at,
                    Report::error("config/unknown-key", no_setting()).fix(instead.clone()),
                );
                continue;
            }
            let is_known = keys.is_open
                || keys
                    .allowed
                    .iter()
                    .chain(&keys.tolerated)
                    .any(|name| name == key)
                || common.contains(&key)
                || (!common.is_empty() && ENGINE_KEYS.contains(&key));
            if is_known {
                continue;
            }
            let report = Report::error("config/unknown-key", no_setting());
            let names = || keys.allowed.iter().map(String::as_str);
            let near = self
                .problems
                .nearest(key, names().chain(common.iter().copied()))
                .or_else(|| {
                    // `port` for `http_port`.
                    let mut longer = names().filter(|name| name.split('_').any(|part| part == key));
                    longer.next().filter(|_| longer.next().is_none())
                });
            let report = match near {
                Some(near) => report.label(format!("did you mean `{}`?", printable(near))),
                None => {
                    let all: Vec<&str> = names().collect();
                    if all.is_empty() {
                        report.fix("it has none of its own; remove this one")
                    } else {
                        let all: Vec<_> = all.into_iter().map(printable).collect();
                        report.fix(format!("it takes {}", all.join(", ")))
                    }
                }
            };
            self.problems.error(entry.key_at, report);
        }
        for key in &keys.required {
            if !entries
                .iter()
                .any(|entry| entry.key == *key && !entry.value.is_null())
            {
                self.problems.error(
                    owner,
                    Report::error(
                        "config/missing-key",
                        format!("{} needs the setting `{}`", what(), printable(key)),
                    ),
                );
            }
        }
    }
}

/// Where a setting such as `env_vars.PORT` or `command[0]` stands, or as much of it as is there; and
/// everything that it holds.
fn place_of(entries: &[Entry], path: &str) -> Option<(Mark, Mark)> {
    // A key may have dots and brackets in it: the longest that fits is meant.
    let entry = entries
        .iter()
        .filter(|entry| {
            path.strip_prefix(entry.key.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
        .max_by_key(|entry| entry.key.len())?;
    let rest = &path[entry.key.len()..];
    let whole = |node: &Node, start: u32| Mark {
        start,
        end: end_of(node),
        ..entry.key_at
    };
    let here = (entry.key_at, whole(&entry.value, entry.key_at.start));
    if let Some(rest) = rest.strip_prefix('.') {
        return place_of(entry.value.entries(), rest).or(Some(here));
    }
    let item = rest
        .strip_prefix('[')
        .and_then(|rest| rest.split(']').next()?.parse::<usize>().ok())
        .and_then(|position| match &entry.value.kind {
            NodeKind::List(items) => items.get(position),
            _ => None,
        });
    Some(item.map_or(here, |item| (item.at, whole(item, item.at.start))))
}

/// Where a value ends.
fn end_of(node: &Node) -> u32 {
    match &node.kind {
        NodeKind::List(items) => items.iter().map(end_of).fold(node.at.end, u32::max),
        NodeKind::Map(entries) => entries
            .iter()
            .map(|entry| end_of(&entry.value))
            .fold(node.at.end, u32::max),
        _ => node.at.end,
    }
}

/// What a value should have been and is not; `None` when it is right or cannot be told yet.
fn mismatch(shape: &Shape, value: &Node) -> Option<String> {
    let text = value.as_text();
    if value.is_null() || text.is_some_and(|text| text.contains("${")) {
        return None;
    }
    let (wanted, is_right) = match shape {
        Shape::Text => ("text".to_owned(), text.is_some()),
        Shape::OneOf(words) => (
            format!("one of {}", words.join(", ")),
            text.is_some_and(|text| words.iter().any(|word| word == text)),
        ),
        Shape::Port => (
            "a number from 0 to 65535".to_owned(),
            match &value.kind {
                NodeKind::Number(number) => number.to_string().parse::<u16>().is_ok(),
                NodeKind::Text(text) => text.parse::<u16>().is_ok(),
                _ => false,
            },
        ),
        Shape::List => ("a list".to_owned(), matches!(value.kind, NodeKind::List(_))),
        Shape::Map => ("a map".to_owned(), matches!(value.kind, NodeKind::Map(_))),
    };
    (!is_right).then(|| match (shape, text) {
        (Shape::OneOf(_) | Shape::Port, Some(_)) => wanted,
        _ => format!("{wanted}, not {}", value.noun()),
    })
}
