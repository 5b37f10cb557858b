//! What of a plugin's answers is a secret: it is sealed on record and shown nowhere, and what is told once
//! is kept.

use serde_json::{Value as Json, json};

use super::apply::Project;
use super::*;

impl Project {
    /// From now on it behaves like this.
    fn now(&self, mode: &Json) {
        let path = self.0.path().join("data/plugins/bad/mode.json");
        let mut all = json!({"serve": true, "notes_calls": true});
        for (key, value) in mode.as_object().unwrap() {
            all[key] = value.clone();
        }
        fs::write(path, all.to_string()).unwrap();
    }

    /// Everything that is stored, as one text.
    fn stored(&self) -> String {
        let mut all = String::new();
        let mut folders = vec![self.0.path().join("state")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    all.push_str(&String::from_utf8_lossy(&fs::read(path).unwrap()));
                }
            }
        }
        assert!(all.contains("infra.vpc"), "{all}");
        all
    }

    /// An output, in the clear if need be.
    fn output(&self, name: &str) -> String {
        let run = self.run(&[
            "infra",
            "outputs",
            "--module",
            "web",
            "--output",
            name,
            "--show-sensitive",
        ]);
        run.output().expect_code(0).stdout().trim().to_owned()
    }

    /// An output that everybody may see.
    fn shown(&self, name: &str) -> Option<String> {
        let run = self.run(&["infra", "outputs", "--module", "web", "--output", name]);
        let ended = run.output();
        (ended.code() == 0).then(|| ended.stdout().trim().to_owned())
    }
}

#[test]
fn an_update_keeps_what_only_the_create_told() {
    let project = Project::new(&json!({
        "answers_outputs": r#"{"phrase": "hunter-2-phrase", "boot": "once", "host": "h1"}"#,
        "flags": ["phrase"],
    }));
    project.apply().output().expect_code(0);
    for updates in [r#"{"host": "h2"}"#, ""] {
        project.now(&json!({"diff": [["size", "s", "m"]], "updates_outputs": updates}));
        project.apply().output().expect_code(0);
        assert_eq!(project.output("phrase"), "hunter-2-phrase");
        assert_eq!(project.shown("phrase"), None);
        assert_eq!(project.shown("boot").unwrap(), "once");
        assert_eq!(project.shown("host").unwrap(), "h2");
    }
    assert_eq!(project.asked("ResourceDriver/Update"), 2);
    // And it is still known for what it was flagged as.
    let live = json!(["phrase", "secret_ref://web_phrase", "NEWLIVE-secret-97"]);
    project.now(&json!({"diff": [live]}));
    let said = project.run(&["infra", "plan"]).output().expect_code(0);
    assert!(!said.stdout().contains("NEWLIVE"), "{}", said.stdout());
}

#[test]
fn the_live_value_of_a_flagged_output_is_not_shown() {
    let project = Project::new(&json!({
        "answers_outputs": r#"{"phrase": "hunter-2-phrase", "host": "h1"}"#,
        "flags": ["phrase"],
    }));
    project.apply().output().expect_code(0);
    let seen = r#"{"phrase": "hunter-2-phrase", "host": "h1"}"#;
    project.now(
        &json!({"reads": "web", "answers_outputs": seen, "flags": ["phrase"], "diff": [
            ["phrase", "hunter-2-phrase", "NEWLIVE-secret-91"],
            ["outputs.phrase", null, "NEWLIVE-secret-92"],
            ["phrase[0]", null, "NEWLIVE-secret-93"],
            ["deep", null, {"a": [{"phrase": "NEWLIVE-secret-94"}]}],
            ["size", "small", "large"],
        ]}),
    );
    for arguments in [
        &["infra", "plan", "--output", "saved.plan"][..],
        &["infra", "plan", "--json"],
        &["infra", "drift"],
        &["infra", "drift", "--json"],
    ] {
        let ended = project.run(arguments).output();
        let said = format!("{}{}", ended.stdout(), ended.stderr());
        assert!(!said.contains("NEWLIVE"), "{arguments:?}: {said}");
        assert!(said.contains("large"), "{arguments:?}: {said}");
    }
    let saved = fs::read(project.0.path().join("saved.plan")).unwrap();
    assert!(!String::from_utf8_lossy(&saved).contains("NEWLIVE"));
}

#[test]
fn an_import_is_looked_at_for_what_it_cannot_flag() {
    let outputs = r#"{"phrase": "hunter-2-imported", "host": "h1"}"#;
    let import = ["infra", "import", "--name", "web", "--id", "id-1"];
    let project = Project::new(&json!({
        "imports_outputs": r#"{"phrase": "hunter-2-imported", "host": "h1", "seed": "hunter-3"}"#,
        "reads": "web", "answers_outputs": outputs, "flags": ["phrase"],
    }));
    project.run(&import).output().expect_code(0);
    assert!(!project.stored().contains("hunter-"));
    assert_eq!(project.shown("host").unwrap(), "h1");
    assert_eq!(project.shown("seed"), None);
    assert_eq!(project.output("phrase"), "hunter-2-imported");

    // Nobody says what it is.
    let blind = Project::new(&json!({"imports_outputs": outputs}));
    blind.run(&import).output().expect_code(0);
    assert!(!blind.stored().contains("hunter-"));
    assert_eq!(blind.shown("host"), None);
    assert_eq!(blind.output("phrase"), "hunter-2-imported");
}

