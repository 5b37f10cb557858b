//! The file, its imports and theirs, read and laid over each other.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::decode::{Decode as _, Text, printable};
use super::problems::Problems;
use super::schema::{
    Document, EntryShape, Environment, GenerateShape, Module, Pipeline, Secrets, Store,
};
use super::source::Mark;
use super::yaml;
use crate::random::encode_hex;
use crate::report::Report;

/// Largest config file, in bytes.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// Most files one config may be made of.
const FILES_MAX: usize = 256;
/// Longest chain of imports.
const CHAIN_MAX: usize = 64;

/// How files are reached: the room itself opens none. The text of an error is shown to people.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// Reads a whole file; larger than [`FILE_BYTES_MAX`] may be refused right away.
    pub read: &'a dyn Fn(&Path) -> Result<Vec<u8>, String>,
    /// A path with links and `..` resolved; used to tell whether two paths are one file.
    pub canonical: &'a dyn Fn(&Path) -> Result<PathBuf, String>,
}

impl std::fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

/// All files as one document, importing file over imported, earlier import over later.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) modules: Vec<Module>,
    pub(super) environments: Vec<(Text, Option<Environment>)>,
    pub(super) secrets: Secrets,
    pub(super) secret_stores: Vec<(Text, Store)>,
    pub(super) pipelines: Vec<(Text, Pipeline)>,
    /// Of the bytes of all files; empty when nobody asked for it.
    pub(super) digest: String,
    /// The folder of the main file, from the root; empty where that is not known.
    pub(super) home: PathBuf,
}

struct Reader<'a> {
    files: Files<'a>,
    problems: &'a mut Problems,
    /// Canonical paths of the chain that is being read, with the path as named.
    chain: Vec<(PathBuf, PathBuf)>,
    /// Canonical paths already read.
    seen: HashSet<PathBuf>,
    documents: Vec<Document>,
    digest: Option<Sha256>,
}

/// Reads `path` and everything it imports. What could be read is answered even when something
/// could not; problems are in `problems`.
pub(super) fn read(path: &Path, files: Files<'_>, problems: &mut Problems) -> Merged {
    read_all(path, files, problems, None)
}

/// The same, with the digest.
pub(super) fn read_digested(path: &Path, files: Files<'_>, problems: &mut Problems) -> Merged {
    read_all(path, files, problems, Some(Sha256::new()))
}

