//! The state key: one for each environment, made once, never replaced in silence.

use zeroize::Zeroizing;

use crate::random::encode_hex;

use crate::state::own::{Key, key_check};

use super::{Filesystem, HEAD, Store as _, StoreError, StoreResult, storage};

pub(super) const KEY: &str = "key";
const KEY_TEXT_BYTES: u64 = 65;

impl Filesystem {
    pub(super) async fn state_key(&self, create: bool) -> StoreResult<Option<Key>> {
        let known = self.known_key().await?;
        if !create {
            return Ok(known);
        }
        self.prepare().map_err(storage)?;
        let _guard = self.enter().await?;
        // Once more: somebody else may have made it before we had the guard.
        if let Some(key) = self.known_key().await? {
            self.remember_check(&key)?;
            self.forget_kept_key()?;
            return Ok(Some(key));
        }
        let mut key = Key::default();
        self.random.fill(&mut *key);
        self.write_key(&key)?;
        Ok(Some(key))
    }

    /// Under the guard, when no other key is in use.
    fn write_key(&self, key: &Key) -> StoreResult<()> {
        // The check comes first: without a key file it stands for nothing and is made anew, while
        // a key that does not fit it would be refused.
        self.remember_check(key)?;
        self.write_key_file(key)
    }

    /// Under the guard: the key that a state which is taken over comes with.
    pub(super) fn take_key(&self, key: &Key) -> StoreResult<()> {
        match self.key {
            Some(_) => self.forget_kept_key(),
            None => self.write_key_file(key),
        }
    }

    fn write_key_file(&self, key: &Key) -> StoreResult<()> {
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(encode_hex(&**key))));
        self.write(&self.path(KEY), text.as_bytes())
    }

    /// Under the guard: one that is given from outside does not lie beside what it opens.
    fn forget_kept_key(&self) -> StoreResult<()> {
        let path = self.path(KEY);
        if self.key.is_none() || self.disk.entry(&path).map_err(storage)?.is_none() {
            return Ok(());
        }
        self.disk
            .remove_file(&path)
            .and_then(|()| self.disk.sync_directory(&self.directory))
            .map_err(storage)
    }

    /// The key that was given to us, or the one in the file, if it is the right one.
    async fn known_key(&self) -> StoreResult<Option<Key>> {
        let path = self.path(KEY);
        let what = || format!("the state key (`{}`)", path.display());
        if let Some(key) = self.incoming()?.and_then(|incoming| incoming.key) {
            return Ok(Some(key));
        }
        let (key, origin) = match &self.key {
            Some(key) => (key.clone(), "the state key that was given".to_owned()),
            None => match self.read(&path, KEY_TEXT_BYTES * 4)?.map(Zeroizing::new) {
                Some(text) => match parse_key(&text) {
                    Some(key) => (key, what()),
                    None => {
                        return Err(StoreError::Corrupt {
                            what: what(),
                            reason: "it is not 64 hex digits; restore it from a backup, or set \
                                     TIDEGATE_STATE_KEY"
                                .to_owned(),
                        });
                    }
                },
                None => {
                    return match self.sealed_values().await? {
                        0 => Ok(None),
                        count => Err(StoreError::Corrupt {
                            what: what(),
                            reason: format!(
                                "it is missing, but {count} stored values are sealed with it; \
                                 restore it from a backup, or set TIDEGATE_STATE_KEY"
                            ),
                        }),
                    };
                }
            },
        };
        let fits = match self.read_head() {
            // It tells nothing of any key, and is an error of its own to whoever needs it.
            Err(StoreError::Corrupt { .. }) => true,
            head => head?
                .is_none_or(|head| head.key_check.is_empty() || head.key_check == key_check(&key)),
        };
        if !fits && self.sealed_values().await? > 0 {
            return Err(StoreError::Corrupt {
                what: origin,
                reason: format!(
                    "it is not the key that the state in `{}` was sealed with",
                    self.directory.display()
                ),
            });
        }
        Ok(Some(key))
    }

    /// How many values would be lost with the key.
    async fn sealed_values(&self) -> StoreResult<usize> {
        let in_records: usize = self
            .list()
            .await?
            .iter()
            .map(|record| {
                record.tidegate.sealed.len() + usize::from(!record.tidegate.private.is_empty())
            })
            .sum();
        let in_keepsakes = self
            .keepsake_files()?
            .iter()
            .filter(|file| file.keepsake.sealed.is_some())
            .count();
        Ok(in_records + in_keepsakes)
    }

    /// Under the guard: notes which key this state is sealed with.
    fn remember_check(&self, key: &Key) -> StoreResult<()> {
        let check = key_check(key);
        match self.read_head()? {
            Some(mut head) if head.key_check != check => {
                head.key_check = check;
                self.write_own(&self.path(HEAD), &head)
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn parse_key(text: &[u8]) -> Option<Key> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.len() != 64 {
        return None;
    }
    let mut key = Key::default();
    for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
        let digits = std::str::from_utf8(pair).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(key)
}
