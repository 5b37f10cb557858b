//! The process environment as one snapshot, taken once by [`crate::settings`], and the rules for
//! the names in one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Environment variables at start. Values may be secrets: `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<String, String>, BTreeSet<String>);

impl Variables {
    /// The value of `name`; an empty value counts as set, as it does for a shell.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of `name` unless it is unset or empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// The same, knowing of variables whose values are no text and that no config can use.
    #[must_use]
    pub fn with_unreadable(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.1.extend(names);
        self
    }

    /// True for a variable that is set to bytes that are no UTF-8.
    pub fn is_unreadable(&self, name: &str) -> bool {
        self.1.contains(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect(), BTreeSet::new())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// `[A-Za-z_][A-Za-z0-9_]*`: the names every shell can hold.
pub fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Each makes some interpreter, loader or shell of a later step run what it names.
pub(crate) const CODE: &[&str] = &[
    "BASH_ENV",
    "BASHOPTS",
    "CDPATH",
    "CLASSPATH",
    "COMSPEC",
    "EDITOR",
    "ENV",
    "GCONV_PATH",
    "HOME",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "LESSOPEN",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PAGER",
    "PATH",
    "PATHEXT",
    "PROMPT_COMMAND",
    "PS4",
    "PSMODULEPATH",
    "RUBYLIB",
    "RUBYOPT",
    "SHELL",
    "SHELLOPTS",
    "TMPDIR",
    "VISUAL",
    "ZDOTDIR",
    "_JAVA_OPTIONS",
    "ALL_PROXY",
];
/// The same for every name that begins so.
pub(crate) const CODE_PREFIXES: &[&str] = &[
    "BASH_FUNC_",
    "CARGO_",
    "DYLD_",
    "GIT_",
    "LD_",
    "NPM_CONFIG_",
    "PERL5",
    "PIP_",
    "PYTHON",
    "RUSTC",
    "RUSTUP_",
];
/// What belongs to the runner.
pub(crate) const RUNNER_PREFIXES: &[&str] = &["ACTIONS_", "GITHUB_", "RUNNER_", "INPUT_", "STATE_"];

/// Why a variable of this name must not be set for later steps; `None` when it may.
pub fn forbidden_variable(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| upper.starts_with(prefix));
    if CODE.contains(&upper.as_str()) || begins(CODE_PREFIXES) {
        return Some("it decides what code later steps run");
    }
    if upper == "CI" || begins(RUNNER_PREFIXES) {
        return Some("it belongs to the runner");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_shell_can_hold() {
        for (name, expected) in [
            ("A", true),
            ("_a1", true),
            ("", false),
            ("1A", false),
            ("A-B", false),
        ] {
            assert_eq!(is_variable_name(name), expected, "{name}");
        }
    }

    #[test]
    fn variables_that_run_code_are_refused() {
        for name in [
            "PATH",
            "path",
            "LD_PRELOAD",
            "Node_Options",
            "BASH_FUNC_x",
            "GITHUB_SHA",
            "CI",
        ] {
            assert!(forbidden_variable(name).is_some(), "{name}");
        }
        for name in ["DATABASE_URL", "APP_PATH", "TOKEN"] {
            assert!(forbidden_variable(name).is_none(), "{name}");
        }
    }
}
