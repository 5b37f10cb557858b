//! Credentials that a provider makes: minted, stored, rotated, revoked; through the binary and a
//! plugin whose credentials are files.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{Project, code_of};
use crate::github::fake::{Fake, Options};
use crate::main_job::{files, forms};

const CONFIG: &str = "\
modules:
  - name: state
    type: iac.state
    config: {backend: filesystem, directory: ./state}
  - name: cloud
    type: iac.provider
    config: {provider: files, root: ./cloud, region: here1}
secretStores:
  vault: {provider: file, config: {path: vault}}
secrets:
  generate:
    - key: SPACES
      type: provider_credential
      source: files.spaces
      name: shop-state
      store: vault
environments:
  dev: {}
";

/// Of the two halves, as the plugin makes them.
const HALVES: [&str; 2] = ["ak-file-", "sk-file-"];

impl Project {
    /// A file of the store.
    fn held(&self, name: &str) -> String {
        fs::read_to_string(self.path("vault").join(name)).unwrap_or_default()
    }

    fn both(&self) -> [String; 2] {
        [
            self.held("SPACES_access_key"),
            self.held("SPACES_secret_key"),
        ]
    }

    /// Names of the credentials that work.
    fn live(&self) -> Vec<String> {
        let mut all: Vec<String> = fs::read_dir(self.path("cloud"))
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let name = name.strip_prefix("infra.spaces_key__")?;
                Some(name.strip_suffix(".json")?.to_owned())
            })
            .collect();
        all.sort();
        all
    }

    fn revoked(&self) -> Vec<String> {
        fs::read_to_string(self.path("cloud/revoked.txt"))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Nothing below the state holds any form of these.
    #[track_caller]
    fn expect_sealed(&self, secrets: &[String]) {
        let folder = self.path("state");
        for path in files(&folder) {
            let text = String::from_utf8_lossy(&fs::read(folder.join(&path)).unwrap()).into_owned();
            for secret in secrets {
                for form in forms(secret) {
                    assert!(!text.contains(&form), "{} holds a secret", path.display());
                }
            }
        }
    }
}

fn status(document: &Value) -> &str {
    document["secrets"][0]["status"].as_str().unwrap()
}

#[test]
fn a_credential_is_minted_once_stored_and_nowhere_in_the_clear() {
    let project = Project::with_plugin(CONFIG);
    let first = project.run("infra bootstrap").expect_code(0);
    let both = project.both();
    for (value, half) in both.iter().zip(HALVES) {
        assert!(value.starts_with(half), "{value}");
        for stream in [first.stdout(), first.stderr()] {
            assert!(!stream.contains(value), "{stream}");
        }
    }
    project.expect_sealed(&both);
    assert_eq!(project.live(), ["shop-state"]);
    let second = project.json("infra bootstrap", 0);
    assert_eq!(status(&second), "exists");
    assert_eq!(second["changed"], false);
    assert_eq!(second["credentials"][0]["name"], "shop-state");
    assert_eq!(
        second["credentials"][0]["created_at"],
        "2026-01-05T08:00:00Z"
    );
    assert_eq!(project.live(), ["shop-state"]);
    assert_eq!(project.both(), both);
}

#[test]
fn a_rotation_mints_then_stores_and_only_then_revokes() {
    let project = Project::with_plugin(CONFIG);
    project.json("infra bootstrap", 0);
    let before = project.both();
    let watched = project.path("vault/SPACES_secret_key");
    project.write("cloud/watch", &watched.display().to_string());
    let document = project.json("infra bootstrap --force-rotate SPACES", 0);
    assert_eq!(status(&document), "rotated");
    let after = project.both();
    assert!(after[0] != before[0] && after[1] != before[1]);
    // The one that was revoked is the old one, at a moment when the store held the new one.
    let old = before[0].trim_start_matches("ak-");
    assert_eq!(
        project.revoked(),
        [format!("files.spaces {old} {}", after[1])]
    );
    let live = project.live();
    assert_eq!(live.len(), 1);
    assert!(live[0].starts_with("shop-state-"), "{live:?}");
    project.expect_sealed(&after);
    project.expect_sealed(&before);
    // The name is free again, and so the next one has it.
    project.json("infra bootstrap --force-rotate SPACES", 0);
    assert_eq!(project.live(), ["shop-state"]);
}

