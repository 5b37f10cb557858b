//! Which executables a project trusts, wherever its config stands.

use super::{Project, code_of};

const CONFIG: &str = "\
modules:
  - {name: cloud, type: iac.provider, config: {provider: files, root: ./cloud, region: here1}}
  - {name: site, type: infra.storage, config: {provider: cloud}}
environments: {dev: {}}
";

#[test]
fn a_lock_where_the_command_runs_holds_for_a_config_in_a_folder_below() {
    let project = Project::with_plugin(CONFIG);
    let config = std::fs::read_to_string(project.path("infra.yaml")).unwrap();
    project.write("config/infra.yaml", &config);
    std::fs::remove_file(project.path("infra.yaml")).unwrap();
    project.json("infra plan", 0);
    let other = "0".repeat(64);
    for (file, text) in [
        (
            ".wfctl-lock.yaml",
            format!("version: 1\nplugins: {{files: {{version: v1.2.3, sha256: \"{other}\"}}}}\n"),
        ),
        (
            ".wfctl.yaml",
            format!("plugins: {{files: {{sha256: \"{other}\"}}}}\n"),
        ),
    ] {
        project.write(file, &text);
        let refused = project.json("infra plan", 1);
        assert_eq!(code_of(&refused), "plugin/digest-mismatch", "{file}");
        std::fs::remove_file(project.path(file)).unwrap();
    }
}
