//! `--json` of every command has exactly the top-level fields that `docs/json.md` lists for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use tidegate::resource::{ActionKind, Address, Kind};
use tidegate::state::Entry;
use tidegate::state::journal::write_line;

use crate::harness::Run;

const CONFIG: &str = "\
modules:
  - name: here
    type: iac.provider
    config: {provider: local, root: ./.tidegate/resources}
  - name: files
    type: infra.storage
    config: {provider: here}
  - name: db
    type: infra.database
    config: {provider: here, engine: sqlite}
    outputs:
      connection_url:
        sensitive: true
        sinks: [{type: dotenv, name: DATABASE_URL}]
environments:
  dev: {}
";

/// The table of `docs/json.md`: command line → top-level fields.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section = text
        .split("## Top-level fields")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("the document has the table");
    section
        .lines()
        .filter_map(|line| {
            let (command, fields) = line.strip_prefix("| `")?.split_once("` |")?;
            let fields = fields
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect();
            Some((command.to_owned(), fields))
        })
        .collect()
}

fn fields_of(document: &Value) -> BTreeSet<String> {
    document.as_object().unwrap().keys().cloned().collect()
}

/// Leaves what a run leaves that dies while it makes a resource.
fn cut_off_while_making(name: &str, project: &Path) {
    let mut line = String::new();
    let intent = Entry::Intent {
        operation: "dead-1".to_owned(),
        address: Address::new(name),
        kind: Kind::new("infra.storage"),
        provider: "here".to_owned(),
        action: ActionKind::Create,
        config_hash: String::new(),
        at: "2024-01-02T03:04:05Z".to_owned(),
        before: tidegate::state::journal::Before::default(),
    };
    write_line(&mut line, 1, &intent).unwrap();
    let journal = project.join(".tidegate/state/dev/journal.jsonl");
    let mut lines = std::fs::read_to_string(&journal).unwrap_or_default();
    lines.push_str(&line);
    std::fs::write(journal, lines).unwrap();
}

