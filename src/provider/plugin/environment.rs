//! What a plugin is allowed to see of our environment: a short list that programs need to run, and
//! what somebody declared for this plugin. Everything else, tokens of the runner above all, stays
//! with us.

use std::collections::BTreeMap;
use std::path::Path;

use tidegate_plugin::convention;

use super::handshake::PROTOCOL_VERSION;
use crate::package::descriptor::Descriptor;
use crate::process::Variable;
use crate::report::{Exit, Report};
use crate::resource::Value;
use crate::secret::Masker;
use crate::variables::{Variables, forbidden_variable, is_variable_name};

/// Passed on when set.
const ALLOWED: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "TZ",
    "LANG",
    "LANGUAGE",
    // Proxies, in both spellings that libraries read.
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    // Certificate authorities.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
];

/// Never passed on, whoever declares it: the runner's own, ours, and the launch protocol's.
const NEVER_PREFIXES: &[&str] = &["ACTIONS_", "TIDEGATE_", "PLUGIN_", "RUNNER_", "INPUT_"];
/// Files through which a step speaks to its runner: a line in one of them decides what later steps run.
const COMMAND_FILES: &[&str] = &[
    "GITHUB_ENV",
    "GITHUB_PATH",
    "GITHUB_OUTPUT",
    "GITHUB_STATE",
    "GITHUB_STEP_SUMMARY",
];
/// Passed on only when the config itself declares it.
const ONLY_BY_CONFIG: &[&str] = &["GITHUB_TOKEN", "GH_TOKEN", "RELEASES_TOKEN"];

/// Key of a provider module's config that declares variables for its plugin.
pub const CONFIG_KEY: &str = "env";

/// The two ways in which a plugin may know us. It takes the one it knows.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Mutual TLS: our certificate, in PEM.
    pub certificate: String,
    /// The kernel's word: our process number.
    pub host: u32,
}

/// The whole environment of a plugin. `declared` is the value of `env:` in its module,
/// `offer` is how the plugin may make sure of us, and we of it.
pub fn environment(
    variables: &Variables,
    manifest: &Descriptor,
    declared: Option<&Value>,
    socket_directory: &Path,
    offer: Option<Offer>,
    masker: &Masker,
) -> Result<BTreeMap<String, Variable>, Report> {
    let mut all = BTreeMap::new();
    let allowed = variables
        .names()
        .filter(|name| ALLOWED.contains(name) || name.starts_with("LC_"));
    for name in allowed {
        let value = variables.get(name).unwrap_or_default();
        // A proxy's address may hold a password.
        let value = if name.to_ascii_lowercase().ends_with("_proxy") && value.contains('@') {
            Variable::Secret(masker.admit(name, value.to_owned()))
        } else {
            Variable::Public(value.to_owned())
        };
        all.insert(name.to_owned(), value);
    }
    let secret = |name: &str, value: &str| Variable::Secret(masker.admit(name, value.to_owned()));
    for (names, is_secret) in [(&manifest.secrets, true), (&manifest.settings, false)] {
        for name in names {
            // A manifest asks; what it may not have is simply not there.
            if !is_variable_name(name) || is_never_given(name) {
                continue;
            }
            if let Some(value) = variables.get(name) {
                let value = if is_secret || sounds_secret(name) {
                    secret(name, value)
                } else {
                    Variable::Public(value.to_owned())
                };
                all.insert(name.clone(), value);
            }
        }
    }
    match declared {
        None => {}
        Some(Value::List(names)) => {
            for name in names {
                let name = name
                    .as_str()
                    .ok_or_else(|| wrong("its items must be names"))?;
                permitted(name)?;
                if let Some(value) = variables.get(name) {
                    let value = if sounds_secret(name) {
                        secret(name, value)
                    } else {
                        Variable::Public(value.to_owned())
                    };
                    all.insert(name.to_owned(), value);
                }
            }
        }
        Some(Value::Map(values)) => {
            for (name, value) in values {
                permitted(name)?;
                all.insert(name.clone(), literal(name, value)?);
            }
        }
        Some(_) => return Err(wrong("it must be a list of names, or names with values")),
    }
    // Last, so that nobody above can change them.
    for (name, value) in [
        ("WORKFLOW_PLUGIN", "workflow-external-plugin-v1".to_owned()),
        ("PLUGIN_PROTOCOL_VERSIONS", PROTOCOL_VERSION.to_string()),
        ("PLUGIN_MIN_PORT", "10000".to_owned()),
        ("PLUGIN_MAX_PORT", "25000".to_owned()),
        (
            "PLUGIN_UNIX_SOCKET_DIR",
            socket_directory.display().to_string(),
        ),
    ] {
        all.insert(name.to_owned(), Variable::Public(value));
    }
    if let Some(Offer { certificate, host }) = offer {
        for (name, value) in [
            ("PLUGIN_CLIENT_CERT", certificate),
            (convention::HOST, host.to_string()),
        ] {
            all.insert(name.to_owned(), Variable::Public(value));
        }
    }
    Ok(all)
}

