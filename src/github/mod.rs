//! GitHub's REST API, as far as secrets need it. The only room that names octocrab.
//!
//! Promises: requests carry ciphertext only (no function here takes a [`Secret`] to send); one
//! write is in flight at a time, paced below GitHub's limits; every wait and every retry has a
//! bound; a redirect never takes the token to another host.
//!
//! octocrab gives the shapes of requests and answers. Its client does not fit: it neither
//! percent-encodes environment names nor reaches environments by name, always calls itself
//! `octocrab`, panics on a token with a line break and does not flag the header as sensitive,
//! reads answers of any size, and its default transport knows no proxy. Requests therefore go
//! through our one HTTP stack (reqwest), with the rules written in `client`.

mod client;
mod error;
mod limit;
mod name;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as TurnMutex;

pub use client::{Client, Settings};
pub use error::{GithubError, Refusal};
pub use name::{NameError, Repository, Scope, SecretName};
pub use secrets::Written;

use crate::clock::Clock;
use crate::random::Random;
use crate::report::{Exit, Report, Reporter};
use crate::secret::{Masker, Secret};
use crate::variables::Variables;
use client::BaseUrl;
use limit::{Bucket, RetryBudget};

/// The API of github.com, used when `GITHUB_API_URL` is not set.
pub const DEFAULT_API_URL: &str = "https://api.github.com";

/// Variables looked at, in this order, when the config names none.
pub const TOKEN_VARIABLES: [&str; 2] = ["GH_TOKEN", "GITHUB_TOKEN"];

/// The checked base of the API's addresses, without a final slash.
pub fn api_base(variables: &Variables) -> Result<String, Report> {
    let base = variables
        .non_empty("GITHUB_API_URL")
        .unwrap_or(DEFAULT_API_URL);
    BaseUrl::parse(base)?;
    Ok(base.trim_end_matches('/').to_owned())
}

/// A token and the variable it came from.
struct Token {
    variable: String,
    value: Secret,
}

/// One process's access to GitHub: finds tokens, makes one [`Client`] per token, and holds what
/// all of them share, which is the pace of writes and the budget for retries.
pub struct Access {
    variables: Arc<Variables>,
    masker: Masker,
    shared: Shared,
    clients: Mutex<BTreeMap<String, Arc<Client>>>,
}

/// What every client of the process shares.
#[derive(Clone)]
struct Shared {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    settings: Settings,
    /// Hides secrets in what GitHub says, before it is cut to size.
    masker: Masker,
    writes: Arc<TurnMutex<Bucket>>,
    retries: Arc<Mutex<RetryBudget>>,
    /// Told when GitHub announces the end of what we call.
    reporter: Option<Arc<dyn Reporter>>,
    ends_said: Arc<Mutex<BTreeSet<String>>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("github::Access")
    }
}

impl Access {
    /// Access as the environment describes it. Nothing is read or sent until a client is asked for.
    pub fn new(
        variables: Arc<Variables>,
        masker: Masker,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self::with_settings(variables, masker, clock, random, Settings::default())
    }

    /// The same with other timeouts and sizes, for tests.
    pub fn with_settings(
        variables: Arc<Variables>,
        masker: Masker,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        settings: Settings,
    ) -> Self {
        Self {
            variables,
            shared: Shared {
                clock,
                random,
                settings,
                masker: masker.clone(),
                writes: Arc::default(),
                retries: Arc::default(),
                reporter: None,
                ends_said: Arc::default(),
            },
            masker,
            clients: Mutex::default(),
        }
    }

    /// The same, telling `reporter` when GitHub announces that something we call will end.
    #[must_use]
    pub fn reporting_to(mut self, reporter: Arc<dyn Reporter>) -> Self {
        self.shared.reporter = Some(reporter);
        self
    }

