//! What answers requests can be asked whether it is well.

use super::super::{Findings, Rule, Severity, Subject, is_blank};

pub(super) const RULE: Rule = Rule {
    id: "R-A2",
    name: "health",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    let missing = if subject.limits.strict_health {
        Severity::Fail
    } else {
        Severity::Warn
    };
    for item in &subject.items {
        let answers = ["http_port", "internal_ports", "routes", "domains"];
        if !item.is("infra.container_service")
            || answers.iter().all(|key| is_blank(item.config.get(*key)))
        {
            continue;
        }
        match item.config.get("health_check") {
            Some(serde_json::Value::Object(health)) => {
                let asks = ["http_path", "path", "tcp_port", "port"];
                if asks.iter().all(|key| is_blank(health.get(*key))) {
                    out.add(
                        missing,
                        Some(item),
                        format!(
                            "`{}`: `health_check` does not say what to ask",
                            item.address
                        ),
                        "add `http_path`, or `tcp_port`",
                    );
                }
            }
            _ => out.add(
                missing,
                Some(item),
                format!(
                    "`{}` answers requests and has no `health_check`",
                    item.address
                ),
                "add `health_check: {http_path: /healthz}`",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn what_answers_has_a_health_check() {
        let subject = |config: &str| subject(&module("web", "infra.container_service", config));
        expect(RULE, &subject("image: \"a:1\""), &[]);
        expect(
            RULE,
            &subject("http_port: 80, health_check: {http_path: /}"),
            &[],
        );
        let mut bare = subject("http_port: 80");
        expect(RULE, &bare, &[(Severity::Warn, "no `health_check`")]);
        bare.limits.strict_health = true;
        expect(RULE, &bare, &[(Severity::Fail, "no `health_check`")]);
        let vague = subject("http_port: 80, health_check: {period_seconds: 5}");
        expect(RULE, &vague, &[(Severity::Warn, "what to ask")]);
    }
}
