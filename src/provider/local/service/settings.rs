//! What a service's config asks for, checked and read in one place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::config::{Keys, Shape};
use crate::provider::local::check::{self, Problems, noun, text, unknown_keys};
use crate::random::encode_hex;
use crate::resource::{Map, PublicMap, Value};
use crate::secret::Secret;
use crate::variables::Variables;

const KEYS: &[&str] = &[
    "command",
    "env_vars",
    "env_vars_secret",
    "health_check",
    "health_path",
    "http_port",
    "run_command",
    "working_directory",
];
const HEALTH_KEYS: &[&str] = &["http_path", "path"];
/// The canonical keys beside the path are for clouds; the gate has its own patience.
const HEALTH_CANONICAL: &[&str] = &[
    "failure_threshold",
    "initial_delay_seconds",
    "period_seconds",
    "port",
    "success_threshold",
    "tcp_port",
    "timeout_seconds",
];
/// What containers are made from, and processes are not.
const EXPLAINED: [&str; 4] = ["image", "build_command", "dockerfile_path", "source_dir"];

fn explanation(key: &str) -> String {
    format!(
        "the `local` provider runs a command, not an image, and builds nothing; use \
         `command: [program, argument, …]` instead of `{key}`"
    )
}

/// The settings of a service, for whoever reads a config before anything is opened.
pub(in crate::provider::local) fn keys() -> Keys {
    let mut all = check::keys(KEYS);
    for key in EXPLAINED {
        all.refused.push((key.to_owned(), explanation(key)));
    }
    let mut health = check::keys(HEALTH_KEYS);
    let canonical = HEALTH_CANONICAL.iter().map(|key| (*key).to_owned());
    health.allowed.extend(canonical);
    check::shapes(&mut health, HEALTH_KEYS, &Shape::Text);
    all.within.push(("health_check".to_owned(), health));
    check::shapes(&mut all, &["command", "run_command"], &Shape::List);
    let maps = ["env_vars", "env_vars_secret", "health_check"];
    check::shapes(&mut all, &maps, &Shape::Map);
    check::shapes(&mut all, &["http_port"], &Shape::Port);
    check::shapes(
        &mut all,
        &["health_path", "working_directory"],
        &Shape::Text,
    );
    all
}

/// What is wrong with a service's settings as they are written.
pub(in crate::provider::local) fn faults(config: &Map) -> Problems {
    let mut problems = Problems::new();
    read(config, Path::new(""), &mut problems);
    problems
}

/// Set by us; a config may not.
const RESERVED: &[&str] = &["PORT", "TIDEGATE_REVISION"];

/// What every process below us gets from our own environment, and nothing else: no token, no
/// `GITHUB_*`, no `ACTIONS_*`, no `RUNNER_*`.
const INHERITED: &[&str] = &[
    "ALL_PROXY",
    "CARGO_HOME",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "SHELL",
    "TEMP",
    "TMP",
    "TMPDIR",
    "TZ",
    "USER",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The part of our own environment that is passed on.
pub(super) fn inherited(variables: &Variables) -> BTreeMap<String, String> {
    INHERITED
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), variables.get(name)?.to_owned())))
        // A proxy with a password in it is a secret, and not one the masker knows.
        .filter(|(name, value)| !(name.to_lowercase().ends_with("_proxy") && value.contains('@')))
        .collect()
}

/// A config that was read.
pub(super) struct Settings {
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) secret_environment: BTreeMap<String, Secret>,
    pub(super) directory: PathBuf,
    /// `None` to pick a free one.
    pub(super) port: Option<u16>,
}