#[test]
fn a_mint_that_fails_leaves_the_previous_credential_stored_and_valid() {
    let project = Project::with_plugin(CONFIG);
    project.json("infra bootstrap", 0);
    let (before, live) = (project.both(), project.live());
    for cause in ["cloud/mint.fails", "cloud/mint.halves"] {
        project.write(cause, "");
        let failed = project.json("infra bootstrap --force-rotate SPACES", 1);
        assert_eq!(code_of(&failed), "credential/not-made", "{cause}");
        fs::remove_file(project.path(cause)).unwrap();
        assert_eq!(project.both(), before, "{cause}");
        assert_eq!(project.live(), live, "{cause}");
    }
    let again = project.json("infra bootstrap", 0);
    assert_eq!(status(&again), "exists");
    assert_eq!(project.both(), before);
}

#[test]
fn a_minted_credential_that_cannot_be_stored_is_revoked_and_the_old_one_is_untouched() {
    let project = Project::with_plugin(CONFIG);
    project.json("infra bootstrap", 0);
    let (before, live) = (project.both(), project.live());
    // The second half cannot be written: the first has been by then.
    let second = project.path("vault/SPACES_secret_key");
    fs::remove_file(&second).unwrap();
    project.write("vault/SPACES_secret_key/in-the-way", "");
    let failed = project.json("infra bootstrap --force-rotate SPACES", 1);
    assert_eq!(code_of(&failed), "credential/not-stored");
    assert_eq!(project.held("SPACES_access_key"), before[0], "put back");
    assert_eq!(project.live(), live);
    let revoked = project.revoked();
    assert_eq!(revoked.len(), 1, "{revoked:?}");
    assert!(!revoked[0].contains(before[0].trim_start_matches("ak-")));
    // What is in the way goes, and the next run puts the old pair together again.
    fs::remove_dir_all(&second).unwrap();
    assert_eq!(status(&project.json("infra bootstrap", 0)), "exists");
    assert_eq!(project.both(), before);
    // A first one that cannot be stored leaves nothing behind either.
    let other = Project::with_plugin(&CONFIG.replace(
        "{provider: file, config: {path: vault}}",
        "{provider: env, config: {}}",
    ));
    let failed = other.json("infra bootstrap", 1);
    assert_eq!(code_of(&failed), "credential/not-stored");
    assert!(other.live().is_empty());
}

#[test]
fn a_run_that_dies_while_minting_leaves_no_credential_behind() {
    let project = Project::with_plugin(CONFIG);
    project.json("infra bootstrap", 0);
    let before = project.both();
    project.write("cloud/mint.dies", "");
    let failed = project.json("infra bootstrap --force-rotate SPACES", 1);
    assert_eq!(code_of(&failed), "credential/not-made");
    fs::remove_file(project.path("cloud/mint.dies")).unwrap();
    assert_eq!(project.live().len(), 2, "one is nobody's");
    assert_eq!(project.both(), before);
    let next = project.run("infra bootstrap").expect_code(0);
    assert!(next.stderr().contains("it is revoked"), "{}", next.stderr());
    assert_eq!(project.live(), ["shop-state"]);
    assert_eq!(project.both(), before);
}

