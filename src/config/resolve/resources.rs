//! `infra.*` modules -> resources: provider chosen, settings resolved, dependencies known.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Resolver;
use super::cycles::{Edge, find_cycles};
use super::modules::{Category, Prepared};
use super::names::{Found, Meaning};
use super::sizes;
use super::values::{KeyPath, Place};
use crate::config::decode::{Text, printable, wrong_type};
use crate::config::resolved::{OutputDeclaration, ProviderDeclaration, Resource};
use crate::config::schema::Environment;
use crate::config::source::Mark;
use crate::config::yaml::{Node, NodeKind};
use crate::report::Report;
use crate::resource::{Address, Kind, Map, ProviderId, Value};

/// Settings the engine reads itself; a provider never sees them.
pub(super) const ENGINE_KEYS: [&str; 5] = [
    "provider",
    "iac_provider",
    "name",
    "depends_on",
    "adopt_existing",
];

/// The one type that takes an environment's `envVars`.
const CONTAINER_SERVICE: &str = "infra.container_service";

impl<'a> Resolver<'a> {
    /// The resources of this environment, in file order.
    pub(super) fn resources(
        &mut self,
        prepared: &[Prepared<'a>],
        providers: &BTreeMap<ProviderId, ProviderDeclaration>,
    ) -> Vec<Resource> {
        let mut resources = Vec::new();
        let mut edges: Vec<Vec<(Address, Mark)>> = Vec::new();
        for module in prepared {
            if module.category != Category::Resource {
                self.check_no_outputs(module);
            } else if module.present {
                let resource = self.resource(module, prepared, providers);
                let explicit = self.explicit_dependencies(module);
                let mut links = std::mem::take(&mut self.links);
                links.extend(explicit);
                edges.push(links);
                resources.push(resource);
            }
        }
        for (resource, links) in resources.iter_mut().zip(&edges) {
            resource.depends_on = links
                .iter()
                .map(|(address, _)| address.clone())
                .collect::<BTreeSet<_>>();
        }
        self.check_cycles(&resources, &edges);
        resources
    }

    fn defaults(&self) -> Option<&'a Environment> {
        let environment = self.environment?;
        self.merged
            .environments
            .iter()
            .find(|(name, _)| name.value == environment)
            .and_then(|(_, environment)| environment.as_ref())
    }