#[test]
fn what_holds_a_secret_is_sealed_whatever_it_is_called() {
    let outputs = json!({
        "database_url": "pg:app:hunter-9-zzQQ@host/db",
        "password": "hunter-9-zzQQ",
        "z_url": "pg:app:hunter-9-zzQQ@host/db",
        "connection": {"host": "h", "password": "hunter-7-nested", "uri": "pg://u:hunter-7-nested@h"},
        "users": [{"name": "u", "password": "hunter-6-nested"}],
        "link": "pg://user:hunter-5-url@host/db",
        "host": "h1", "port": 5432, "features": {"password_login": true},
    });
    let project = Project::new(&json!({"answers_outputs": outputs.to_string()}));
    project.apply().output().expect_code(0);
    let stored = project.stored();
    assert!(!stored.contains("hunter-"), "{stored}");
    let shown = project.run(&["state", "show", "web"]).output();
    assert!(!shown.expect_code(0).stdout().contains("hunter-"));
    for (name, value) in [("host", "h1"), ("port", "5432")] {
        assert_eq!(project.shown(name).unwrap(), value);
    }
    assert!(
        project
            .shown("features")
            .unwrap()
            .contains("password_login")
    );
    for name in ["database_url", "z_url", "connection", "users", "link"] {
        assert_eq!(project.shown(name), None, "{name}");
        assert!(project.output(name).contains("hunter-"), "{name}");
    }

    // The same by the flag alone.
    let flagged = json!({
        "database_url": "pg:app:hunter-9-zzQQ@host/db", "phrase": "hunter-9-zzQQ",
    });
    let project = Project::new(&json!({
        "answers_outputs": flagged.to_string(), "flags": ["phrase"],
    }));
    project.apply().output().expect_code(0);
    assert!(!project.stored().contains("hunter-"));
    assert_eq!(project.shown("database_url"), None);
}

#[test]
fn an_explanation_is_cut_after_its_secrets_are_hidden() {
    let project = Project::new(&json!({
        "refuse_on": "ResourceDriver/Create", "text": "iac: validation error: no",
        "explains": format!("{}tok-SECRET-abc123xyz", "x".repeat(3_981)),
    }));
    let path = project.0.path().join("infra.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let with_token = "{provider: bad, token: \"${CLOUD_TOKEN}\"}";
    fs::write(&path, text.replace("{provider: bad}", with_token)).unwrap();
    for arguments in [&["up", "--yes"][..], &["up", "--yes", "--json"]] {
        let run = project.run(arguments);
        let ended = run.env("CLOUD_TOKEN", "tok-SECRET-abc123xyz").output();
        let said = format!("{}{}", ended.stdout(), ended.stderr());
        assert!(said.contains("xxxx"), "{said}");
        assert!(!said.contains("tok-"), "{said}");
    }
}

#[test]
fn a_question_about_sensitive_outputs_that_fails_for_now_is_asked_again() {
    let project = Project::new(&json!({"answers_outputs": r#"{"host": "h1"}"#}));
    project.apply().output().expect_code(0);
    let keys = "ResourceDriver/SensitiveKeys";
    let before = project.asked(keys);
    let refusing = |times: u32| {
        json!({
            "diff": [], "refuse_on": keys, "refuse_times": times, "text": "iac: rate limited",
        })
    };
    project.now(&refusing(2));
    let ended = project.run(&["infra", "plan"]).output().expect_code(0);
    assert_eq!(project.asked(keys), before + 3);
    assert!(!ended.stdout().contains("update"), "{}", ended.stdout());
    project.apply().output().expect_code(0);
    assert_eq!(project.asked("ResourceDriver/Update"), 0);
    assert_eq!(project.shown("host").unwrap(), "h1");

    // Never answered, nothing is done.
    project.now(&refusing(100));
    let ended = project.apply().output().expect_code(1);
    assert!(
        ended.stderr().contains("plugin/sensitive-keys"),
        "{}",
        ended.stderr()
    );
    assert_eq!(project.asked("ResourceDriver/Update"), 0);

    // One that never could is no reason to stop.
    project.now(&json!({"diff": [], "refuse_on": keys, "text": "no such thing", "code": 3}));
    let ended = project.run(&["infra", "plan"]).output().expect_code(0);
    assert!(
        ended.stderr().contains("plugin/sensitive-keys"),
        "{}",
        ended.stderr()
    );
}
