//! `wfctl.yaml`: which plugins a project wants, pinned by people.

use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::hex;
use super::name::{self, Source};
use crate::config::{Document, Field, Tree, TreeKind};
use crate::report::{Exit, Report, Span};
use crate::variables::is_variable_name;

/// Where the manifest is unless `--manifest` says otherwise.
pub const DEFAULT_MANIFEST: &str = "wfctl.yaml";

/// Largest manifest (and lock) read.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// A manifest.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// Its plugins, in file order.
    pub plugins: Vec<Wanted>,
}

/// One plugin of a manifest.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// The exact version.
    pub version: String,
    /// Where its releases are.
    pub source: Option<Source>,
    /// The variable that holds a token for the source.
    pub auth_env: Option<String>,
    /// Who must have signed it.
    pub identity: Option<String>,
    /// Where it stands in the file.
    pub at: Option<Span>,
}

/// Collects what is wrong with one file.
struct Reader<'d> {
    document: &'d Document,
    problems: Vec<Report>,
}

impl Manifest {
    /// Reads one. On failure: everything that is wrong with it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Report>> {
        let document = Document::parse(path, text)?;
        let mut reader = Reader {
            document: &document,
            problems: Vec::new(),
        };
        let plugins = reader.manifest();
        if reader.problems.is_empty() {
            Ok(Self { plugins })
        } else {
            Err(reader.problems)
        }
    }

    /// The entry of a plugin, by its name or its folder's.
    pub fn get(&self, name: &str) -> Option<&Wanted> {
        self.plugins
            .iter()
            .find(|plugin| name::folder(&plugin.name) == name::folder(name))
    }

    /// The digest that ties a lock to this manifest: of the canonical JSON of version, and name,
    /// version and source of every plugin, sorted by name.
    pub fn digest(&self) -> String {
        let mut plugins: Vec<&Wanted> = self.plugins.iter().collect();
        plugins.sort_by(|a, b| a.name.cmp(&b.name));
        let document = json!({
            "version": 1,
            "plugins": plugins
                .iter()
                .map(|plugin| json!({
                    "name": plugin.name,
                    "version": plugin.version,
                    "source": plugin.source.as_ref().map(ToString::to_string).unwrap_or_default(),
                }))
                .collect::<Vec<_>>(),
        });
        hex(&Sha256::digest(document.to_string().as_bytes()))
    }
}

