//! What is remembered of a credential, and how: one sealed keepsake each.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::apply::Engine;
use crate::apply::execute::CALL_TIMEOUT;
use crate::clock::rfc3339;
use crate::config::Half;
use crate::report::Report;
use crate::resource::{Kind, Observed, Output, ProviderId};
use crate::secret::Secret;
use crate::state::{Keepsake, Lease, StoreError};

/// What the keys of these keepsakes begin with.
pub(in crate::apply) const KEEPSAKE: &str = "credential/";

/// How far the provider's clock may be from ours.
const CLOCKS_APART: Duration = Duration::from_secs(5 * 60);

/// Which credential, as its provider knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The provider module that made it.
    pub provider: ProviderId,
    /// Its resource type.
    pub kind: Kind,
    /// The source, as the config named it.
    pub source: String,
    /// What the provider calls it.
    pub name: String,
    /// The provider's own id; empty for one that was only asked for.
    pub provider_id: String,
}

/// One that was asked for.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) label: Label,
    /// When, RFC 3339.
    pub(super) at: String,
    /// Its name has a part of chance, so nobody else's has that name.
    pub(super) by_chance: bool,
}

impl Asked {
    /// True when what is there under that name is what was asked for: a name that anybody may choose
    /// is no proof, its time is.
    pub(super) fn made(&self, found: &Observed) -> bool {
        let time = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
        let made = match found.outputs.get("created_at") {
            Some(Output::Public(serde_json::Value::String(text))) => time(text),
            _ => None,
        };
        self.by_chance
            || match (time(&self.at), made) {
                (Some(asked), Some(made)) => {
                    made >= asked - CLOCKS_APART && made <= asked + CALL_TIMEOUT + CLOCKS_APART
                }
                _ => false,
            }
    }
}

/// One that was made. The halves are sealed for themselves.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) label: Label,
    pub(super) created_at: String,
    pub(super) access_key: String,
    pub(super) secret_key: String,
}

impl Made {
    fn sealed(&self, half: Half) -> &str {
        match half {
            Half::AccessKey => &self.access_key,
            Half::SecretKey => &self.secret_key,
        }
    }
}

/// Everything that is remembered of one declared credential. One keepsake, so that both halves
/// change at once.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Account {
    /// Asked for, and no answer is on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<Asked>,
    /// Made, and not in its store yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fresh: Option<Made>,
    /// The one in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<Made>,
    /// Replaced or given up, and still to be revoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) retiring: Vec<Label>,
}

/// How a declared credential stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The one in use.
    pub current: Label,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Older ones that still have to be revoked.
    pub retiring: Vec<Label>,
}

fn keepsake_key(key: &str) -> String {
    format!("{KEEPSAKE}{key}")
}

/// A kept credential belongs to one environment and one name, and opens nowhere else.
pub(super) fn place(engine: &Engine<'_>, key: &str) -> String {
    format!("{}/credential/{key}", engine.config.environment)
}

pub(super) async fn load(engine: &Engine<'_>, key: &str) -> Result<Account, Report> {
    let keepsake = engine
        .store
        .keepsake(&keepsake_key(key))
        .await
        .map_err(Report::from)?;
    let Some(sealed) = keepsake.and_then(|keepsake| keepsake.sealed) else {
        return Ok(Account::default());
    };
    let unreadable = |why: String| {
        Report::error(
            "state/sealed",
            format!("the kept credential `{key}` cannot be opened"),
        )
        .because(why)
        .fix("use the state key this state was written with (TIDEGATE_STATE_KEY, or the store's key file)")
    };
    let text = engine
        .keyring
        .open_bytes(&place(engine, key), &sealed)
        .map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
}

pub(super) async fn save(
    engine: &Engine<'_>,
    lease: &Lease,
    key: &str,
    account: &Account,
) -> Result<(), StoreError> {
    let text = serde_json::to_vec(account)
        .map_err(|error| StoreError::Storage(format!("cannot remember `{key}`: {error}")))?;
    let keepsake = Keepsake {
        fingerprint: String::new(),
        sealed: Some(
            engine
                .keyring
                .seal_bytes(engine.random.as_ref(), &place(engine, key), &text),
        ),
        written_at: rfc3339(engine.clock.now()),
    };
    engine
        .store
        .put_keepsake(lease, &keepsake_key(key), &keepsake)
        .await
}

pub(super) fn open(
    engine: &Engine<'_>,
    key: &str,
    made: &Made,
    half: Half,
) -> Result<Secret, Report> {
    engine
        .keyring
        .open(
            &engine.masker,
            &place(engine, &half.of(key)),
            made.sealed(half),
        )
        .map_err(|error| {
            Report::error(
                "state/sealed",
                format!("the kept credential `{key}` cannot be opened: {error}"),
            )
        })
}

/// One half of a kept credential; `None` before the first is made.
pub(in crate::apply) async fn kept(
    engine: &Engine<'_>,
    key: &str,
    half: Half,
) -> Result<Option<Secret>, Report> {
    let account = load(engine, key).await?;
    let made = account.fresh.as_ref().or(account.current.as_ref());
    made.map(|made| open(engine, key, made, half)).transpose()
}

/// How the credential `key` stands; `None` before the first is made.
pub async fn standing(engine: &Engine<'_>, key: &str) -> Result<Option<Standing>, Report> {
    let account = load(engine, key).await?;
    Ok(account.current.map(|made| Standing {
        current: made.label,
        created_at: made.created_at,
        retiring: account.retiring,
    }))
}

/// Every credential that this state keeps in use, with the secret it belongs to.
pub async fn in_use(engine: &Engine<'_>) -> Result<Vec<(String, Label)>, Report> {
    let mut found = Vec::new();
    for keepsake in engine.store.keepsakes().await.map_err(Report::from)? {
        let Some(key) = keepsake.strip_prefix(KEEPSAKE) else {
            continue;
        };
        let account = load(engine, key).await?;
        for made in [account.current, account.fresh].into_iter().flatten() {
            found.push((key.to_owned(), made.label));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{Outputs, Private};

    #[test]
    fn what_anybody_may_have_made_under_that_name_is_ours_only_by_its_time() {
        let asked = |by_chance| Asked {
            label: Label {
                provider: ProviderId::new("cloud"),
                kind: Kind::new("infra.spaces_key"),
                source: "cloud.spaces".to_owned(),
                name: "shop".to_owned(),
                provider_id: String::new(),
            },
            at: "2026-01-05T08:00:00Z".to_owned(),
            by_chance,
        };
        let found = |time: &str| Observed {
            provider_id: "1".to_owned(),
            outputs: Outputs::from([("created_at".to_owned(), Output::Public(json!(time)))]),
            status: String::new(),
            private: Private::default(),
        };
        for (time, ours) in [
            ("2026-01-05T08:00:02Z", true),
            ("2026-01-05T09:58:00+02:00", true),
            ("2026-01-05T07:50:00Z", false),
            ("2026-01-06T08:00:00Z", false),
            ("", false),
        ] {
            assert_eq!(asked(false).made(&found(time)), ours, "{time}");
            assert!(asked(true).made(&found(time)), "{time}");
        }
    }
}
