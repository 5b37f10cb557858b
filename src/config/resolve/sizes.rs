//! `size`, `hints` and `lifecycle` of a resource: the engine reads them. The first two stay in the config as
//! well, because drivers read them too; a provider never sees the last.

use super::Resolver;
use super::modules::Prepared;
use crate::config::decode::{printable, wrong_type};
use crate::config::resolved::SizeHints;
use crate::config::yaml::NodeKind;
use crate::report::Report;
use crate::resource::{Map, Value};

/// The sizes that mean something to every provider.
const TIERS: [&str; 5] = ["xs", "s", "m", "l", "xl"];

/// The abstract size in a config. Other texts are a provider's own.
pub(super) fn size(config: &Map) -> Option<String> {
    match config.get("size") {
        Some(Value::String(text)) if TIERS.contains(&text.as_str()) => Some(text.clone()),
        _ => None,
    }
}

impl<'a> Resolver<'a> {
    /// The `hints` in a config.
    pub(super) fn hints(&mut self, module: &Prepared<'a>, config: &Map) -> SizeHints {
        let mut hints = SizeHints::default();
        let (Some(value), Some(entry)) = (config.get("hints"), module.entry("hints")) else {
            return hints;
        };
        let map = match value {
            Value::Null => return hints,
            Value::Map(map) => map,
            _ => {
                wrong_type(&entry.value, "hints", "a map", self.problems);
                return hints;
            }
        };
        for (key, value) in map {
            let place = entry
                .value
                .entries()
                .iter()
                .find(|inner| inner.key == *key)
                .map_or(&entry.value, |inner| &inner.value);
            let slot = match key.as_str() {
                "cpu" => &mut hints.cpu,
                "memory" => &mut hints.memory,
                "storage" => &mut hints.storage,
                _ => {
                    self.problems.error(
                        place.at,
                        Report::error(
                            "config/unknown-key",
                            format!("`hints` has no key `{}`", printable(key)),
                        )
                        .fix("it takes cpu, memory and storage"),
                    );
                    continue;
                }
            };
            match value {
                Value::Null => {}
                Value::String(text) => *slot = Some(text.clone()),
                // `cpu: 0.5` reads as well as `cpu: "0.5"`.
                Value::Number(number) => *slot = Some(number.to_string()),
                _ => wrong_type(place, key, "text", self.problems),
            }
        }
        hints
    }

    /// Takes `lifecycle` out of a config.
    pub(super) fn create_before_destroy(
        &mut self,
        module: &Prepared<'a>,
        config: &mut Map,
    ) -> bool {
        config.remove("lifecycle");
        let Some(entry) = module.entry("lifecycle") else {
            return false;
        };
        if !matches!(entry.value.kind, NodeKind::Map(_) | NodeKind::Null) {
            wrong_type(&entry.value, "lifecycle", "a map", self.problems);
            return false;
        }
        let mut wanted = false;
        for inner in entry.value.entries() {
            match (inner.key.as_str(), &inner.value.kind) {
                ("create_before_destroy", NodeKind::Bool(flag)) => wanted = *flag,
                ("create_before_destroy", NodeKind::Null) => {}
                ("create_before_destroy", _) => wrong_type(
                    &inner.value,
                    "create_before_destroy",
                    "true or false",
                    self.problems,
                ),
                (other, _) => self.problems.error(
                    inner.value.at,
                    Report::error(
                        "config/unknown-key",
                        format!("`lifecycle` has no key `{}`", printable(other)),
                    )
                    .fix("it takes create_before_destroy"),
                ),
            }
        }
        wanted
    }
}
