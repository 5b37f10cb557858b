//! The words of a config that everything shows: what things are called, what they are, where they are.
//! A secret that is one of them cannot be hidden.

use super::modules::Prepared;
use super::{DEFAULT_ENVIRONMENT, Resolver, environments};
use crate::config::yaml::{Entry, Node, NodeKind};

/// Settings that say where something is or how large: every provider repeats them in its answers.
const PLACES: [&str; 17] = [
    "availability_zone",
    "availability_zones",
    "datacenter",
    "instance_class",
    "instance_size",
    "instance_type",
    "location",
    "machine_type",
    "plan",
    "region",
    "region_slug",
    "regions",
    "size",
    "size_slug",
    "tier",
    "zone",
    "zones",
];

impl Resolver<'_> {
    /// Said before the first value of the config is read.
    pub(super) fn publish_words(&self) {
        let merged = self.merged;
        let named = || merged.modules.iter();
        self.masker.publish(
            "the name of a resource",
            named().filter_map(|module| module.name.as_ref().map(|name| name.value.as_str())),
        );
        self.masker.publish(
            "a type of resource",
            named().filter_map(|module| module.kind.as_ref().map(|kind| kind.value.as_str())),
        );
        let known = environments(merged);
        self.masker.publish(
            "the name of an environment",
            known
                .iter()
                .map(String::as_str)
                .chain(self.environment)
                .chain([DEFAULT_ENVIRONMENT]),
        );
    }

    /// Said when every module has its name and its settings.
    pub(super) fn publish_places(&self, prepared: &[Prepared<'_>]) {
        for module in prepared {
            self.masker
                .publish("the name of a resource", [module.address.as_str()]);
            for entry in module.config.iter() {
                self.publish_entry(entry);
            }
        }
    }

    fn publish_entry(&self, entry: &Entry) {
        if entry.key == "provider" {
            self.masker
                .publish("the name of a provider", written(&entry.value));
        } else if PLACES.contains(&entry.key.as_str()) {
            let what = "a setting that is written out in the config";
            self.masker.publish(what, written(&entry.value));
            if let NodeKind::List(items) = &entry.value.kind {
                self.masker.publish(what, items.iter().filter_map(written));
            }
        }
        for inner in entry.value.entries() {
            self.publish_entry(inner);
        }
    }
}

/// The text as it stands, where nothing has to be filled in.
fn written(node: &Node) -> Option<&str> {
    match &node.kind {
        NodeKind::Text(text) if !text.contains("${") => Some(text),
        _ => None,
    }
}
