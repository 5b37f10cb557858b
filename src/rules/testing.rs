//! Subjects for the tests of rules, from a few lines of config.

use std::path::{Path, PathBuf};

use super::{Change, Limits, Rule, Severity, Subject, check};
use crate::config::{self, Files};
use crate::resource::{ActionKind, Address, FieldChange, Kind};
use crate::secret::{Keyring, Masker};
use crate::variables::Variables;

/// A config with a provider `cloud` (not `local`) and these modules.
pub(super) fn subject(modules: &str) -> Subject {
    let text = format!(
        "modules:\n  - {{name: cloud, type: iac.provider, config: {{provider: digitalocean}}}}\n{modules}"
    );
    let read = |_: &Path| Ok(text.clone().into_bytes());
    let canonical = |path: &Path| Ok::<PathBuf, String>(path.to_owned());
    let loaded = config::load(
        Path::new("infra.yaml"),
        None,
        Files {
            read: &read,
            canonical: &canonical,
        },
        &Variables::default(),
        &Masker::default(),
    )
    .unwrap_or_else(|problems| panic!("{problems:#?}"));
    Subject::of(
        &loaded.config,
        &Keyring::new(&[3; 32]),
        Limits {
            max_changes: 3,
            strict_health: false,
            strict_cidr: false,
        },
    )
}

/// One module of a type with a config in one line.
pub(super) fn module(name: &str, kind: &str, config: &str) -> String {
    format!("  - name: {name}\n    type: {kind}\n    config: {{provider: cloud, {config}}}\n")
}

/// A planned action.
pub(super) fn change(name: &str, action: ActionKind) -> Change {
    Change {
        address: Address::new(name),
        kind: Kind::new("infra.database"),
        action,
        protected: false,
        changes: Vec::new(),
    }
}

/// A changed field.
pub(super) fn field(path: &str, old: serde_json::Value, new: serde_json::Value) -> FieldChange {
    FieldChange {
        path: path.to_owned(),
        old,
        new,
        force_new: false,
    }
}

/// `fail`/`warn` and message of everything the rule finds.
pub(super) fn found(rule: Rule, subject: &Subject) -> Vec<(Severity, String)> {
    check(&[rule], &[], subject)
        .into_iter()
        .map(|finding| (finding.severity, finding.message))
        .collect()
}

/// Asserts that the rule finds exactly these: a severity and a piece of each message.
#[track_caller]
pub(super) fn expect(rule: Rule, subject: &Subject, expected: &[(Severity, &str)]) {
    let found = found(rule, subject);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((severity, message), (wanted, piece)) in found.iter().zip(expected) {
        assert_eq!(severity, wanted, "{message}");
        assert!(message.contains(piece), "`{piece}` in `{message}`");
    }
}