/// What a plugin's manifest asks for and nobody set, as a sentence for when it fails: it may do without,
/// because a setting of its module can stand in for a variable.
pub(super) fn unmet(
    manifest: &Descriptor,
    declared: Option<&Value>,
    variables: &Variables,
) -> Option<String> {
    let is_given = |name: &String| {
        variables.get(name).is_some()
            || matches!(declared, Some(Value::Map(values)) if values.contains_key(name))
    };
    let unset: Vec<String> = manifest
        .secrets
        .iter()
        .chain(&manifest.settings)
        .filter(|name| !is_given(name))
        .map(|name| format!("`{name}`"))
        .collect();
    (!unset.is_empty()).then(|| {
        format!(
            "its plugin.json asks for the {} {}, which nobody set",
            if unset.len() == 1 {
                "variable"
            } else {
                "variables"
            },
            unset.join(", ")
        )
    })
}

fn literal(name: &str, value: &Value) -> Result<Variable, Report> {
    match value {
        Value::String(text) => Ok(Variable::Public(text.clone())),
        Value::Secret(secret) => Ok(Variable::Secret(secret.clone())),
        Value::Number(number) => Ok(Variable::Public(number.to_string())),
        Value::Bool(flag) => Ok(Variable::Public(flag.to_string())),
        _ => Err(wrong(&format!("`{name}` must be text"))),
    }
}

/// Names that runners, we or the launch protocol own, or that make a loader run other code.
fn refused(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    NEVER_PREFIXES
        .iter()
        .any(|prefix| upper.starts_with(prefix))
        || upper == "WORKFLOW_PLUGIN"
        || COMMAND_FILES.contains(&upper.as_str())
        || (forbidden_variable(name).is_some() && !upper.starts_with("GITHUB_"))
}

/// True for what reaches a plugin only when somebody wrote it into the config by hand, or never.
pub(super) fn is_never_given(name: &str) -> bool {
    refused(name) || ONLY_BY_CONFIG.contains(&name.to_ascii_uppercase().as_str())
}

fn permitted(name: &str) -> Result<(), Report> {
    if !is_variable_name(name) {
        return Err(wrong("its names must be names of variables"));
    }
    if refused(name) {
        return Err(wrong(&format!("`{name}` is never given to a plugin")));
    }
    Ok(())
}

fn wrong(why: &str) -> Report {
    Report::error(
        "plugin/environment",
        format!("`env` of a provider module is wrong: {why}"),
    )
    .fix("write `env: [CLOUD_TOKEN]`; see docs/providers.md")
    .exit(Exit::Usage)
}

