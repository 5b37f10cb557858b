//! Sinks: the right fields for each kind, names their destination can take, nothing written twice.

use std::path::{Component, Path, PathBuf};

use super::Resolver;
use super::values::KeyPath;
use crate::config::decode::{Text, printable};
use crate::config::resolved::{OnFailure, SinkDeclaration, SinkTarget};
use crate::config::schema::{Policy, Sink, SinkKind};
use crate::config::source::Mark;
use crate::report::Report;
use crate::variables::{forbidden_variable, is_variable_name};

/// Where a dotenv sink writes unless it says so.
const DOTENV_DEFAULT: &str = ".env";

impl Resolver<'_> {
    /// Checks and resolves a list of sinks.
    pub(super) fn sinks(&mut self, sinks: &[Sink], path: &KeyPath<'_>) -> Vec<SinkDeclaration> {
        if !self.needs.secrets {
            return Vec::new();
        }
        let path = path.key("sinks");
        sinks
            .iter()
            .filter_map(|sink| self.sink(sink, &path))
            .collect()
    }

    fn sink(&mut self, sink: &Sink, path: &KeyPath<'_>) -> Option<SinkDeclaration> {
        let kind = sink.kind.as_ref()?.value;
        self.check_fields(sink, kind);
        let name = sink.name.as_ref()?;
        let named = self.plain_text(&name.value, name.at, &path.key("name"));
        if let Some(named) = &named {
            self.check_sink_name(kind, named, name.at);
        }
        let target = match kind {
            SinkKind::GithubSecret => self.github_secret(sink, path),
            SinkKind::GithubEnv => Some(SinkTarget::GithubEnv),
            SinkKind::Dotenv => self.dotenv(sink, path),
        };
        let (named, target) = (named?, target?);
        self.check_destination(&target, &named, name);
        Some(SinkDeclaration {
            name: named,
            target,
            on_failure: match sink.on_failure.as_ref().map(|policy| policy.value) {
                None | Some(Policy::Warn) => OnFailure::Warn,
                Some(Policy::Fail) => OnFailure::Fail,
            },
            at: self.problems.span(sink.at),
        })
    }

    /// Fields of another kind of sink are a misunderstanding, so they are refused.
    fn check_fields(&mut self, sink: &Sink, kind: SinkKind) {
        let github_secret = kind == SinkKind::GithubSecret;
        let dotenv = kind == SinkKind::Dotenv;
        for (key, text, allowed) in [
            ("repo", &sink.repo, github_secret),
            ("environment", &sink.environment, github_secret),
            ("token_env", &sink.token_env, github_secret),
            ("path", &sink.path, dotenv),
        ] {
            if let Some(text) = text
                && !allowed
            {
                let word = match kind {
                    SinkKind::GithubSecret => "github_secret",
                    SinkKind::GithubEnv => "github_env",
                    SinkKind::Dotenv => "dotenv",
                };
                self.problems.error(
                    text.at,
                    Report::error(
                        "config/misplaced-key",
                        format!("a `{word}` sink has no `{key}`"),
                    )
                    .fix(format!("remove `{key}`, or change the sink's `type`")),
                );
            }
        }
    }

    fn check_sink_name(&mut self, kind: SinkKind, name: &str, at: Mark) {
        let upper = name.to_ascii_uppercase();
        let why = if !is_variable_name(name) {
            Some("a name has letters, digits and `_`, and starts with no digit")
        } else {
            match kind {
                SinkKind::Dotenv => None,
                SinkKind::GithubSecret if upper.starts_with("GITHUB_") => {
                    Some("GitHub keeps names that start with `GITHUB_` to itself")
                }
                SinkKind::GithubSecret => None,
                SinkKind::GithubEnv => forbidden_variable(name),
            }
        };
        if let Some(why) = why {
            self.problems.error(
                at,
                Report::error(
                    "config/bad-sink-name",
                    format!("`{}` cannot be a sink's name: {why}", printable(name)),
                )
                .fix("choose another name, such as `DATABASE_URL`"),
            );
        }
    }

    fn github_secret(&mut self, sink: &Sink, path: &KeyPath<'_>) -> Option<SinkTarget> {
        let Some(repo) = &sink.repo else {
            self.problems.error(
                sink.at,
                Report::error("config/missing-key", "a `github_secret` sink needs `repo`")
                    .label("`repo` is missing")
                    .fix("add `repo: owner/name`"),
            );
            return None;
        };
        let named = self.plain_text(&repo.value, repo.at, &path.key("repo"));
        if let Some(named) = &named
            && !is_repository(named)
        {
            self.problems.error(
                repo.at,
                Report::error(
                    "config/bad-value",
                    format!("`{}` is no repository", printable(named)),
                )
                .fix("write `owner/name`, without address or `.git`"),
            );
        }
        let environment = match &sink.environment {
            None => None,
            Some(text) => {
                let named = self.plain_text(&text.value, text.at, &path.key("environment"))?;
                if named.trim().is_empty() || named.chars().any(char::is_control) {
                    self.problems.error(
                        text.at,
                        Report::error(
                            "config/bad-value",
                            "the deployment environment's name is empty or holds a control character",
                        ),
                    );
                }
                Some(named)
            }
        };
        if let Some(text) = &sink.token_env
            && !is_variable_name(&text.value)
        {
            self.problems.error(
                text.at,
                Report::error(
                    "config/bad-value",
                    "`token_env` must be the name of an environment variable",
                )
                .fix("write the variable's name, such as `GH_TOKEN`, never the token itself"),
            );
        }
        Some(SinkTarget::GithubSecret {
            repo: named?,
            environment,
            token_env: sink.token_env.as_ref().map(|text| text.value.clone()),
        })
    }

    fn dotenv(&mut self, sink: &Sink, path: &KeyPath<'_>) -> Option<SinkTarget> {
        let Some(text) = &sink.path else {
            return Some(SinkTarget::Dotenv {
                path: PathBuf::from(DOTENV_DEFAULT),
            });
        };
        let file = self.plain_text(&text.value, text.at, &path.key("path"))?;
        let why = if file.is_empty() || file.ends_with('/') {
            Some("it names no file")
        } else if file.chars().any(char::is_control) {
            Some("it holds a control character")
        } else if escapes(Path::new(&file)) {
            Some("it leads out of the config's folder")
        } else if is_something_else(Path::new(&file)) {
            Some("that is the place of a config, of a state, or of resources")
        } else {
            None
        };
        if let Some(why) = why {
            self.problems.error(
                text.at,
                Report::error(
                    "config/bad-path",
                    format!("`{}` cannot be a dotenv file: {why}", printable(&file)),
                )
                .fix("write a path below the config's folder, or an absolute one"),
            );
            return None;
        }
        Some(SinkTarget::Dotenv {
            path: PathBuf::from(file),
        })
    }

    /// Two values under one name in one place would overwrite each other.
    fn check_destination(&mut self, target: &SinkTarget, name: &str, at: &Text) {
        let key = match target {
            SinkTarget::GithubSecret {
                repo, environment, ..
            } => format!(
                "github_secret\n{}\n{}\n{}",
                repo.to_ascii_lowercase(),
                // GitHub tells neither by the case of its letters.
                environment.as_deref().unwrap_or("").to_lowercase(),
                name.to_ascii_uppercase()
            ),
            SinkTarget::GithubEnv => format!("github_env\n{name}"),
            SinkTarget::Dotenv { path } => {
                // The same file, said from the root.
                let path = path.strip_prefix(&self.merged.home).unwrap_or(path);
                let tidy: PathBuf = path
                    .components()
                    .filter(|component| !matches!(component, Component::CurDir))
                    .collect();
                format!("dotenv\n{}\n{name}", tidy.display())
            }
        };
        if let Some(first) = self.destinations.get(&key) {
            let first = self.problems.span(*first);
            self.problems.error(
                at.at,
                Report::error(
                    "config/duplicate-sink",
                    format!("two sinks write `{}` to the same place", printable(name)),
                )
                .because(format!("the first is at {first}"))
                .fix("give one of them another name or place"),
            );
        } else {
            self.destinations.insert(key, at.at);
        }
    }
}

