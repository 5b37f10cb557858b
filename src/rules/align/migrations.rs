//! Migrations run once, before the new version, on a database that is there.

use super::super::{Findings, Item, Rule, Subject, items};

pub(super) const RULE: Rule = Rule {
    id: "R-A5",
    name: "migrations",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        if !item.is("infra.container_service") {
            continue;
        }
        for (at, job) in items(item.config.get("jobs")).iter().enumerate() {
            let text = |key: &str| {
                job.get(key)
                    .and_then(|value| value.as_str())
                    .unwrap_or_default()
            };
            if !migrates(text("name")) && !migrates(text("run_command")) {
                continue;
            }
            if text("kind") != "PRE_DEPLOY" {
                out.warn(
                    item,
                    format!(
                        "`{}`: `jobs[{at}]` migrates, but not before the deploy",
                        item.address
                    ),
                    "give it `kind: PRE_DEPLOY`",
                );
            }
            if !stands_on_database(subject, item) {
                out.fail(
                    item,
                    format!(
                        "`{}`: `jobs[{at}]` migrates, but the service depends on no `infra.database`",
                        item.address
                    ),
                    "use an output of the database, or name it under `depends_on`",
                );
            }
        }
        let runs_many = item
            .config
            .get("instance_count")
            .and_then(serde_json::Value::as_u64)
            .is_some_and(|count| count > 1);
        let run = item.config.get("run_command").and_then(|run| run.as_str());
        if runs_many && run.is_some_and(migrates) {
            out.warn(
                item,
                format!("`{}`: every instance migrates when it starts", item.address),
                "move the migration into a job of `kind: PRE_DEPLOY`",
            );
        }
    }
}

fn migrates(text: &str) -> bool {
    text.to_ascii_lowercase().contains("migrat")
}

fn stands_on_database(subject: &Subject, item: &Item) -> bool {
    item.depends_on
        .iter()
        .filter_map(|address| subject.item(address))
        .any(|other| other.is("infra.database"))
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::{Fail, Warn};
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn migrations_come_before_on_a_database() {
        let job = |kind: &str, more: &str| {
            subject(
                &(module("db", "infra.database", "engine: pg")
                    + &module(
                        "web",
                        "infra.container_service",
                        &format!("jobs: [{{name: migrate, kind: {kind}}}]{more}"),
                    )),
            )
        };
        expect(RULE, &job("PRE_DEPLOY", ", depends_on: [db]"), &[]);
        expect(
            RULE,
            &job("PRE_DEPLOY", ""),
            &[(Fail, "no `infra.database`")],
        );
        expect(
            RULE,
            &job("POST_DEPLOY", ", depends_on: [db]"),
            &[(Warn, "not before the deploy")],
        );
        expect(
            RULE,
            &job(
                "PRE_DEPLOY",
                ", depends_on: [db], instance_count: 2, run_command: \"app migrate up\"",
            ),
            &[(Warn, "every instance")],
        );
    }
}