#[test]
fn an_old_credential_works_until_an_apply_has_handed_the_new_one_on() {
    let config = CONFIG.replace(
        "      store: vault\n",
        "      store: vault\n      sinks: [{type: dotenv, name: SPACES}]\n",
    );
    let project = Project::with_plugin(&config);
    project.run("infra apply").expect_code(0);
    let written = |name: &str| crate::main_job::dotenv(&project.path(".env"), name);
    let first = written("SPACES_secret_key");
    assert_eq!(first, project.held("SPACES_secret_key"));
    let rotated = project.json("infra bootstrap --force-rotate SPACES", 0);
    assert_eq!(
        rotated["credentials"][0]["still_to_revoke"],
        serde_json::json!(["shop-state"])
    );
    assert_eq!(project.live().len(), 2, "the sink holds the old one");
    project.run("infra apply").expect_code(0);
    assert_ne!(written("SPACES_secret_key"), first);
    assert_eq!(
        written("SPACES_secret_key"),
        project.held("SPACES_secret_key")
    );
    assert_eq!(project.live().len(), 1);
}

#[test]
fn what_cannot_be_revoked_is_said_and_tried_again() {
    let project = Project::with_plugin(CONFIG);
    project.json("infra bootstrap", 0);
    project.write("cloud/revoke.fails", "");
    let rotated = project
        .run("infra bootstrap --force-rotate SPACES")
        .expect_code(0);
    assert!(
        rotated.stderr().contains("credential/not-revoked"),
        "{}",
        rotated.stderr()
    );
    assert_eq!(project.live().len(), 2);
    fs::remove_file(project.path("cloud/revoke.fails")).unwrap();
    project.json("infra bootstrap", 0);
    assert_eq!(project.live().len(), 1);
}

#[test]
fn a_credential_of_somebody_else_is_not_taken_and_not_touched() {
    let project = Project::with_plugin(CONFIG);
    project.json("infra bootstrap", 0);
    let state: PathBuf = project.path("state");
    fs::remove_dir_all(&state).unwrap();
    let refused = project.json("infra bootstrap", 1);
    assert_eq!(code_of(&refused), "credential/exists");
    assert_eq!(project.live(), ["shop-state"]);
    assert!(project.revoked().is_empty());
}

#[test]
fn a_destroy_revokes_it_and_empties_the_store() {
    let project = Project::with_plugin(CONFIG);
    project.json("infra bootstrap", 0);
    let dry = project.run("infra destroy --dry-run").expect_code(0);
    assert!(
        dry.stderr().contains("Revokes the credential `shop-state`"),
        "{}",
        dry.stderr()
    );
    // There is no resource, and still something to be asked about.
    let asked = project.json("infra destroy", 2);
    assert_eq!(code_of(&asked), "approval/needed");
    assert_eq!(project.live(), ["shop-state"]);
    project.run("infra destroy --yes").expect_code(0);
    assert!(project.live().is_empty());
    assert_eq!(project.both(), ["", ""]);
}

#[test]
fn sources_that_nobody_knows_and_halves_are_refused_before_any_effect() {
    for (source, code) in [
        ("moon.spaces", "credential/unknown-source"),
        ("files.moon", "credential/unknown-source"),
    ] {
        let project = Project::with_plugin(&CONFIG.replace("files.spaces", source));
        assert_eq!(code_of(&project.json("infra bootstrap", 2)), code);
        assert!(project.live().is_empty());
    }
    let project = Project::with_plugin(CONFIG);
    let half = project.json("infra bootstrap --force-rotate SPACES_access_key", 2);
    assert_eq!(code_of(&half), "bootstrap/half-a-credential");
    assert!(project.live().is_empty());
}

/// Something that deletes, with both keys and an answer.
fn confirmed(project: &Project, command: &str, code: i32) -> Value {
    let line = format!("infra {command} --confirm --yes --env dev --json");
    let finished = project
        .start(&line)
        .env("WFCTL_CONFIRM_PRUNE", "1")
        .env(
            "WFCTL_STATE_DIR",
            &project.path("kept").display().to_string(),
        )
        .output()
        .expect_code(code);
    serde_json::from_str(&finished.stdout()).unwrap()
}

fn rotate(project: &Project, more: &str, code: i32) -> Value {
    confirmed(
        project,
        &format!("rotate-and-prune --name shop-state{more}"),
        code,
    )
}

