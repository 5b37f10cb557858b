//! Secrets: the one plaintext type, the masker that must know a value before anyone may hold it,
//! and the forms a secret may be stored in.
//!
//! Deliberately absent: any way to print, serialise or compare a [`Secret`].

pub mod age;
pub mod generate;
pub mod keyring;
pub mod mask;
pub mod seal;
pub mod source;

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

pub use keyring::Keyring;
pub use mask::Masker;

/// Plaintext in hand. Zeroed when the last handle goes; has no `Display`, `Serialize` or `==`,
/// and its `Debug` shows nothing of the value.
///
/// The only way to make one is [`Masker::admit`], so a secret that the output filter does not
/// know cannot exist. Cloning shares the one allocation.
///
/// What the compiler refuses:
///
/// ```compile_fail
/// let secret = tidegate::secret::Masker::default().admit("key", "value".into());
/// println!("{secret}");
/// ```
/// ```compile_fail
/// let secret = tidegate::secret::Masker::default().admit("key", "value".into());
/// serde_json::to_string(&secret);
/// ```
/// ```compile_fail
/// let secret = tidegate::secret::Masker::default().admit("key", "value".into());
/// assert!(secret == secret.clone());
/// ```
/// ```compile_fail
/// tidegate::secret::Secret::new("a secret the filter does not know".to_owned());
/// ```
///
/// And what it does not, so that the refusals above are known to be for their own reasons:
///
/// ```
/// let secret = tidegate::secret::Masker::default().admit("key", "value".into());
/// assert_eq!(format!("{secret:?}"), "[secret]");
/// assert_eq!(secret.clone().len_bytes(), 5);
/// ```
#[derive(Clone)]
pub struct Secret(Arc<SecretString>);

impl Secret {
    fn new(plaintext: String) -> Self {
        Self(Arc::new(SecretString::from(plaintext)))
    }

    /// The plaintext. Every caller of this is listed in `tests/it/tidy.rs`, with its reason.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Length of the plaintext in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.expose_secret().len()
    }

    /// True for the empty string, which no sink accepts.
    pub fn is_empty(&self) -> bool {
        self.len_bytes() == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
