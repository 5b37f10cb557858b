//! Modules as one environment sees them: which are there, under which name, with which settings.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::Resolver;
use super::names::Meaning;
use super::values::{KeyPath, Place};
use crate::config::backends::{meant_by, settings_of};
use crate::config::decode::{Text, bad_word, printable, wrong_type};
use crate::config::resolved::{ProviderDeclaration, StateDeclaration};
use crate::config::schema::{Module, Override};
use crate::config::source::Mark;
use crate::config::yaml::{Entry, Node, NodeKind};
use crate::report::Report;
use crate::resource::{Address, ProviderId};

/// Resource types that are known by name; providers may bring more.
const KINDS: [&str; 20] = [
    "infra.api_gateway",
    "infra.app_domain",
    "infra.autoscaling_group",
    "infra.cache",
    "infra.certificate",
    "infra.container_service",
    "infra.database",
    "infra.dns",
    "infra.dns_delegation",
    "infra.droplet",
    "infra.eventbus",
    "infra.firewall",
    "infra.iam_role",
    "infra.k8s_cluster",
    "infra.load_balancer",
    "infra.registry",
    "infra.spaces_key",
    "infra.storage",
    "infra.volume",
    "infra.vpc",
];

/// Types that are ours and no resources.
pub(in crate::config) const OWN_TYPES: [&str; 4] = [
    "iac.provider",
    "iac.state",
    "secrets.generate",
    "secrets.requires",
];

/// State backends that are built in. Any other name may be a plugin's; whether one serves it shows
/// when the state is opened.
const BUILT_IN_BACKENDS: [&str; 3] = ["filesystem", "memory", "postgres"];

/// Those of the plugin that comes with every release.
const BUNDLED_BACKENDS: [&str; 4] = ["s3", "spaces", "gcs", "azure_blob"];

/// What a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    /// `infra.*`
    Resource,
    /// `iac.provider`
    Provider,
    /// `iac.state`
    State,
    /// `secrets.generate`, `secrets.requires`
    SecretSet,
    /// `platform.*`
    Platform,
    /// Anything else: not ours.
    Foreign,
}

/// A module in this environment.
pub(super) struct Prepared<'a> {
    pub(super) module: &'a Module,
    pub(super) name: &'a Text,
    pub(super) kind: &'a Text,
    pub(super) category: Category,
    /// False when the environment leaves it out.
    pub(super) present: bool,
    /// The provider its override names.
    pub(super) provider: Option<&'a Text>,
    /// Its settings, overrides laid over.
    pub(super) config: Cow<'a, [Entry]>,
    /// Its name in this environment.
    pub(super) address: Address,
}

impl Prepared<'_> {
    /// A setting by key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.config.iter().find(|entry| entry.key == key)
    }
}

impl<'a> Resolver<'a> {
    /// A module may declare environments of its own, but one that is nearly called like one of the file's
    /// is more often that one, misspelt: what is written there would be heeded nowhere.
    fn check_environments(&mut self, module: &Module) {
        let listed = || {
            self.merged
                .environments
                .iter()
                .map(|(name, _)| name.value.as_str())
        };
        for (name, _) in module.environments.iter().flat_map(|table| table.iter()) {
            if listed().any(|one| one == name.value) {
                continue;
            }
            let Some(near) = self.problems.nearest(&name.value, listed()) else {
                continue;
            };
            let report = Report::warning(
                "config/unlisted-environment",
                format!(
                    "`environments:` of the file does not list `{}`",
                    printable(&name.value)
                ),
            )
            .label(format!("did you mean `{}`?", printable(near)))
            .fix("if it is an environment of its own, list it there, too");
            self.problems.warning(name.at, report);
        }
    }

