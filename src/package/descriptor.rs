//! `plugin.json`, as far as an installation decides on it. What a plugin can do is the host's
//! question, not ours.

use serde_json::Value;

use super::name;

/// The engine line whose plugin contract this version keeps; compared with `minEngineVersion`
/// unless `--engine-version` or `WFCTL_ENGINE_VERSION` says otherwise.
pub const ENGINE_VERSION: &str = "0.85.4";

/// Largest `plugin.json`.
const DESCRIPTOR_BYTES_MAX: usize = 4 << 20;

/// Longest text of a plugin repeated in a message.
const SHOWN_MAX: usize = 80;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its name, long or short.
    pub name: String,
    /// Its version; `0.0.0` means that it is set when the plugin is built.
    pub version: String,
    /// One line about it.
    pub description: String,
    /// The oldest engine it works with.
    pub min_engine_version: Option<String>,
}

/// Why a `plugin.json` is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptorError {
    /// It does not say what it must, or says something else than the lock.
    Wrong(String),
    /// It needs a newer engine.
    NeedsEngine(String),
}

impl Descriptor {
    /// Reads and checks one by itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > DESCRIPTOR_BYTES_MAX {
            return Err(format!(
                "it is larger than {} MiB",
                DESCRIPTOR_BYTES_MAX >> 20
            ));
        }
        let document: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
        let Value::Object(fields) = &document else {
            return Err("it is not a JSON object".to_owned());
        };
        // Authors' keys are matched as the plugins' own language does: without regard to case.
        let text = |key: &str| match field(fields, key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(format!("`{key}` is not text")),
        };
        let required = |key: &str| match text(key)? {
            empty if empty.is_empty() => Err(format!("`{key}` is missing")),
            text => Ok(text),
        };
        let name = required("name")?;
        if !name::is_name(&name) {
            return Err(format!(
                "`name` is {}, which is no plugin name",
                shown(&name)
            ));
        }
        let version = required("version")?;
        let core = version.strip_prefix('v').unwrap_or(&version);
        if core.contains(['-', '+']) || name::version_numbers(core).is_none() {
            return Err(format!(
                "`version` is {}, which is not three numbers",
                shown(&version)
            ));
        }
        required("author")?;
        let description = required("description")?;
        let tier = text("tier")?;
        if !["", "core", "community", "premium"].contains(&tier.as_str()) {
            return Err(format!("`tier` is {}, which is no tier", shown(&tier)));
        }
        match field(fields, "capabilities") {
            None | Some(Value::Null | Value::Object(_) | Value::Array(_)) => {}
            Some(_) => return Err("`capabilities` is neither an object nor a list".to_owned()),
        }
        if let Some(dependencies) = field(fields, "dependencies").and_then(Value::as_array) {
            for dependency in dependencies {
                let has = |key: &str| {
                    dependency
                        .as_object()
                        .and_then(|fields| field(fields, key))
                        .and_then(Value::as_str)
                        .is_some_and(|text| !text.is_empty())
                };
                if !has("name")
                    || !["constraint", "minVersion", "maxVersion"]
                        .map(has)
                        .contains(&true)
                {
                    return Err(
                        "an entry of `dependencies` has no name or no constraint".to_owned()
                    );
                }
            }
        }
        let min_engine_version = text("minEngineVersion")?;
        Ok(Self {
            name,
            version,
            description,
            min_engine_version: (!min_engine_version.is_empty()).then_some(min_engine_version),
        })
    }

    /// Checks it against what the lock says it is, and against the engine.
    pub fn check(&self, name: &str, version: &str, engine: &str) -> Result<(), DescriptorError> {
        if name::folder(&self.name) != name::folder(name) {
            return Err(DescriptorError::Wrong(format!(
                "it describes the plugin {}, not `{name}`",
                shown(&self.name)
            )));
        }
        let is_set_later = name::version_numbers(&self.version) == Some([0, 0, 0]);
        if !is_set_later && name::version_numbers(&self.version) != name::version_numbers(version) {
            return Err(DescriptorError::Wrong(format!(
                "it describes version {}, not `{version}`",
                shown(&self.version)
            )));
        }
        // A malformed demand is no demand, as for every other host.
        if let Some(needed) = &self.min_engine_version
            && let Some(least) = name::version_numbers(needed)
            && name::version_numbers(engine).is_some_and(|have| have < least)
        {
            return Err(DescriptorError::NeedsEngine(shown(needed)));
        }
        Ok(())
    }
}

fn field<'a>(fields: &'a serde_json::Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.get(key).or_else(|| {
        fields
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value)
    })
}

/// A plugin's own text, cut and quoted.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: &str) -> Result<Descriptor, String> {
        let text = r#"{"name":"demo","version":"1.2.3","author":"a","description":"d","x":1}"#;
        Descriptor::parse(text.replace("\"x\":1", change).as_bytes())
    }

    #[test]
    fn what_is_accepted_and_what_is_not() {
        assert!(with("\"x\":1").is_ok());
        assert!(with(r#""minEngineVersion":"0.60.0""#).is_ok());
        assert!(with(r#""capabilities":[]"#).is_ok());
        for change in [
            r#""tier":"gold""#,
            r#""capabilities":"x""#,
            r#""tier":1"#,
            r#""dependencies":[{"name":"x"}]"#,
        ] {
            assert!(with(change).is_err(), "{change}");
        }
        for text in [
            "",
            "[]",
            r#"{"version":"1.2.3","author":"a","description":"d"}"#,
            r#"{"name":"Demo","version":"1.2.3","author":"a","description":"d"}"#,
            r#"{"name":"demo","version":"1.2.3-rc.1","author":"a","description":"d"}"#,
            r#"{"name":"demo","version":"1.2","author":"a","description":"d"}"#,
            r#"{"name":"demo","version":"1.2.3","author":"","description":"d"}"#,
        ] {
            assert!(Descriptor::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn it_must_be_the_plugin_that_was_asked_for() {
        let plugin = with(r#""minEngineVersion":"0.60.0""#).unwrap();
        let check = |name, version, engine| plugin.check(name, version, engine);
        assert_eq!(check("demo", "v1.2.3", "0.60.0"), Ok(()));
        assert_eq!(check("workflow-plugin-demo", "1.2.3", "1.0.0"), Ok(()));
        assert!(check("other", "1.2.3", "1.0.0").is_err());
        assert!(check("demo", "1.2.4", "1.0.0").is_err());
        assert_eq!(
            check("demo", "1.2.3", "0.59.9"),
            Err(DescriptorError::NeedsEngine("\"0.60.0\"".to_owned()))
        );
    }
}
