//! House rules as code: which way arrows point, who may hold plaintext, what documents promise.
//!
//! The tables are the rules; changing a rule means changing its table in the same commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate::report::Exit;

/// Every room and the floor it stands on. A room may name rooms of lower floors; rooms of floor 1
/// may name each other, and so may rooms of floor 5.
const FLOORS: &[(&str, u8)] = &[
    // Seams and nouns: what everybody is handed.
    ("clock", 1),
    ("disk", 1),
    ("process", 1),
    ("random", 1),
    ("cancel", 1),
    ("variables", 1),
    ("report", 1),
    ("resource", 1),
    ("secret", 1),
    // Deciders: no I/O of their own.
    ("config", 2),
    ("plan", 2),
    // Doors to the world.
    ("actions", 3),
    ("github", 3),
    ("http", 3),
    ("package", 3),
    ("postgres", 3),
    ("provider", 3),
    // Pure as a decider is, but about what both deciders say.
    ("rules", 3),
    ("sink", 3),
    ("state", 3),
    ("verify", 3),
    // Runners.
    ("apply", 4),
    // The desk: picks the concrete backends and talks to people.
    ("cli", 5),
    ("command", 5),
    ("face", 5),
    ("settings", 5),
    ("ui", 5),
    ("main", 5),
];

/// First words of codes that the desk reports and that are no rooms.
const DESK_CODES: &[&str] = &[
    "approval",
    "bootstrap",
    "credential",
    "bug",
    "derive",
    "drift",
    "import",
    "migrations",
    "output",
    "outputs",
    "plugin",
    "prune",
    "rotate",
    "refresh",
    "status",
    "test",
    "tidegate",
];

/// Parts of a room that stand on another floor than the rest of it.
const PARTS: &[(&str, u8)] = &[
    // Where values come from is a door: files, GitHub.
    ("secret/source", 3),
];

/// Arrows between doors: (from, to, why).
const BETWEEN_DOORS: &[(&str, &str, &str)] = &[
    ("github", "http", "the one HTTP client"),
    ("package", "http", "the one HTTP client"),
    ("package", "github", "where its API is"),
    (
        "provider",
        "package",
        "the one reader of `plugin.json` and of the lock",
    ),
    ("provider", "http", "the one HTTP client"),
    ("provider", "postgres", "the one way to PostgreSQL"),
    ("state", "postgres", "the one way to PostgreSQL"),
    ("secret/source", "github", "stores that are GitHub's"),
    ("secret/source", "http", "the one HTTP client"),
    ("sink", "http", "the one HTTP client"),
    ("state", "http", "the one HTTP client"),
    ("verify", "http", "the one HTTP client"),
    ("sink", "github", "`github_secret`"),
    ("sink", "actions", "`github_env`"),
    (
        "verify",
        "provider",
        "the health of a resource, through the `Driver` trait",
    ),
];

/// Concrete backends. Only their own room and the desk may name them; everybody else has the trait.
const BACKENDS: &[&str] = &[
    "provider::local",
    "provider::plugin",
    "state::filesystem",
    "state::memory",
    "state::postgres",
    "state::served",
    "sink::dotenv",
    "sink::github_env",
    "sink::github_secret",
];

/// What a decider (and the shared nouns of `resource`) must not name: the world.
const WORLD: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "reqwest",
    "octocrab",
    "rusqlite",
    "tokio_postgres",
];

/// Outside crates that stop at a border: (crate, places that may name it).
const BORDERS: &[(&str, &[&str])] = &[
    ("octocrab", &["github"]),
    ("reqwest", &["http", "github"]),
    ("flate2", &["package"]),
    ("rusqlite", &["provider/local"]),
    (
        "tokio_postgres",
        &["postgres.rs", "provider/local", "state/postgres"],
    ),
    ("tokio_postgres_rustls", &["postgres.rs"]),
    ("clap", &["cli", "command", "main.rs", "settings.rs"]),
    ("clap_complete", &["cli", "command"]),
    ("serde_yaml", &["config"]),
    ("tidegate_yaml", &["config"]),
    ("tidegate_matcher", &["secret"]),
    ("tonic", &["provider/plugin"]),
    ("annotate_snippets", &["report", "face"]),
    ("crypto_box", &["secret"]),
    ("chacha20poly1305", &["secret"]),
    ("secrecy", &["secret"]),
];

