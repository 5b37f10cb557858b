//! Registries: from the name of a plugin to where its releases are and what their digests must be.
//! None is built in. A registry is asked only for a plugin that names no `source`, and what it
//! answers goes through the same checks as any release: every platform's archive is fetched,
//! hashed and opened before anything is locked.
//!
//! Deliberately absent: falling through to the next registry when one fails. Whoever can take the
//! first one down must not be able to choose which plugin is installed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::name::{self, Source};
use super::read_text;
use super::resolve::Published;
use crate::config::{Document, Field, Tree, TreeKind};
use crate::disk::Disk;
use crate::http::RedactedUrl;
use crate::report::{Exit, Report};
use crate::variables::{Variables, is_variable_name};

/// Most registries of one file, and most downloads of one manifest.
const ITEMS_MAX: usize = 100;
/// Longest description shown.
const DESCRIPTION_CHARACTERS_MAX: usize = 200;

/// A registry that somebody configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// What its file calls it.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Low is asked first.
    pub priority: i64,
}

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Files of a repository, read through GitHub's API.
    Github {
        /// Its owner.
        owner: String,
        /// Its name.
        repository: String,
        /// The branch.
        branch: String,
    },
    /// A web folder.
    Static {
        /// Its URL, without a final slash.
        url: String,
        /// The variable that holds a token for it.
        token: Option<String>,
    },
}

/// What a registry says about a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The registry, as its file calls it.
    pub registry: String,
    /// The plugin's name there.
    pub name: String,
    /// The one version it has.
    pub version: String,
    /// One line. Untrusted text.
    pub description: String,
    /// `verified`, `experimental`, `deprecated`, or nothing.
    pub status: String,
    /// True when its archives need a token.
    pub is_private: bool,
    /// Where its releases are.
    pub source: Option<Source>,
    /// Its archives; `None` when one of them has no digest.
    pub downloads: Option<Vec<Published>>,
}

/// Files that may name registries; the first that does counts, alone.
pub fn files(variables: &Variables) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from(".wfctl.yaml")];
    if let Some(home) = variables.non_empty("HOME") {
        files.push(Path::new(home).join(".config/wfctl/config.yaml"));
    }
    files
}

/// The registries to ask, in order.
pub fn configured(disk: &dyn Disk, variables: &Variables) -> Result<Vec<Registry>, Vec<Report>> {
    for path in files(variables) {
        let Some(text) = read_text(disk, &path).map_err(|report| vec![report])? else {
            continue;
        };
        // Other programs keep other things there.
        if text.trim().is_empty() {
            continue;
        }
        let found = parse(&path, &text)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The `registries` of one file; everything else in it is somebody else's.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Registry>, Vec<Report>> {
    let document = Document::parse(path, text)?;
    let mut reader = Reader {
        document: &document,
        problems: Vec::new(),
    };
    let mut registries = Vec::new();
    match document.root.get("registries") {
        None => {}
        Some(list) => match &list.kind {
            TreeKind::Null => {}
            TreeKind::List(items) if items.len() <= ITEMS_MAX => {
                for item in items {
                    registries.extend(reader.registry(item));
                }
            }
            _ => reader.wrong(list, "`registries` is not a list, or is too long"),
        },
    }
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    // Stable: of two with one priority, the first in the file.
    registries.sort_by_key(|registry: &Registry| registry.priority);
    Ok(registries)
}

struct Reader<'d> {
    document: &'d Document,
    problems: Vec<Report>,
}

