//! `plugin.json`, made from code.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{About, Kind};

/// Names that hosts keep for the stores they bring themselves.
const RESERVED_BACKENDS: [&str; 3] = ["memory", "filesystem", "postgres"];

/// Everything a plugin declares.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) about: About,
    pub(crate) kinds: Vec<Kind>,
    /// Names of the services it serves, sorted.
    pub(crate) services: Vec<&'static str>,
    /// Names of its state backends.
    pub(crate) backends: Vec<String>,
    pub(crate) has_provider: bool,
}

impl Declared {
    /// Everything a host or a registry would refuse, as sentences.
    pub(crate) fn problems(&self) -> Vec<String> {
        let About {
            name,
            version,
            author,
            description,
            provider,
            min_engine_version,
            ..
        } = &self.about;
        let mut problems = Vec::new();
        if !is_name(name) {
            problems.push(format!(
                "the name {name:?} must be lower-case letters, digits and hyphens, and begin with a letter"
            ));
        }
        if !is_release(version) {
            problems.push(format!(
                "the version {version:?} must be three numbers (1.2.3); hosts refuse suffixes"
            ));
        }
        if !is_release(min_engine_version) {
            problems.push(format!(
                "the host version {min_engine_version:?} must be three numbers"
            ));
        }
        for (field, value) in [("authors", author), ("description", description)] {
            if value.trim().is_empty() {
                problems.push(format!(
                    "`{field}` in Cargo.toml is empty; a manifest needs it"
                ));
            }
        }
        if self.has_provider {
            if provider.trim().is_empty() {
                problems.push("the provider has no name".to_owned());
            }
            if self.kinds.is_empty() {
                problems.push("the provider has no kinds".to_owned());
            }
        }
        let mut seen = BTreeSet::new();
        for kind in &self.kinds {
            if !seen.insert(kind.name.as_str()) || kind.name.trim().is_empty() {
                problems.push(format!("the kind {:?} is empty or named twice", kind.name));
            }
        }
        for backend in &self.backends {
            if backend.trim() != backend
                || backend.is_empty()
                || RESERVED_BACKENDS.contains(&backend.as_str())
            {
                problems.push(format!(
                    "a plugin may not serve a state backend named {backend:?}"
                ));
            }
        }
        problems
    }

    /// The content of `plugin.json`.
    pub(crate) fn manifest(&self) -> Value {
        let about = &self.about;
        let mut capabilities = json!({ "configProvider": false, "iacServices": self.services });
        let mut manifest = json!({
            "name": about.name,
            "version": about.version,
            "author": about.author,
            "description": about.description,
            "type": "external",
            "minEngineVersion": about.min_engine_version,
        });
        for (key, value) in [
            ("license", &about.license),
            ("repository", &about.repository),
        ] {
            if !value.is_empty() {
                manifest[key] = json!(value);
            }
        }
        if self.has_provider {
            let types: Vec<&str> = self.kinds.iter().map(|kind| kind.name.as_str()).collect();
            let provider = json!({ "name": about.provider, "resourceTypes": types, "computePlanVersion": "v2" });
            capabilities["iacProvider"] = provider.clone();
            let keys = || about.required_keys.iter().chain(&about.optional_keys);
            if keys().next().is_some() {
                let properties: serde_json::Map<String, Value> =
                    keys().map(|key| (key.clone(), json!({}))).collect();
                capabilities["iacProvider"]["configSchema"] = json!({
                    "type": "object",
                    "properties": properties,
                    "required": about.required_keys,
                    "additionalProperties": false,
                });
            }
            // Lookups read the dispatch version here, and everything else inside `capabilities`.
            manifest["iacProvider"] = provider;
        }
        if !self.backends.is_empty() {
            capabilities["iacStateBackends"] = json!(self.backends);
        }
        manifest["capabilities"] = capabilities;
        if !about.required_secrets.is_empty() {
            manifest["required_secrets"] = about
                .required_secrets
                .iter()
                .map(|secret| json!({ "name": secret.name, "sensitive": true, "description": secret.description }))
                .collect();
        }
        if !about.settings.is_empty() {
            manifest["required_config"] = about
                .settings
                .iter()
                .map(|name| json!({ "name": name, "sensitive": false }))
                .collect();
        }
        manifest
    }
}

fn is_name(name: &str) -> bool {
    let letter_or_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().copied().is_some_and(letter_or_digit)
        && bytes
            .iter()
            .all(|&byte| letter_or_digit(byte) || byte == b'-')
}

fn is_release(version: &str) -> bool {
    let parts: Vec<&str> = version.split('.').collect();
    parts.len() == 3
        && parts.iter().all(|part| {
            part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u64>().is_ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Declared {
        Declared {
            about: About::new("files", "1.2.3", "Someone", "Keeps files.").provider("files"),
            kinds: vec![Kind::new("infra.file")],
            services: vec!["workflow.plugin.external.iac.IaCProviderRequired"],
            backends: vec![],
            has_provider: true,
        }
    }

    #[test]
    fn s9_a_version_is_three_plain_numbers() {
        assert!(declared().problems().is_empty());
        for wrong in [
            "",
            "1",
            "1.2",
            "1.2.3-beta",
            "1.2.3+5",
            "v1.2.3",
            "1.2.x",
            "(devel)",
            "1..3",
            "1.2.3.4",
        ] {
            let mut declared = declared();
            declared.about.version = wrong.to_owned();
            assert_eq!(declared.problems().len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn everything_a_host_would_refuse_is_named() {
        for wrong in ["", "Files", "1files", "files-", "my_files", "fi les"] {
            let mut declared = declared();
            declared.about.name = wrong.to_owned();
            assert_eq!(declared.problems().len(), 1, "{wrong:?}");
        }
        let mut wrong = declared();
        wrong.about.author = " ".to_owned();
        wrong.about.description = String::new();
        wrong.about.provider = String::new();
        wrong.kinds = vec![];
        wrong.backends = vec!["memory".to_owned(), " s3".to_owned(), "s3".to_owned()];
        assert_eq!(wrong.problems().len(), 6, "{:#?}", wrong.problems());
        let mut twice = declared();
        twice.kinds.push(Kind::new("infra.file"));
        assert_eq!(twice.problems().len(), 1);
    }

    #[test]
    fn the_manifest_holds_what_hosts_look_up() {
        let mut declared = declared();
        declared.backends = vec!["s3".to_owned()];
        declared.about = declared.about.requires_secret("FILES_TOKEN", "who you are");
        let manifest = declared.manifest();
        assert_eq!(manifest["capabilities"]["iacProvider"]["name"], "files");
        assert_eq!(manifest["iacProvider"]["computePlanVersion"], "v2");
        assert_eq!(manifest["capabilities"]["iacStateBackends"], json!(["s3"]));
        assert_eq!(manifest["required_secrets"][0]["name"], "FILES_TOKEN");
        assert_eq!(manifest["minEngineVersion"], "0.1.0");
        let schema =
            |manifest: Value| manifest["capabilities"]["iacProvider"]["configSchema"].clone();
        assert!(
            schema(manifest).is_null(),
            "nothing said, nothing restricted"
        );
        declared.about = declared.about.requires_key("root").takes_key("region");
        assert_eq!(
            schema(declared.manifest()),
            json!({
                "type": "object", "properties": {"region": {}, "root": {}},
                "required": ["root"], "additionalProperties": false,
            })
        );
    }
}