    fn resource(
        &mut self,
        module: &Prepared<'a>,
        prepared: &[Prepared<'a>],
        providers: &BTreeMap<ProviderId, ProviderDeclaration>,
    ) -> Resource {
        let modules = KeyPath::root("modules");
        let module_path = modules.key(&module.name.value);
        let path = module_path.key("config");
        let provider = self.provider_of(module, prepared, providers, &path);
        let mut config = self.map(&module.config, &path, Place::RESOURCE, &ENGINE_KEYS);
        self.add_defaults(module, &mut config);
        let size = sizes::size(&config);
        let hints = self.hints(module, &config);
        let create_before_destroy = self.create_before_destroy(module, &mut config);
        let declared = module
            .module
            .protected
            .as_ref()
            .is_some_and(|flag| flag.value);
        if declared {
            // It takes part in the config's hash, as it does upstream.
            config.insert("protected".to_owned(), Value::Bool(true));
        }
        let protected = matches!(config.get("protected"), Some(Value::Bool(true)));
        if let Some(entry) = module.entry("protected")
            && !matches!(entry.value.kind, NodeKind::Bool(_) | NodeKind::Null)
        {
            wrong_type(&entry.value, "protected", "true or false", self.problems);
        }
        let adopt_existing = self.flag(module, "adopt_existing");
        let outputs = self.outputs(module);
        Resource {
            base_name: module.name.value.clone(),
            address: module.address.clone(),
            kind: Kind::new(module.kind.value.clone()),
            provider,
            config,
            depends_on: BTreeSet::new(),
            protected,
            adopt_existing,
            size,
            hints,
            create_before_destroy,
            outputs,
            at: self.problems.span(module.name.at),
        }
    }

    fn flag(&mut self, module: &Prepared<'a>, key: &str) -> bool {
        let Some(entry) = module.entry(key) else {
            return false;
        };
        match entry.value.kind {
            NodeKind::Bool(flag) => flag,
            NodeKind::Null => false,
            _ => {
                wrong_type(&entry.value, key, "true or false", self.problems);
                false
            }
        }
    }

    /// `iac_provider`, else the override's `provider`, else `config.provider`, else the
    /// environment's default.
    fn provider_of(
        &mut self,
        module: &Prepared<'a>,
        prepared: &[Prepared<'a>],
        providers: &BTreeMap<ProviderId, ProviderDeclaration>,
        path: &KeyPath<'_>,
    ) -> ProviderId {
        let none = ProviderId::new("");
        let given = |key: &str| {
            module
                .entry(key)
                .filter(|entry| !entry.value.is_null() && entry.value.as_text() != Some(""))
        };
        let named: Option<(String, Mark)> = if let Some(entry) = given("iac_provider") {
            match self.provider_text(&entry.value, path.key("iac_provider")) {
                Some(name) => Some((name, entry.value.at)),
                None => return none,
            }
        } else if let Some(text) = module.provider {
            match self.plain_text(&text.value, text.at, &path.key("provider")) {
                Some(name) => Some((name, text.at)),
                None => return none,
            }
        } else if let Some(entry) = given("provider") {
            match self.provider_text(&entry.value, path.key("provider")) {
                Some(name) => Some((name, entry.value.at)),
                None => return none,
            }
        } else if let Some(text) = self
            .defaults()
            .and_then(|defaults| defaults.provider.as_ref())
        {
            match self.plain_text(&text.value, text.at, &KeyPath::root("environments")) {
                Some(name) => Some((name, text.at)),
                None => return none,
            }
        } else {
            None
        };
        let Some((name, at)) = named else {
            let mut report = Report::error(
                "config/no-provider",
                format!(
                    "`{}` ({}) names no provider",
                    printable(&module.name.value),
                    printable(&module.kind.value)
                ),
            );
            report = match providers.keys().next() {
                Some(first) => report.fix(format!(
                    "add `provider: {}` to its config",
                    printable(first.as_str())
                )),
                None => report.fix(
                    "declare an `iac.provider` module and name it as `provider:` in this config",
                ),
            };
            self.problems.error(module.name.at, report);
            return none;
        };
        let id = ProviderId::new(&name);
        match providers.get_key_value(&id) {
            // One text for all that name it.
            Some((declared, _)) => return declared.clone(),
            None => self.unknown_provider(module, prepared, &name, at),
        }
        id
    }

    fn provider_text(&mut self, node: &Node, path: KeyPath<'_>) -> Option<String> {
        match node.as_text() {
            Some(text) => self.plain_text(text, node.at, &path),
            None => {
                wrong_type(node, "provider", "text", self.problems);
                None
            }
        }
    }

    fn unknown_provider(
        &mut self,
        module: &Prepared<'a>,
        prepared: &[Prepared<'a>],
        name: &str,
        at: Mark,
    ) {
        if let Some(report) = self.no_providers.get(name) {
            let report = report.clone();
            return self.problems.error(at, report);
        }
        let shown = printable(name);
        let report = match prepared.iter().find(|other| other.name.value == name) {
            Some(other) if other.category == Category::Provider && !other.present => {
                return self.problems.error(
                    at,
                    Report::error(
                        "config/absent-module",
                        format!(
                            "`{}` uses the provider `{shown}`, which this environment leaves out",
                            printable(&module.name.value)
                        ),
                    )
                    .fix("name another provider for this environment, or keep that one in it"),
                );
            }
            // Declared, and wrong in itself: that is reported where it stands.
            Some(other) if other.category == Category::Provider => return,
            Some(_) => Report::error(
                "config/unknown-provider",
                format!("`{shown}` is a module, but not an `iac.provider`"),
            ),
            None => Report::error(
                "config/unknown-provider",
                format!("there is no provider module `{shown}`"),
            ),
        };
        let known: Vec<&str> = prepared
            .iter()
            .filter(|other| other.category == Category::Provider && other.present)
            .map(|other| other.name.as_str())
            .collect();
        let report = match self.problems.nearest(name, known.iter().copied()) {
            Some(near) => report.label(format!("did you mean `{}`?", printable(near))),
            None => report,
        };
        let report = if known.is_empty() {
            report.fix("declare it: a module of type `iac.provider`")
        } else {
            report.fix(format!(
                "a provider is named by its module; here: {}",
                printable(&known.join(", "))
            ))
        };
        self.no_providers.insert(name.to_owned(), report.clone());
        self.problems.error(at, report);
    }

    /// What the environment gives to resources that do not say it themselves.
    fn add_defaults(&mut self, module: &Prepared<'a>, config: &mut Map) {
        let (Some(environment), Some(defaults)) = (self.environment, self.defaults()) else {
            return;
        };
        let environments = KeyPath::root("environments");
        let path = environments.key(environment);
        if let Some(region) = &defaults.region
            && matches!(config.get("region"), None | Some(Value::Null))
            && let Some(text) = self.plain_text(&region.value, region.at, &path.key("region"))
        {
            config.insert("region".to_owned(), Value::String(text));
        }
        let Some(variables) = &defaults.env_vars else {
            return;
        };
        if module.kind.value != CONTAINER_SERVICE {
            return;
        }
        let path = path.key("envVars");
        for (name, plain) in variables.iter() {
            let set = ["env_vars", "env_vars_secret", "secret_env_vars"]
                .iter()
                .any(|key| {
                    matches!(config.get(*key), Some(Value::Map(map)) if map.contains_key(&name.value))
                });
            if set {
                continue;
            }
            let place = Place::RESOURCE.under(&name.value);
            let value = match plain.0.as_text() {
                Some(text) => self.text_value(text, plain.0.at, &path.key(&name.value), place),
                None => Value::String(self.problems.sources.slice(plain.0.at).trim().to_owned()),
            };
            let slot = config
                .entry("env_vars".to_owned())
                .or_insert_with(|| Value::Map(Map::new()));
            if matches!(slot, Value::Null) {
                *slot = Value::Map(Map::new());
            }
            if let Value::Map(map) = slot {
                map.insert(name.value.clone(), value);
            }
        }
    }

    /// `dependsOn` of the module and `depends_on` of its config: one list.
    fn explicit_dependencies(&mut self, module: &Prepared<'a>) -> Vec<(Address, Mark)> {
        let mut named: Vec<Text> = module.module.depends_on.clone().unwrap_or_default();
        if let Some(entry) = module.entry("depends_on") {
            match &entry.value.kind {
                NodeKind::Null => {}
                NodeKind::List(items) => {
                    for item in items {
                        match item.as_text() {
                            Some(text) => named.push(Text {
                                value: text.to_owned(),
                                at: item.at,
                            }),
                            None => wrong_type(item, "depends_on", "text", self.problems),
                        }
                    }
                }
                _ => wrong_type(&entry.value, "depends_on", "a list", self.problems),
            }
        }
        let mut edges = Vec::new();
        for name in named {
            match self.names.find(&name.value) {
                // Waiting for something that is not there, or is always there, is no constraint.
                Found::Meaning(Meaning::Absent | Meaning::Other(_)) => {}
                _ => {
                    let who = format!("`{}` depends on", printable(&module.name.value));
                    if let Some(address) = self.resource_named(&name.value, name.at, &who) {
                        edges.push((address, name.at));
                    }
                }
            }
        }
        edges
    }

    fn check_cycles(&mut self, resources: &[Resource], edges: &[Vec<(Address, Mark)>]) {
        if edges.iter().all(Vec::is_empty) {
            return;
        }
        let positions: HashMap<&Address, usize> = resources
            .iter()
            .enumerate()
            .map(|(position, resource)| (&resource.address, position))
            .collect();
        let graph: Vec<Vec<Edge>> = edges
            .iter()
            .map(|links| {
                links
                    .iter()
                    .filter_map(|(address, at)| {
                        Some(Edge {
                            to: *positions.get(address)?,
                            at: *at,
                        })
                    })
                    .collect()
            })
            .collect();
        for cycle in find_cycles(&graph) {
            let names: Vec<String> = cycle
                .members
                .iter()
                .chain(cycle.members.first())
                .map(|&member| printable(resources[member].address.as_str()))
                .collect();
            self.problems.error(
                cycle.closed_at,
                Report::error(
                    "config/cycle",
                    format!("resources wait for each other: {}", names.join(" -> ")),
                )
                .label("this closes the circle")
                .fix("remove one of these dependencies or references"),
            );
        }
    }

    fn outputs(&mut self, module: &Prepared<'a>) -> BTreeMap<String, OutputDeclaration> {
        let mut outputs = BTreeMap::new();
        let Some(table) = &module.module.outputs else {
            return outputs;
        };
        for (name, shape) in table.iter() {
            if name.value.trim().is_empty()
                || name.value.chars().any(char::is_control)
                || name.value.contains("${")
            {
                self.problems.error(
                    name.at,
                    Report::error(
                        "config/bad-name",
                        format!("`{}` cannot be an output's name", printable(&name.value)),
                    )
                    .because("it is empty, or holds a control character or `${`"),
                );
                continue;
            }
            let shape = shape.0.as_ref();
            let sensitive = shape.and_then(|shape| shape.sensitive.as_ref());
            let sinks = shape
                .and_then(|shape| shape.sinks.as_deref())
                .unwrap_or(&[]);
            // One that is there and cannot be read is reported where it stands.
            let is_misread = sensitive.is_none()
                && sinks.first().is_some_and(|sink| {
                    let before = Mark {
                        end: sink.at.start,
                        ..name.at
                    };
                    self.problems.has_error_within(before)
                });
            if let Some(first) = sinks.first()
                && !sensitive.is_some_and(|flag| flag.value)
                && !is_misread
            {
                self.problems.error(
                    sensitive.map_or(first.at, |flag| flag.at),
                    Report::error(
                        "config/sink-needs-sensitive",
                        format!(
                            "the output `{}` of `{}` has sinks and is not `sensitive: true`",
                            printable(&name.value),
                            printable(&module.name.value)
                        ),
                    )
                    .fix("add `sensitive: true`; for a value that is no secret, read it with `infra outputs`"),
                );
            }
            let modules = KeyPath::root("modules");
            let path = modules.key(&module.name.value);
            let path = path.key("outputs");
            let sinks = self.sinks(sinks, &path.key(&name.value));
            outputs.insert(
                name.value.clone(),
                OutputDeclaration {
                    sensitive: sensitive.is_none_or(|flag| flag.value),
                    description: shape
                        .and_then(|shape| shape.description.as_ref())
                        .map_or_else(String::new, |text| text.value.clone()),
                    sinks,
                    at: self.problems.span(name.at),
                },
            );
        }
        outputs
    }

    fn check_no_outputs(&mut self, module: &Prepared<'a>) {
        if module.category == Category::Foreign || module.category == Category::Platform {
            return;
        }
        if let Some((name, _)) = module
            .module
            .outputs
            .as_ref()
            .and_then(|outputs| outputs.0.first())
        {
            self.problems.error(
                name.at,
                Report::error(
                    "config/misplaced-key",
                    format!(
                        "a `{}` module has no outputs",
                        printable(&module.kind.value)
                    ),
                )
                .fix("remove `outputs:` here"),
            );
        }
    }
}
