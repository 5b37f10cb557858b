//! Files laid under a file.

use super::*;

#[test]
fn imports_are_laid_under_the_file() {
    let case = case(
        "imports: [parts/a.yaml, ./parts/../parts/b.yaml]\nmodules:\n- {name: one, type: infra.storage, config: {provider: cloud, from: top}}\n",
    )
    .file(
        "parts/a.yaml",
        "imports: [b.yaml]\nmodules:\n- {name: one, type: infra.storage, config: {provider: cloud, from: a}}\n- {name: two, type: infra.storage, config: {provider: cloud, from: a}}\n",
    )
    .file(
        "parts/b.yaml",
        "modules:\n- {name: cloud, type: iac.provider, config: {provider: local}}\nsecrets: {generate: [{key: K, type: random_hex}]}\ninfra: {auto_bootstrap: false}\nrequires: {}\n",
    );
    let config = case.config();
    assert_eq!(resolved_names(&config), ["one", "two"]);
    assert_eq!(public(&config, "/resources/0/config/from"), "top");
    assert_eq!(config.generate.len(), 1, "a diamond is read once");
    insta::assert_snapshot!(case.warnings(), @r#"parts/a.yaml:3:10: config/dropped-module: this module `one` is not used: another file declares it too"#);
    assert_eq!(config.digest.len(), 64);
}

#[test]
fn the_digest_covers_imports() {
    let with = |text: &str| {
        case("imports: [a.yaml]\n")
            .file("a.yaml", text)
            .config()
            .digest
    };
    assert_eq!(with("modules: []"), with("modules: []"));
    assert_ne!(with("modules: []"), with("modules: [] "));
}

#[test]
fn mistakes_of_imports() {
    insta::assert_snapshot!(
        case("imports: [a.yaml]\n").file("a.yaml", "imports: [b/c.yaml]\n").file("b/c.yaml", "imports: [../infra.yaml]\n").errors(),
        @r#"b/c.yaml:1:11: config/import-cycle: imports go in a circle: infra.yaml -> a.yaml -> b/c.yaml -> infra.yaml"#
    );
    let missing = case("imports: [nope.yaml]\n");
    insta::assert_snapshot!(missing.errors(), @r#"infra.yaml:1:11: config/unreadable-import: `infra.yaml` imports `nope.yaml`, which cannot be read"#);
    assert_eq!(
        missing.load().unwrap_err()[0].because,
        ["No such file or directory"]
    );
    insta::assert_snapshot!(Case::default().errors(), @r#"config/unreadable: the config `infra.yaml` cannot be read"#);
    assert_eq!(codes(&case("imports: ['']\n")), ["config/bad-value"]);
}

#[test]
fn real_files_with_link_loops_give_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("infra.yaml"), "imports: [loop.yaml, same.yaml]\n").unwrap();
    std::os::unix::fs::symlink(at("loop2.yaml"), at("loop.yaml")).unwrap();
    std::os::unix::fs::symlink(at("loop.yaml"), at("loop2.yaml")).unwrap();
    std::os::unix::fs::symlink(at("infra.yaml"), at("same.yaml")).unwrap();
    let read = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    let canonical = |path: &Path| std::fs::canonicalize(path).map_err(|error| error.to_string());
    let reports = config::load(
        &at("infra.yaml"),
        None,
        Files {
            read: &read,
            canonical: &canonical,
        },
        &Variables::default(),
        &Masker::default(),
    )
    .unwrap_err();
    let codes: Vec<_> = reports.iter().map(|report| report.code).collect();
    assert_eq!(codes, ["config/unreadable-import", "config/import-cycle"]);
    assert!(
        reports[0].because[0].contains("symbolic links"),
        "{reports:?}"
    );
}
