//! Actions secrets: public keys, writing, listing, removing.

use std::collections::{BTreeMap, BTreeSet};

use http::header::LINK;
use http::{HeaderMap, Method, StatusCode};
use octocrab::models::PublicKey;
use octocrab::models::repos::secrets::{CreateRepositorySecret, RepositorySecrets};
use time::OffsetDateTime;

use super::client::{Answer, Client, Request};
use super::error::GithubError;
use super::limit::{self, Bucket};
use super::name::{Scope, SecretName};
use crate::secret::seal::{RecipientKey, SealError, Sealed};

/// Pages followed in one listing: a hundred of a hundred names are ten times GitHub's own cap.
const PAGES_MAX: usize = 100;

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The secret is new.
    Created,
    /// It was there; its value is replaced.
    Updated,
}

impl Client {
    /// The public key that boxes for `scope` are sealed with. Asked for once per scope and run.
    pub async fn recipient_key(&self, scope: &Scope) -> Result<RecipientKey, GithubError> {
        // Held while fetching: many writers that start together ask once.
        let mut keys = self.keys.lock().await;
        if let Some(key) = keys.get(scope) {
            return Ok(key.clone());
        }
        let key = self.fetch_key(scope).await?;
        keys.insert(scope.clone(), key.clone());
        Ok(key)
    }

    async fn fetch_key(&self, scope: &Scope) -> Result<RecipientKey, GithubError> {
        let path = format!("{}/public-key", scope.secrets_path());
        let request = Request {
            method: Method::GET,
            path: &path,
            body: None,
            scope,
        };
        let answer = self.send(request, None).await?;
        let key: PublicKey = decode(&format!("GET {path}"), &answer)?;
        RecipientKey::parse(&key.key_id, &key.key).map_err(|error| GithubError::Key {
            scope: scope.to_string(),
            error,
        })
    }

    /// Writes a secret. `seal` makes the box for the key it is given, and is called again with a
    /// fresh key when GitHub answers that the first one is out of date.
    pub async fn put_secret(
        &self,
        scope: &Scope,
        name: &SecretName,
        seal: impl Fn(&RecipientKey) -> Result<Sealed, SealError> + Send,
    ) -> Result<Written, GithubError> {
        let sealed_for = |key: &RecipientKey| {
            seal(key).map_err(|error| GithubError::Seal {
                name: name.as_str().to_owned(),
                error,
            })
        };
        // Held from sealing to the answer: with one write at a time, the key cannot grow old
        // because of another write of ours.
        let mut turn = self.shared.writes.lock().await;
        let key = self.recipient_key(scope).await?;
        let refused = match self
            .put_sealed(scope, name, &sealed_for(&key)?, &mut turn)
            .await
        {
            Err(GithubError::Refused(refusal)) if refusal.status == 422 => refusal,
            answer => return answer,
        };
        // The usual cause is a rotated key. Whether it was is not worth guessing from the
        // message: once more with a fresh key, and the second answer counts.
        drop(refused);
        self.keys.lock().await.remove(scope);
        let key = self.recipient_key(scope).await?;
        self.put_sealed(scope, name, &sealed_for(&key)?, &mut turn)
            .await
    }

    async fn put_sealed(
        &self,
        scope: &Scope,
        name: &SecretName,
        sealed: &Sealed,
        turn: &mut Bucket,
    ) -> Result<Written, GithubError> {
        let path = format!("{}/{}", scope.secrets_path(), name.as_str());
        let body = serde_json::to_vec(&CreateRepositorySecret {
            encrypted_value: sealed.ciphertext_base64(),
            key_id: sealed.key_id(),
        })
        .map_err(|error| GithubError::Answer {
            request: format!("PUT {path}"),
            reason: error.to_string(),
        })?;
        let request = Request {
            method: Method::PUT,
            path: &path,
            body: Some(body),
            scope,
        };
        // 201 comes with an empty body on some servers and `{}` on others: only the status counts.
        let answer = self.send(request, Some(turn)).await?;
        match answer.status {
            StatusCode::CREATED => Ok(Written::Created),
            StatusCode::NO_CONTENT => Ok(Written::Updated),
            other => Err(GithubError::Answer {
                request: format!("PUT {path}"),
                reason: format!("status {} says neither created nor updated", other.as_u16()),
            }),
        }
    }

