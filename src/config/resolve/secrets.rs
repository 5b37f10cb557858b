//! Declared secrets: which there are, how they are made, and which store each comes from.

use std::collections::BTreeMap;

use super::Resolver;
use super::modules::{Category, Prepared};
use super::values::{KeyPath, Place};
use crate::config::decode::{Decode as _, Marked, RawMap, Text, printable, wrong_type};
use crate::config::resolved::{Credential, Entry, Generate, GenerateSource, Half, SecretStore};
use crate::config::schema::{EntryShape, GenerateKind, GenerateShape, Sink, StoreKind};
use crate::config::source::Mark;
use crate::config::yaml::NodeKind;
use crate::report::Report;

/// The name under which `secrets.provider` is known.
const DEFAULT_STORE: &str = "default";

/// Keys of a `secrets.*` module under which its items stand.
pub(in crate::config) const ITEM_KEYS: [&str; 4] = ["secrets", "generate", "requires", "entries"];

const LENGTH_DEFAULT: u32 = 32;
pub(in crate::config) const LENGTH_MAX: u32 = 16_384;

/// Generated secrets and secrets from stores, of `secrets:` and of modules.
#[derive(Debug, Default)]
pub(super) struct SecretSets {
    generate: Vec<GenerateShape>,
    entries: Vec<EntryShape>,
}

/// Everything there is to know about declared secrets.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub(super) stores: BTreeMap<String, SecretStore>,
    pub(super) generate: Vec<Generate>,
    pub(super) credentials: Vec<Credential>,
    pub(super) entries: Vec<Entry>,
}

impl Secrets {
    /// True when something comes from a store, or is kept in it: only such a store is opened.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.store == name)
            || self
                .generate
                .iter()
                .any(|item| item.store.as_deref() == Some(name))
    }
}

/// The names that a generated secret is known by: its own, or those of its halves.
fn names_of(item: &GenerateShape) -> Vec<Text> {
    let Some(key) = &item.key else {
        return Vec::new();
    };
    let is_credential = item
        .kind
        .as_ref()
        .is_some_and(|kind| kind.value == GenerateKind::ProviderCredential);
    if !is_credential || key.value.trim().is_empty() {
        return vec![key.clone()];
    }
    Half::BOTH.map(|half| named(key, half)).to_vec()
}

fn named(text: &Text, half: Half) -> Text {
    Text {
        value: half.of(&text.value),
        ..text.clone()
    }
}

