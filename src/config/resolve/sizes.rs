//! `size`, `hints` and `lifecycle` of a resource: the engine reads them, a provider never sees them.

use super::Resolver;
use super::modules::Prepared;
use crate::config::decode::{printable, wrong_type};
use crate::config::resolved::SizeHints;
use crate::config::yaml::NodeKind;
use crate::report::Report;
use crate::resource::{Map, Value};

/// The sizes that mean something to every provider.
const TIERS: [&str; 5] = ["xs", "s", "m", "l", "xl"];

/// Takes an abstract size out of a config. Other texts are a provider's own and stay.
pub(super) fn size(config: &mut Map) -> Option<String> {
    let tier = match config.get("size") {
        Some(Value::String(text)) if TIERS.contains(&text.as_str()) => text.clone(),
        _ => return None,
    };
    config.remove("size");
    Some(tier)
}

impl<'a> Resolver<'a> {
    /// Takes `hints` out of a config.
    pub(super) fn hints(&mut self, module: &Prepared<'a>, config: &mut Map) -> SizeHints {
        let mut hints = SizeHints::default();
        let (Some(value), Some(entry)) = (config.remove("hints"), module.entry("hints")) else {
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
                .find(|inner| inner.key == key)
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
                            format!("`hints` has no key `{}`", printable(&key)),
                        )
                        .fix("it takes cpu, memory and storage"),
                    );
                    continue;
                }
            };
            match value {
                Value::Null => {}
                Value::String(text) => *slot = Some(text),
                // `cpu: 0.5` reads as well as `cpu: "0.5"`.
                Value::Number(number) => *slot = Some(number.to_string()),
                _ => wrong_type(place, &key, "text", self.problems),
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