impl Reader<'_> {
    fn wrong(&mut self, tree: &Tree, message: impl Into<String>) {
        self.wrong_at(tree.start, tree.end, message);
    }

    fn wrong_at(&mut self, start: usize, end: usize, message: impl Into<String>) {
        self.problems.push(
            Report::error("package/bad-manifest", message)
                .at(self.document.span(start, end))
                .exit(Exit::Usage),
        );
    }

    fn manifest(&mut self) -> Vec<Wanted> {
        let document = self.document;
        let root = &document.root;
        let TreeKind::Map(fields) = &root.kind else {
            self.wrong(root, "the manifest is not a map");
            return Vec::new();
        };
        self.only(fields, &["version", "plugins", "registries"]);
        match root.get("version").map(|version| &version.kind) {
            Some(TreeKind::Number(number)) if number.as_u64() == Some(1) => {}
            Some(_) => {
                if let Some(version) = root.get("version") {
                    self.wrong(version, "`version` must be 1");
                }
            }
            None => self.wrong(root, "`version: 1` is missing"),
        }
        let mut plugins: Vec<Wanted> = Vec::new();
        let items = match root.get("plugins") {
            None => &[][..],
            Some(Tree {
                kind: TreeKind::Null,
                ..
            }) => &[],
            Some(Tree {
                kind: TreeKind::List(items),
                ..
            }) => items,
            Some(other) => {
                self.wrong(other, "`plugins` is not a list");
                &[]
            }
        };
        for item in items {
            let Some(plugin) = self.plugin(item) else {
                continue;
            };
            let twin = plugins
                .iter()
                .find(|other| name::folder(&other.name) == name::folder(&plugin.name));
            match twin.map(|other| other.name.clone()) {
                Some(other) => self.wrong(
                    item,
                    format!(
                        "`{}` and `{other}` are the same plugin, listed twice",
                        plugin.name
                    ),
                ),
                None => plugins.push(plugin),
            }
        }
        plugins
    }

    fn plugin(&mut self, item: &Tree) -> Option<Wanted> {
        let before = self.problems.len();
        let TreeKind::Map(fields) = &item.kind else {
            self.wrong(item, "a plugin is a map with `name` and `version`");
            return None;
        };
        self.only(fields, &["name", "version", "source", "auth", "verify"]);
        let name = self.required(item, "name");
        if let (Some(text), Some(tree)) = (&name, item.get("name"))
            && !name::is_name(text)
        {
            self.wrong(
                tree,
                "a plugin's name is a lower-case letter, then letters, digits and hyphens",
            );
        }
        let version = self.required(item, "version");
        if let (Some(text), Some(tree)) = (&version, item.get("version"))
            && !name::is_exact_version(text)
        {
            self.wrong(
                tree,
                "a version is exact, such as `v1.4.2`: a range would make two runs of one commit differ",
            );
        }
        let before_credentials = self.problems.len();
        let source = match self.optional(item, "source") {
            None => None,
            Some(text) => match Source::parse(&text) {
                Ok(source) => Some(source),
                Err(why) => {
                    if let Some(tree) = item.get("source") {
                        self.wrong(tree, format!("this source cannot be used: {why}"));
                    }
                    None
                }
            },
        };
        let auth_env = self.inner(item, "auth", "env");
        if let (Some(variable), Some(tree)) = (&auth_env, item.get("auth"))
            && !is_variable_name(variable)
        {
            self.wrong(
                tree,
                "`auth.env` is the name of a variable, never a token itself",
            );
        }
        // What stands there by mistake may well be a credential: its place is told, and not the line.
        for problem in &mut self.problems[before_credentials..] {
            if let Some(at) = &mut problem.at {
                at.excerpt.clear();
            }
        }
        let identity = self.inner(item, "verify", "identity");
        if self.problems.len() > before {
            return None;
        }
        Some(Wanted {
            name: name?,
            version: version?,
            source,
            auth_env,
            identity,
            at: item
                .get("name")
                .map(|tree| self.document.span(tree.start, tree.end)),
        })
    }

    /// The one key of `auth` or `verify`.
    fn inner(&mut self, item: &Tree, outer: &str, key: &str) -> Option<String> {
        let tree = item.get(outer)?;
        if tree.is_null() {
            return None;
        }
        let TreeKind::Map(fields) = &tree.kind else {
            self.wrong(tree, format!("`{outer}` is a map with `{key}`"));
            return None;
        };
        self.only(fields, &[key]);
        self.required(tree, key)
    }

    fn required(&mut self, tree: &Tree, key: &str) -> Option<String> {
        match self.optional(tree, key) {
            Some(text) => Some(text),
            None => {
                if tree.get(key).is_none_or(Tree::is_null) {
                    self.wrong(tree, format!("`{key}` is missing"));
                }
                None
            }
        }
    }

    fn optional(&mut self, tree: &Tree, key: &str) -> Option<String> {
        let value = tree.get(key)?;
        match &value.kind {
            TreeKind::Null => None,
            TreeKind::Text(text) if text.is_empty() => {
                self.wrong(value, format!("`{key}` is empty"));
                None
            }
            TreeKind::Text(text) => Some(text.clone()),
            _ => {
                self.wrong(value, format!("`{key}` is not text; put it in quotes"));
                None
            }
        }
    }

    /// Keys nobody knows are mistakes: a misspelled `verify` would be a check that never happens.
    fn only(&mut self, fields: &[Field], known: &[&str]) {
        for field in fields {
            if !known.contains(&field.key.as_str()) {
                let keys: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
                self.wrong_at(
                    field.start,
                    field.start + field.key.len(),
                    format!(
                        "unknown key `{}`; possible here: {}",
                        field.key,
                        keys.join(", ")
                    ),
                );
            }
        }
    }
}

/// The pins of `requires.plugins` in an application file, for `migrate plugins`.
#[derive(Clone, Debug)]
pub struct Legacy {
    /// Its name.
    pub name: String,
    /// Version, as written.
    pub version: Option<String>,
    /// Source, as written.
    pub source: Option<String>,
    /// `auth.env`.
    pub auth_env: Option<String>,
    /// `verify.identity`, or why what stands under `verify` cannot be carried over.
    pub verify: Result<Option<String>, String>,
    /// Where it stands.
    pub at: Span,
}

