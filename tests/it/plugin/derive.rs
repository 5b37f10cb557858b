//! `infra derive` through the real binary, with a Go plugin and one on our SDK.

use serde_json::{Value as Json, json};

use super::*;
use crate::harness::{Finished, Run};

const CONFIG: &str = r#"# shop, as we run it
modules:
  - name: cloud # short
    type: iac.provider
    config: {provider: files, root: @ROOT@, region: here1, api_token: "${FILES_TOKEN}"}

  # the application itself
  - name: shop
    type: shop.server
    config:
      port: 8080   # behind the proxy

# below: everything else
environments:
  dev: {}
secrets:
  generate:
    - {key: DATABASE_PASSWORD, type: random_hex, length: 16}
"#;

/// What is put in front of `# below`, byte for byte.
const ADDED: &str = r#"  - name: orders-db
    type: infra.database
    satisfies:
    - orders
    config:
      password: ${DATABASE_PASSWORD}
      provider: cloud
"#;

struct Project(tempfile::TempDir);

impl Project {
    fn new(executable: &Path, requires: &Json) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        let plugins = project.0.path().join("data/plugins");
        install(&plugins, "files", executable);
        // Nothing but a description: what modules need is known without starting anything.
        let shop = plugins.join("shop");
        fs::create_dir_all(&shop).unwrap();
        let manifest = json!({
            "name": "shop", "version": "1.0.0", "author": "tests", "description": "for tests",
            "capabilities": {"moduleTypes": ["shop.server"]},
            "moduleInfraRequirementsV2": {"shop.server": {"requires": requires}},
        });
        fs::write(shop.join("plugin.json"), manifest.to_string()).unwrap();
        let root = project.0.path().join("root").display().to_string();
        project.write(&CONFIG.replace("@ROOT@", &root));
        project
    }

    fn write(&self, text: &str) {
        fs::write(self.0.path().join("infra.yaml"), text).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(self.0.path().join("infra.yaml")).unwrap()
    }

    fn derive(&self, arguments: &[&str]) -> Finished {
        let all = [&["infra", "derive", "--env", "dev"], arguments].concat();
        self.run(&all)
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        Run::new(self.0.path(), arguments)
            .env("FILES_TOKEN", "files_pat_9dK2mQx7Lr0vB4tN")
            .output()
    }
}

fn peers() -> Vec<&'static Path> {
    let mut all = vec![go::own_executable()];
    match go::executable() {
        Some(executable) => all.push(executable),
        None => harness::skip_without("go"),
    }
    all
}

fn document_of(run: &Finished) -> Json {
    serde_json::from_str(&run.stdout()).unwrap()
}

fn orders() -> Json {
    json!({"key": "orders", "kind": "database", "runtimes": ["kubernetes", "ecs"]})
}

#[test]
fn what_an_application_needs_is_put_into_its_config_once() {
    for executable in peers() {
        let project = Project::new(executable, &json!([orders()]));
        let before = project.text();

        let preview = project.derive(&["--runtime", "kubernetes"]).expect_code(0);
        assert_eq!(preview.stdout(), format!("modules:\n{ADDED}"));
        assert!(
            preview.stderr().contains("REQUIREMENT_RUNTIME_KUBERNETES"),
            "{}",
            preview.stderr()
        );
        assert_eq!(project.text(), before, "a preview changes nothing");

        // Declared for other runtimes only: nobody needs it here.
        let other = project.derive(&["--runtime", "cloud-run", "--write"]);
        let said = other.expect_code(0).stderr();
        assert!(said.contains("Nothing to derive"), "{said}");
        assert_eq!(project.text(), before);

        let written = project.derive(&["--write", "--json", "--non-interactive"]);
        let document = document_of(&written.expect_code(0));
        assert_eq!(document["changed"], true);
        assert_eq!(document["requirements"][0]["source"], "shop");
        assert_eq!(document["modules"][0]["name"], "orders-db");
        let after = before.replace("\n# below", &format!("{ADDED}\n# below"));
        assert_eq!(project.text(), after, "comments, order and spacing stay");

        let again = document_of(&project.derive(&["--write", "--json"]).expect_code(0));
        assert_eq!(
            (&again["changed"], &again["satisfied"]),
            (&json!(false), &json!(["orders"]))
        );
        assert_eq!(project.text(), after);
        let plan = project
            .run(&["infra", "plan", "--env", "dev"])
            .expect_code(0);
        assert!(plan.stdout().contains("orders-db"), "{}", plan.stdout());
    }
}