impl Reader<'_> {
    fn wrong(&mut self, tree: &Tree, message: impl Into<String>) {
        self.problems.push(
            Report::error("package/bad-registries", message)
                .at(self.document.span(tree.start, tree.end.max(tree.start + 1)))
                .exit(Exit::Usage),
        );
    }

    fn registry(&mut self, item: &Tree) -> Option<Registry> {
        let before = self.problems.len();
        let known = [
            "name",
            "type",
            "owner",
            "repo",
            "branch",
            "url",
            "token",
            "priority",
            "compatibility",
            "compatibilityEvidence",
        ];
        for Field { key, value, .. } in item.fields() {
            if !known.contains(&key.as_str()) {
                self.wrong(value, format!("a registry has no `{key}`"));
            }
        }
        let name = self.text(item, "name").unwrap_or_default();
        if name.is_empty() {
            self.wrong(item, "a registry needs a `name`");
        }
        let enforced = item
            .get("compatibility")
            .and_then(|tree| tree.get("mode"))
            .filter(|mode| mode.as_text() == Some("enforce"));
        if let Some(mode) = enforced {
            self.wrong(
                mode,
                "evidence of compatibility cannot be verified here, so it cannot be enforced; write `warn`, or leave it out",
            );
        }
        let priority = match item.get("priority").map(|tree| (&tree.kind, tree)) {
            None | Some((TreeKind::Null, _)) => 0,
            Some((TreeKind::Number(number), _)) if number.as_i64().is_some() => {
                number.as_i64().unwrap_or_default()
            }
            Some((_, tree)) => {
                self.wrong(tree, "`priority` is a whole number; low is asked first");
                0
            }
        };
        let kind = self
            .text(item, "type")
            .unwrap_or_else(|| "github".to_owned());
        let place = match kind.as_str() {
            "github" => self.github(item),
            "static" => self.folder(item),
            _ => {
                self.wrong(item, "a registry is of type `github` or `static`");
                None
            }
        };
        (self.problems.len() == before).then_some(Registry {
            name,
            place: place?,
            priority,
        })
    }

    fn github(&mut self, item: &Tree) -> Option<Place> {
        let owner = self.text(item, "owner").unwrap_or_default();
        let repository = self.text(item, "repo").unwrap_or_default();
        let branch = self
            .text(item, "branch")
            .unwrap_or_else(|| "main".to_owned());
        let is_branch = !branch.is_empty()
            && branch
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte));
        match Source::parse(&format!("github.com/{owner}/{repository}")) {
            Ok(Source::Github { owner, repository }) if is_branch => Some(Place::Github {
                owner,
                repository,
                branch,
            }),
            _ => {
                self.wrong(
                    item,
                    "a registry of type `github` needs `owner` and `repo`, and may name a `branch`",
                );
                None
            }
        }
    }

    fn folder(&mut self, item: &Tree) -> Option<Place> {
        let url = self.text(item, "url").unwrap_or_default();
        let url = url.trim_end_matches('/').to_owned();
        let checked = RedactedUrl::parse(&url)
            .map_err(|problem| problem.to_string())
            .and_then(|url| name::check_url(&url));
        if let Err(why) = checked {
            self.wrong(
                item,
                format!("the `url` of this registry cannot be used: {why}"),
            );
        }
        let token = match (self.text(item, "token"), item.get("token")) {
            (Some(text), Some(tree)) => {
                let variable = text
                    .strip_prefix("${")
                    .and_then(|text| text.strip_suffix('}'))
                    .filter(|name| is_variable_name(name));
                if variable.is_none() {
                    // Not repeated here, and not accepted: this file is committed, and nobody would
                    // see the token leave with it.
                    self.wrong(
                        tree,
                        "`token` names a variable, such as `${REGISTRY_TOKEN}`; a token itself does not belong into this file",
                    );
                }
                variable.map(str::to_owned)
            }
            _ => None,
        };
        Some(Place::Static { url, token })
    }

    fn text(&mut self, item: &Tree, key: &str) -> Option<String> {
        let tree = item.get(key)?;
        match &tree.kind {
            TreeKind::Null => None,
            TreeKind::Text(text) => Some(text.clone()),
            _ => {
                self.wrong(tree, format!("`{key}` is not text; put it in quotes"));
                None
            }
        }
    }
}

impl Registry {
    /// Where it has the manifest of a plugin, when GitHub's API is at `api`.
    pub fn manifest_url(&self, api: &str, plugin: &str) -> String {
        match &self.place {
            Place::Github {
                owner,
                repository,
                branch,
            } => format!(
                "{api}/repos/{owner}/{repository}/contents/plugins/{plugin}/manifest.json?ref={branch}"
            ),
            Place::Static { url, .. } => format!("{url}/plugins/{plugin}/manifest.json"),
        }
    }

    /// What to ask for there.
    pub fn accept(&self) -> &'static str {
        match self.place {
            Place::Github { .. } => "application/vnd.github.raw+json",
            Place::Static { .. } => "application/json",
        }
    }
}

/// The names a registry may have a plugin under, in the order in which they are tried.
pub fn names(plugin: &str) -> Vec<&str> {
    let mut names = vec![plugin];
    if name::folder(plugin) != plugin {
        names.push(name::folder(plugin));
    }
    names
}