fn sounds_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY", "CREDENTIAL"]
        .iter()
        .any(|word| upper.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Map;
    use serde_json::json;

    fn manifest() -> Descriptor {
        let text = json!({
            "name": "cloud", "version": "1.0.0", "author": "a", "description": "d",
            "required_secrets": [
                {"name": "CLOUD_TOKEN"}, {"name": "GITHUB_TOKEN"},
                {"name": "ACTIONS_RUNTIME_TOKEN"}, {"name": "LD_PRELOAD"},
            ],
            "required_config": [
                {"name": "CLOUD_REGION"}, {"name": "CLOUD_API_KEY"}, {"name": "GITHUB_ENV"},
                {"name": "RELEASES_TOKEN"},
            ],
        });
        Descriptor::parse(text.to_string().as_bytes()).unwrap()
    }

    fn variables() -> Variables {
        [
            "PATH",
            "HOME",
            "LC_ALL",
            "HTTPS_PROXY",
            "SSL_CERT_FILE",
            "CLOUD_TOKEN",
            "CLOUD_REGION",
            "CLOUD_API_KEY",
            "OTHER_CLOUD_TOKEN",
            "GITHUB_ENV",
            "GITHUB_PATH",
            "GITHUB_TOKEN",
            "RELEASES_TOKEN",
            "ACTIONS_RUNTIME_TOKEN",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            "TIDEGATE_STATE_KEY",
            "LD_PRELOAD",
            "PLUGIN_CLIENT_CERT",
            "PLUGIN_MULTIPLEX_GRPC",
            "PLUGIN_UNIX_SOCKET_GROUP",
            "PLUGIN_UNIX_SOCKET_DIR",
            "WORKFLOW_PLUGIN",
        ]
        .into_iter()
        .map(|name| (name.to_owned(), format!("value-of-{name}")))
        .collect()
    }

    #[test]
    fn what_is_asked_for_and_not_set_is_known() {
        let manifest = manifest();
        assert_eq!(unmet(&manifest, None, &variables()), None);
        let none = Variables::default();
        let said = unmet(&manifest, None, &none).unwrap();
        assert!(
            said.contains("`CLOUD_TOKEN`") && said.contains("`CLOUD_REGION`"),
            "{said}"
        );
        let declared = Value::Map(Map::from([(
            "CLOUD_TOKEN".to_owned(),
            Value::String("x".to_owned()),
        )]));
        let said = unmet(&manifest, Some(&declared), &none).unwrap();
        assert!(!said.contains("`CLOUD_TOKEN`"), "{said}");
    }

    fn given(declared: Option<Value>) -> Result<BTreeMap<String, Variable>, Report> {
        environment(
            &variables(),
            &manifest(),
            declared.as_ref(),
            Path::new("/sockets"),
            Some(Offer {
                certificate: "our certificate".to_owned(),
                host: 42,
            }),
            &Masker::default(),
        )
    }

    fn text(variable: &Variable) -> String {
        match variable {
            Variable::Public(text) => text.clone(),
            Variable::Secret(_) => "(secret)".to_owned(),
        }
    }

    #[test]
    fn h1_h2_h4_the_launch_variables_are_ours_and_the_rest_is_an_allow_list() {
        let all = given(None).unwrap();
        let seen: Vec<(&str, String)> = all
            .iter()
            .map(|(name, value)| (name.as_str(), text(value)))
            .collect();
        let same = |name: &'static str| (name, format!("value-of-{name}"));
        assert_eq!(
            seen,
            [
                ("CLOUD_API_KEY", "(secret)".to_owned()),
                same("CLOUD_REGION"),
                ("CLOUD_TOKEN", "(secret)".to_owned()),
                same("HOME"),
                same("HTTPS_PROXY"),
                same("LC_ALL"),
                same("PATH"),
                ("PLUGIN_CLIENT_CERT", "our certificate".to_owned()),
                ("PLUGIN_MAX_PORT", "25000".to_owned()),
                ("PLUGIN_MIN_PORT", "10000".to_owned()),
                ("PLUGIN_PROTOCOL_VERSIONS", "1".to_owned()),
                ("PLUGIN_UNIX_SOCKET_DIR", "/sockets".to_owned()),
                same("SSL_CERT_FILE"),
                ("TIDEGATE_PLUGIN_HOST", "42".to_owned()),
                ("WORKFLOW_PLUGIN", "workflow-external-plugin-v1".to_owned()),
            ]
        );
    }

    #[test]
    fn the_config_may_give_more_but_never_what_is_the_runners() {
        let list = |name: &str| Value::List(vec![Value::String(name.to_owned())]);
        let given_list = given(Some(list("GITHUB_TOKEN"))).unwrap();
        assert_eq!(text(&given_list["GITHUB_TOKEN"]), "(secret)");
        for name in [
            "ACTIONS_RUNTIME_TOKEN",
            "GITHUB_ENV",
            "GITHUB_PATH",
            "PLUGIN_CLIENT_CERT",
            "TIDEGATE_STATE_KEY",
            "LD_PRELOAD",
            "PATH",
            "WORKFLOW_PLUGIN",
            "a b",
        ] {
            let problem = given(Some(list(name))).unwrap_err();
            assert_eq!(problem.code, "plugin/environment", "{name}");
        }
        let map = Value::Map(Map::from([("CLOUD_DEBUG".to_owned(), Value::Bool(true))]));
        assert_eq!(text(&given(Some(map)).unwrap()["CLOUD_DEBUG"]), "true");
        assert!(given(Some(Value::Null)).is_err());
    }
}
