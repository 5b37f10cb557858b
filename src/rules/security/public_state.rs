//! The state, and storage, are not public.

use serde_json::{Map, Value as Json};

use super::super::{Findings, Rule, Severity, Subject};

pub(super) const RULE: Rule = Rule {
    id: "R8",
    name: "public_state",
    check,
};

fn check(subject: &Subject, out: &mut Findings<'_>) {
    let bucket = subject
        .state
        .as_ref()
        .and_then(|(config, _)| config.get("bucket"))
        .and_then(|bucket| bucket.as_str());
    if let Some((config, at)) = &subject.state
        && is_public(config)
    {
        out.add(
            Severity::Fail,
            None,
            "the state is public: it names everything there is".to_owned(),
            "remove `acl` and `public` from the `iac.state` module",
        );
        if let Some(last) = out.all.last_mut() {
            last.at = Some(at.clone());
        }
    }
    for item in &subject.items {
        if !item.is("infra.storage") || !is_public(&item.config) {
            continue;
        }
        let holds_state = bucket.is_some_and(|bucket| item.address.as_str() == bucket);
        let severity = if holds_state {
            Severity::Fail
        } else {
            Severity::Warn
        };
        out.add(
            severity,
            Some(item),
            format!(
                "`{}` is public{}",
                item.address,
                if holds_state {
                    " and holds the state"
                } else {
                    ""
                }
            ),
            "remove `acl` and `public`, unless everything in it is for everybody",
        );
    }
}

fn is_public(config: &Map<String, Json>) -> bool {
    config.get("public").and_then(Json::as_bool) == Some(true)
        || config
            .get("acl")
            .and_then(Json::as_str)
            .is_some_and(|acl| acl.starts_with("public"))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{expect, module, subject};
    use super::*;

    #[test]
    fn state_and_storage_are_private() {
        let storage = |config: &str| subject(&module("files", "infra.storage", config));
        expect(RULE, &storage("acl: private"), &[]);
        expect(
            RULE,
            &storage("acl: public-read"),
            &[(Severity::Warn, "`files` is public")],
        );
        let mut held = storage("public: true");
        let mut config = Map::new();
        config.insert("bucket".to_owned(), "files".into());
        held.state = Some((config.clone(), held.items[0].at.clone()));
        expect(RULE, &held, &[(Severity::Fail, "holds the state")]);
        config.insert("acl".to_owned(), "public-read".into());
        let mut open = storage("region: x");
        open.state = Some((config, open.items[0].at.clone()));
        expect(RULE, &open, &[(Severity::Fail, "the state is public")]);
    }
}
