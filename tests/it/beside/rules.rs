//! `infra align` and `infra security-check` through the binary, and the list of rules: one file, one
//! test, one heading each.

use std::path::Path;

use tidegate::rules;

use super::{MODULES, Project, code_of};

#[test]
fn each_rule_has_one_file_one_test_and_one_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reference = std::fs::read_to_string(root.join("docs/rules.md")).unwrap();
    let headings: Vec<&str> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let mut expected = Vec::new();
    for (folder, all) in [
        ("align", rules::align()),
        ("security", rules::security()),
        ("secrets", rules::secrets()),
    ] {
        let mut files: Vec<String> = std::fs::read_dir(root.join("src/rules").join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name != "mod.rs")
            .collect();
        files.sort();
        let mut named: Vec<String> = all.iter().map(|rule| format!("{}.rs", rule.name)).collect();
        named.sort();
        assert_eq!(
            files, named,
            "files of {folder} (left) and its rules (right)"
        );
        for rule in all {
            let path = root.join(format!("src/rules/{folder}/{}.rs", rule.name));
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains("#[test]"), "{} has no test", rule.id);
            assert!(
                text.contains(&format!("id: \"{}\"", rule.id)),
                "{}",
                rule.id
            );
            expected.push(format!("{} {}", rule.id, rule.name));
        }
        let prefix = match folder {
            "align" => "R-A",
            "secrets" => "R-S",
            _ => "R",
        };
        for (at, rule) in all.iter().enumerate() {
            assert_eq!(rule.id, format!("{prefix}{}", at + 1), "ids are in order");
        }
    }
    assert_eq!(headings, expected, "headings of docs/rules.md and rules");
}

#[test]
fn a_good_config_passes_both() {
    let project = Project::new(MODULES);
    for line in ["infra align --strict", "infra security-check --strict"] {
        let document = project.json(line, 0);
        assert_eq!(document["findings"], serde_json::json!([]), "{document:#}");
        assert_eq!(document["rules"].as_array().unwrap().len(), 10);
    }
    assert!(!project.path("state").exists(), "a check makes nothing");
}

#[test]
fn warnings_fail_only_when_asked_and_limits_are_flags() {
    let project = Project::applied(MODULES);
    let empty =
        MODULES.split("  - name: files").next().unwrap().to_owned() + "environments:\n  dev: {}\n";
    project.write("infra.yaml", &empty);
    let relaxed = project.json("infra align", 0);
    assert_eq!(relaxed["findings"][0]["rule"], "R-A7");
    assert_eq!(relaxed["findings"][0]["severity"], "warn");
    project.json("infra align --strict", 1);
    let limited = project.json("infra security-check --max-changes 2", 1);
    assert_eq!(limited["findings"][0]["rule"], "R10");
}

#[test]
fn a_secret_in_the_file_is_found_at_its_line_and_never_shown() {
    let secret = "correct-horse-battery";
    let config = MODULES.replace(
        "config: {provider: local, root: ./resources}",
        &format!("config: {{provider: local, root: ./resources, postgres: {{host: h, user: u, password: {secret}}}}}"),
    );
    let project = Project::new(&config);
    let finished = project.run("infra security-check --json").expect_code(1);
    let document: serde_json::Value = serde_json::from_str(&finished.stdout()).unwrap();
    let finding = &document["findings"][0];
    assert_eq!(finding["rule"], "R4");
    assert_eq!(finding["at"]["line"], 4);
    let text = format!("{}{}", finished.stdout(), finished.stderr());
    assert!(!text.contains(secret), "{text}");
}

#[test]
fn a_plan_file_is_read_or_refused() {
    let project = Project::new(MODULES);
    let plan = project.run("infra plan --json").expect_code(0).stdout();
    project.write("plan.json", &plan);
    let document = project.json("infra security-check --plan plan.json --max-changes 2", 1);
    assert_eq!(document["findings"][0]["rule"], "R10");
    project.write("broken.json", "{}");
    let refused = project.json("infra security-check --plan broken.json", 2);
    assert_eq!(code_of(&refused), "rules/plan");
}

#[test]
fn rules_of_your_own_are_checked_and_malformed_ones_are_loud() {
    let project = Project::new(MODULES);
    project.write(
        "rules/engine.yaml",
        "id: ACME-1\ntype: infra.database\npath: engine\ndeny: equal\nvalue: sqlite\nmessage: no files as databases\n",
    );
    let document = project.json("infra security-check --rules rules", 1);
    assert_eq!(document["findings"][0]["rule"], "ACME-1");
    assert_eq!(document["findings"][0]["resource"], "db");
    assert_eq!(document["findings"][0]["at"]["line"], 14);
    for text in [
        "id: X\n",
        "id: R1\ntype: a\npath: b\ndeny: absent\nmessage: c\n",
        "- nothing\n",
    ] {
        project.write("rules/other.yaml", text);
        let refused = project.json("infra security-check --rules rules", 2);
        assert_eq!(code_of(&refused), "rules/malformed");
    }
}
