//! One credential is one entry: each entry makes a whole one.

use super::super::{Findings, Rule, Subject};
use crate::config::Half;

pub(super) const RULE: Rule = Rule {
    id: "R-S1",
    name: "split_credential",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    for one in &subject.credentials {
        let folded = one.key.to_ascii_lowercase();
        let half = Half::BOTH
            .iter()
            .find(|half| folded.ends_with(&format!("_{}", half.word())));
        let Some(half) = half else { continue };
        let stem = &one.key[..one.key.len() - half.word().len() - 1];
        out.fail_at(
            &one.at,
            format!(
                "`{}` is named like half of a credential, and every entry makes a whole one: it becomes `{}` and `{}`",
                one.key,
                Half::AccessKey.of(&one.key),
                Half::SecretKey.of(&one.key),
            ),
            &format!("declare one entry `{stem}`; both halves come of it"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity;
    use super::super::super::testing::{expect, subject};
    use super::*;

    #[test]
    fn an_entry_is_a_whole_credential() {
        let entries = |keys: &[&str]| {
            let list: String = keys
                .iter()
                .map(|key| format!("    - {{key: {key}, type: provider_credential, source: digitalocean.spaces, name: {key}}}\n"))
                .collect();
            subject(&format!("secrets:\n  generate:\n{list}"))
        };
        expect(RULE, &entries(&["SPACES", "OTHER"]), &[]);
        expect(
            RULE,
            &entries(&["SPACES_access_key", "SPACES_SECRET_KEY"]),
            &[
                (Severity::Fail, "`SPACES_access_key`"),
                (Severity::Fail, "`SPACES_SECRET_KEY`"),
            ],
        );
    }
}
