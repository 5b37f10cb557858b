//! `.wfctl-lock.yaml`: what the pins of the manifest are, byte for byte, on every platform.
//!
//! Format version 1, plus three keys of our own below each platform: `binary_sha256` (the executable
//! as it is installed), `manifest_sha256` (`plugin.json`) and `files_sha256` (the list of all files).
//! A host compares the first and the last when it launches.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::hex;
use super::name;
use crate::config::{Document, Tree, TreeKind};
use crate::http::RedactedUrl;
use crate::report::{Exit, Report};

/// Where the lock is unless `--lock-file` says otherwise.
pub const DEFAULT_LOCK: &str = ".wfctl-lock.yaml";

/// A lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// When it was written, RFC 3339.
    pub generated_at: String,
    /// The digest of the manifest it was made from; a lock of another tool may have none.
    pub manifest_sha256: Option<String>,
    /// By name in the manifest.
    pub plugins: BTreeMap<String, Locked>,
}

/// One locked plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locked {
    /// The exact version.
    pub version: String,
    /// Where it comes from, as in the manifest.
    pub source: String,
    /// By platform (`linux-amd64`).
    pub platforms: BTreeMap<String, Artifact>,
    /// The SHA-256 of the executable whatever the platform, from locks of older tools. It is left
    /// out when the plugin is locked again.
    pub sha256: Option<String>,
}

/// One archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Artifact {
    /// Where it is.
    pub url: String,
    /// The archive's SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// The SHA-256 of the executable in it. Locks of other tools have none.
    pub binary_sha256: Option<String>,
    /// The SHA-256 of the `plugin.json` in it. Locks of other tools have none.
    pub manifest_sha256: Option<String>,
    /// The SHA-256 of the list of all files in it. Locks of other tools, and older ones, have none.
    pub files_sha256: Option<String>,
}

impl Lock {
    /// Reads one, whoever wrote it. On failure: everything that is wrong with it.
    ///
    /// For those who only compare: other tools count `lockfile_sha256` in their own way, and what it
    /// protects is compared by itself.
    pub fn read(path: &Path, text: &str) -> Result<Self, Vec<Report>> {
        Self::read_with_digest(path, text).map(|(lock, _)| lock)
    }

    fn read_with_digest(path: &Path, text: &str) -> Result<(Self, Option<String>), Vec<Report>> {
        let document = Document::parse(path, text)?;
        let mut reader = Reader {
            document: &document,
            problems: Vec::new(),
        };
        let read = reader.lock();
        if reader.problems.is_empty() {
            Ok(read)
        } else {
            Err(reader.problems)
        }
    }

