//! The settings inside a module's `config`, held against what its provider says it takes.

use std::collections::BTreeMap;

use super::Resolver;
use super::modules::{Category, Prepared};
use super::resources::ENGINE_KEYS;
use crate::config::decode::printable;
use crate::config::keys::{KeyRules, Keys};
use crate::config::resolved::{ProviderDeclaration, Resource};
use crate::config::source::Mark;
use crate::config::yaml::{Entry, NodeKind};
use crate::report::Report;
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
        rules: KeyRules<'_>,
    ) {
        // As many resources as modules that are some, in the same order.
        let mut resources = resources.iter();
        // Few kinds, many modules.
        let mut known: Vec<(&str, Option<&str>, Option<Keys>)> = Vec::new();
        for module in prepared.iter().filter(|module| module.present) {
            let declared = |id: &ProviderId| providers.get(id).map(|one| one.provider.as_str());
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
                    (provider, Some(resource.kind.as_str()), &COMMON_KEYS)
                }
                _ => continue,
            };
            let at = known
                .iter()
                .position(|(one, other, _)| (*one, *other) == (provider, kind))
                .unwrap_or_else(|| {
                    known.push((provider, kind, rules(provider, kind)));
                    known.len() - 1
                });
            let Some((_, _, Some(keys))) = known.get(at) else {
                continue;
            };
            let what = || {
                format!(
                    "`{}` of the provider `{}`",
                    printable(&module.kind.value),
                    printable(provider)
                )
            };
            self.check_map(&module.config, module.name.at, &what, keys, common);
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
            let report = match self
                .problems
                .nearest(key, names().chain(common.iter().copied()))
            {
                Some(near) => report.label(format!("did you mean `{}`?", printable(near))),
                None => {
                    let all: Vec<&str> = names().collect();
                    if all.is_empty() {
                        report.fix("it has none of its own; remove this one")
                    } else {
                        report.fix(format!("it takes {}", printable(&all.join(", "))))
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