#[test]
fn every_command_prints_the_fields_its_row_lists() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("infra.yaml"), CONFIG).unwrap();
    let manifest = "version: 1\nplugins: []\n";
    std::fs::write(directory.path().join("wfctl.yaml"), manifest).unwrap();
    let cache = directory.path().join("cache").display().to_string();
    let closed = "deploy verify --url http://127.0.0.1:1/ --timeout 1s --max-retries 0";
    // In an order in which each finds what it needs. (command line, row, exit code)
    let runs: &[(&str, &str, i32)] = &[
        ("version", "version", 0),
        ("config validate", "config validate", 0),
        ("config resolve --env dev", "config resolve", 0),
        ("infra plan --env dev", "infra plan", 0),
        ("infra plan --env dev --detailed-exitcode", "infra plan", 2),
        ("up --env dev --dry-run", "up --dry-run", 0),
        (
            "infra apply --env dev --dry-run",
            "infra apply --dry-run",
            0,
        ),
        ("up --env dev", "up", 0),
        ("infra apply --env dev", "infra apply", 0),
        ("infra outputs --env dev", "infra outputs", 0),
        ("infra status --env dev", "infra status", 0),
        ("infra drift --env dev", "infra drift", 0),
        ("infra refresh --env dev", "infra refresh", 0),
        (
            "infra refresh-outputs --env dev",
            "infra refresh-outputs",
            0,
        ),
        ("infra regions --env dev", "infra regions", 0),
        ("state list --env dev", "state list", 0),
        ("infra state list --env dev", "state list", 0),
        ("state show db --env dev", "state show", 0),
        ("state verify --env dev", "state verify", 0),
        ("state pull --env dev -o all.json", "state pull", 0),
        ("state backup --env dev -o copy.json", "state backup", 0),
        ("state export --env dev -o out.json", "state export", 0),
        ("state mv files kept --env dev --yes", "state mv", 0),
        ("state rm kept --env dev --yes", "state rm", 0),
        (
            "state settle files --absent --env dev --yes",
            "state settle",
            0,
        ),
        ("state import out.json --env dev --yes", "state import", 0),
        (
            "state push all.json --env dev --yes --force",
            "state push",
            0,
        ),
        (
            "state restore copy.json --env dev --yes",
            "state restore",
            0,
        ),
        ("state unlock r-1 --env dev", "state unlock", 0),
        (
            "state migrate --to filesystem=other --env dev --yes",
            "state migrate",
            0,
        ),
        (
            "infra import --name db --force --env dev",
            "infra import",
            0,
        ),
        (
            "infra import-all --provider here --type infra.storage --env dev",
            "infra import-all",
            0,
        ),
        ("infra cleanup --tag env:dev --env dev", "infra cleanup", 0),
        (
            "infra audit-keys --type infra.storage --env dev",
            "infra audit-keys",
            0,
        ),
        ("infra bootstrap --env dev", "infra bootstrap", 0),
        ("infra audit-secrets --env dev", "infra audit-secrets", 0),
        ("infra align --env dev", "infra align", 0),
        ("infra derive --env dev", "infra derive", 0),
        ("infra security-check --env dev", "infra security-check", 0),
        (
            "infra teardown -c infra.yaml --env dev --dry-run",
            "infra teardown",
            0,
        ),
        (closed, "deploy verify", 4),
        (
            "infra destroy --env dev --dry-run",
            "infra destroy --dry-run",
            0,
        ),
        ("infra destroy --env dev", "(stopped early)", 2),
        ("infra destroy --env dev --yes", "infra destroy", 0),
        ("plugin lock", "plugin …", 0),
        ("plugin install", "plugin …", 0),
        ("plugin ci", "plugin …", 0),
        ("plugin list", "plugin …", 0),
        ("plugin verify", "plugin …", 0),
        ("migrate plugins", "plugin …", 0),
        ("plugin info nobody", "(stopped early)", 2),
        ("state wipe --env dev --yes", "state wipe", 0),
        ("up --env nowhere", "(stopped early)", 2),
    ];
    let documented = documented();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (line, row, code) in runs {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.push("--json");
        if *row == "state settle" {
            cut_off_while_making("files", directory.path());
        }
        let finished = Run::new(directory.path(), &arguments)
            .env("XDG_CACHE_HOME", &cache)
            .output()
            .expect_code(*code);
        let document: Value = serde_json::from_str(&finished.stdout())
            .unwrap_or_else(|error| panic!("{line}: {error}\n{}", finished.stdout()));
        let expected = documented
            .get(*row)
            .unwrap_or_else(|| panic!("docs/json.md has no row `{row}`"));
        assert_eq!(&fields_of(&document), expected, "{line}");
        if let Some(exit_code) = document.get("exit_code") {
            assert_eq!(exit_code, code, "{line}");
        }
        seen.insert(row);
    }
    let undocumented: Vec<&String> = documented
        .keys()
        .filter(|row| !seen.contains(row.as_str()))
        .collect();
    assert!(
        undocumented.is_empty(),
        "rows nobody checks: {undocumented:?}"
    );
}

#[test]
fn the_schema_is_a_document_too() {
    let directory = tempfile::tempdir().unwrap();
    let finished = Run::new(directory.path(), &["config", "schema", "--json"])
        .output()
        .expect_code(0);
    let schema: Value = serde_json::from_str(&finished.stdout()).unwrap();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
}

#[test]
fn a_sink_of_an_output_that_does_not_exist_fails() {
    let directory = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("connection_url:", "conection_url:");
    std::fs::write(directory.path().join("infra.yaml"), config).unwrap();
    let finished = Run::new(directory.path(), &["up", "--env", "dev", "--json"])
        .output()
        .expect_code(2);
    let document: Value = serde_json::from_str(&finished.stdout()).unwrap();
    let problem = &document["problems"][0];
    assert_eq!(problem["code"], "config/unknown-output");
    assert_eq!(problem["message"], "`db` has no output `conection_url`");
    assert_eq!(problem["hint"], "did you mean `connection_url`?");
}
