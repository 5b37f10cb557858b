//! What can go wrong with GitHub, and what the reader can do about it.

use std::time::Duration;

use super::name::NameError;
use crate::report::{Exit, Report};
use crate::secret::seal::{KeyError, SealError};

/// How much of a server's text an error shows, in characters.
const SHOWN_CHARACTERS: usize = 300;

/// A refused request, with what GitHub said about it. Everything in it that came from the server
/// is cut to size and held to one line.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// `PUT /repos/o/r/actions/secrets/NAME`.
    pub request: String,
    /// The HTTP status.
    pub status: u16,
    /// The message of the answer; empty when there was none.
    pub message: String,
    /// `X-Accepted-GitHub-Permissions`, or `X-Accepted-OAuth-Scopes` for classic tokens.
    pub accepted: Option<String>,
    /// `X-GitHub-SSO`: the organization wants the token approved.
    pub sso: Option<String>,
    /// `X-GitHub-Request-Id`, for GitHub's support.
    pub request_id: Option<String>,
    /// What this request needs, in the words of GitHub's token form.
    pub needs: &'static str,
    /// The variable the token came from.
    pub token_variable: String,
    /// The environment the request was about, when it was.
    pub environment: Option<String>,
}

/// Why a call to GitHub failed. Never holds a token or a secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GithubError {
    /// GitHub answered with a 4xx.
    #[error(
        "GitHub refused `{}` with status {}{}", .0.request, .0.status, colon(&.0.message)
    )]
    Refused(Box<Refusal>),
    /// A rate limit asks for a longer wait than we are ready for.
    #[error("GitHub's rate limit stops `{request}`: it asks to wait {} s", .wait.as_secs())]
    Limited {
        /// Method and path.
        request: String,
        /// How long GitHub asks to stay away.
        wait: Duration,
    },
    /// GitHub answered with a 5xx, every time.
    #[error(
        "GitHub answered `{request}` with status {status}, tried {}{}", times(*.tries), colon(.message)
    )]
    Broken {
        /// Method and path.
        request: String,
        /// The last status.
        status: u16,
        /// How often it was tried.
        tries: u32,
        /// The message of the last answer.
        message: String,
    },
    /// No answer came.
    #[error("cannot reach GitHub for `{request}`, tried {}: {reason}", times(*.tries))]
    Unreachable {
        /// Method and path.
        request: String,
        /// How often it was tried.
        tries: u32,
        /// The last reason.
        reason: String,
    },
    /// An answer that makes no sense.
    #[error("GitHub's answer to `{request}` cannot be used: {reason}")]
    Answer {
        /// Method and path.
        request: String,
        /// Why not.
        reason: String,
    },
    /// A redirect to somewhere the token must not go.
    #[error("GitHub redirects `{request}` to {to}, which is another server: not followed")]
    Redirected {
        /// Method and path.
        request: String,
        /// Scheme and host of the destination.
        to: String,
    },
    /// The public key cannot be used.
    #[error("the public key of {scope} cannot be used: {error}")]
    Key {
        /// Whose key.
        scope: String,
        /// Why not.
        error: KeyError,
    },
    /// The value cannot be sealed.
    #[error("secret `{name}` cannot be sent: {error}")]
    Seal {
        /// The secret's name.
        name: String,
        /// Why not.
        error: SealError,
    },
}

