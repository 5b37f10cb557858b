//! A credential of two halves has both, named alike.

use super::super::{Findings, Rule, Severity, Subject};

pub(super) const RULE: Rule = Rule {
    id: "R-A9",
    name: "credential_suffix",
    check,
};

const HALVES: [(&str, &str); 2] = [
    ("_access_key", "_secret_key"),
    ("_secret_key", "_access_key"),
];

fn check(subject: &Subject, out: &mut Findings<'_>) {
    let names: Vec<String> = subject
        .secrets
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    for (name, at) in &subject.secrets {
        let folded = name.to_ascii_lowercase();
        for (own, other) in HALVES {
            let Some(stem) = folded.strip_suffix(own) else {
                continue;
            };
            if !names.contains(&format!("{stem}{other}")) {
                out.add(
                    Severity::Fail,
                    None,
                    format!("the secret `{name}` is half of a credential; there is no `…{other}` beside it"),
                    "declare both halves, with the same beginning",
                );
                if let Some(last) = out.all.last_mut() {
                    last.at = Some(at.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{expect, subject};
    use super::*;

    #[test]
    fn halves_come_in_pairs() {
        let secrets = |names: &[&str]| {
            let list: String = names
                .iter()
                .map(|name| format!("    - {{key: {name}, type: random_hex, length: 8}}\n"))
                .collect();
            subject(&format!("secrets:\n  generate:\n{list}"))
        };
        expect(
            RULE,
            &secrets(&["SPACES_access_key", "SPACES_secret_key", "OTHER"]),
            &[],
        );
        expect(
            RULE,
            &secrets(&["SPACES_access_key", "SPACE_secret_key"]),
            &[
                (Severity::Fail, "`SPACES_access_key`"),
                (Severity::Fail, "`SPACE_secret_key`"),
            ],
        );
    }
}