/// `owner/name` as GitHub allows it.
fn is_repository(text: &str) -> bool {
    let Some((owner, name)) = text.split_once('/') else {
        return false;
    };
    let owner_fits = (1..=39).contains(&owner.len())
        && !owner.starts_with('-')
        && owner
            .bytes()
            // Enterprise-managed users have an underscore before their suffix.
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let name_fits = (1..=100).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.to_ascii_lowercase().ends_with(".git")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    owner_fits && name_fits
}

/// True when a relative path climbs above where it starts.
fn escapes(path: &Path) -> bool {
    if path.is_absolute() {
        return false;
    }
    let mut depth = 0_usize;
    for component in path.components() {
        match component {
            Component::ParentDir => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return true,
            },
            Component::Normal(_) => depth += 1,
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    depth == 0
}

/// True for what holds settings or Tidegate's own files: lines of a dotenv file would be its end.
fn is_something_else(file: &Path) -> bool {
    let is_data = file.extension().is_some_and(|extension| {
        ["yaml", "yml", "json", "cbor"]
            .iter()
            .any(|data| extension.eq_ignore_ascii_case(data))
    });
    is_data
        || file
            .components()
            .any(|component| component.as_os_str() == ".tidegate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        for (text, expected) in [
            ("acme/shop", true),
            ("acme/.github", true),
            ("acme_corp/shop-1.2_x", true),
            ("acme", false),
            ("acme/", false),
            ("/shop", false),
            ("acme/shop/x", false),
            ("acme/..", false),
            ("acme/shop.git", false),
            ("https://github.com/acme/shop", false),
            ("acme/sh op", false),
            ("acme/shop\n", false),
            ("-acme/shop", false),
        ] {
            assert_eq!(is_repository(text), expected, "{text:?}");
        }
    }

    #[test]
    fn paths_that_climb_out() {
        for (path, expected) in [
            (".env", false),
            ("a/b/.env", false),
            ("a/../.env", false),
            ("/etc/app.env", false),
            ("../.env", true),
            ("a/../../.env", true),
            ("a/..", true),
            (".", true),
        ] {
            assert_eq!(escapes(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn files_that_hold_something_else() {
        for (path, expected) in [
            (".env", false),
            ("config/app.env", false),
            ("infra.yaml", true),
            ("more/Infra.YML", true),
            ("state/head.json", true),
            (".tidegate/x", true),
        ] {
            assert_eq!(is_something_else(Path::new(path)), expected, "{path}");
        }
    }
}