fn read_all(
    path: &Path,
    files: Files<'_>,
    problems: &mut Problems,
    digest: Option<Sha256>,
) -> Merged {
    let mut reader = Reader {
        files,
        problems,
        chain: Vec::new(),
        seen: HashSet::new(),
        documents: Vec::new(),
        digest,
    };
    if path.to_str().is_some() {
        reader.file(path, None);
    } else {
        // It stands in every document and in every command that is suggested, and could in none.
        reader.problems.unplaced(
            Report::error(
                "config/path",
                format!("the path of the config, `{}`, is not UTF-8", path.display()),
            )
            .fix("give the file, or the folders of that path, a name in UTF-8"),
        );
    }
    let Reader {
        documents,
        digest,
        problems,
        ..
    } = reader;
    let mut merged = merge(documents, problems);
    merged.home = (files.canonical)(path)
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf))
        .filter(|home| home.is_absolute() && home.parent().is_some())
        .unwrap_or_default();
    if let Some(digest) = digest {
        merged.digest = encode_hex(&digest.finalize());
    }
    merged
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, imported: Option<(Mark, &Path)>) {
        let canonical = match (self.files.canonical)(path) {
            Ok(canonical) => canonical,
            Err(cause) => return self.unreadable(path, imported, &cause),
        };
        if let Some(position) = self
            .chain
            .iter()
            .position(|(member, _)| *member == canonical)
        {
            let Some((at, _)) = imported else { return };
            let chain: Vec<String> = self.chain[position..]
                .iter()
                .map(|(_, named)| named.display().to_string())
                .chain([path.display().to_string()])
                .collect();
            self.problems.error(
                at,
                Report::error(
                    "config/import-cycle",
                    format!("imports go in a circle: {}", chain.join(" -> ")),
                )
                .fix("remove one of these imports"),
            );
            return;
        }
        if self.seen.contains(&canonical) {
            return;
        }
        if self.seen.len() >= FILES_MAX || self.chain.len() >= CHAIN_MAX {
            if let Some((at, _)) = imported {
                self.problems.error(
                    at,
                    Report::error(
                        "config/too-many-imports",
                        format!(
                            "a config may be made of {FILES_MAX} files and import {CHAIN_MAX} deep"
                        ),
                    ),
                );
            }
            return;
        }
        self.seen.insert(canonical.clone());
        let bytes = match (self.files.read)(path) {
            Ok(bytes) => bytes,
            Err(cause) => return self.unreadable(path, imported, &cause),
        };
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return self.unreadable(
                path,
                imported,
                &format!("it is larger than the limit of {FILE_BYTES_MAX} bytes (16 MiB)"),
            );
        }
        if let Some(digest) = &mut self.digest {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(&bytes);
        }
        let text = match String::from_utf8(bytes) {
            // A byte order mark is no content, and would shift the first line.
            Ok(text) => text
                .strip_prefix('\u{feff}')
                .map(ToOwned::to_owned)
                .unwrap_or(text),
            Err(error) => return self.not_text(path, &error),
        };
        let source = self.problems.sources.add(path, text);
        let Some(root) = yaml::read(source, self.problems) else {
            return;
        };
        if !matches!(root.kind, yaml::NodeKind::Map(_)) {
            // No config at all: whatever the file is, it was not written to be shown here.
            self.problems.sources.hide_all(source);
        }
        let Some(document) = Document::decode(root, "the config", self.problems) else {
            return;
        };
        let imports: Vec<Text> = document.imports.clone().unwrap_or_default();
        self.documents.push(document);
        self.chain.push((canonical, path.to_path_buf()));
        for import in imports {
            self.import(path, &import);
        }
        self.chain.pop();
    }

    fn import(&mut self, importing: &Path, import: &Text) {
        if import.value.is_empty() || import.value.chars().any(char::is_control) {
            self.problems.error(
                import.at,
                Report::error("config/bad-value", "an import must be the path of a file"),
            );
            return;
        }
        let directory = importing.parent().unwrap_or_else(|| Path::new(""));
        let path = tidy(&directory.join(&import.value));
        self.file(&path, Some((import.at, importing)));
    }

    fn unreadable(&mut self, path: &Path, imported: Option<(Mark, &Path)>, cause: &str) {
        let named = printable(&path.display().to_string());
        match imported {
            Some((at, importing)) => self.problems.error(
                at,
                Report::error(
                    "config/unreadable-import",
                    format!(
                        "`{}` imports `{named}`, which cannot be read",
                        importing.display()
                    ),
                )
                .because(cause)
                .fix(format!(
                    "check the path; it starts at the folder of `{}`",
                    importing.display()
                )),
            ),
            None => self.problems.unplaced(
                Report::error(
                    "config/unreadable",
                    format!("the config `{named}` cannot be read"),
                )
                .because(cause)
                .fix("check the path given with `--config`"),
            ),
        }
    }

    fn not_text(&mut self, path: &Path, error: &std::string::FromUtf8Error) {
        let position = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let byte = bytes.get(position).copied().unwrap_or(0);
        let wide = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let text = String::from_utf8_lossy(bytes).into_owned();
        let source = self.problems.sources.add(path, text);
        self.problems.sources.hide_all(source);
        let start = u32::try_from(position).unwrap_or(u32::MAX);
        self.problems.error(
            Mark {
                source,
                start,
                end: start + 1,
            },
            Report::error(
                "config/not-utf8",
                format!("the byte 0x{byte:02X} here is not UTF-8"),
            )
            .fix(if wide {
                "the file looks like UTF-16; save it as UTF-8"
            } else {
                "save the file as UTF-8"
            }),
        );
    }
}

/// Removes `.` and resolves `name/..` without asking the disk, so that paths read well.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(tidied.components().next_back(), Some(Component::Normal(_))) =>
            {
                tidied.pop();
            }
            _ => tidied.push(component),
        }
    }
    tidied
}

