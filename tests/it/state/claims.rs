//! Whose name a backend is: the Go plugin's own one works, built-in ones belong to nobody else, and
//! two plugins cannot have the same.

use std::fs;
use std::path::Path;

use crate::harness::{self, Finished, Run};

/// A config with this state module, and a folder for plugins.
struct Shop {
    folder: tempfile::TempDir,
}

impl Shop {
    fn new(state: &str) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let shop = Self { folder };
        shop.write(state);
        shop
    }

    fn write(&self, state: &str) {
        let text = format!(
            "modules:\n  - {{name: state, type: iac.state, config: {{{state}}}}}\n  - {{name: here, \
             type: iac.provider, config: {{provider: local, root: ./resources}}}}\n  - {{name: \
             uploads, type: infra.storage, config: {{provider: here}}}}\n"
        );
        fs::write(self.folder.path().join("infra.yaml"), text).unwrap();
    }

    /// A plugin that says it serves these backends.
    fn plugin(&self, name: &str, executable: &Path, backends: &[&str]) {
        let folder = self.folder.path().join("plugins").join(name);
        fs::create_dir_all(&folder).unwrap();
        harness::place(executable, &folder.join(name));
        let manifest = serde_json::json!({
            "name": format!("workflow-plugin-{name}"), "version": "1.0.0",
            "author": "tests", "description": "for tests",
            "iacStateBackends": backends,
        });
        fs::write(folder.join("plugin.json"), manifest.to_string()).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let plugins = self.folder.path().join("plugins");
        Run::new(self.folder.path(), arguments)
            .env("TIDEGATE_PLUGIN_DIR", plugins.to_str().unwrap())
            .output()
    }
}

#[test]
fn a_go_plugin_without_compare_and_swap_keeps_state_and_says_what_that_means() {
    let Some(executable) = crate::plugin::go_executable() else {
        harness::skip_without("go");
        return;
    };
    let shop = Shop::new("backend: files, project: shop");
    let states = shop.folder.path().join("states");
    shop.write(&format!(
        "backend: files, project: shop, folder: \"{}\"",
        states.display()
    ));
    shop.plugin("files", executable, &["files"]);
    let first = shop.run(&["up", "-y"]).expect_code(0);
    for expected in ["state/no-compare", "read back", "1 to create"] {
        assert!(first.stderr().contains(expected), "{}", first.stderr());
    }
    let second = shop.run(&["up", "-y"]).expect_code(0);
    assert!(
        second.stderr().contains("No changes"),
        "{}",
        second.stderr()
    );
    let files = || -> Vec<String> {
        let entries = fs::read_dir(&states).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let is_record = |name: &String| name.contains("record") && name.ends_with("uploads.json");
    assert!(files().iter().any(is_record), "{:?}", files());
    // The plugin's own lock guards each write and is given back after it.
    assert!(!files().iter().any(|name| name.ends_with(".lock")));
    shop.run(&["infra", "destroy", "-y"]).expect_code(0);
    assert_eq!(files(), Vec::<String>::new());
}

#[test]
fn names_are_taken_once_and_built_in_ones_by_nobody() {
    let shop = Shop::new("backend: buckets, project: shop");
    let nothing = Path::new("/bin/true");
    shop.plugin("one", nothing, &["files", "shelves"]);
    let text = shop.run(&["infra", "plan"]).expect_code(2).stderr();
    // What is known: by plugins, and built in.
    for expected in [
        "plugin/no-backend",
        "`buckets`",
        "`one` (files, shelves)",
        "`filesystem`, `postgres` and `memory`",
        "`gcs`",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    shop.write("backend: shelfs, project: shop");
    let text = shop.run(&["infra", "plan"]).expect_code(2).stderr();
    assert!(text.contains("did you mean `shelves`"), "{text}");
    shop.plugin("two", nothing, &["shelves"]);
    shop.write("backend: shelves, project: shop");
    let text = shop.run(&["infra", "plan"]).expect_code(2).stderr();
    for expected in ["plugin/backend-twice", "`one`", "`two`"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    for reserved in ["memory", "filesystem", "postgres"] {
        shop.plugin("two", nothing, &["more", reserved]);
        let text = shop.run(&["infra", "plan"]).stderr();
        for expected in ["plugin/backend-reserved", "`two`", reserved] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
    // A slip of the finger in a built-in name is found without looking at plugins.
    shop.write("backend: filesytem");
    let text = shop.run(&["infra", "plan"]).expect_code(2).stderr();
    for expected in ["config/bad-value", "`filesystem`", "infra.yaml:2"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}
