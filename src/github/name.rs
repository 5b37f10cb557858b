//! Names GitHub takes, checked before anything is sent, and where they stand in a path.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// GitHub documents no limit for secret names; this one keeps request lines within what every
/// proxy takes.
const SECRET_NAME_MAX: usize = 255;

const ENVIRONMENT_NAME_MAX: usize = 255;

const REPOSITORY_PART_MAX: usize = 100;

/// A name GitHub would not take, and the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `owner/name`.
    #[error("`{0}` is not a repository: it must read `owner/name`")]
    Repository(String),
    /// Empty, too long, or a path segment that URLs cannot carry.
    #[error(
        "`{0}` cannot be the name of a GitHub environment (1 to {ENVIRONMENT_NAME_MAX} characters, \
         no control characters, not `.` or `..`)"
    )]
    Environment(String),
    /// Breaks the rules for secret names.
    #[error(
        "`{0}` cannot be the name of a GitHub secret: letters, digits and `_` only, not starting \
         with a digit, at most {SECRET_NAME_MAX} characters"
    )]
    Secret(String),
    /// Starts with `GITHUB_`.
    #[error(
        "`{0}` cannot be the name of a GitHub secret: names starting with `GITHUB_` are GitHub's own"
    )]
    Reserved(String),
}

/// `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// Checks the form; whether it exists only GitHub knows.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Repository(shown(text));
        let (owner, name) = text.split_once('/').ok_or_else(wrong)?;
        let fits = |part: &str, extra: &[u8]| {
            (1..=REPOSITORY_PART_MAX).contains(&part.len())
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
        };
        if fits(owner, b"-_") && fits(name, b"-_.") && name != "." && name != ".." {
            Ok(Self(text.to_owned()))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose secrets: a repository's, or those of one of its environments. Each has its own public key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    repository: Repository,
    environment: Option<String>,
}

impl Scope {
    /// Checks both names.
    pub fn parse(repository: &str, environment: Option<&str>) -> Result<Self, NameError> {
        let repository = Repository::parse(repository)?;
        if let Some(name) = environment {
            let length = name.chars().count();
            if length == 0
                || length > ENVIRONMENT_NAME_MAX
                || name.chars().any(char::is_control)
                // URLs drop these segments even when they are percent-encoded.
                || name == "."
                || name == ".."
            {
                return Err(NameError::Environment(shown(name)));
            }
        }
        Ok(Self {
            repository,
            environment: environment.map(str::to_owned),
        })
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The environment, when the scope is one.
    pub fn environment(&self) -> Option<&str> {
        self.environment.as_deref()
    }

    /// The path of this scope's secrets, percent-encoded: `/repos/o/r/environments/prod%2Feu/secrets`.
    pub(super) fn secrets_path(&self) -> String {
        match &self.environment {
            Some(environment) => format!(
                "/repos/{}/environments/{}/secrets",
                self.repository,
                utf8_percent_encode(environment, RESERVED)
            ),
            None => format!("/repos/{}/actions/secrets", self.repository),
        }
    }

    /// The permission that writing here takes, in the words of GitHub's token form.
    pub(super) fn permission(&self) -> &'static str {
        match self.environment {
            Some(_) => "repository permission `Environments: write` (classic token: scope `repo`)",
            None => "repository permission `Secrets: write` (classic token: scope `repo`)",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        match &self.environment {
            Some(environment) => write!(f, " (environment {environment})"),
            None => Ok(()),
        }
    }
}

/// The name of a secret, checked against GitHub's rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretName(String);

impl SecretName {
    /// Checks the rules; the name keeps its case, though GitHub ignores it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let legal = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !text.is_empty()
            && !text.as_bytes()[0].is_ascii_digit()
            && text.len() <= SECRET_NAME_MAX;
        if !legal {
            return Err(NameError::Secret(shown(text)));
        }
        if text
            .get(..7)
            .is_some_and(|start| start.eq_ignore_ascii_case("GITHUB_"))
        {
            return Err(NameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The spelling GitHub stores.
    pub(crate) fn stored(&self) -> String {
        self.0.to_ascii_uppercase()
    }
}

/// A name as an error may show it: one line, cut to size.
fn shown(text: &str) -> String {
    text.escape_debug().to_string().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_owner_slash_name() {
        for good in ["acme/shop", "a/b", "Acme-Inc/shop.web_2", "emu_corp/x"] {
            assert!(Repository::parse(good).is_ok(), "{good}");
        }
        let long = format!("a/{}", "b".repeat(101));
        for bad in [
            "",
            "acme",
            "acme/",
            "/shop",
            "a/b/c",
            "a/..",
            "a/.",
            "a b/c",
            "a/b?x",
            "a/b#",
            "a/b%2f",
            "ä/b",
            "a/b\n",
            "https://github.com/a/b",
            long.as_str(),
        ] {
            assert!(Repository::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn environments_are_percent_encoded_byte_by_byte() {
        for (environment, path) in [
            ("prod", "/repos/o/r/environments/prod/secrets"),
            ("prod/eu", "/repos/o/r/environments/prod%2Feu/secrets"),
            (
                "a b?c#d%",
                "/repos/o/r/environments/a%20b%3Fc%23d%25/secrets",
            ),
            ("größe", "/repos/o/r/environments/gr%C3%B6%C3%9Fe/secrets"),
            ("../x", "/repos/o/r/environments/..%2Fx/secrets"),
        ] {
            assert_eq!(
                Scope::parse("o/r", Some(environment))
                    .unwrap()
                    .secrets_path(),
                path
            );
        }
        assert_eq!(
            Scope::parse("o/r", None).unwrap().secrets_path(),
            "/repos/o/r/actions/secrets"
        );
        for bad in ["", ".", "..", "a\nb", "\0"] {
            assert!(Scope::parse("o/r", Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secret_names_follow_githubs_rules() {
        for good in ["A", "_", "a1", "DATABASE_URL", "GITHUB", "MY_GITHUB_TOKEN"] {
            assert!(SecretName::parse(good).is_ok(), "{good}");
        }
        let long = "A".repeat(256);
        for bad in [
            "",
            "1A",
            "A-B",
            "A B",
            "A.B",
            "Ä",
            "A\n",
            "../x",
            long.as_str(),
        ] {
            assert!(
                matches!(SecretName::parse(bad), Err(NameError::Secret(_))),
                "{bad:?}"
            );
        }
        for bad in ["GITHUB_TOKEN", "github_x", "GitHub_"] {
            assert!(
                matches!(SecretName::parse(bad), Err(NameError::Reserved(_))),
                "{bad:?}"
            );
        }
    }
}
