//! What is read and not acted on.

use super::*;

#[test]
fn what_is_not_acted_on_is_said_once() {
    let case = modules(
        "  - {name: a, type: http.server}
  - {name: b, type: http.server}
  - {name: c, type: infra.databse, config: {provider: cloud}}
workflows: {}
mesh: {}
requires: {}
ci: {}
plugins: {}
x-mine: 7
pipelines: {p: {steps: [{name: x, type: step.shell}, {name: y, type: step.shell}]}}
",
    );
    insta::assert_snapshot!(case.warnings(), @r#"
    infra.yaml:3:21: config/ignored-module: Tidegate does not act on modules of type `http.server`
    infra.yaml:5:21: config/unknown-kind: `infra.databse` is not a well-known resource type (did you mean `infra.database`?)
    infra.yaml:6:1: config/ignored-section: Tidegate does not act on `workflows`
    infra.yaml:7:1: config/ignored-section: Tidegate does not act on `mesh`
    infra.yaml:12:41: config/ignored-step: Tidegate does not act on steps of type `step.shell`
    "#);
}