    /// Reads one to build upon: it must be as it was written. On failure: everything that is wrong
    /// with it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Report>> {
        let (lock, own_digest) = Self::read_with_digest(path, text)?;
        if let Some(said) = own_digest {
            let found = lock.digest();
            if !said.eq_ignore_ascii_case(&found) {
                return Err(vec![
                    Report::error(
                        "package/lock-checksum",
                        format!("`{}` was changed by hand", path.display()),
                    )
                    .because(format!("its `lockfile_sha256` says {said}"))
                    .because(format!("its content is {found}"))
                    .fix("restore it from version control, or make it anew: `tidegate plugin lock`")
                    .exit(Exit::Usage),
                ]);
            }
        }
        Ok(lock)
    }

    /// The SHA-256 that the executable of a plugin must have on a platform, by its name or its
    /// folder's: what a host compares before it launches. `None` when nothing is locked for it.
    pub fn binary_sha256(&self, name: &str, platform: &str) -> Option<&str> {
        let (_, locked) = self.get(name)?;
        let here = locked.platforms.get(platform);
        here.and_then(|artifact| artifact.binary_sha256.as_deref())
            .or(locked.sha256.as_deref())
    }

    /// The SHA-256 of the list of all files of a plugin on a platform, where the lock knows it.
    pub fn files_sha256(&self, name: &str, platform: &str) -> Option<&str> {
        let (_, locked) = self.get(name)?;
        locked.platforms.get(platform)?.files_sha256.as_deref()
    }

    /// A locked plugin, by its name or its folder's.
    pub fn get(&self, name: &str) -> Option<(&str, &Locked)> {
        self.plugins
            .iter()
            .find(|(other, _)| name::folder(other) == name::folder(name))
            .map(|(name, locked)| (name.as_str(), locked))
    }

    /// The text to write.
    pub fn to_yaml(&self) -> String {
        let mut text = String::from(
            "# Written by `tidegate plugin lock`. Commit it; do not edit it by hand.\nversion: 1\n",
        );
        let mut line = |depth: usize, key: &str, value: &str| {
            // A JSON string is a YAML string, whatever it holds.
            let value = if value.is_empty() {
                String::new()
            } else {
                format!(" {}", Value::from(value))
            };
            text.push_str(&format!("{}{key}:{value}\n", "  ".repeat(depth)));
        };
        line(0, "generated_at", &self.generated_at);
        if let Some(digest) = &self.manifest_sha256 {
            line(0, "source_manifest_sha256", digest);
        }
        line(0, "lockfile_sha256", &self.digest());
        if self.plugins.is_empty() {
            text.push_str("plugins: {}\n");
            return text;
        }
        line(0, "plugins", "");
        for (name, locked) in &self.plugins {
            line(1, name, "");
            line(2, "version", &locked.version);
            line(2, "source", &locked.source);
            line(2, "platforms", "");
            for (platform, artifact) in &locked.platforms {
                line(3, platform, "");
                line(4, "url", &artifact.url);
                line(4, "sha256", &artifact.sha256);
                if let Some(digest) = &artifact.binary_sha256 {
                    line(4, "binary_sha256", digest);
                }
                if let Some(digest) = &artifact.manifest_sha256 {
                    line(4, "manifest_sha256", digest);
                }
                if let Some(digest) = &artifact.files_sha256 {
                    line(4, "files_sha256", digest);
                }
            }
        }
        text
    }

    /// True when both pin the same things; when they were written does not matter.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }

    /// The digest over everything but the time of writing.
    fn digest(&self) -> String {
        let plugins: BTreeMap<&String, Value> = self
            .plugins
            .iter()
            .map(|(name, locked)| {
                let platforms: BTreeMap<&String, Value> = locked
                    .platforms
                    .iter()
                    .map(|(platform, artifact)| {
                        let mut value = json!({
                            "url": artifact.url,
                            "sha256": artifact.sha256,
                            "binary_sha256": artifact.binary_sha256,
                            "manifest_sha256": artifact.manifest_sha256,
                        });
                        // Without it, the digest is the one that older versions wrote.
                        if let Some(digest) = &artifact.files_sha256 {
                            value["files_sha256"] = json!(digest);
                        }
                        (platform, value)
                    })
                    .collect();
                let value = json!({
                    "version": locked.version,
                    "source": locked.source,
                    "platforms": platforms,
                });
                (name, value)
            })
            .collect();
        let document = json!({
            "version": 1,
            "source_manifest_sha256": self.manifest_sha256,
            "plugins": plugins,
        });
        hex(&Sha256::digest(document.to_string().as_bytes()))
    }
}

/// The older `.wfctl.yaml`, as far as it says which executables are trusted: SHA-256 by name. What
/// else stands in it is not ours.
pub fn older_digests(path: &Path, text: &str) -> Result<BTreeMap<String, String>, Vec<Report>> {
    let document = Document::parse(path, text)?;
    let mut reader = Reader {
        document: &document,
        problems: Vec::new(),
    };
    let mut digests = BTreeMap::new();
    for field in reader.map(&document.root, "plugins") {
        // An empty one is none.
        let said = reader.text(&field.value, "sha256").unwrap_or_default();
        if !said.is_empty()
            && let Some(digest) = reader.digest(&field.value, "sha256")
        {
            digests.insert(field.key.clone(), digest);
        }
    }
    if reader.problems.is_empty() {
        Ok(digests)
    } else {
        Err(reader.problems)
    }
}

struct Reader<'d> {
    document: &'d Document,
    problems: Vec<Report>,
}