impl<'a> Resolver<'a> {
    /// Collects declared secrets and their names, so that `${NAME}` is understood from here on.
    pub(super) fn declare(&mut self, prepared: &[Prepared<'a>]) -> SecretSets {
        let mut sets = SecretSets {
            generate: self.merged.secrets.generate.clone().unwrap_or_default(),
            entries: self.merged.secrets.entries.clone().unwrap_or_default(),
        };
        for module in prepared {
            if module.category == Category::SecretSet && module.present {
                self.module_items(module, &mut sets);
            }
        }
        let mut first: BTreeMap<String, Mark> = BTreeMap::new();
        let names: Vec<Text> = sets
            .generate
            .iter()
            .flat_map(names_of)
            .chain(sets.entries.iter().filter_map(|item| item.name.clone()))
            .collect();
        for name in names {
            if name.value.trim().is_empty()
                || name.value.chars().any(char::is_control)
                || name.value.contains(['$', '{', '}'])
            {
                self.problems.error(
                    name.at,
                    Report::error(
                        "config/bad-name",
                        format!("`{}` cannot be a secret's name", printable(&name.value)),
                    )
                    .because("it is empty, or holds a control character, `$`, `{` or `}`"),
                );
            } else if let Some(known) = first.get(&name.value) {
                let known = self.problems.span(*known);
                self.problems.error(
                    name.at,
                    Report::error(
                        "config/duplicate-name",
                        format!("the secret `{}` is declared twice", printable(&name.value)),
                    )
                    .because(format!("it is first declared at {known}"))
                    .fix("keep one of the two"),
                );
            } else {
                first.insert(name.value.clone(), name.at);
            }
        }
        self.declared = first.into_keys().collect();
        sets
    }

    /// The items of a `secrets.generate` or `secrets.requires` module.
    fn module_items(&mut self, module: &Prepared<'a>, sets: &mut SecretSets) {
        let generates = module.kind.value == "secrets.generate";
        for entry in module.config.iter() {
            if !ITEM_KEYS.contains(&entry.key.as_str()) {
                let near = self.problems.nearest(&entry.key, ITEM_KEYS);
                let report = Report::error(
                    "config/unknown-key",
                    format!(
                        "a `{}` module has no setting `{}`",
                        module.kind.value,
                        printable(&entry.key)
                    ),
                );
                let report = match near {
                    Some(near) => report.label(format!("did you mean `{near}`?")),
                    None => report.fix("list its items under `secrets:`"),
                };
                self.problems.error(entry.key_at, report);
                continue;
            }
            let NodeKind::List(items) = &entry.value.kind else {
                if !entry.value.is_null() {
                    wrong_type(&entry.value, &entry.key, "a list", self.problems);
                }
                continue;
            };
            for item in items {
                if generates {
                    sets.generate.extend(GenerateShape::decode(
                        item.clone(),
                        &entry.key,
                        self.problems,
                    ));
                    continue;
                }
                // `secrets.requires` calls the name `key`.
                let mut item = item.clone();
                if let NodeKind::Map(fields) = &mut item.kind
                    && !fields.iter().any(|field| field.key == "name")
                {
                    for field in fields.iter_mut().filter(|field| field.key == "key") {
                        field.key = "name".to_owned();
                    }
                }
                sets.entries
                    .extend(EntryShape::decode(item, &entry.key, self.problems));
            }
        }
    }

    /// Stores, generated secrets, and secrets from stores.
    pub(super) fn secrets(&mut self, sets: SecretSets) -> Secrets {
        let mut all = Secrets {
            stores: self.stores(),
            ..Secrets::default()
        };
        for shape in &sets.generate {
            self.generate(shape, &mut all);
        }
        for shape in &sets.entries {
            let Some(name) = &shape.name else { continue };
            let Some(store) = self.store_of(shape, &mut all.stores) else {
                continue;
            };
            all.entries.push(Entry {
                name: name.value.clone(),
                description: shape
                    .description
                    .as_ref()
                    .map_or_else(String::new, |text| text.value.clone()),
                store,
                at: self.problems.span(name.at),
            });
        }
        all
    }

    fn stores(&mut self) -> BTreeMap<String, SecretStore> {
        let merged = self.merged;
        let mut stores = BTreeMap::new();
        let root = KeyPath::root("secretStores");
        for (name, store) in &merged.secret_stores {
            let Some(provider) = &store.provider else {
                continue;
            };
            let path = root.key(&name.value);
            let store = self.store(provider, store.config.as_ref(), &path, name.at);
            stores.insert(name.value.clone(), store);
        }
        let secrets = &merged.secrets;
        if let Some(provider) = &secrets.provider {
            if let Some((name, _)) = merged
                .secret_stores
                .iter()
                .find(|(name, _)| name.value == DEFAULT_STORE)
            {
                self.problems.error(
                    name.at,
                    Report::error(
                        "config/duplicate-name",
                        "`default` is the store that `secrets.provider` describes",
                    )
                    .fix("rename this store, or remove `secrets.provider`"),
                );
            }
            let path = KeyPath::root("secrets");
            let store = self.store(provider, secrets.config.as_ref(), &path, provider.at);
            stores.insert(DEFAULT_STORE.to_owned(), store);
        } else if let Some(config) = &secrets.config {
            self.problems.error(
                config.0.at,
                Report::error(
                    "config/missing-key",
                    "`secrets.config` needs `secrets.provider` beside it",
                )
                .fix("add `provider:` to `secrets:`"),
            );
        } else if let Some(name) = &secrets.default_store
            && !stores.contains_key(DEFAULT_STORE)
            && let Some(store) = stores.get(&name.value).cloned()
        {
            // With named stores alone, the default one serves whatever names no store.
            stores.insert(DEFAULT_STORE.to_owned(), store);
        }
        if let Some(name) = &secrets.default_store {
            self.known_store(name, &mut stores);
        }
        for (_, environment) in &merged.environments {
            if let Some(name) = environment
                .as_ref()
                .and_then(|environment| environment.store_override.as_ref())
            {
                self.known_store(name, &mut stores);
            }
        }
        stores
    }

    fn store(
        &mut self,
        provider: &Marked<StoreKind>,
        config: Option<&RawMap>,
        path: &KeyPath<'_>,
        at: Mark,
    ) -> SecretStore {
        let entries = config.map_or(&[][..], |config| config.0.entries());
        SecretStore {
            provider: provider.value.canonical().to_owned(),
            config: self.map(entries, &path.key("config"), Place::EARLY, &[]),
            at: Some(self.problems.span(at)),
        }
    }

    /// A store by name, or by the name of its kind; `None` is reported.
    fn known_store(
        &mut self,
        name: &Text,
        stores: &mut BTreeMap<String, SecretStore>,
    ) -> Option<String> {
        if stores.contains_key(&name.value) {
            return Some(name.value.clone());
        }
        if let Some(kind) = StoreKind::from_word(&name.value) {
            stores.insert(
                name.value.clone(),
                SecretStore {
                    provider: kind.canonical().to_owned(),
                    config: BTreeMap::new(),
                    at: None,
                },
            );
            return Some(name.value.clone());
        }
        // A store that was declared and could not be read is reported where it stands.
        if self
            .merged
            .secret_stores
            .iter()
            .any(|(known, _)| known.value == name.value)
        {
            return None;
        }
        let known: Vec<&str> = stores.keys().map(String::as_str).collect();
        let mut report = Report::error(
            "config/unknown-store",
            format!("there is no secret store `{}`", printable(&name.value)),
        );
        if let Some(near) = self.problems.nearest(&name.value, known.iter().copied()) {
            report = report.label(format!("did you mean `{}`?", printable(near)));
        }
        report = report.fix(format!(
            "declare it under `secretStores:`, or name a kind of store: {}",
            StoreKind::WORDS.join(", ")
        ));
        self.problems.error(name.at, report);
        None
    }

    /// Its own, else the environment's, else the default one, else environment variables.
    fn store_of(
        &mut self,
        shape: &EntryShape,
        stores: &mut BTreeMap<String, SecretStore>,
    ) -> Option<String> {
        let merged = self.merged;
        if let Some(name) = &shape.store {
            return self.known_store(name, stores);
        }
        let override_name = self.environment.and_then(|environment| {
            merged
                .environments
                .iter()
                .find(|(name, _)| name.value == environment)?
                .1
                .as_ref()?
                .store_override
                .as_ref()
        });
        if let Some(name) = override_name.or(merged.secrets.default_store.as_ref()) {
            // A wrong name is reported once, where the stores are read.
            return stores.contains_key(&name.value).then(|| name.value.clone());
        }
        if stores.contains_key(DEFAULT_STORE) {
            return Some(DEFAULT_STORE.to_owned());
        }
        stores
            .entry("env".to_owned())
            .or_insert_with(|| SecretStore {
                provider: StoreKind::Env.canonical().to_owned(),
                config: BTreeMap::new(),
                at: None,
            });
        Some("env".to_owned())
    }

    fn generate(&mut self, shape: &GenerateShape, all: &mut Secrets) {
        let store = shape
            .store
            .as_ref()
            .map(|name| self.known_store(name, &mut all.stores));
        let root = KeyPath::root("secrets");
        let path = root.key("generate");
        let name = shape.key.as_ref().map_or("", |key| key.value.as_str());
        let path = path.key(name);
        let kind = shape.kind.as_ref().map(|kind| kind.value);
        if kind == Some(GenerateKind::ProviderCredential) {
            return self.credential(shape, &path, store, all);
        }
        let sinks = self.sinks(shape.sinks.as_deref().unwrap_or(&[]), &path);
        let Some(kind) = kind else { return };
        for (at, key) in [
            (shape.name.as_ref().map(|name| name.at), "name"),
            (shape.config.as_ref().map(|_| shape.at), "config"),
        ] {
            if let Some(at) = at {
                self.misplaced(at, key, "a secret that no provider makes");
            }
        }
        let source = match kind {
            GenerateKind::InfraOutput => self.output_source(shape, name),
            _ => self.random_source(shape, kind),
        };
        let (Some(key), Some(source)) = (&shape.key, source) else {
            return;
        };
        let store = match store {
            Some(None) => return,
            Some(store) => store,
            None => None,
        };
        all.generate.push(Generate {
            key: key.value.clone(),
            source,
            store,
            sinks,
            at: self.problems.span(key.at),
        });
    }

    /// A credential becomes two secrets, which are stored and written side by side.
    fn credential(
        &mut self,
        shape: &GenerateShape,
        path: &KeyPath<'_>,
        store: Option<Option<String>>,
        all: &mut Secrets,
    ) {
        if let Some(length) = &shape.length {
            self.misplaced(length.at, "length", "a credential");
        }
        for (there, key, fix) in [
            (
                shape.source.is_some(),
                "source",
                "add `source: provider.what`, such as `digitalocean.spaces`",
            ),
            (
                shape.name.is_some(),
                "name",
                "add `name:`, what the provider is to call it",
            ),
        ] {
            if !there {
                self.problems.error(
                    shape.at,
                    Report::error(
                        "config/missing-key",
                        format!(
                            "the secret `{}` needs `{key}`",
                            printable(shape.key.as_ref().map_or("", |key| key.value.as_str()))
                        ),
                    )
                    .label(format!("`{key}` is missing"))
                    .fix(fix),
                );
            }
        }
        let mut halves = Vec::new();
        for half in Half::BOTH {
            let sinks: Vec<Sink> = shape
                .sinks
                .iter()
                .flatten()
                .map(|sink| Sink {
                    name: sink.name.as_ref().map(|name| named(name, half)),
                    ..sink.clone()
                })
                .collect();
            halves.push((half, self.sinks(&sinks, path)));
        }
        let (Some(key), Some(source), Some(name)) = (&shape.key, &shape.source, &shape.name) else {
            return;
        };
        let whole = source
            .value
            .split_once('.')
            .is_some_and(|(provider, what)| !provider.is_empty() && !what.is_empty());
        if !whole {
            self.problems.error(
                source.at,
                Report::error(
                    "config/bad-value",
                    format!("`{}` is no source of credentials", printable(&source.value)),
                )
                .fix("write `provider.what`, such as `digitalocean.spaces`"),
            );
        }
        let Some(called) = self.plain_text(&name.value, name.at, &path.key("name")) else {
            return;
        };
        if called.trim().is_empty() || called.chars().any(char::is_control) {
            self.problems.error(
                name.at,
                Report::error("config/bad-value", "a credential's `name` cannot be empty"),
            );
        }
        let config = match shape.config.as_ref().map(|config| &config.0.kind) {
            Some(NodeKind::Map(entries)) => {
                self.map(entries, &path.key("config"), Place::EARLY, &["name"])
            }
            _ => BTreeMap::new(),
        };
        let store = match store {
            Some(None) => return,
            Some(store) => store,
            None => None,
        };
        let at = self.problems.span(key.at);
        all.credentials.push(Credential {
            key: key.value.clone(),
            source: source.value.clone(),
            name: called,
            config,
            at: at.clone(),
        });
        for (half, sinks) in halves {
            all.generate.push(Generate {
                key: half.of(&key.value),
                source: GenerateSource::ProviderCredential {
                    credential: key.value.clone(),
                    half,
                },
                store: store.clone(),
                sinks,
                at: at.clone(),
            });
        }
    }

    fn random_source(
        &mut self,
        shape: &GenerateShape,
        kind: GenerateKind,
    ) -> Option<GenerateSource> {
        if let Some(source) = &shape.source {
            self.misplaced(source.at, "source", "a random secret");
        }
        let length = shape
            .length
            .as_ref()
            .map_or(LENGTH_DEFAULT, |length| length.value);
        if let Some(given) = &shape.length
            && !(1..=LENGTH_MAX).contains(&given.value)
        {
            self.problems.error(
                given.at,
                Report::error(
                    "config/bad-value",
                    format!("`length` must be between 1 and {LENGTH_MAX}"),
                )
                .fix(format!("leave it out for {LENGTH_DEFAULT}")),
            );
            return None;
        }
        let length = length as usize;
        Some(match kind {
            GenerateKind::RandomHex => GenerateSource::RandomHex { length },
            GenerateKind::RandomBase64 => GenerateSource::RandomBase64 { length },
            GenerateKind::RandomAlphanumeric
            | GenerateKind::InfraOutput
            | GenerateKind::ProviderCredential => GenerateSource::RandomAlphanumeric { length },
        })
    }

    fn output_source(&mut self, shape: &GenerateShape, name: &str) -> Option<GenerateSource> {
        if let Some(length) = &shape.length {
            self.misplaced(length.at, "length", "a copy of an output");
        }
        let Some(source) = &shape.source else {
            self.problems.error(
                shape.at,
                Report::error(
                    "config/missing-key",
                    format!("the secret `{}` needs `source`", printable(name)),
                )
                .label("`source` is missing")
                .fix("add `source: module.field`"),
            );
            return None;
        };
        let parts = self
            .names
            .split(&source.value)
            .filter(|(module, field)| !module.is_empty() && !field.is_empty());
        let Some((module, field)) = parts else {
            self.problems.error(
                source.at,
                Report::error(
                    "config/bad-value",
                    format!("`{}` is no output", printable(&source.value)),
                )
                .fix("write `module.field`"),
            );
            return None;
        };
        let at = self.problems.sources.within(source.at, module);
        let who = format!("the secret `{}` copies an output of", printable(name));
        let address = self.resource_named(module, at, &who)?;
        self.named_outputs
            .push((address.clone(), field.to_owned(), source.at));
        Some(GenerateSource::InfraOutput {
            address,
            field: field.to_owned(),
        })
    }

    fn misplaced(&mut self, at: Mark, key: &str, what: &str) {
        self.problems.error(
            at,
            Report::error(
                "config/misplaced-key",
                format!("`{key}` means nothing for {what}"),
            )
            .fix(format!("remove `{key}`, or change the `type`")),
        );
    }
}