/// Files that may call `expose()`, with the reason.
const EXPOSE: &[(&str, &str)] = &[
    (
        "src/apply/sealing.rs",
        "an output the config declares as not sensitive",
    ),
    ("src/process.rs", "into a child's own environment"),
    (
        "src/provider/plugin/",
        "into the messages to a plugin, which has to set them",
    ),
    ("src/resource/value.rs", "marks a value as secret or not"),
    ("src/secret/keyring.rs", "seals and fingerprints"),
    ("src/secret/seal.rs", "seals for GitHub"),
    ("src/sink/", "writes into the declared destination"),
    ("src/github/", "the token, into a header marked sensitive"),
    (
        "src/package/download.rs",
        "the token, into a header marked sensitive",
    ),
    (
        "src/state/convert.rs",
        "seals and fingerprints before anything is stored",
    ),
    (
        "src/provider/local/service/",
        "into a service's own environment, and out of its log",
    ),
    (
        "src/secret/source/",
        "compares and hands on what a store holds",
    ),
    (
        "src/state/postgres/connection.rs",
        "the connection string, into the connection",
    ),
    (
        "src/provider/local/postgres/",
        "passwords of roles, into the database",
    ),
    ("src/verify/", "into the request a gate makes"),
    ("src/command/outputs.rs", "`--show-sensitive`"),
];

/// Files that may step around a seam (`disallowed_methods`), because they are its owner.
const SEAM_OWNERS: &[&str] = &[
    "src/clock.rs",
    "src/disk.rs",
    "src/process.rs",
    "src/random.rs",
    "src/settings.rs",
    "src/ui.rs",
    "src/main.rs",
    "src/http/mod.rs",
    "src/http.rs",
    "src/github/client.rs",
];

/// Literals that look like a report code and are none.
const NOT_A_CODE: &[&str] = &[];

const LINES_MAX: usize = 800;

// === Arrows ===

