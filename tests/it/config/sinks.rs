//! Outputs and their sinks.

use super::*;

fn sinks(text: &str) -> Case {
    modules(&format!(
        "  - name: a\n    type: infra.storage\n    config: {{provider: cloud}}\n    outputs:\n      uri: {{sensitive: true, sinks: {text}}}\n"
    ))
}

#[test]
fn sinks_are_read() {
    let config = sinks(
        "[{type: github_secret, name: A, repo: '${GITHUB_REPOSITORY}', environment: prod, token_env: MY, on_failure: fail}, \
         {type: github_env, name: A}, {type: dotenv, name: A}, {type: dotenv, name: A, path: /tmp/x.env}]",
    )
    .set("GITHUB_REPOSITORY", "acme/shop")
    .config();
    let sinks = &config.resources[0].outputs["uri"].sinks;
    assert_eq!(
        sinks
            .iter()
            .map(|sink| sink.target.clone())
            .collect::<Vec<_>>(),
        [
            SinkTarget::GithubSecret {
                repo: "acme/shop".into(),
                environment: Some("prod".into()),
                token_env: Some("MY".into())
            },
            SinkTarget::GithubEnv,
            SinkTarget::Dotenv {
                path: ".env".into()
            },
            SinkTarget::Dotenv {
                path: "/tmp/x.env".into()
            },
        ]
    );
    assert_eq!(sinks[0].on_failure, OnFailure::Fail);
    assert_eq!(sinks[1].on_failure, OnFailure::Warn);
}

#[test]
fn mistakes_of_sinks() {
    for (text, expected) in [
        (
            "[{type: github_secret, name: A}]",
            vec!["config/missing-key"],
        ),
        (
            "[{type: github_secret, name: A, repo: acme}]",
            vec!["config/bad-value"],
        ),
        (
            "[{type: github_secret, name: A, repo: 'https://github.com/acme/shop'}]",
            vec!["config/bad-value"],
        ),
        (
            "[{type: github_secret, name: GITHUB_A, repo: acme/shop}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_secret, name: A-B, repo: acme/shop}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_secret, name: A, repo: acme/shop, token_env: 'ghp 12'}]",
            vec!["config/bad-value"],
        ),
        (
            "[{type: github_secret, name: A, repo: acme/shop, path: x}]",
            vec!["config/misplaced-key"],
        ),
        (
            "[{type: github_env, name: NODE_OPTIONS}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: Path}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: RUNNER_X}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: \"A\\nB\"}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: 1A}]",
            vec!["config/bad-sink-name"],
        ),
        (
            "[{type: github_env, name: A, repo: acme/shop}]",
            vec!["config/misplaced-key"],
        ),
        (
            "[{type: dotenv, name: A, path: ../.env}]",
            vec!["config/bad-path"],
        ),
        (
            "[{type: dotenv, name: A, path: a/../../x}]",
            vec!["config/bad-path"],
        ),
        (
            "[{type: dotenv, name: A, path: ''}]",
            vec!["config/bad-path"],
        ),
        (
            "[{type: dotenv, name: A}, {type: dotenv, name: A, path: ./.env}]",
            vec!["config/duplicate-sink"],
        ),
        ("[{type: gitub_env, name: A}]", vec!["config/bad-value"]),
        ("[{type: github_env}]", vec!["config/missing-key"]),
        (
            "[{type: github_env, name: A, on_failure: ignore}]",
            vec!["config/bad-value"],
        ),
        (
            "[{type: github_secret, name: A, repo: '${MY_TOKEN}'}]",
            vec!["config/secret-out-of-place"],
        ),
    ] {
        assert_eq!(
            codes(&sinks(text).set("MY_TOKEN", "s3cr3t-value")),
            expected,
            "{text}"
        );
    }
    let open = |output: &str| {
        modules(&format!(
            "  - {{name: a, type: infra.storage, config: {{provider: cloud}}, outputs: {output}}}\n"
        ))
    };
    let sink = "sinks: [{type: github_env, name: A}]";
    for (output, expected) in [
        (
            format!("{{uri: {{{sink}}}}}"),
            vec!["config/sink-needs-sensitive"],
        ),
        (
            format!("{{uri: {{sensitive: false, {sink}}}}}"),
            vec!["config/sink-needs-sensitive"],
        ),
        (format!("{{uri: {{sensitive: true, {sink}}}}}"), vec![]),
        ("{\"a\\nb\": {}}".to_owned(), vec!["config/bad-name"]),
        ("{uri: {sinks: []}}".to_owned(), vec![]),
        (
            "{uri: {sensetive: true}}".to_owned(),
            vec!["config/unknown-key"],
        ),
    ] {
        assert_eq!(codes(&open(&output)), expected, "{output}");
    }
    assert!(open("{uri: }").config().resources[0].outputs["uri"].sensitive);
}