/// Reads a config. Values that are not known yet are skipped, so the settings are complete only
/// when everything in `config` is known, as it is during apply.
pub(super) fn read(config: &Map, base: &Path, problems: &mut Problems) -> Settings {
    const WHAT: &str = "`infra.container_service`";
    for key in EXPLAINED
        .into_iter()
        .filter(|key| config.contains_key(*key))
    {
        problems.push((key.to_owned(), explanation(key)));
    }
    let rest: Map = config
        .iter()
        .filter(|(key, _)| !EXPLAINED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    unknown_keys(&rest, WHAT, KEYS, problems);
    let command = command(config, problems);
    let mut environment = BTreeMap::new();
    let mut secret_environment = BTreeMap::new();
    for key in ["env_vars", "env_vars_secret"] {
        read_environment(
            config,
            key,
            &mut environment,
            &mut secret_environment,
            problems,
        );
    }
    let directory = text(config, "working_directory", problems)
        .map_or_else(|| base.to_path_buf(), |directory| base.join(directory));
    health_path(config, problems);
    Settings {
        command,
        environment,
        secret_environment,
        directory: directory.components().collect(),
        port: port(config, problems),
    }
}

fn command(config: &Map, problems: &mut Problems) -> Vec<String> {
    let (key, value) = match (config.get("command"), config.get("run_command")) {
        (Some(value), None) => ("command", value),
        (None, Some(value)) => ("run_command", value),
        (Some(_), Some(_)) => {
            problems.push((
                "run_command".to_owned(),
                "it says the same as `command`; keep one of them".to_owned(),
            ));
            return Vec::new();
        }
        (None, None) => {
            problems.push((
                "command".to_owned(),
                "it is missing; say what to run, such as `command: [./server, --verbose]`"
                    .to_owned(),
            ));
            return Vec::new();
        }
    };
    let items = match value {
        Value::List(items) => items,
        Value::Template(_) | Value::Unknown(_) => return Vec::new(),
        Value::String(_) => {
            problems.push((
                key.to_owned(),
                "it must be a list: no shell takes the line apart; write \
                 `command: [program, argument, …]`, or `[sh, -c, \"…\"]` if you want a shell"
                    .to_owned(),
            ));
            return Vec::new();
        }
        other => {
            problems.push((
                key.to_owned(),
                format!("it must be a list, not {}", noun(other)),
            ));
            return Vec::new();
        }
    };
    let mut command = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let path = format!("{key}[{at}]");
        match item {
            Value::String(text) if text.contains('\0') => {
                problems.push((path, "it holds a zero byte".to_owned()));
            }
            Value::String(text) => command.push(text.clone()),
            Value::Number(number) => command.push(number.to_string()),
            Value::Bool(flag) => command.push(flag.to_string()),
            Value::Template(template) if !template.secret => {}
            Value::Unknown(_) => {}
            Value::Secret(_) | Value::Template(_) => problems.push((
                path,
                "every user of the machine can read a command line; hand the secret over in \
                 `env_vars_secret`"
                    .to_owned(),
            )),
            other => problems.push((path, format!("it must be text, not {}", noun(other)))),
        }
    }
    if items.is_empty() || command.first().is_some_and(String::is_empty) {
        problems.push((key.to_owned(), "it names no program".to_owned()));
    }
    command
}

fn read_environment(
    config: &Map,
    key: &str,
    environment: &mut BTreeMap<String, String>,
    secret_environment: &mut BTreeMap<String, Secret>,
    problems: &mut Problems,
) {
    let map = match config.get(key) {
        None | Some(Value::Null | Value::Template(_) | Value::Unknown(_)) => return,
        Some(Value::Map(map)) => map,
        Some(other) => {
            problems.push((
                key.to_owned(),
                format!("it must be a map, not {}", noun(other)),
            ));
            return;
        }
    };
    for (name, value) in map {
        let path = format!("{key}.{name}");
        if name.is_empty() || name.contains(['=', '\0']) {
            problems.push((
                path,
                "a variable's name has no `=` and no zero byte".to_owned(),
            ));
            continue;
        }
        if RESERVED.contains(&name.as_str()) {
            problems.push((
                path,
                format!("`{name}` is set by the provider (`http_port` sets the port)"),
            ));
            continue;
        }
        if key == "env_vars_secret" && config_has(config, "env_vars", name) {
            problems.push((path, "it is in `env_vars` too; keep one of them".to_owned()));
            continue;
        }
        let plain = match value {
            Value::Secret(secret) => {
                if secret.expose().contains('\0') {
                    problems.push((path, "it holds a zero byte".to_owned()));
                } else {
                    secret_environment.insert(name.clone(), secret.clone());
                }
                continue;
            }
            Value::Template(_) | Value::Unknown(_) => continue,
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            other @ (Value::Null | Value::List(_) | Value::Map(_)) => {
                problems.push((path, format!("it must be text, not {}", noun(other))));
                continue;
            }
        };
        if plain.contains('\0') {
            problems.push((path, "it holds a zero byte".to_owned()));
            continue;
        }
        environment.insert(name.clone(), plain);
    }
}