    /// The names of all secrets of a scope, as GitHub stores them (upper case), and when each was last
    /// written, by our clock. Values can never be read back.
    pub async fn secrets(
        &self,
        scope: &Scope,
    ) -> Result<BTreeMap<String, OffsetDateTime>, GithubError> {
        let mut found = BTreeMap::new();
        let mut visited = BTreeSet::new();
        let mut next = Some(format!("{}?per_page=100", scope.secrets_path()));
        while let Some(page) = next {
            let request = Request {
                method: Method::GET,
                path: &page,
                body: None,
                scope,
            };
            let answer = self.send(request, None).await?;
            let fail = |reason: &str| GithubError::Answer {
                request: format!("GET {page}"),
                reason: reason.to_owned(),
            };
            if !visited.insert(answer.url.to_string()) {
                return Err(fail(
                    "its list of secrets links back to a page already read",
                ));
            }
            if visited.len() > PAGES_MAX {
                return Err(fail("its list of secrets does not end"));
            }
            let secrets: RepositorySecrets = decode(&format!("GET {page}"), &answer)?;
            let now = self.shared.clock.now();
            let ahead = limit::servers_now(&answer.headers, now) - now;
            found.extend(secrets.secrets.iter().map(|secret| {
                let updated = OffsetDateTime::from_unix_timestamp(secret.updated_at.timestamp())
                    .unwrap_or(OffsetDateTime::UNIX_EPOCH);
                (secret.name.to_ascii_uppercase(), updated - ahead)
            }));
            next = match next_page(&answer.headers) {
                None => None,
                Some(link) => Some(
                    answer
                        .url
                        .join(&link)
                        .map_err(|_| fail("it links to a page that is no URL"))?
                        .to_string(),
                ),
            };
        }
        Ok(found)
    }

    /// True when the scope has a secret of that name, in whatever case.
    pub async fn secret_exists(
        &self,
        scope: &Scope,
        name: &SecretName,
    ) -> Result<bool, GithubError> {
        Ok(self.secrets(scope).await?.contains_key(&name.stored()))
    }

    /// Removes a secret; absent is success.
    pub async fn delete_secret(&self, scope: &Scope, name: &SecretName) -> Result<(), GithubError> {
        let path = format!("{}/{}", scope.secrets_path(), name.as_str());
        let request = Request {
            method: Method::DELETE,
            path: &path,
            body: None,
            scope,
        };
        let mut turn = self.shared.writes.lock().await;
        match self.send(request, Some(&mut turn)).await {
            Ok(_) => Ok(()),
            Err(GithubError::Refused(refusal)) if refusal.status == 404 => {
                // "No such secret" and "this token may not see the repository" look the same.
                // Only a token that reads the scope's key has proved that it is the former.
                self.fetch_key(scope).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(
    request: &str,
    answer: &Answer,
) -> Result<T, GithubError> {
    serde_json::from_slice(&answer.body).map_err(|error| GithubError::Answer {
        request: request.to_owned(),
        // Category and place only: the body is a stranger's text.
        reason: format!(
            "it is not what GitHub documents ({:?} error at line {}, column {})",
            error.classify(),
            error.line(),
            error.column()
        ),
    })
}

/// The target of `rel="next"` in the `Link` headers.
fn next_page(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(links)
        .find(|(_, parameters)| {
            parameters.split(';').any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or_default();
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_ascii_whitespace()
                        .any(|relation| relation.eq_ignore_ascii_case("next"))
            })
        })
        .map(|(target, _)| target)
}

/// Targets and parameters of one `Link` header. A comma inside a target does not end a link.
fn links(header: &str) -> Vec<(String, String)> {
    let mut links = Vec::new();
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((target, after)) = after.split_once('>') else {
            break;
        };
        let end = after.find('<').unwrap_or(after.len());
        links.push((
            target.to_owned(),
            after[..end].trim_end().trim_end_matches(',').to_owned(),
        ));
        rest = &after[end..];
    }
    links
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn next_of(header: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, HeaderValue::from_str(header).unwrap());
        next_page(&headers)
    }

    #[test]
    fn the_next_page_is_found_among_the_links() {
        for (header, expected) in [
            (
                r#"<https://h/a?page=2>; rel="next", <https://h/a?page=9>; rel="last""#,
                Some("https://h/a?page=2"),
            ),
            (
                r#"<https://h/a?page=1>; rel="prev", <https://h/a?page=3>; rel="next""#,
                Some("https://h/a?page=3"),
            ),
            (
                r#"<https://h/a?x=1,2>; rel=next"#,
                Some("https://h/a?x=1,2"),
            ),
            (r#"<a>; title="x"; REL="last NEXT""#, Some("a")),
            (r#"<https://h/a?page=1>; rel="first""#, None),
            (r#"<https://h/a?rel="next">; rel="last""#, None),
            ("", None),
            ("<unclosed", None),
        ] {
            assert_eq!(next_of(header).as_deref(), expected, "{header}");
        }
    }
}