/// Reads a registry's manifest of `plugin`. `Err` says in one clause why it cannot be used.
pub fn entry(registry: &Registry, plugin: &str, bytes: &[u8]) -> Result<Entry, String> {
    let root: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    let text = |key: &str| root.get(key).and_then(Value::as_str).unwrap_or_default();
    let found = text("name");
    if !name::is_name(found) || name::folder(found) != name::folder(plugin) {
        return Err("it describes another plugin".to_owned());
    }
    let version = text("version");
    if !name::is_exact_version(version) {
        return Err("its `version` is not exact".to_owned());
    }
    let mut downloads = Some(Vec::new());
    let items = match root.get("downloads") {
        Some(Value::Array(items)) if items.len() <= ITEMS_MAX => items.as_slice(),
        None | Some(Value::Null) => &[],
        Some(_) => return Err("its `downloads` are no list, or too many".to_owned()),
    };
    for item in items {
        let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
        let named = format!("{}-{}", text("os"), text("arch"));
        let Some(platform) = name::PLATFORMS.into_iter().find(|known| *known == named) else {
            continue;
        };
        let url = RedactedUrl::parse(text("url")).map_err(|problem| problem.to_string())?;
        name::check_url(&url).map_err(|why| format!("a download cannot be used: {why}"))?;
        let sha256 = text("sha256").to_ascii_lowercase();
        match &mut downloads {
            Some(listed) if name::is_digest(&sha256) => listed.push(Published {
                platform,
                file: url.file_name().to_owned(),
                url: text("url").to_owned(),
                asset_url: None,
                sha256,
            }),
            _ => downloads = None,
        }
    }
    let status = match text("status") {
        status @ ("verified" | "experimental" | "deprecated") => status,
        _ => "",
    };
    Ok(Entry {
        registry: registry.name.clone(),
        name: found.to_owned(),
        version: version.to_owned(),
        description: text("description")
            .chars()
            .take(DESCRIPTION_CHARACTERS_MAX)
            .collect(),
        status: status.to_owned(),
        is_private: root.get("private") == Some(&Value::Bool(true)),
        // Only releases: a folder's URL here would be one more place to trust.
        source: Source::parse(text("repository"))
            .ok()
            .filter(|source| matches!(source, Source::Github { .. })),
        downloads: downloads.filter(|listed| !listed.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn registries(text: &str) -> Result<Vec<Registry>, Vec<Report>> {
        parse(Path::new(".wfctl.yaml"), text)
    }

    #[test]
    fn registries_are_asked_in_the_order_of_their_priority() {
        let found = registries(
            "project: {x: 1}\nregistries:\n  - {name: b, owner: acme, repo: plugins, priority: 5}\n  - {name: a, type: static, url: 'https://p.test/r/', token: '${R_TOKEN}'}\n  - {name: c, owner: acme, repo: old, branch: v1/x, priority: 5}\n",
        )
        .unwrap();
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(
            found[0].manifest_url("https://api.test", "demo"),
            "https://p.test/r/plugins/demo/manifest.json"
        );
        assert_eq!(
            found[2].manifest_url("https://api.test", "demo"),
            "https://api.test/repos/acme/old/contents/plugins/demo/manifest.json?ref=v1/x"
        );
        assert!(registries("project: 1\n").unwrap().is_empty());
        assert_eq!(
            names_of("workflow-plugin-demo"),
            ["workflow-plugin-demo", "demo"]
        );
    }

    fn names_of(plugin: &str) -> Vec<&str> {
        names(plugin)
    }

    #[test]
    fn a_registry_that_could_mean_something_else_is_refused() {
        for wrong in [
            "{owner: acme, repo: plugins}",
            "{name: a, type: oci, url: 'https://p.test'}",
            "{name: a, owner: acme}",
            "{name: a, owner: acme, repo: ../x}",
            "{name: a, owner: acme, repo: x, branch: 'a?b'}",
            "{name: a, type: static, url: 'http://p.test'}",
            "{name: a, type: static, url: 'https://user:pw@p.test'}",
            "{name: a, type: static, url: 'https://p.test', token: ghp_secret}",
            "{name: a, owner: acme, repo: x, prioritty: 1}",
            "{name: a, owner: acme, repo: x, priority: high}",
            "{name: a, owner: acme, repo: x, compatibility: {mode: enforce}}",
        ] {
            let problems = registries(&format!("registries: [{wrong}]\n")).unwrap_err();
            assert_eq!(problems[0].code, "package/bad-registries", "{wrong}");
            assert!(!problems[0].message.contains("ghp_secret"));
        }
    }

    #[test]
    fn a_manifest_is_taken_with_every_digest_or_without_any() {
        let registry = &registries("registries: [{name: r, owner: a, repo: b}]\n").unwrap()[0];
        let digest = "ab".repeat(32);
        let manifest = |change: Value| {
            let mut all = json!({
                "name": "workflow-plugin-demo", "version": "1.2.3", "description": "d",
                "repository": "https://github.com/acme/wf-demo", "status": "verified",
                "downloads": [
                    {"os": "linux", "arch": "amd64", "url": "https://p.test/a.tar.gz", "sha256": digest},
                    {"os": "plan9", "arch": "mips", "url": "https://p.test/b.tar.gz"},
                ],
            });
            for (key, value) in change.as_object().unwrap() {
                all[key] = value.clone();
            }
            entry(registry, "demo", all.to_string().as_bytes())
        };
        let good = manifest(json!({})).unwrap();
        assert_eq!(good.downloads.as_ref().map(Vec::len), Some(1));
        assert!(matches!(good.source, Some(Source::Github { .. })));
        let half = json!({"downloads": [
            {"os": "linux", "arch": "amd64", "url": "https://p.test/a.tar.gz", "sha256": digest},
            {"os": "linux", "arch": "arm64", "url": "https://p.test/c.tar.gz"},
        ]});
        assert_eq!(manifest(half).unwrap().downloads, None);
        for wrong in [
            json!({"name": "other"}),
            json!({"version": "latest"}),
            json!({"downloads": {}}),
            json!({"downloads": [{"os": "linux", "arch": "amd64", "url": "http://p.test/a.tar.gz"}]}),
            json!({"downloads": [{"os": "linux", "arch": "amd64", "url": "file:///etc/passwd"}]}),
        ] {
            assert!(manifest(wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(
            manifest(json!({"repository": "https://evil.test/x"}))
                .unwrap()
                .source,
            None
        );
    }
}