fn config_has(config: &Map, key: &str, name: &str) -> bool {
    matches!(config.get(key), Some(Value::Map(map)) if map.contains_key(name))
}

fn port(config: &Map, problems: &mut Problems) -> Option<u16> {
    let number = match config.get("http_port")? {
        Value::Null | Value::Template(_) | Value::Unknown(_) => return None,
        Value::Number(number) => number.as_u64(),
        // A variable fills in text.
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    match number.map(u16::try_from) {
        Some(Ok(port)) => (port > 0).then_some(port),
        _ => {
            problems.push((
                "http_port".to_owned(),
                "it must be a number from 1 to 65535, or 0 for any free port".to_owned(),
            ));
            None
        }
    }
}

/// The path that answers when the service is well, if the config names one.
fn health_path(config: &Map, problems: &mut Problems) -> Option<String> {
    let mut path = text(config, "health_path", problems).map(str::to_owned);
    match config.get("health_check") {
        None | Some(Value::Null | Value::Template(_) | Value::Unknown(_)) => {}
        Some(Value::Map(map)) => {
            let mut found = Problems::new();
            let rest: Map = map
                .iter()
                .filter(|(key, _)| !HEALTH_CANONICAL.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            unknown_keys(&rest, "`health_check`", HEALTH_KEYS, &mut found);
            for key in HEALTH_KEYS {
                if let Some(text) = text(map, key, &mut found) {
                    path.get_or_insert_with(|| text.to_owned());
                }
            }
            problems.extend(
                found
                    .into_iter()
                    .map(|(key, sentence)| (format!("health_check.{key}"), sentence)),
            );
        }
        Some(other) => problems.push((
            "health_check".to_owned(),
            format!("it must be a map, not {}", noun(other)),
        )),
    }
    if let Some(path) = &path
        && (!path.starts_with('/')
            || path.contains(|letter: char| letter.is_control() || letter == ' '))
    {
        problems.push((
            "health_path".to_owned(),
            "it must start with `/` and hold no blanks".to_owned(),
        ));
    }
    path
}

/// The health path of a recorded config.
pub(super) fn recorded_health_path(config: &PublicMap) -> Option<&str> {
    config
        .get("health_path")
        .and_then(|path| path.as_str())
        .or_else(|| {
            let check = config.get("health_check")?;
            HEALTH_KEYS.iter().find_map(|key| check.get(key)?.as_str())
        })
}

/// A short name for one exact config, secrets included by their keyed fingerprints. `None` while
/// something in it is not known yet.
pub(super) fn revision(config: &PublicMap) -> Option<String> {
    fn feed(value: &serde_json::Value, hash: &mut Sha256) -> bool {
        match value {
            serde_json::Value::Object(map) => {
                if map.contains_key("$unknown") {
                    return false;
                }
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                hash.update(format!("{{{}", entries.len()));
                entries.into_iter().all(|(key, value)| {
                    hash.update(format!("{}:{key}", key.len()));
                    feed(value, hash)
                })
            }
            serde_json::Value::Array(items) => {
                hash.update(format!("[{}", items.len()));
                items.iter().all(|item| feed(item, hash))
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => {
                let text = value.to_string();
                hash.update(format!("{}:{text}", text.len()));
                true
            }
        }
    }
    let mut hash = Sha256::new();
    hash.update("tidegate/revision/1");
    feed(&serde_json::Value::Object(config.clone()), &mut hash)
        .then(|| encode_hex(&hash.finalize()[..6]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: serde_json::Value) -> Vec<String> {
        let Value::Map(map) = Value::from(config) else {
            panic!("a map")
        };
        let mut problems = Problems::new();
        read(&map, Path::new("/base"), &mut problems);
        problems.into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn mistakes_are_found_all_at_once() {
        for (config, expected) in [
            (serde_json::json!({"command": ["./x"]}), &[][..]),
            (serde_json::json!({}), &["command"]),
            (serde_json::json!({"command": "./x --y"}), &["command"]),
            (serde_json::json!({"run_command": "./x"}), &["run_command"]),
            (serde_json::json!({"command": []}), &["command"]),
            (serde_json::json!({"command": [""]}), &["command"]),
            (
                serde_json::json!({"command": ["x", ["y"]]}),
                &["command[1]"],
            ),
            (serde_json::json!({"command": ["x", 1, true]}), &[]),
            (serde_json::json!({"image": "a/b:1"}), &["image", "command"]),
            (
                serde_json::json!({"comand": ["x"], "http_port": 70000, "env_vars": {"PORT": "1", "A=": "x", "L": []}}),
                &[
                    "comand",
                    "command",
                    "env_vars.A=",
                    "env_vars.L",
                    "env_vars.PORT",
                    "http_port",
                ],
            ),
            (
                serde_json::json!({"command": ["x"], "env_vars": {"A": "1"}, "env_vars_secret": {"A": "2"}}),
                &["env_vars_secret.A"],
            ),
            (
                serde_json::json!({"command": ["x"], "http_port": "8080"}),
                &[],
            ),
            (
                serde_json::json!({"command": ["x"], "http_port": -1}),
                &["http_port"],
            ),
            (
                serde_json::json!({"command": ["x"], "health_check": {"htp_path": "/h"}}),
                &["health_check.htp_path"],
            ),
            (
                serde_json::json!({"command": ["x"], "health_path": "h"}),
                &["health_path"],
            ),
            (
                serde_json::json!({"command": ["x"], "working_directory": 3}),
                &["working_directory"],
            ),
        ] {
            assert_eq!(problems(config.clone()), expected, "{config}");
        }
    }

    #[test]
    fn a_revision_follows_the_config_and_nothing_else() {
        let revision = |config: serde_json::Value| revision(config.as_object().unwrap());
        let one = revision(serde_json::json!({"command": ["x"], "env_vars": {"A": "1", "B": "2"}}));
        assert_eq!(one.as_ref().unwrap().len(), 12);
        for other in [
            serde_json::json!({"command": ["x"], "env_vars": {"A": "12", "B": ""}}),
            serde_json::json!({"command": ["x"], "env_vars": {"A": "1"}}),
            serde_json::json!({"command": "x", "env_vars": {"A": "1", "B": "2"}}),
            serde_json::json!({"command": ["x"], "env_vars": {"A": {"$secret": "ff"}, "B": "2"}}),
        ] {
            assert_ne!(revision(other), one);
        }
        assert_eq!(
            revision(serde_json::json!({"a": [{"$unknown": "${db.url}"}]})),
            None
        );
    }

    #[test]
    fn only_listed_variables_are_passed_on() {
        let variables: Variables = [
            ("PATH", "/bin"),
            ("GITHUB_TOKEN", "t"),
            ("ACTIONS_RUNTIME_TOKEN", "t"),
            ("RUNNER_TRACKING_ID", "r"),
            ("HTTPS_PROXY", "http://user:pass@proxy"),
            ("NO_PROXY", "localhost"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .collect();
        let names: Vec<String> = inherited(&variables).into_keys().collect();
        assert_eq!(names, ["NO_PROXY", "PATH"]);
    }
}
