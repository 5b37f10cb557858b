//! The state key that is kept outside the store: in a variable, in a file, or in an age file that one
//! of our identities opens.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Desk;
use super::stores::Declared;
use crate::config::Config;
use crate::report::{Exit, Report};
use crate::resource::Value;
use crate::secret::age;
use crate::settings;

/// Longest state key file: 64 digits, or an age file that holds them for many recipients.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

impl Desk {
    /// The state key when it is kept outside the store: the variable wins over `key_file`.
    pub(super) fn state_key(
        &self,
        config: &Config,
        declared: &Declared,
    ) -> Result<Option<Key>, Report> {
        if let Some(text) = self.settings.variables.non_empty(settings::STATE_KEY) {
            return parse_key(text, settings::STATE_KEY).map(Some);
        }
        let Some(file) = declared.text("key_file", "state/setting")? else {
            return Ok(None);
        };
        let path: PathBuf = config.directory.join(file);
        self.key_in(config, declared, &path).map(Some)
    }

    /// Is the key of this config's state kept outside its store?
    pub(super) fn has_outside_key(&self, config: &Config) -> Result<bool, Report> {
        if self
            .settings
            .variables
            .non_empty(settings::STATE_KEY)
            .is_some()
        {
            return Ok(true);
        }
        let declared = self.declared(config)?;
        Ok(declared.text("key_file", "state/setting")?.is_some())
    }

    /// The key in a file.
    pub(super) fn key_in(
        &self,
        config: &Config,
        declared: &Declared,
        path: &Path,
    ) -> Result<Key, Report> {
        let bytes = self
            .disk
            .read(path, KEY_FILE_BYTES_MAX)
            .map(Zeroizing::new)
            .map_err(|error| {
                declared
                    .problem("settings/state-key", error.to_string())
                    .fix("make one with `openssl rand -hex 32`, and keep a copy where it is safe")
            })?;
        let bytes = if age::is_age(&bytes) {
            self.open_age(config, declared, path, &bytes)?
        } else {
            bytes
        };
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        parse_key(text.trim(), &path.display().to_string())
    }

    /// A key file that is encrypted for age recipients, of whom we must be one.
    fn open_age(
        &self,
        config: &Config,
        declared: &Declared,
        path: &Path,
        bytes: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Report> {
        let problem = |reason: String| declared.problem("settings/state-key", reason);
        let file = declared.text("identity_file", "state/setting")?;
        let (text, origin) = match (
            self.settings.variables.non_empty(settings::AGE_IDENTITY),
            file,
        ) {
            (Some(text), _) => (
                Zeroizing::new(text.to_owned()),
                settings::AGE_IDENTITY.to_owned(),
            ),
            (None, Some(file)) => {
                let path = config.directory.join(file);
                let bytes = self
                    .disk
                    .read(&path, KEY_FILE_BYTES_MAX)
                    .map(Zeroizing::new)
                    .map_err(|error| problem(error.to_string()))?;
                let text = std::str::from_utf8(&bytes).unwrap_or_default();
                (Zeroizing::new(text.to_owned()), path.display().to_string())
            }
            (None, None) => {
                return Err(problem(format!(
                    "`{}` is encrypted with age, and no identity was given",
                    path.display()
                ))
                .fix(
                    "set TIDEGATE_AGE_IDENTITY (`AGE-SECRET-KEY-1…`) from a secret, or name an \
                     `identity_file`",
                ));
            }
        };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            // So that no output ever shows it.
            drop(
                self.masker
                    .admit(settings::AGE_IDENTITY, line.trim().to_owned()),
            );
        }
        let identities = age::Identity::parse_all(&text)
            .map_err(|error| problem(format!("`{origin}` cannot be used: {error}")))?;
        age::open(&identities, bytes).map_err(|error| {
            problem(format!("`{}` cannot be opened: {error}", path.display()))
                .fix("encrypt it for this identity's recipient too, with `age -r age1…`")
        })
    }
}

pub(super) type Key = Zeroizing<[u8; 32]>;

/// Are whole records encrypted? Only with a key from outside: one beside them would protect nothing.
pub(super) fn encrypts(declared: &Declared, has_key: bool) -> Result<bool, Report> {
    match declared.settings.get("encrypt") {
        None | Some(Value::Null | Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) if has_key => Ok(true),
        Some(Value::Bool(true)) => Err(declared
            .problem(
                "state/encrypt",
                "`encrypt: true` needs a key that is kept outside the store",
            )
            .fix("set TIDEGATE_STATE_KEY (64 hexadecimal digits), or name a `key_file`")),
        Some(_) => Err(declared.wrong_encrypt()),
    }
}

fn parse_key(text: &str, origin: &str) -> Result<Key, Report> {
    let bytes: Option<Zeroizing<Vec<u8>>> = (text.len() == 64)
        .then(|| {
            text.as_bytes()
                .chunks(2)
                .map(|pair| {
                    std::str::from_utf8(pair)
                        .ok()
                        .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                })
                .collect::<Option<Vec<u8>>>()
                .map(Zeroizing::new)
        })
        .flatten();
    bytes
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
        .map(Zeroizing::new)
        .ok_or_else(|| {
            Report::error(
                "settings/state-key",
                format!("{origin} is not 64 hexadecimal digits"),
            )
            .fix("make one with `openssl rand -hex 32` and keep it as a secret")
            .exit(Exit::Usage)
        })
}