#[test]
fn a_rotation_deletes_what_this_state_made_and_what_is_named_and_nothing_else() {
    let project = Project::with_plugin(CONFIG);
    project.json("infra bootstrap", 0);
    let first =
        fs::read_to_string(project.path("cloud/infra.spaces_key__shop-state.json")).unwrap();
    let first: Value = serde_json::from_str(&first).unwrap();
    // Two of somebody else: one looks like ours.
    for name in ["shop-state-0badcafe", "other"] {
        let mut other = first.clone();
        other["name"] = name.into();
        other["id"] = format!("id-of-{name}").into();
        project.write(
            &format!("cloud/infra.spaces_key__{name}.json"),
            &other.to_string(),
        );
    }
    let document = rotate(&project, "", 0);
    let live = project.live();
    assert_eq!(live.len(), 3, "{live:?}");
    assert!(live.contains(&"other".to_owned()) && live.contains(&"shop-state-0badcafe".to_owned()));
    assert!(!live.contains(&"shop-state".to_owned()), "{live:?}");
    assert_eq!(document["kept"][0]["resource"], "shop-state-0badcafe");
    // What was made is written down, for its owner only, without the secret half.
    let path = project.path("kept/last-rotation.json");
    let text = fs::read_to_string(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(!text.contains("sk-file-"), "{text}");
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written["name"], document["credential"]["name"]);
    assert_eq!(written["created_at"], document["credential"]["created_at"]);
    assert_eq!(written["type"], "infra.spaces_key");
    let id = written["access_key"].as_str().unwrap();
    assert_eq!(project.held("SPACES_access_key"), format!("ak-{id}"));
    // By name, it goes.
    rotate(&project, " --also id-of-shop-state-0badcafe", 0);
    assert_eq!(project.live(), ["other", "shop-state"]);
    let refused = rotate(&project, " --also shop-state", 2);
    assert_eq!(code_of(&refused), "rotate/not-deletable");
    let refused = rotate(&project, " --also otter", 2);
    assert_eq!(code_of(&refused), "rotate/not-deletable");
    assert_eq!(project.live(), ["other", "shop-state"]);
    // A full account: the room is made first, and what is in use still stays until the end.
    rotate(&project, " --also other --prune-first", 0);
    assert_eq!(project.live().len(), 1);
}

#[test]
fn a_rotation_needs_both_keys_and_a_listing_with_the_one_in_use() {
    let project = Project::with_plugin(CONFIG);
    let refused = project.json(
        "infra rotate-and-prune --name shop-state --confirm --yes",
        2,
    );
    assert_eq!(code_of(&refused), "prune/two-keys");
    let refused = rotate(&project, "", 2);
    assert_eq!(code_of(&refused), "rotate/nothing-yet");
    project.json("infra bootstrap", 0);
    let refused = rotate(&project, " --type infra.vpc", 2);
    assert_eq!(code_of(&refused), "rotate/other-type");
    project.write("cloud/mint.fails", "");
    assert_eq!(code_of(&rotate(&project, "", 1)), "credential/not-made");
    assert_eq!(project.live(), ["shop-state"]);
    assert!(!project.path("kept/last-rotation.json").exists());
    fs::remove_file(project.path("cloud/mint.fails")).unwrap();
    fs::remove_file(project.path("cloud/infra.spaces_key__shop-state.json")).unwrap();
    assert_eq!(code_of(&rotate(&project, "", 1)), "rotate/not-listed");
}

