//! What somebody else's storage must be able to do for us: keep small objects by id. Whether it can
//! compare before it writes decides how a write is guarded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::state::{StoreError, StoreResult};

/// Parts the segments of an id. Encoded names never hold it, and no storage turns it into another
/// character.
pub const SEPARATOR: char = '!';

/// How long a guard of a storage without compare-and-swap is waited for.
const GUARD_WAIT: Duration = Duration::from_secs(30);
/// Between two tries at such a guard.
const GUARD_POLL: Duration = Duration::from_millis(50);

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its id: segments parted by [`SEPARATOR`].
    pub id: String,
    /// Chosen by its writer, never used twice.
    pub version: String,
    /// UTF-8 text; `None` for the mark that something was removed.
    pub content: Option<String>,
}

impl Object {
    /// The id without its last segment.
    pub fn parent(id: &str) -> &str {
        id.rsplit_once(SEPARATOR).map_or("", |(parent, _)| parent)
    }
}

/// What a writer believes to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before<'a> {
    /// Nothing, not even a mark.
    Nothing,
    /// The object of this version.
    Version(&'a str),
}

impl<'a> Before<'a> {
    /// What was seen.
    pub fn seen(object: Option<&'a Object>) -> Self {
        object.map_or(Self::Nothing, |object| Self::Version(&object.version))
    }

    /// Is it still so?
    pub fn holds(self, now: Option<&Object>) -> bool {
        match (self, now) {
            (Self::Nothing, None) => true,
            (Self::Version(version), Some(now)) => version == now.version,
            _ => false,
        }
    }
}

/// A storage for objects. A refusal is `Ok(false)`; an error leaves open whether it happened.
#[async_trait]
pub trait Shelf: Send + Sync + fmt::Debug {
    /// Where it is, for messages: `s3, bucket orders (plugin tidegate-plugin-cloud)`.
    fn place(&self) -> String;
    /// Whether [`Shelf::save_if`] compares and writes in one step.
    fn compares(&self) -> bool;
    /// One object.
    async fn get(&self, id: &str) -> StoreResult<Option<Object>>;
    /// Every object whose id is `parent` and one more segment.
    async fn children(&self, parent: &str) -> StoreResult<Vec<Object>>;
    /// The ids of every object below `ancestor`, however deep, readable or not.
    async fn under(&self, ancestor: &str) -> StoreResult<Vec<String>>;
    /// Writes if what is there is `before`.
    async fn save_if(&self, object: &Object, before: Before<'_>) -> StoreResult<bool>;
    /// Writes, whatever is there.
    async fn save(&self, object: &Object) -> StoreResult<()>;
    /// Removes, whatever is there; absent is success.
    async fn delete(&self, id: &str) -> StoreResult<()>;
    /// Takes the storage's own lock on an id; held by somebody else is an error.
    async fn lock(&self, id: &str) -> StoreResult<()>;
    /// Gives it back.
    async fn unlock(&self, id: &str) -> StoreResult<()>;
}

/// A shelf whose writes are all guarded, one way or the other.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    pub(super) shelf: Arc<dyn Shelf>,
    pub(super) clock: Arc<dyn Clock>,
    /// The one id whose lock guards every write of this environment.
    pub(super) guard: String,
    /// True while that lock is, or may be, held by us. Stays true when a call is given up midway.
    pub(super) holding: Arc<tokio::sync::Mutex<bool>>,
}

impl Guarded {
    /// Writes if what is there is `before`; `Ok(false)` when it is not, and nothing was written.
    /// A lost answer is looked up: the version tells whose write it was.
    pub(super) async fn save_if(&self, object: &Object, before: Before<'_>) -> StoreResult<bool> {
        let answer = if self.shelf.compares() {
            self.shelf.save_if(object, before).await
        } else {
            self.save_by_hand(object, before).await
        };
        let is_there = |now: &Option<Object>| {
            now.as_ref()
                .is_some_and(|now| now.version == object.version)
        };
        match answer {
            Ok(true) => Ok(true),
            // A storage that repeats a request by itself refuses its own first try.
            Ok(false) => Ok(is_there(&self.shelf.get(&object.id).await?)),
            Err(error) => match self.shelf.get(&object.id).await {
                Ok(now) if is_there(&now) => Ok(true),
                _ => Err(error),
            },
        }
    }

    /// Without compare-and-swap: under the storage's lock look, write, and look again.
    async fn save_by_hand(&self, object: &Object, before: Before<'_>) -> StoreResult<bool> {
        let mut holding = self.holding.lock().await;
        self.take_guard(&mut holding).await?;
        let written = async {
            let now = self.shelf.get(&object.id).await?;
            if !before.holds(now.as_ref()) {
                return Ok(false);
            }
            self.shelf.save(object).await?;
            let back = self.shelf.get(&object.id).await?;
            Ok(back.is_some_and(|back| back == *object))
        }
        .await;
        let freed = self.shelf.unlock(&self.guard).await;
        *holding = false;
        match (written, freed) {
            (Ok(written), Ok(())) => Ok(written),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Writes over what cannot be read, and so cannot be compared, if that `is_damaged` still.
    pub(super) async fn save_over(
        &self,
        object: &Object,
        is_damaged: impl Future<Output = StoreResult<bool>>,
    ) -> StoreResult<bool> {
        let mut holding = self.holding.lock().await;
        if !self.shelf.compares() {
            // Whoever was writing when it was damaged may be dead, and keeps it for ever.
            drop(self.shelf.unlock(&self.guard).await);
            self.take_guard(&mut holding).await?;
        }
        let written = async {
            if !is_damaged.await? {
                return Ok(false);
            }
            self.shelf.save(object).await?;
            Ok(true)
        }
        .await;
        if *holding {
            drop(self.shelf.unlock(&self.guard).await);
            *holding = false;
        }
        written
    }

    /// Frees the storage's lock, whoever took it: he is known to be dead, or was named. What he may
    /// still write is refused, or looked at again by whoever writes next.
    pub(super) async fn break_guard(&self) {
        if !self.shelf.compares() {
            // Most storages call it an error that it was free.
            drop(self.shelf.unlock(&self.guard).await);
        }
    }

    async fn take_guard(&self, holding: &mut bool) -> StoreResult<()> {
        if *holding {
            // Left by a call that was given up. Whether it was taken shows below.
            drop(self.shelf.unlock(&self.guard).await);
        }
        *holding = true;
        let started = self.clock.monotonic();
        loop {
            let Err(error) = self.shelf.lock(&self.guard).await else {
                return Ok(());
            };
            let waited = self.clock.monotonic().saturating_sub(started);
            if waited >= GUARD_WAIT {
                *holding = false;
                return Err(StoreError::Guarded(format!(
                    "the storage's own lock on `{}` was not free for {} s ({error})",
                    self.guard,
                    GUARD_WAIT.as_secs()
                )));
            }
            self.clock.sleep(GUARD_POLL).await;
        }
    }
}