    /// Chooses modules, lays overrides over, lifts names.
    pub(super) fn prepare(&mut self) -> Vec<Prepared<'a>> {
        let merged = self.merged;
        let mut prepared = Vec::with_capacity(merged.modules.len());
        for module in &merged.modules {
            // A module without name or type is reported already.
            let (Some(name), Some(kind)) = (&module.name, &module.kind) else {
                continue;
            };
            self.check_name(name);
            self.check_environments(module);
            let category = category(&kind.value);
            let changes = self
                .environment
                .and_then(|environment| module.environments.as_ref()?.get(environment));
            let present = changes.is_none_or(|changes| changes.0.is_some());
            let changes = changes.and_then(|changes| changes.0.as_ref());
            let config = effective(module, changes);
            let address = if category == Category::Resource && present {
                self.lifted(name, &config)
            } else {
                Address::new(name.value.clone())
            };
            prepared.push(Prepared {
                module,
                name,
                kind,
                category,
                present,
                provider: changes.and_then(|changes| changes.provider.as_ref()),
                config,
                address,
            });
        }
        self.check_types(&prepared);
        self.register(&prepared);
        prepared
    }

    fn check_name(&mut self, name: &Text) {
        let why = if name.value.trim().is_empty() {
            "it is empty"
        } else if name.value.chars().any(char::is_control) {
            "it holds a control character"
        } else if name.value.contains("${") {
            "it holds `${`; names are fixed, use `config.name` to vary one"
        } else {
            return;
        };
        self.problems.error(
            name.at,
            Report::error(
                "config/bad-name",
                format!(
                    "`{}` cannot be a module's name: {why}",
                    printable(&name.value)
                ),
            ),
        );
    }

    /// `config.name`, if there, is the module's name in this environment.
    fn lifted(&mut self, name: &Text, config: &[Entry]) -> Address {
        let base = Address::new(name.value.clone());
        let Some(entry) = config.iter().find(|entry| entry.key == "name") else {
            return base;
        };
        let text = match &entry.value.kind {
            NodeKind::Null => return base,
            NodeKind::Text(text) if text.is_empty() => return base,
            NodeKind::Text(text) => text,
            _ => {
                wrong_type(&entry.value, "name", "text", self.problems);
                return base;
            }
        };
        let modules = KeyPath::root("modules");
        let module = modules.key(&name.value);
        let config = module.key("config");
        let Some(lifted) = self.plain_text(text, entry.value.at, &config.key("name")) else {
            return base;
        };
        if lifted.trim().is_empty() || lifted.chars().any(char::is_control) {
            self.problems.error(
                entry.value.at,
                Report::error(
                    "config/bad-name",
                    format!(
                        "the name of `{}` in this environment is empty or holds a control character",
                        printable(&name.value)
                    ),
                ),
            );
            return base;
        }
        Address::new(lifted)
    }

    fn check_types(&mut self, prepared: &[Prepared<'a>]) {
        let has_resources = prepared
            .iter()
            .any(|module| module.category == Category::Resource);
        let mut foreign: HashMap<&str, usize> = HashMap::new();
        for module in prepared {
            if module.category == Category::Foreign {
                *foreign.entry(module.kind.as_str()).or_default() += 1;
            }
        }
        let known = || KINDS.iter().chain(&OWN_TYPES).copied();
        let mut said: Vec<&str> = Vec::new();
        for module in prepared {
            let kind = module.kind;
            let shown = || printable(&kind.value);
            match module.category {
                Category::Resource => {
                    if !KINDS.contains(&kind.as_str())
                        && let Some(near) = self.problems.nearest(&kind.value, known())
                    {
                        let report = Report::warning(
                            "config/unknown-kind",
                            format!("`{}` is not a well-known resource type", shown()),
                        )
                        .label(format!("did you mean `{near}`?"));
                        self.problems.unfamiliar(kind.at, &kind.value, report);
                    }
                }
                Category::Platform if has_resources => self.problems.error(
                    kind.at,
                    Report::error(
                        "config/mixed-generations",
                        format!(
                            "`{}` cannot stand in one config with `infra.*` modules",
                            shown()
                        ),
                    )
                    .because("`platform.*` is the generation before `infra.*`, run in another way")
                    .fix("describe this module with an `infra.*` type, or move it to another file"),
                ),
                Category::Foreign | Category::Platform => {
                    if let Some(near) = self.problems.nearest(&kind.value, known()) {
                        let near = near.to_owned();
                        self.problems.error(
                            kind.at,
                            Report::error(
                                "config/bad-value",
                                format!("there is no module type `{}`", shown()),
                            )
                            .label(format!("did you mean `{near}`?"))
                            .fix(format!("write `{near}`")),
                        );
                    } else if kind.value.starts_with("iac.") {
                        bad_word(kind, "type", &OWN_TYPES[..2], self.problems);
                    } else if !said.contains(&kind.as_str()) {
                        said.push(kind.as_str());
                        let count = foreign.get(kind.as_str()).copied().unwrap_or(1);
                        let mut report = Report::warning(
                            "config/ignored-module",
                            format!("Tidegate does not act on modules of type `{}`", shown()),
                        );
                        if count > 1 {
                            report = report.because(format!("this config has {count} of them"));
                        }
                        self.problems.warning(kind.at, report);
                    }
                }
                Category::Provider | Category::State | Category::SecretSet => {}
            }
        }
    }

    fn register(&mut self, prepared: &[Prepared<'a>]) {
        let mut owners: HashMap<&str, &Prepared<'_>> = HashMap::with_capacity(prepared.len());
        self.names.reserve(prepared.len());
        for module in prepared {
            let meaning = match module.category {
                _ if !module.present => Meaning::Absent,
                Category::Resource => Meaning::Resource(module.address.clone()),
                Category::Provider => Meaning::Other("a provider"),
                Category::State => Meaning::Other("the state backend"),
                Category::SecretSet => Meaning::Other("a set of secrets"),
                Category::Platform | Category::Foreign => {
                    Meaning::Other("a module Tidegate does not act on")
                }
            };
            self.names.add(&module.name.value, meaning);
            if module.category != Category::Resource || !module.present {
                continue;
            }
            if let Some(first) = owners.get(module.address.as_str()) {
                let first_at = self.problems.span(first.name.at);
                self.problems.error(
                    module.name.at,
                    Report::error(
                        "config/duplicate-name",
                        format!(
                            "`{}` and `{}` are both called `{}` in this environment",
                            printable(&first.name.value),
                            printable(&module.name.value),
                            printable(module.address.as_str()),
                        ),
                    )
                    .because(format!(
                        "`{}` is at {first_at}",
                        printable(&first.name.value)
                    ))
                    .fix("change `config.name` of one of the two"),
                );
            } else {
                owners.insert(module.address.as_str(), module);
            }
        }
    }

    /// The providers of this environment.
    pub(super) fn providers(
        &mut self,
        prepared: &[Prepared<'a>],
    ) -> BTreeMap<ProviderId, ProviderDeclaration> {
        let mut providers = BTreeMap::new();
        for module in prepared {
            if module.category != Category::Provider || !module.present {
                continue;
            }
            let modules = KeyPath::root("modules");
            let path = modules.key(&module.name.value);
            let path = path.key("config");
            let Some(entry) = module.entry("provider") else {
                self.problems.error(
                    module.name.at,
                    Report::error(
                        "config/missing-key",
                        format!(
                            "the provider `{}` needs `config.provider`",
                            printable(&module.name.value)
                        ),
                    )
                    .fix("name what it is, such as `provider: local`"),
                );
                continue;
            };
            let Some(text) = entry.value.as_text().filter(|text| !text.is_empty()) else {
                wrong_type(&entry.value, "provider", "text", self.problems);
                continue;
            };
            let Some(provider) = self.plain_text(text, entry.value.at, &path.key("provider"))
            else {
                continue;
            };
            let config = self.map(&module.config, &path, Place::PROVIDER, &["provider"]);
            providers.insert(
                ProviderId::new(module.name.value.clone()),
                ProviderDeclaration {
                    provider,
                    config,
                    at: self.problems.span(module.name.at),
                },
            );
        }
        providers
    }

    /// The state backend of this environment.
    pub(super) fn state(&mut self, prepared: &[Prepared<'a>]) -> Option<StateDeclaration> {
        let mut state: Option<(StateDeclaration, Mark)> = None;
        for module in prepared {
            if module.category != Category::State || !module.present {
                continue;
            }
            if let Some((_, first)) = &state {
                let first = self.problems.span(*first);
                self.problems.error(
                    module.name.at,
                    Report::error(
                        "config/several-states",
                        "a config has one `iac.state` module, and this is a second one",
                    )
                    .because(format!("the first is at {first}"))
                    .fix("remove one; to vary it, use `environments:` in the module"),
                );
                continue;
            }
            let modules = KeyPath::root("modules");
            let path = modules.key(&module.name.value);
            let path = path.key("config");
            let backend = self.backend(module, &path);
            let ephemeral = match module.entry("ephemeral").map(|entry| &entry.value) {
                None => false,
                Some(node) => match node.kind {
                    NodeKind::Bool(flag) => flag,
                    NodeKind::Null => false,
                    _ => {
                        wrong_type(node, "ephemeral", "true or false", self.problems);
                        false
                    }
                },
            };
            self.check_settings(module, &backend);
            let config = self.map(
                &module.config,
                &path,
                Place::EARLY,
                &["backend", "ephemeral"],
            );
            state = Some((
                StateDeclaration {
                    backend,
                    config,
                    ephemeral,
                    at: self.problems.span(module.name.at),
                },
                module.name.at,
            ));
        }
        state.map(|(state, _)| state)
    }

    fn backend(&mut self, module: &Prepared<'a>, path: &KeyPath<'_>) -> String {
        let default = BUILT_IN_BACKENDS[0].to_owned();
        let Some(entry) = module.entry("backend") else {
            return default;
        };
        let text = match &entry.value.kind {
            NodeKind::Null => return default,
            NodeKind::Text(text) => text,
            _ => {
                wrong_type(&entry.value, "backend", "text", self.problems);
                return default;
            }
        };
        match self.plain_text(text, entry.value.at, &path.key("backend")) {
            Some(backend) if backend.is_empty() => default,
            Some(backend) => self.backend_name(backend, entry.value.at),
            None => default,
        }
    }

    /// A name nobody we know has is taken as it is. One that only a slip of the finger parts from a
    /// built-in name is said here, where the place is known: no plugin may look that much like one.
    fn backend_name(&mut self, backend: String, at: Mark) -> String {
        let known = || BUILT_IN_BACKENDS.iter().chain(&BUNDLED_BACKENDS).copied();
        if known().any(|name| name == backend) {
            return backend;
        }
        let is_name = backend.starts_with(|first: char| first.is_ascii_lowercase())
            && backend
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
        let near = self
            .problems
            .nearest(&backend, BUILT_IN_BACKENDS.iter().copied());
        if is_name && near.is_none() {
            return backend;
        }
        let text = Text { value: backend, at };
        let known: Vec<&str> = known().collect();
        bad_word(&text, "backend", &known, self.problems);
        BUILT_IN_BACKENDS[0].to_owned()
    }

    /// A setting that is nearly one of the backend's is a slip, and is said here, where the place is
    /// known: the state would be looked for somewhere else. Others may be meant for another tool.
    fn check_settings(&mut self, module: &Prepared<'a>, backend: &str) {
        let Some(known) = settings_of(backend) else {
            return;
        };
        for entry in module.config.iter() {
            let key = entry.key.as_str();
            if known.contains(&key) {
                continue;
            }
            let near = self.problems.nearest(key, known.iter().copied());
            if let Some(near) = near.or_else(|| meant_by(backend, key)) {
                self.problems.error(
                    entry.key_at,
                    Report::error(
                        "config/unknown-key",
                        format!("the {backend} state has no setting `{}`", printable(key)),
                    )
                    .label(format!("did you mean `{near}`?"))
                    .fix(format!("write `{near}`, or take the setting out")),
                );
            }
        }
    }
}

fn category(kind: &str) -> Category {
    match kind {
        "iac.provider" => Category::Provider,
        "iac.state" => Category::State,
        "secrets.generate" | "secrets.requires" => Category::SecretSet,
        _ if kind
            .strip_prefix("infra.")
            .is_some_and(|rest| !rest.is_empty()) =>
        {
            Category::Resource
        }
        _ if kind.starts_with("platform.") => Category::Platform,
        _ => Category::Foreign,
    }
}

/// The settings of a module in one environment.
fn effective<'a>(module: &'a Module, changes: Option<&'a Override>) -> Cow<'a, [Entry]> {
    let base = module
        .config
        .as_ref()
        .map_or(&[][..], |config| config.0.entries());
    match changes.and_then(|changes| changes.config.as_ref()) {
        None => Cow::Borrowed(base),
        Some(over) => Cow::Owned(laid_over(base, over.0.entries())),
    }
}

/// Maps merge key by key; anything else, null included, replaces.
fn laid_over(base: &[Entry], over: &[Entry]) -> Vec<Entry> {
    let mut merged = base.to_vec();
    for entry in over {
        match merged.iter_mut().find(|known| known.key == entry.key) {
            Some(known) => {
                if let (NodeKind::Map(below), NodeKind::Map(above)) =
                    (&known.value.kind, &entry.value.kind)
                {
                    known.value = Node {
                        kind: NodeKind::Map(laid_over(below, above)),
                        at: entry.value.at,
                    };
                } else {
                    known.value = entry.value.clone();
                }
                known.key_at = entry.key_at;
            }
            None => merged.push(entry.clone()),
        }
    }
    merged
}