/// Reads `requires.plugins`. Other parts of the file are not looked at.
pub fn legacy(document: &Document) -> Vec<Legacy> {
    let items = document
        .root
        .get("requires")
        .and_then(|requires| requires.get("plugins"));
    let Some(Tree {
        kind: TreeKind::List(items),
        ..
    }) = items
    else {
        return Vec::new();
    };
    let text = |tree: &Tree, key: &str| tree.get(key).and_then(Tree::as_text).map(str::to_owned);
    items
        .iter()
        .filter_map(|item| {
            let verify = item.get("verify").filter(|verify| !verify.is_null());
            Some(Legacy {
                name: text(item, "name").or_else(|| item.as_text().map(str::to_owned))?,
                version: text(item, "version"),
                source: text(item, "source"),
                auth_env: item.get("auth").and_then(|auth| text(auth, "env")),
                verify: match verify {
                    None => Ok(None),
                    Some(verify) => {
                        let asked: Vec<&str> = verify
                            .fields()
                            .iter()
                            .filter(|field| {
                                field.key != "identity" && field.value.as_text() != Some("off")
                            })
                            .map(|field| field.key.as_str())
                            .collect();
                        if asked.is_empty() {
                            Ok(text(verify, "identity"))
                        } else {
                            Err(asked.join(", "))
                        }
                    }
                },
                at: document.span(item.start, item.end.max(item.start)),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, Vec<String>> {
        Manifest::parse(Path::new("wfctl.yaml"), text)
            .map_err(|reports| reports.into_iter().map(|report| report.message).collect())
    }

    #[test]
    fn a_whole_manifest() {
        let manifest = parse(
            "version: 1\nplugins:\n  - {name: digitalocean, version: v1.4.2, source: github.com/acme/wf-do, auth: {env: RELEASES_TOKEN}}\nregistries: []\n",
        )
        .unwrap();
        let plugin = manifest.get("workflow-plugin-digitalocean").unwrap();
        assert_eq!(plugin.version, "v1.4.2");
        assert_eq!(plugin.auth_env.as_deref(), Some("RELEASES_TOKEN"));
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let problems = parse(
            "version: 2\nplugin: []\nplugins:\n  - {name: Bad, version: ^1.0.0}\n  - {name: a, version: 1.10}\n  - {name: b, version: 1.0.0, verfy: {identity: x}}\n  - {name: c, version: 1.0.0, auth: {env: ghp-x}}\n  - {name: d, version: 1.0.0, verify: {}}\n",
        )
        .unwrap_err();
        let all = problems.join("\n");
        for part in [
            "`version` must be 1",
            "unknown key `plugin`",
            "lower-case letter",
            "a version is exact",
            "`version` is not text",
            "unknown key `verfy`",
            "never a token itself",
            "`identity` is missing",
        ] {
            assert!(all.contains(part), "{part}\n{all}");
        }
    }

    #[test]
    fn two_names_of_one_folder_are_one_plugin() {
        let problems = parse(
            "version: 1\nplugins:\n  - {name: aws, version: 1.0.0}\n  - {name: workflow-plugin-aws, version: 1.0.0}\n",
        )
        .unwrap_err();
        assert!(problems[0].contains("listed twice"), "{problems:?}");
    }

    #[test]
    fn the_digest_does_not_depend_on_order() {
        let a = parse(
            "version: 1\nplugins:\n  - {name: a, version: 1.0.0}\n  - {name: b, version: 1.0.0}\n",
        );
        let b = parse(
            "version: 1\nplugins:\n  - {name: b, version: 1.0.0}\n  - {name: a, version: 1.0.0}\n",
        );
        let c = parse(
            "version: 1\nplugins:\n  - {name: b, version: 1.0.1}\n  - {name: a, version: 1.0.0}\n",
        );
        let (a, b, c) = (
            a.unwrap().digest(),
            b.unwrap().digest(),
            c.unwrap().digest(),
        );
        assert_eq!(a, b);
        assert_ne!(a, c);
    }
}