#[test]
fn derive_is_all_or_nothing() {
    let traces = json!({"key": "traces", "kind": "observability"});
    for executable in peers() {
        let project = Project::new(executable, &json!([orders(), traces]));
        let before = project.text();
        let refused = project.derive(&["--write"]).expect_code(1);
        for words in [
            "derive/rejected",
            "`traces`: files cannot do that (no_such_thing)",
        ] {
            assert!(refused.stderr().contains(words), "{}", refused.stderr());
        }
        assert_eq!(project.text(), before);

        // Somebody meets the other one by hand.
        let by_hand = before.replace(
            "    type: shop.server\n",
            "    type: shop.server\n    satisfies: [traces]\n",
        );
        project.write(&by_hand);
        project.derive(&["--write"]).expect_code(0);
        assert_eq!(
            project.text(),
            by_hand.replace("\n# below", &format!("{ADDED}\n# below"))
        );

        // What the modules refer to must be there.
        let without = before.replace("DATABASE_PASSWORD", "OTHER_PASSWORD");
        let project = Project::new(executable, &json!([orders()]));
        project.write(&without);
        let refused = project.derive(&["--write"]).expect_code(2);
        for words in ["derive/invalid", "DATABASE_PASSWORD"] {
            assert!(refused.stderr().contains(words), "{}", refused.stderr());
        }
        assert_eq!(project.text(), without);
    }
}

#[test]
fn derive_says_whom_it_could_not_ask() {
    let project = Project::new(go::own_executable(), &json!([orders()]));
    let config = project.text();
    let local = config
        .replace("provider: files, root:", "provider: local, root:")
        .replace(", region: here1, api_token: \"${FILES_TOKEN}\"", "");
    project.write(&local);
    let refused = project.derive(&["--write"]).expect_code(2);
    assert!(
        refused.stderr().contains("derive/no-provider") && refused.stderr().contains("`orders`"),
        "{}",
        refused.stderr()
    );
    assert_eq!(project.text(), local);

    // A list in brackets is left to people.
    let brackets = local
        .split("modules:")
        .next()
        .map(|head| format!("{head}modules: [{{name: shop, type: shop.server}}, {{name: cloud, type: iac.provider, config: {{provider: files, root: ./r, region: here1}}}}]\nsecrets: {{generate: [{{key: DATABASE_PASSWORD, type: random_hex}}]}}\n"))
        .unwrap();
    project.write(&brackets);
    let refused = project.run(&["infra", "derive", "--write"]).expect_code(2);
    assert!(
        refused.stderr().contains("package/cannot-edit"),
        "{}",
        refused.stderr()
    );
    assert_eq!(project.text(), brackets);

    // What a plugin says its modules need is checked before anybody is asked.
    let project = Project::new(go::own_executable(), &json!([{"kind": "database"}]));
    let refused = project.derive(&[]).expect_code(2);
    assert!(
        refused.stderr().contains("plugin/requirements"),
        "{}",
        refused.stderr()
    );
}

#[test]
fn needs_that_no_file_names_are_asked_of_the_plugin_that_discovers_them() {
    for executable in peers() {
        let project = Project::new(executable, &json!([]));
        let config = project
            .text()
            .replace("region: here1", "region: here1, needs: [orders]");
        project.write(&config);
        // A plugin that does not say that it discovers needs is not started for it.
        let nothing = project.derive(&[]).expect_code(0);
        assert!(
            nothing.stderr().contains("Nothing to derive"),
            "{}",
            nothing.stderr()
        );
        assert!(!project.0.path().join("root").exists());

        let manifest = project.0.path().join("data/plugins/files/plugin.json");
        let mut described: Json = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
        described["iacServices"] = json!(["workflow.plugin.external.iac.IaCRequirementDiscovery"]);
        fs::write(&manifest, described.to_string()).unwrap();
        let written = project.derive(&["--write", "--json"]).expect_code(0);
        let document = document_of(&written);
        assert_eq!(document["requirements"][0]["key"], "orders");
        assert_eq!(document["requirements"][0]["source"], "files");
        assert_eq!(document["modules"][0]["name"], "orders-db");
        // It was told what there is, and nothing that is secret.
        let seen = fs::read_to_string(project.0.path().join("root/discovered.txt")).unwrap();
        let folder = project.0.path().file_name().unwrap().to_str().unwrap();
        for there in ["shop.server", "here1", "dev", folder] {
            assert!(seen.contains(there), "{there}: {seen}");
        }
        for secret in ["files_pat", "api_token"] {
            assert!(!seen.contains(secret), "{seen}");
        }
        let again = project.derive(&["--write", "--json"]).expect_code(0);
        assert_eq!(document_of(&again)["changed"], false);
    }
}

#[tokio::test]
async fn a_secret_never_gets_into_a_suggested_module() {
    let need = tidegate::provider::ability::Requirement {
        key: "orders".to_owned(),
        kind: "database".to_owned(),
        ..Default::default()
    };
    let needs = std::slice::from_ref(&need);
    // The name of the module, and a word in its config.
    for secret in ["orders-db", "DATABASE_PASSWORD"] {
        let lab = Lab::new("files", go::own_executable());
        let settings = Map::from([
            ("root".to_owned(), text("root")),
            ("region".to_owned(), text("here1")),
        ]);
        let plugin = lab.open("files", settings).await.unwrap();
        plugin.derive("", "dev", needs).await.unwrap();
        lab.masker.admit("test", secret.to_owned());
        let refused = plugin.derive("", "dev", needs).await.unwrap_err();
        assert_eq!(refused.class, tidegate::provider::ErrorClass::Invalid);
        assert!(!refused.message.contains(secret), "{}", refused.message);
        plugin.close().await;
        lab.expect_nothing_left();
    }
}
