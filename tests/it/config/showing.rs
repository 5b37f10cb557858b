//! Finding the file, showing the result.

use super::*;

#[test]
fn the_config_is_found() {
    let found = |explicit: Option<&str>, there: &[&str]| {
        config::discover(explicit.map(Path::new), &|path| {
            there.iter().any(|name| Path::new(name) == path)
        })
    };
    assert_eq!(found(Some("x.yaml"), &[]).unwrap(), Path::new("x.yaml"));
    assert_eq!(
        found(None, &["infra.yaml", "config/infra.yaml"]).unwrap(),
        Path::new("infra.yaml")
    );
    assert_eq!(
        found(None, &["config/infra.yaml"]).unwrap(),
        Path::new("config/infra.yaml")
    );
    let report = found(None, &["app.yaml"]).unwrap_err();
    assert_eq!(
        (report.code, report.exit),
        ("config/not-found", Exit::Usage)
    );
}

#[test]
fn the_public_yaml_says_what_the_public_json_says() {
    let config = case(fixture("good/everything.yaml"))
        .environment("prod")
        .config();
    let yaml = config::to_public_yaml(&config);
    let read: serde_json::Value = serde_yaml::from_str(&yaml).unwrap();
    assert_eq!(read, config::to_public_json(&config));
}
