//! Gates.

use super::*;

fn gate(config: &str) -> Case {
    modules(&format!(
        "  - {{name: web, type: infra.container_service, config: {{provider: cloud, name: prod-web}}}}\npipelines: {{p: {{steps: [{{name: s, type: deploy_verify, config: {config}}}]}}}}\n"
    ))
}

#[test]
fn gates_are_read() {
    let config = gate("{url: 'http://127.0.0.1/'}").config();
    insta::assert_snapshot!(pretty(&public(&config, "/gates/0")), @r#"
    {
      "max_retries": 30,
      "name": "p/s",
      "retry_interval_seconds": 10,
      "targets": [
        {
          "body": null,
          "consecutive": 1,
          "expect_body_contains": null,
          "expect_status": 200,
          "headers": {},
          "method": "GET",
          "tls_verify": true,
          "url": "http://127.0.0.1/"
        }
      ],
      "timeout_seconds": 300
    }
    "#);
    let config = gate(
        "{targets: [{url: '${web.live_url}/h', headers: {Authorization: 'Bearer ${KEY}'}, consecutive: 2}, {url: 'https://${HOST}'}], timeout: 1h30m, retry_interval: 0.25, max_retries: 3, consecutive: 4}",
    )
    .set("KEY", "k3y-value")
    .set("HOST", "example.net")
    .config();
    insta::assert_snapshot!(pretty(&public(&config, "/gates/0")), @r#"
    {
      "max_retries": 3,
      "name": "p/s",
      "retry_interval_seconds": 0.25,
      "targets": [
        {
          "body": null,
          "consecutive": 2,
          "expect_body_contains": null,
          "expect_status": 200,
          "headers": {
            "Authorization": "(secret)"
          },
          "method": "GET",
          "tls_verify": true,
          "url": "${prod-web.live_url}/h"
        },
        {
          "body": null,
          "consecutive": 4,
          "expect_body_contains": null,
          "expect_status": 200,
          "headers": {},
          "method": "GET",
          "tls_verify": true,
          "url": "https://example.net"
        }
      ],
      "timeout_seconds": 5400
    }
    "#);
}

#[test]
fn mistakes_of_gates() {
    let url = "url: 'http://127.0.0.1/'";
    for (config, expected) in [
        ("{}".to_owned(), vec!["config/missing-key"]),
        ("{targets: []}".to_owned(), vec!["config/missing-key"]),
        ("{targets: [{}]}".to_owned(), vec!["config/missing-key"]),
        (
            format!("{{{url}, targets: [{{{url}}}]}}"),
            vec!["config/misplaced-key"],
        ),
        ("{url: 'ftp://x'}".to_owned(), vec!["config/bad-value"]),
        ("{url: '/health'}".to_owned(), vec!["config/bad-value"]),
        (
            "{url: '${wbe.live_url}'}".to_owned(),
            vec!["config/unknown-module"],
        ),
        (format!("{{{url}, timeout: 5}}"), vec![]),
        (
            format!("{{{url}, timeout: 5 minutes}}"),
            vec!["config/bad-value"],
        ),
        (format!("{{{url}, timeout: 0s}}"), vec!["config/bad-value"]),
        (format!("{{{url}, timeout: 25h}}"), vec!["config/bad-value"]),
        (
            format!("{{{url}, retry_interval: -1}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, timeout: true}}"),
            vec!["config/wrong-type"],
        ),
        (
            format!("{{{url}, expect_status: 99}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, expect_status: '200'}}"),
            vec!["config/wrong-type"],
        ),
        (format!("{{{url}, method: get}}"), vec!["config/bad-value"]),
        (
            format!("{{{url}, headers: {{'a b': c}}}}"),
            vec!["config/bad-name"],
        ),
        (
            format!("{{{url}, headers: {{a: \"b\\r\\nc\"}}}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, consecutive: 0}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, expect_code: 200}}"),
            vec!["config/unknown-key"],
        ),
        (
            format!("{{{url}, expect_status: 100}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, expect_body_contains: ''}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, method: HEAD, expect_body_contains: ok}}"),
            vec!["config/bad-value"],
        ),
        (
            format!("{{{url}, headers: {{Content-Length: '1'}}}}"),
            vec!["config/bad-name"],
        ),
        // One mistake, said once: of an address with an unknown part, the rest says nothing.
        (
            "{url: '${wbe.live_url}/healthz'}".to_owned(),
            vec!["config/unknown-module"],
        ),
    ] {
        assert_eq!(codes(&gate(&config)), expected, "{config}");
    }
}

#[test]
fn a_misspelt_gate_is_no_step_of_somebody_else() {
    let step = |kind: &str| {
        case(format!(
            "pipelines: {{p: {{steps: [{{name: s, type: {kind}, config: {{url: 'http://a.test/'}}}}]}}}}\n"
        ))
    };
    for kind in [
        "step.deploy_verfy",
        "deploy-verify",
        "step.deployVerify",
        "Step.Deploy_Verify",
        "step.verify",
    ] {
        let errors = step(kind).load().unwrap_err();
        assert_eq!(errors.len(), 1, "{kind}");
        assert_eq!(errors[0].code, "config/bad-value");
        assert_eq!(errors[0].label, "did you mean `step.deploy_verify`?");
        let at = errors[0].at.as_ref().unwrap();
        assert_eq!(
            (at.column, at.width as usize),
            (41, kind.len()),
            "at the type: {at}"
        );
    }
    for kind in [
        "step.deploy",
        "step.deploy_apply",
        "step.http_verify",
        "verify",
        "build",
    ] {
        assert_eq!(codes(&step(kind)), Vec::<&str>::new(), "{kind}");
        assert!(
            step(kind).warnings().contains("config/ignored-step"),
            "{kind}"
        );
    }
}