fn merge(documents: Vec<Document>, problems: &mut Problems) -> Merged {
    let mut merged = Merged::default();
    let mut modules: HashMap<String, Mark> = HashMap::new();
    let mut idle: Vec<&'static str> = Vec::new();
    for (layer, document) in documents.into_iter().enumerate() {
        for (section, at) in document.idle_sections() {
            if !idle.contains(&section) {
                idle.push(section);
                problems.warning(
                    at,
                    Report::warning(
                        "config/ignored-section",
                        format!("Tidegate does not act on `{section}`"),
                    ),
                );
            }
        }
        for module in document.modules.unwrap_or_default() {
            if let Some(name) = &module.name {
                match modules.get(&name.value) {
                    Some(first) if first.source == name.at.source => {
                        duplicate("module", name, *first, problems);
                        continue;
                    }
                    Some(first) => {
                        let kept = problems.span(*first);
                        problems.warning(
                            name.at,
                            Report::warning(
                                "config/dropped-module",
                                format!(
                                    "this module `{}` is not used: another file declares it too",
                                    printable(&name.value)
                                ),
                            )
                            .because(format!("the one at {kept} wins, whole"))
                            .fix("remove or rename one of the two"),
                        );
                        continue;
                    }
                    None => {
                        modules.insert(name.value.clone(), name.at);
                    }
                }
            }
            merged.modules.push(module);
        }
        overlay(
            &mut merged.environments,
            document
                .environments
                .unwrap_or_default()
                .0
                .into_iter()
                .map(|(name, environment)| (name, environment.0)),
        );
        overlay(
            &mut merged.secret_stores,
            document.secret_stores.unwrap_or_default().0,
        );
        overlay(
            &mut merged.pipelines,
            document.pipelines.unwrap_or_default().0,
        );
        if let Some(secrets) = document.secrets {
            overlay_secrets(&mut merged.secrets, secrets, layer, problems);
        }
    }
    merged
}

/// Adds names that are not there yet.
fn overlay<T>(into: &mut Vec<(Text, T)>, more: impl IntoIterator<Item = (Text, T)>) {
    for (name, value) in more {
        if !into.iter().any(|(known, _)| known.value == name.value) {
            into.push((name, value));
        }
    }
}

fn duplicate(noun: &str, name: &Text, first: Mark, problems: &mut Problems) {
    let first = problems.span(first);
    problems.error(
        name.at,
        Report::error(
            "config/duplicate-name",
            format!("the {noun} `{}` is declared twice", printable(&name.value)),
        )
        .label("declared again here")
        .because(format!("it is first declared at {first}"))
        .fix("rename or remove one of the two"),
    );
}

fn overlay_secrets(into: &mut Secrets, more: Secrets, layer: usize, problems: &mut Problems) {
    into.provider = into.provider.take().or(more.provider);
    into.default_store = into.default_store.take().or(more.default_store);
    into.rotation = into.rotation.take().or(more.rotation);
    if layer == 0 || into.at == Mark::default() {
        into.at = more.at;
    }
    into.config = match (into.config.take(), more.config) {
        (Some(mut upper), Some(lower)) => {
            if let (yaml::NodeKind::Map(upper), yaml::NodeKind::Map(lower)) =
                (&mut upper.0.kind, lower.0.kind)
            {
                for entry in lower {
                    if !upper.iter().any(|known| known.key == entry.key) {
                        upper.push(entry);
                    }
                }
            }
            Some(upper)
        }
        (upper, lower) => upper.or(lower),
    };
    let generate = into.generate.get_or_insert_default();
    add_named(
        generate,
        more.generate.unwrap_or_default(),
        |item: &GenerateShape| item.key.as_ref(),
        "generated secret",
        problems,
    );
    let entries = into.entries.get_or_insert_default();
    add_named(
        entries,
        more.entries.unwrap_or_default(),
        |item: &EntryShape| item.name.as_ref(),
        "secret",
        problems,
    );
}

/// Adds items whose name is not there yet; the same name twice in one file is a mistake.
fn add_named<T>(
    into: &mut Vec<T>,
    more: Vec<T>,
    name: impl Fn(&T) -> Option<&Text>,
    noun: &str,
    problems: &mut Problems,
) {
    let mut known: HashMap<String, Mark> = into
        .iter()
        .filter_map(|item| name(item).map(|text| (text.value.clone(), text.at)))
        .collect();
    for item in more {
        if let Some(text) = name(&item) {
            match known.get(&text.value) {
                Some(first) if first.source == text.at.source => {
                    duplicate(noun, text, *first, problems);
                    continue;
                }
                Some(_) => continue,
                None => {
                    known.insert(text.value.clone(), text.at);
                }
            }
        }
        into.push(item);
    }
}