    /// The client for the token in `token_env`, or in the first of [`TOKEN_VARIABLES`] that is
    /// set. The same variable gives the same client, with its cached public keys.
    pub fn client(&self, token_env: Option<&str>) -> Result<Arc<Client>, Report> {
        let (variable, value) = self.token(token_env)?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(variable) {
            return Ok(Arc::clone(client));
        }
        let base = BaseUrl::parse(
            self.variables
                .non_empty("GITHUB_API_URL")
                .unwrap_or(DEFAULT_API_URL),
        )?;
        let token = Token {
            variable: variable.to_owned(),
            value: self.masker.admit(variable, value.to_owned()),
        };
        let client = Arc::new(Client::new(base, token, self.shared.clone())?);
        clients.insert(variable.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    /// Randomness for sealing.
    pub fn random(&self) -> &dyn Random {
        &*self.shared.random
    }

    /// The variable that holds the token, and its value.
    fn token<'a>(&'a self, token_env: Option<&'a str>) -> Result<(&'a str, &'a str), Report> {
        let asked: Vec<&str> =
            token_env.map_or_else(|| TOKEN_VARIABLES.to_vec(), |name| vec![name]);
        for variable in &asked {
            if let Some(value) = self.variables.non_empty(variable) {
                return Ok((variable, value));
            }
        }
        let names: Vec<String> = asked.iter().map(|name| format!("`{name}`")).collect();
        Err(Report::error(
            "github/no-token",
            format!("no GitHub token: {} is not set", names.join(" or ")),
        )
        .exit(Exit::Usage)
        .fix(format!(
            "set `{}` to a fine-grained token (or GitHub App token) that may write secrets; in a \
             workflow: `env: {{ {}: ${{{{ secrets.YOUR_TOKEN }}}} }}`",
            asked[0], asked[0]
        ))
        .fix(
            "the workflow's own `GITHUB_TOKEN` does not help: it can never write secrets, \
             whatever `permissions:` says",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::random::SystemRandom;

    fn access(pairs: &[(&str, &str)]) -> Access {
        let variables: Variables = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Access::new(
            Arc::new(variables),
            Masker::default(),
            Arc::new(SystemClock::new()),
            Arc::new(SystemRandom),
        )
    }

    fn variable_used(pairs: &[(&str, &str)], token_env: Option<&str>) -> Result<String, String> {
        access(pairs)
            .token(token_env)
            .map(|(variable, _)| variable.to_owned())
            .map_err(|report| report.message)
    }

    #[test]
    fn the_named_variable_wins_then_gh_token_then_github_token() {
        let both = [("GH_TOKEN", "a"), ("GITHUB_TOKEN", "b"), ("MINE", "c")];
        for (pairs, asked, expected) in [
            (&both[..], Some("MINE"), Ok("MINE")),
            (&both[..], None, Ok("GH_TOKEN")),
            (&both[1..], None, Ok("GITHUB_TOKEN")),
            (
                &[("GH_TOKEN", ""), ("GITHUB_TOKEN", "b")],
                None,
                Ok("GITHUB_TOKEN"),
            ),
            (
                &both[..],
                Some("OTHER"),
                Err("no GitHub token: `OTHER` is not set"),
            ),
            (
                &[],
                None,
                Err("no GitHub token: `GH_TOKEN` or `GITHUB_TOKEN` is not set"),
            ),
        ] {
            assert_eq!(
                variable_used(pairs, asked),
                expected.map(str::to_owned).map_err(str::to_owned)
            );
        }
    }

    #[test]
    fn one_client_per_variable() {
        let access = access(&[
            ("GITHUB_API_URL", "http://127.0.0.1:9"),
            ("GH_TOKEN", "a"),
            ("MINE", "b"),
        ]);
        let first = access.client(None).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &access.client(Some("GH_TOKEN")).unwrap()
        ));
        assert!(!Arc::ptr_eq(&first, &access.client(Some("MINE")).unwrap()));
    }

    #[test]
    fn a_client_for_https_can_be_made() {
        let client = access(&[("GH_TOKEN", "a")]).client(None).unwrap();
        assert!(format!("{client:?}").contains("https://api.github.com/"));
    }

    #[test]
    fn no_debug_text_holds_a_token() {
        let access = access(&[
            ("GITHUB_API_URL", "http://127.0.0.1:9"),
            ("GH_TOKEN", "ghp_very_secret"),
        ]);
        let client = access.client(None).unwrap();
        let text = format!("{access:?} {client:?}");
        assert!(!text.contains("ghp_very"), "{text}");
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused_without_showing_it() {
        let access = access(&[
            ("GITHUB_API_URL", "http://127.0.0.1:9"),
            ("GH_TOKEN", "ab\ncd"),
        ]);
        let report = access.client(None).unwrap_err();
        assert_eq!(report.code, "github/bad-token");
        assert!(!format!("{report:?}").contains("cd\""), "{report:?}");
    }
}
