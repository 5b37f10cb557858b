//! What is public is meant to be, and what is routed to has a port.

use super::super::{Findings, Rule, Subject, is_blank, items};

pub(super) const RULE: Rule = Rule {
    id: "R-A6",
    name: "exposure",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        let flag =
            |key: &str| item.config.get(key).and_then(serde_json::Value::as_bool) == Some(true);
        if (item.is("infra.database") || item.is("infra.cache"))
            && (flag("public") || flag("publicly_accessible"))
        {
            out.fail(
                item,
                format!("`{}` holds data and is public", item.address),
                "remove `public`; let services reach it inside the network",
            );
        }
        if !item.is("infra.container_service") {
            continue;
        }
        let port = item.config.get("http_port").filter(|port| !port.is_null());
        let is_routed = ["routes", "domains"]
            .iter()
            .any(|key| !is_blank(item.config.get(*key)));
        if is_routed && port.is_none() && item.provider != "local" {
            out.warn(
                item,
                format!(
                    "`{}` has routes or domains and no `http_port`",
                    item.address
                ),
                "say on which port it answers",
            );
        }
        if let Some(port) = port
            && items(item.config.get("internal_ports")).contains(port)
        {
            out.fail(
                item,
                format!(
                    "`{}`: the port {port} is public and internal at once",
                    item.address
                ),
                "take it out of `http_port` or out of `internal_ports`",
            );
        }
        for (at, sidecar) in items(item.config.get("sidecars")).iter().enumerate() {
            for port in items(sidecar.get("ports")) {
                if port.get("public").and_then(serde_json::Value::as_bool) == Some(true) {
                    out.warn(
                        item,
                        format!("`{}`: `sidecars[{at}]` has a public port", item.address),
                        "a sidecar is for its service; remove `public`",
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::{Fail, Warn};
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn exposure_is_meant() {
        let service = |config: &str| subject(&module("web", "infra.container_service", config));
        expect(
            RULE,
            &service("http_port: 80, routes: [{path: /}], internal_ports: [81]"),
            &[],
        );
        expect(
            RULE,
            &service("routes: [{path: /}]"),
            &[(Warn, "no `http_port`")],
        );
        expect(
            RULE,
            &service("http_port: 80, internal_ports: [80]"),
            &[(Fail, "at once")],
        );
        expect(
            RULE,
            &service("sidecars: [{name: a, ports: [{port: 1, public: true}]}]"),
            &[(Warn, "public port")],
        );
        let database = subject(&module("db", "infra.database", "publicly_accessible: true"));
        expect(RULE, &database, &[(Fail, "is public")]);
    }
}
