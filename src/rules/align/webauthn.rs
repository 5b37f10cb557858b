//! A passkey's relying party fits the addresses it is used from.

use super::super::{Findings, Item, Rule, Subject, network::host};

pub(super) const RULE: Rule = Rule {
    id: "R-A8",
    name: "webauthn",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for item in &subject.items {
        for (path, map) in item.env_vars() {
            let find = |ends: &[&str]| {
                map.iter().find(|(name, _)| {
                    let name = name.to_ascii_uppercase();
                    name.contains("WEBAUTHN") && ends.iter().any(|end| name.ends_with(end))
                })
            };
            let party = find(&["RP_ID", "RPID"]);
            let origins = find(&["ORIGIN", "ORIGINS"]);
            match (party, origins) {
                (Some((party, id)), Some((name, origins))) => {
                    if let (Some(id), Some(origins)) = (id.as_str(), origins.as_str()) {
                        compare(
                            item,
                            &format!("{path}.{party}"),
                            id,
                            &format!("{path}.{name}"),
                            origins,
                            out,
                        );
                    }
                }
                (Some((one, _)), None) | (None, Some((one, _))) => out.warn(
                    item,
                    format!("`{}`: `{path}.{one}` stands alone", item.address),
                    "a relying party needs its id and its origins",
                ),
                (None, None) => {}
            }
        }
    }
}

fn compare(item: &Item, party: &str, id: &str, name: &str, origins: &str, out: &mut Findings<'_>) {
    if id.contains(['/', ':']) {
        out.fail(
            item,
            format!(
                "`{}`: `{party}` is a bare domain, without scheme and port",
                item.address
            ),
            "write it like example.com",
        );
        return;
    }
    for origin in origins
        .split(',')
        .map(str::trim)
        .filter(|origin| !origin.is_empty())
    {
        let Some(host) = host(origin) else {
            out.fail(
                item,
                format!(
                    "`{}`: `{name}` holds something that is no origin",
                    item.address
                ),
                "write it like https://example.com",
            );
            continue;
        };
        let id = id.to_ascii_lowercase();
        if host != id && !host.ends_with(&format!(".{id}")) {
            out.fail(
                item,
                format!(
                    "`{}`: the origin host `{host}` is not within `{id}` (`{party}`)",
                    item.address
                ),
                "the id is the origin's domain, or one above it",
            );
        } else if !origin.starts_with("https://") && host != "localhost" {
            out.fail(
                item,
                format!("`{}`: the origin of `{host}` is not https", item.address),
                "browsers offer passkeys over https only",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity::{Fail, Warn};
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn relying_party_and_origins_agree() {
        let check = |env: &str, expected: &[(super::super::super::Severity, &str)]| {
            let config = format!("env_vars: {{{env}}}");
            expect(
                RULE,
                &subject(&module("web", "infra.container_service", &config)),
                expected,
            );
        };
        check(
            "WEBAUTHN_RP_ID: example.com, WEBAUTHN_ORIGIN: \"https://app.example.com\"",
            &[],
        );
        check(
            "WEBAUTHN_RP_ID: localhost, WEBAUTHN_ORIGIN: \"http://localhost:3000\"",
            &[],
        );
        check(
            "WEBAUTHN_RP_ID: example.com, WEBAUTHN_ORIGINS: \"https://example.com,https://badexample.com\"",
            &[(Fail, "`badexample.com` is not within")],
        );
        check(
            "WEBAUTHN_RP_ID: example.com, WEBAUTHN_ORIGIN: \"http://example.com\"",
            &[(Fail, "not https")],
        );
        check(
            "WEBAUTHN_RP_ID: \"https://example.com\", WEBAUTHN_ORIGIN: \"https://example.com\"",
            &[(Fail, "bare domain")],
        );
        check("WEBAUTHN_RP_ID: example.com", &[(Warn, "stands alone")]);
    }
}