#[test]
fn every_room_stands_on_a_floor() {
    let rooms: BTreeSet<String> = sources().iter().map(Source::room).collect();
    let known: BTreeSet<String> = FLOORS.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(rooms, known, "rooms in src/ (left) and in FLOORS (right)");
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for source in sources() {
        let from = source.place();
        for to in source.rooms_named() {
            if !allowed(&from, &to) {
                wrong.push(format!("{}: `{from}` names `{to}`", source.path));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that point up or sideways:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn only_the_desk_names_a_backend() {
    let mut wrong = Vec::new();
    for source in sources() {
        let room = source.room();
        if floor(&room) == 5 {
            continue;
        }
        for backend in BACKENDS {
            let own = backend.split("::").next() == Some(room.as_str());
            if !own && source.code.contains(&format!("crate::{backend}")) {
                wrong.push(format!("{}: names `{backend}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn deciders_do_not_touch_the_world() {
    let mut wrong = Vec::new();
    for source in sources() {
        let room = source.room();
        if floor(&room) != 2 && room != "resource" {
            continue;
        }
        for word in WORLD {
            if source.code.contains(word) {
                wrong.push(format!("{}: names `{word}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn outside_crates_stop_at_their_border() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, places) in BORDERS {
            let inside = places
                .iter()
                .any(|place| source.path.starts_with(&format!("src/{place}")));
            if !inside && names_crate(&source.code, name) {
                wrong.push(format!("{}: names the crate `{name}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn seams_have_one_owner_each() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.code.contains("clippy::disallowed_"))
        .map(|source| source.path)
        .filter(|path| !SEAM_OWNERS.contains(&path.as_str()))
        .collect();
    assert!(wrong.is_empty(), "these step around a seam: {wrong:?}");
}

/// The rules above can fail: each finds what it is there to find.
#[test]
fn the_rules_see_what_they_look_for() {
    let planted = |path: &str, text: &str| Source::new(path.to_owned(), text);
    let source = planted(
        "src/plan/mod.rs",
        "use crate::{resource::Spec, apply::{self, Apply}, report::Report};\n\
         // crate::ui is only talked about\nfn f() { crate::github::g() }\n\
         #[cfg(test)]\nmod tests { use crate::command; }\n",
    );
    let named: Vec<String> = source.rooms_named().into_iter().collect();
    assert_eq!(named, ["apply", "github", "report", "resource"]);
    assert!(allowed("plan", "resource") && !allowed("plan", "apply") && !allowed("plan", "github"));
    assert!(!allowed("config", "plan") && !allowed("state", "sink") && allowed("sink", "github"));
    assert!(allowed("resource", "secret") && allowed("ui", "command"));
    assert!(allowed("secret/source", "github") && !allowed("secret", "github"));
    let part = planted("src/secret/source/file.rs", "");
    assert_eq!(
        (part.place().as_str(), part.room().as_str()),
        ("secret/source", "secret")
    );

    let outside = planted(
        "src/state/mod.rs",
        "use super::sink::Sink;\nuse super::super::ui;\n",
    );
    assert!(outside.rooms_named().contains("sink"));
    assert!(names_crate("use octocrab::Octocrab;", "octocrab"));
    assert!(names_crate("let x = ::clap::Arg::new(1);", "clap"));
    assert!(!names_crate("mod my_clap::x", "clap"));
    assert_eq!(
        codes(r#"Report::error("config/unknown-key", "see config/infra.yaml") "state/<name>""#),
        BTreeSet::from(["config/unknown-key".to_owned()])
    );
    assert_eq!(
        uses_of("  - uses: a/b@v1 # x\n    uses: './c'\n"),
        ["a/b@v1 # x", "'./c'"]
    );
    assert!(!is_pinned("a/b@v1") && !is_pinned("a/b@de0fac2e4500dabe0009e67214ff5f5447ce83dd"));
    assert!(is_pinned(
        "a/b@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2"
    ));
}

// === Secrets ===

#[test]
fn plaintext_is_exposed_only_where_it_must_be() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.code.contains(".expose()"))
        .map(|source| source.path)
        .filter(|path| !EXPOSE.iter().any(|(place, _)| path.starts_with(place)))
        .collect();
    assert!(
        wrong.is_empty(),
        "these call `expose()` and are not listed: {wrong:?}"
    );
}

// === Documents ===

#[test]
fn every_report_code_is_in_the_reference() {
    let mut used: BTreeMap<String, String> = BTreeMap::new();
    for source in sources() {
        for code in codes(&source.code) {
            used.entry(code).or_insert_with(|| source.path.clone());
        }
    }
    let reference = read("docs/errors.md");
    let documented: BTreeSet<String> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(code, _)| code.to_owned())
        .collect();
    let mut missing = String::new();
    for (code, path) in &used {
        if !documented.contains(code) {
            missing.push_str(&format!("| `{code}` | … | … |   <- {path}\n"));
        }
    }
    let stale: Vec<&String> = documented
        .iter()
        .filter(|code| !used.contains_key(*code))
        .collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "docs/errors.md lacks these rows:\n{missing}and tells about codes nothing reports: {stale:?}"
    );
}

#[test]
fn every_exit_code_is_in_the_reference() {
    let codes: BTreeSet<i32> = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Changes,
        Exit::GateClosed,
        Exit::Locked,
        Exit::Partial,
        Exit::Unchecked,
        Exit::Bug,
        Exit::Interrupted,
    ]
    .into_iter()
    .map(|exit| exit as i32)
    .collect();
    let documented: BTreeSet<i32> = read("docs/exit-codes.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |")?.0.parse().ok())
        .collect();
    assert_eq!(codes, documented);
}

#[test]
fn the_map_names_every_room() {
    let map = read("ARCHITECTURE.md");
    for (part, floor) in PARTS {
        let row = map
            .lines()
            .find(|line| line.starts_with(&format!("| {floor} ")))
            .unwrap_or_default();
        assert!(row.contains(&format!("`{part}`")), "{part}");
    }
    for (room, floor) in FLOORS {
        let on_the_map = map.lines().any(|line| {
            line.starts_with(&format!("{room}.rs "))
                || line.starts_with(&format!("{room}/ "))
                || line.starts_with(&format!("{room}.rs, {room}/"))
        });
        assert!(on_the_map, "`{room}` is not on the map of ARCHITECTURE.md");
        let row = map
            .lines()
            .find(|line| line.starts_with(&format!("| {floor} ")))
            .unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for floor {floor}"));
        assert!(
            row.contains(&format!("`{room}`")),
            "ARCHITECTURE.md does not put `{room}` on floor {floor}"
        );
    }
}

/// A path or a link in a document leads somewhere. `<placeholders>` and `*` are no paths.
#[test]
fn documents_name_files_that_exist() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        let shown = document.strip_prefix(root()).unwrap().display().to_string();
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') && !folder.join(target).exists() {
                wrong.push(format!("{shown}: link to {link}"));
            }
        }
        for path in paths(&text) {
            if !root().join(&path).exists() {
                wrong.push(format!("{shown}: path {path}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_changelog_tells_about_this_version() {
    let changelog = read("CHANGELOG.md");
    let version = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(
        changelog.contains("## [Unreleased]") || changelog.contains(&version),
        "CHANGELOG.md has neither `## [Unreleased]` nor `{version}`"
    );
}

#[test]
fn the_readme_has_the_two_commands_word_for_word() {
    let readme = read("README.md");
    for command in [
        "cargo run --release -- up -c examples/quickstart/infra.yaml --env dev",
        "cargo test --workspace",
    ] {
        assert!(readme.lines().any(|line| line == command), "{command}");
        assert!(read(".ci/run").contains(command), ".ci/run: {command}");
    }
}

// === Supply ===

#[test]
fn every_used_action_is_pinned() {
    let mut files = vec![root().join("action.yml")];
    for folder in [".github", "tests/action"] {
        files.extend(walk(&root().join(folder)));
    }
    let mut seen = 0;
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        if !matches!(
            file.extension().and_then(|kind| kind.to_str()),
            Some("yml" | "yaml")
        ) {
            continue;
        }
        for used in uses_of(&text) {
            seen += 1;
            assert!(
                used.starts_with("./") || used.starts_with(STAND_IN) || is_pinned(used),
                "{}: `uses: {used}` is not a commit with its version beside it",
                file.display()
            );
        }
    }
    assert!(seen >= 5, "{seen} uses seen");
}

/// A commit that stands for our own release in a workflow that only `act` runs.
const STAND_IN: &str = "tidegate/tidegate@1111111111111111111111111111111111111111";

/// One TLS stack, one crypto provider: the same list as `.github/deny.toml`, held here too because
/// this needs nothing but cargo.
#[test]
fn banned_crates_are_not_in_the_tree() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix=none"])
        .args(["--edges=normal,build,dev", "--format={p}"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let present: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        present.contains("rustls") && present.contains("ring"),
        "{present:?}"
    );
    for banned in [
        "openssl",
        "openssl-sys",
        "native-tls",
        "aws-lc-rs",
        "aws-lc-sys",
        "serde_yaml",
        "sodiumoxide",
    ] {
        assert!(!present.contains(banned), "`{banned}` is in the tree");
        assert!(
            read(".github/deny.toml").contains(&format!("\"{banned}\"")),
            "{banned}"
        );
    }
}

// === Size and tests ===

#[test]
fn no_source_file_needs_a_table_of_contents() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.lines > LINES_MAX)
        .map(|source| format!("{} has {} lines", source.path, source.lines))
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:?}");
}

#[test]
fn every_integration_test_file_is_registered() {
    let main = read("tests/it/main.rs");
    for entry in fs::read_dir(root().join("tests/it")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name != "main" {
            assert!(
                main.contains(&format!("mod {name};")),
                "tests/it/main.rs does not name {}",
                path.display()
            );
        }
    }
}

// === Reading the source ===

/// One file of `src/`, with what the compiler would not see as product code removed.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    /// Without comment lines and without unit tests.
    code: String,
    /// Of the whole file.
    lines: usize,
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let mut code = String::new();
        for line in without_unit_tests(text).lines() {
            if !line.trim_start().starts_with("//") {
                code.push_str(line);
                code.push('\n');
            }
        }
        Self {
            path,
            code,
            lines: text.lines().count(),
        }
    }

    /// The first name below `src/`.
    fn room(&self) -> String {
        let below = self.path.trim_start_matches("src/");
        let first = below.split('/').next().unwrap_or(below);
        first.trim_end_matches(".rs").to_owned()
    }

    /// The room, or the part of it that has a floor of its own.
    fn place(&self) -> String {
        PARTS
            .iter()
            .find(|(part, _)| self.path.starts_with(&format!("src/{part}")))
            .map_or_else(|| self.room(), |(part, _)| (*part).to_owned())
    }

    /// How many `super::` lead from here to the root of the crate.
    fn depth(&self) -> usize {
        let below = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        below.split('/').filter(|part| *part != "mod").count()
    }

    /// Rooms this file names, other than its own.
    fn rooms_named(&self) -> BTreeSet<String> {
        let mut code = self.code.clone();
        let up = "super::".repeat(self.depth());
        if !up.is_empty() {
            code = code.replace(&up, "crate::");
        }
        let mut named = BTreeSet::new();
        let mut rest = code.as_str();
        while let Some(at) = rest.find("crate::") {
            rest = &rest[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => named.extend(heads(group)),
                None => named.extend(head(rest)),
            }
        }
        named.remove(&self.room());
        // Only rooms: `crate::` may also be followed by a macro or an item of lib.rs.
        named.retain(|name| FLOORS.iter().any(|(room, _)| room == name));
        named
    }
}

/// The identifier a text begins with.
fn head(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

/// The first identifiers of the members of a `use` group; the opening brace is already gone.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut member = String::new();
    let mut found = Vec::new();
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && letter == ',') {
            found.extend(head(member.trim_start()));
            member.clear();
        } else {
            member.push(letter);
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// Unit tests stand at the end of a file, behind `#[cfg(test)]` and a `mod`.
fn without_unit_tests(text: &str) -> &str {
    let mut from = 0;
    while let Some(at) = text[from..].find("#[cfg(test)]") {
        let at = from + at;
        let after = text[at + "#[cfg(test)]".len()..].trim_start();
        let inline =
            after.starts_with("mod ") && after.find('{') < after.find(';').or(Some(usize::MAX));
        let attributed = after.starts_with("#[");
        if inline || attributed {
            return &text[..at];
        }
        from = at + 1;
    }
    text
}

fn floor(room: &str) -> u8 {
    FLOORS
        .iter()
        .chain(PARTS)
        .find(|(name, _)| *name == room)
        .map_or_else(
            || panic!("`{room}` stands on no floor"),
            |(_, floor)| *floor,
        )
}

fn allowed(from: &str, to: &str) -> bool {
    match (floor(from), floor(to)) {
        (1, 1) | (5, 5) => true,
        (from_floor, to_floor) if to_floor < from_floor => true,
        _ => BETWEEN_DOORS
            .iter()
            .any(|(source, target, _)| *source == from && *target == to),
    }
}

/// True when code names the outside crate `name` in a path.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    })
}

/// String literals of the form `room/short-name`.
fn codes(code: &str) -> BTreeSet<String> {
    code.split('"')
        .skip(1)
        .filter(|literal| {
            literal.split_once('/').is_some_and(|(room, name)| {
                (FLOORS.iter().any(|(known, _)| *known == room) || DESK_CODES.contains(&room))
                    && name.starts_with(|letter: char| letter.is_ascii_lowercase())
                    && name.chars().all(|letter| {
                        letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-'
                    })
            })
        })
        .filter(|literal| !NOT_A_CODE.contains(literal))
        .map(str::to_owned)
        .collect()
}

/// What stands behind every `uses:`.
fn uses_of(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim_start();
            line.strip_prefix("- ")
                .unwrap_or(line)
                .strip_prefix("uses: ")
        })
        .collect()
}

/// `owner/name@<40 hex digits> # v<version>`.
fn is_pinned(used: &str) -> bool {
    let Some((_, reference)) = used.split_once('@') else {
        return false;
    };
    let Some((commit, comment)) = reference.split_once(' ') else {
        return false;
    };
    commit.len() == 40
        && commit.chars().all(|letter| letter.is_ascii_hexdigit())
        && comment.starts_with("# v")
}

// === Reading documents ===

fn documents() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    for folder in ["docs", ".github"] {
        files.extend(
            walk(&root().join(folder))
                .into_iter()
                .filter(|path| path.extension().is_some_and(|kind| kind == "md")),
        );
    }
    files
}

/// Targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    text.match_indices("](")
        .filter_map(|(at, _)| text[at + 2..].split_once(')').map(|(target, _)| target))
        .collect()
}

/// Back-quoted paths into the repository's own folders.
fn paths(text: &str) -> Vec<String> {
    let folders = [
        "src/",
        "tests/",
        "docs/",
        "examples/",
        "action/",
        ".github/",
        ".ci/",
        "benches/",
        "proto/",
    ];
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| folders.iter().any(|folder| word.starts_with(folder)))
        .filter(|word| !word.contains(['<', '*', ' ', '…']))
        .map(str::to_owned)
        .collect()
}

fn sources() -> Vec<Source> {
    walk(&root().join("src"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
        .filter_map(|path| {
            let name = path
                .strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let is_tests = name.ends_with("/tests.rs") || name.contains("/tests/");
            (name != "src/lib.rs" && !is_tests)
                .then(|| Source::new(name, &fs::read_to_string(&path).unwrap()))
        })
        .collect()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[track_caller]
fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
