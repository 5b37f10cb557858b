//! What is remembered of a credential, and how: one sealed keepsake each.

use serde::{Deserialize, Serialize};

use crate::apply::Engine;
use crate::clock::rfc3339;
use crate::config::Half;
use crate::report::Report;
use crate::resource::{Kind, ProviderId};
use crate::secret::Secret;
use crate::state::{Keepsake, Lease, StoreError};

/// What the keys of these keepsakes begin with.
pub(in crate::apply) const KEEPSAKE: &str = "credential/";

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
    pub(super) asked: Option<Label>,
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