#[test]
fn a_prune_spares_the_credential_in_use_and_can_go_by_the_last_rotation() {
    let project = Project::with_plugin(CONFIG);
    project.json("infra bootstrap", 0);
    let first =
        fs::read_to_string(project.path("cloud/infra.spaces_key__shop-state.json")).unwrap();
    rotate(&project, "", 0);
    let mut stray: Value = serde_json::from_str(&first).unwrap();
    stray["name"] = "stray".into();
    stray["id"] = "id-of-stray".into();
    stray["config"]["made_at"] = "2025-01-01T00:00:00Z".into();
    project.write("cloud/infra.spaces_key__stray.json", &stray.to_string());
    let in_use = project.live()[0].clone();
    let prune = |more: &str| {
        confirmed(
            &project,
            &format!("prune --type infra.spaces_key {more}"),
            0,
        )
    };
    // Somebody excludes the wrong one: the one in use stays all the same.
    let document = prune("--created-before 2999-01-01T00:00:00Z --exclude stray");
    assert_eq!(document["resources"].as_array().unwrap().len(), 0);
    assert!(
        document["kept"]
            .as_array()
            .unwrap()
            .iter()
            .any(|kept| kept["resource"] == in_use.as_str()
                && kept["why"] == "in use by a generated secret"),
        "{document:#}"
    );
    let document = prune("--recovery-from-last-rotation");
    assert_eq!(document["resources"][0]["resource"], "stray");
    assert_eq!(project.live(), [in_use]);
}

#[test]
fn the_audit_finds_the_three_mistakes_without_asking_anybody() {
    let bad = "\
modules:
  - {name: cloud, type: iac.provider, config: {provider: not-installed}}
secrets:
  generate:
    - {key: A_access_key, type: provider_credential, source: cloud.spaces, name: a}
    - {key: A_secret_key, type: provider_credential, source: cloud.spaces, name: a}
    - {key: B, type: provider_credential, source: moon.spaces, name: b}
environments:
  dev: {}
";
    let project = Project::new(bad);
    let document = project.json("infra audit-secrets", 1);
    let found: Vec<&str> = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["rule"].as_str().unwrap())
        .collect();
    assert_eq!(found, ["R-S1", "R-S1", "R-S2", "R-S3"]);
    assert_eq!(document["findings"][0]["at"]["line"], 5);
    let good = Project::new(CONFIG);
    let document = good.json("infra audit-secrets", 0);
    assert_eq!(document["findings"], serde_json::json!([]));
    assert!(!good.path("state").exists());
}

/// The host keeps names in upper case. What is ours is known all the same, and what is not is never
/// taken for a leftover.
#[test]
fn mixed_case_secrets_are_known_on_a_host_that_tells_upper_case_and_strangers_stay() {
    let github = Fake::start(Options::default());
    github.seed("acme/shop", "FOREIGN_CI_TOKEN", b"not ours");
    let config = CONFIG
        .replace(
            "{provider: file, config: {path: vault}}",
            "{provider: github, config: {repo: acme/shop, token_env: GH_TOKEN}}",
        )
        .replace(
            "environments:",
            "    - {key: Session_Key, type: random_hex, sinks: [{type: github_secret, name: Session_Key, repo: acme/shop, token_env: GH_TOKEN}]}\nenvironments:",
        );
    let project = Project::with_plugin(&config);
    let run = |line: &str| {
        project
            .start(&format!("{line} --env dev"))
            .env("GITHUB_API_URL", github.url())
            .env("GH_TOKEN", "github_pat_11TESTTOKEN_for_the_fake")
            .output()
            .expect_code(0)
    };
    run("infra apply");
    assert_eq!(github.count("acme/shop"), 4);
    let made = |name: &str| github.secret("acme/shop", name).unwrap();
    let first = (made("SPACES_SECRET_KEY"), made("SESSION_KEY"));
    run("infra apply");
    run("infra bootstrap");
    assert_eq!(
        (made("SPACES_SECRET_KEY"), made("SESSION_KEY")),
        first,
        "live ones are neither made again nor taken away"
    );
    assert_eq!(github.requests("DELETE"), 0);
    assert_eq!(project.live(), ["shop-state"]);
    run("infra bootstrap --force-rotate SPACES");
    assert_ne!(made("SPACES_SECRET_KEY"), first.0);
    run("infra destroy --yes");
    assert_eq!(github.count("acme/shop"), 1);
    assert_eq!(made("FOREIGN_CI_TOKEN"), b"not ours");
}