impl GithubError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => match refusal.status {
                401 => "github/unauthorized",
                403 => "github/forbidden",
                404 => "github/not-found",
                _ => "github/refused",
            },
            Self::Limited { .. } => "github/rate-limit",
            Self::Broken { .. } => "github/broken",
            Self::Unreachable { .. } => "github/unreachable",
            Self::Answer { .. } => "github/answer",
            Self::Redirected { .. } => "github/redirect",
            Self::Key { .. } => "github/public-key",
            Self::Seal { .. } => "github/secret-size",
        }
    }

    /// What the reader can do, most useful first.
    pub fn fix(&self) -> Vec<String> {
        match self {
            Self::Refused(refusal) => refusal.fix(),
            Self::Limited { wait, .. } => vec![format!(
                "run again in {} min; what was written stays written",
                wait.as_secs().div_ceil(60).max(1)
            )],
            Self::Broken { .. } => vec![
                "run again: what was written stays written".to_owned(),
                "see https://www.githubstatus.com".to_owned(),
            ],
            Self::Unreachable { .. } => {
                vec!["check the network, the proxy variables and `GITHUB_API_URL`".to_owned()]
            }
            Self::Answer { .. } | Self::Key { .. } => {
                vec!["check that `GITHUB_API_URL` names GitHub's REST API".to_owned()]
            }
            Self::Redirected { .. } => vec![
                "if the repository moved, write its new name in the config; otherwise check \
                 `GITHUB_API_URL`"
                    .to_owned(),
            ],
            Self::Seal { error, .. } => vec![match error {
                SealError::Empty => "give it a value: GitHub secrets cannot be empty".to_owned(),
                SealError::TooLong(_) => {
                    "store it somewhere larger, encrypted, and put only the key into the secret"
                        .to_owned()
                }
            }],
        }
    }

    /// The error as a report.
    pub fn report(&self) -> Report {
        let mut report = Report::error(self.code(), self.to_string());
        if let Self::Refused(refusal) = self {
            report.because = refusal.because();
        }
        report.fix = self.fix();
        report
    }
}

impl Refusal {
    /// What GitHub's headers say beyond the message.
    pub fn because(&self) -> Vec<String> {
        let mut because = Vec::new();
        if let Some(accepted) = &self.accepted {
            because.push(format!("GitHub says the request needs: {accepted}"));
        }
        if let Some(sso) = &self.sso {
            because.push(format!("the organization wants single sign-on: {sso}"));
        }
        if let Some(id) = &self.request_id {
            because.push(format!("GitHub's id of the request: {id}"));
        }
        because
    }

    fn fix(&self) -> Vec<String> {
        let mut fix = Vec::new();
        let variable = &self.token_variable;
        match self.status {
            401 => fix.push(format!(
                "the token in `{variable}` is wrong, expired or revoked: make a new one"
            )),
            403 | 404 => {
                if self.sso.is_some() {
                    fix.push(format!(
                        "approve the token in `{variable}` for the organization's single sign-on"
                    ));
                }
                if self.status == 404 {
                    fix.push(match &self.environment {
                        Some(environment) => format!(
                            "check the repository's name and that its environment `{environment}` \
                             exists (Settings → Environments); GitHub also answers 404 to a token \
                             that may not see it"
                        ),
                        None => "check the repository's name; GitHub also answers 404 to a token \
                                 that may not see it"
                            .to_owned(),
                    });
                }
                fix.push(format!("give the token in `{variable}` the {}", self.needs));
                fix.push(
                    "if it is the workflow's own `GITHUB_TOKEN`, use another: that one can never \
                     write secrets, whatever `permissions:` says"
                        .to_owned(),
                );
            }
            422 => fix.push(
                "GitHub did not take the name or the sealed value even with a fresh public key; \
                 the message above says which"
                    .to_owned(),
            ),
            _ => fix.push("the message above is GitHub's own".to_owned()),
        }
        fix
    }
}

impl From<&NameError> for Report {
    fn from(error: &NameError) -> Self {
        let code = match error {
            NameError::Repository(_) => "github/bad-repository",
            NameError::Environment(_) => "github/bad-environment",
            NameError::Secret(_) | NameError::Reserved(_) => "github/bad-secret-name",
        };
        Self::error(code, error.to_string())
            .exit(Exit::Usage)
            .fix("rename it in the config")
    }
}

fn times(tries: u32) -> String {
    match tries {
        1 => "once".to_owned(),
        tries => format!("{tries} times"),
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

/// Text of a server as an error may show it: one line, cut to size.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (index, character) in text.trim().chars().enumerate() {
        if index == SHOWN_CHARACTERS {
            shown.push('…');
            break;
        }
        shown.push(if character.is_control() {
            ' '
        } else {
            character
        });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_text_is_one_line_and_cut_to_size() {
        assert_eq!(shown(" a\r\n::error::b\u{1b}[31m "), "a  ::error::b [31m");
        assert_eq!(shown(&"é".repeat(301)), format!("{}…", "é".repeat(300)));
        assert_eq!(shown(&"é".repeat(300)), "é".repeat(300));
    }
}