impl Reader<'_> {
    fn wrong(&mut self, tree: &Tree, message: impl Into<String>) {
        self.problems.push(
            Report::error("package/bad-lock", message)
                .at(self.document.span(tree.start, tree.end))
                .fix("restore it from version control, or make it anew: `tidegate plugin lock`")
                .exit(Exit::Usage),
        );
    }

    fn lock(&mut self) -> (Lock, Option<String>) {
        let document = self.document;
        let root = &document.root;
        let is_one = root.get("version").is_some_and(
            |tree| matches!(&tree.kind, TreeKind::Number(number) if number.as_u64() == Some(1)),
        );
        if !is_one {
            self.wrong(
                root.get("version").unwrap_or(root),
                "the lock is not of version 1",
            );
            return (Lock::default(), None);
        }
        let mut lock = Lock {
            generated_at: self.text(root, "generated_at").unwrap_or_default(),
            manifest_sha256: self.digest(root, "source_manifest_sha256"),
            plugins: BTreeMap::new(),
        };
        let own_digest = self.digest(root, "lockfile_sha256");
        for field in self.map(root, "plugins") {
            if !name::is_name(&field.key) {
                self.wrong(&field.value, format!("`{}` is no plugin name", field.key));
                continue;
            }
            let locked = self.plugin(&field.key, &field.value);
            if let Some((other, _)) = lock.get(&field.key) {
                let message = format!("`{}` and `{other}` are the same plugin", field.key);
                self.wrong(&field.value, message);
            }
            lock.plugins.insert(field.key.clone(), locked);
        }
        (lock, own_digest)
    }

    fn plugin(&mut self, name: &str, tree: &Tree) -> Locked {
        let version = self.text(tree, "version").unwrap_or_default();
        if !name::is_exact_version(&version) {
            self.wrong(tree, format!("`{name}` has no exact version"));
        }
        let mut locked = Locked {
            version,
            source: self.text(tree, "source").unwrap_or_default(),
            platforms: BTreeMap::new(),
            sha256: self.digest(tree, "sha256"),
        };
        for field in self.map(tree, "platforms") {
            let value = &field.value;
            let Some(url) = self.text(value, "url") else {
                self.wrong(value, format!("`{name}` has no `url` for {}", field.key));
                continue;
            };
            let checked = RedactedUrl::parse(&url)
                .map_err(|problem| problem.to_string())
                .and_then(|url| name::check_url(&url));
            if let Err(why) = checked {
                self.wrong(
                    value,
                    format!(
                        "the `url` of `{name}` for {} cannot be used: {why}",
                        field.key
                    ),
                );
                continue;
            }
            let Some(sha256) = self.digest(value, "sha256") else {
                self.wrong(value, format!("`{name}` has no `sha256` for {}", field.key));
                continue;
            };
            locked.platforms.insert(
                field.key.clone(),
                Artifact {
                    url,
                    sha256,
                    binary_sha256: self.digest(value, "binary_sha256"),
                    manifest_sha256: self.digest(value, "manifest_sha256"),
                    files_sha256: self.digest(value, "files_sha256"),
                },
            );
        }
        locked
    }

    fn map<'t>(&mut self, tree: &'t Tree, key: &str) -> &'t [crate::config::Field] {
        match tree.get(key) {
            Some(value) if !value.is_null() => {
                if !matches!(value.kind, TreeKind::Map(_)) {
                    self.wrong(value, format!("`{key}` is not a map"));
                }
                value.fields()
            }
            _ => &[],
        }
    }

    fn text(&mut self, tree: &Tree, key: &str) -> Option<String> {
        let value = tree.get(key).filter(|value| !value.is_null())?;
        let text = value.as_text().map(str::to_owned);
        if text.is_none() {
            self.wrong(value, format!("`{key}` is not text"));
        }
        text
    }

    fn digest(&mut self, tree: &Tree, key: &str) -> Option<String> {
        let text = self.text(tree, key)?;
        if name::is_digest(&text) {
            return Some(text.to_ascii_lowercase());
        }
        if let Some(value) = tree.get(key) {
            self.wrong(value, format!("`{key}` is not 64 hexadecimal digits"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Lock {
        let artifact = Artifact {
            url: "https://example.net/wf-do_linux_amd64.tar.gz".to_owned(),
            sha256: "ab".repeat(32),
            binary_sha256: Some("cd".repeat(32)),
            manifest_sha256: Some("ef".repeat(32)),
            files_sha256: Some("9a".repeat(32)),
        };
        Lock {
            generated_at: "2026-01-05T08:00:00Z".to_owned(),
            manifest_sha256: Some("12".repeat(32)),
            plugins: BTreeMap::from([(
                "workflow-plugin-digitalocean".to_owned(),
                Locked {
                    version: "v1.4.2".to_owned(),
                    source: "github.com/acme/wf-do".to_owned(),
                    platforms: BTreeMap::from([("linux-amd64".to_owned(), artifact)]),
                    sha256: None,
                },
            )]),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for lock in [
            sample(),
            Lock {
                plugins: BTreeMap::new(),
                ..sample()
            },
        ] {
            let text = lock.to_yaml();
            assert_eq!(Lock::parse(Path::new("l"), &text).unwrap(), lock, "{text}");
        }
        let lock = sample();
        let digest = "cd".repeat(32);
        assert_eq!(
            lock.binary_sha256("digitalocean", "linux-amd64"),
            Some(digest.as_str())
        );
        assert_eq!(lock.binary_sha256("digitalocean", "linux-arm64"), None);
    }

    #[test]
    fn every_changed_byte_of_a_digest_is_seen() {
        let text = sample().to_yaml();
        for (from, to) in [
            ("abab", "abac"),
            ("cdcd", "cdce"),
            ("efef", "efee"),
            ("9a9a", "9a9b"),
            ("v1.4.2", "v1.4.3"),
            ("amd64.tar", "amd65.tar"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            let reports = Lock::parse(Path::new("l"), &changed).unwrap_err();
            assert_eq!(reports[0].code, "package/lock-checksum", "{from}");
        }
    }

    #[test]
    fn a_lock_of_another_tool_is_read_too() {
        let lock = Lock::parse(
            Path::new("l"),
            &format!(
                "version: 1\ngenerated_at: \"2026-01-05T08:00:00Z\"\nplugins:\n  a:\n    version: v1.0.0\n    source: github.com/a/b\n    platforms:\n      linux-amd64: {{url: \"https://example.net/a_linux_amd64.tar.gz\", sha256: \"{}\", compatibility: {{mode: warn}}}}\n",
                "AB".repeat(32)
            ),
        )
        .unwrap();
        assert_eq!(
            lock.plugins["a"].platforms["linux-amd64"].sha256,
            "ab".repeat(32)
        );
    }

    #[test]
    fn who_only_compares_reads_what_another_tool_counted_in_its_own_way() {
        let text = sample().to_yaml().replacen("abab", "abac", 1);
        assert!(Lock::parse(Path::new("l"), &text).is_err());
        assert!(Lock::read(Path::new("l"), &text).is_ok());
    }

    #[test]
    fn the_older_file_says_digests_and_may_say_more() {
        let digest = "AB".repeat(32);
        let read = |text: &str| older_digests(Path::new(".wfctl.yaml"), text);
        let text = format!(
            "registries: [{{name: x}}]\nplugins: {{a: {{sha256: {digest}}}, b: {{sha256: \"\"}}, c: {{}}}}"
        );
        let found = read(&text).unwrap();
        assert_eq!(found, BTreeMap::from([("a".to_owned(), "ab".repeat(32))]));
        assert!(read("registries: []").unwrap().is_empty());
        for wrong in ["plugins: [", "plugins: []", "plugins: {a: {sha256: x}}"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_a_lock() {
        for text in [
            "version: 2\nplugins: {}\n",
            "plugins: {}\n",
            "version: 1\nplugins: {a: {version: latest}}\n",
            "version: 1\nplugins: {../a: {version: 1.0.0}}\n",
            "version: 1\nplugins: {a: {version: 1.0.0, platforms: {x: {url: \"http://example.net/x\", sha256: \"00\"}}}}\n",
            "version: 1\nplugins: {a: {version: 1.0.0, platforms: {x: {url: \"https://example.net/x\", sha256: \"00\"}}}}\n",
        ] {
            assert!(Lock::parse(Path::new("l"), text).is_err(), "{text}");
        }
    }
}
