//! The masker: every live secret, in every encoding that could carry it.
//! (Interface only at this commit; the filter is filled in by its own change.)

use std::fmt;
use std::sync::{Arc, Mutex};

use super::Secret;

/// Knows every live secret of the process. Cheap to clone; all clones share one registry.
#[derive(Clone, Default)]
pub struct Masker {
    inner: Arc<Mutex<Vec<(String, Secret)>>>,
}

impl Masker {
    /// Turns plaintext into a [`Secret`], after registering it with the output filter and (inside
    /// GitHub Actions) after its mask commands were written. `label` names the secret in messages.
    pub fn admit(&self, label: &str, plaintext: String) -> Secret {
        let secret = Secret::new(plaintext);
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push((label.to_owned(), secret.clone()));
        secret
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masker")
    }
}
