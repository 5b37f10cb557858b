//! A URL that hides its credentials whenever it is shown.

use std::fmt;

use reqwest::Url;

/// What stands in for a hidden part.
const HIDDEN: &str = "***";

/// Query values longer than this are hidden whatever their name: page numbers are short, tokens
/// are long.
const LONGEST_PLAIN_VALUE: usize = 40;

/// A URL whose `Display` and `Debug` hide user, password and query values that look secret. It
/// has no other text form.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedUrl(Url);

/// Why a text is not a URL we can ask. Never holds the text itself, which may carry credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// Nothing there.
    #[error("the URL is empty")]
    Empty,
    /// No scheme.
    #[error("the URL does not start with `http://` or `https://`")]
    Scheme,
    /// No host, or one that cannot exist.
    #[error("the URL names no valid host")]
    Host,
    /// A port that is no number below 65536.
    #[error("the port in the URL is not a port number")]
    Port,
    /// Anything else.
    #[error("the URL is malformed")]
    Malformed,
}

type ParseError = <Url as std::str::FromStr>::Err;

impl RedactedUrl {
    /// Parses an `http` or `https` URL.
    pub fn parse(text: &str) -> Result<Self, UrlProblem> {
        let text = text.trim();
        if text.is_empty() {
            return Err(UrlProblem::Empty);
        }
        let is_web = ["http://", "https://"].iter().any(|scheme| {
            text.get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        if !is_web {
            return Err(UrlProblem::Scheme);
        }
        let mut url = Url::parse(text).map_err(|error| match error {
            ParseError::EmptyHost
            | ParseError::IdnaError
            | ParseError::InvalidIpv4Address
            | ParseError::InvalidIpv6Address
            | ParseError::InvalidDomainCharacter => UrlProblem::Host,
            ParseError::InvalidPort => UrlProblem::Port,
            _ => UrlProblem::Malformed,
        })?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(UrlProblem::Host);
        }
        // Never sent, so never shown.
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Another URL, seen from this one: a `Location` header.
    pub fn join(&self, reference: &str) -> Option<Self> {
        let mut url = self.0.join(reference).ok()?;
        url.set_fragment(None);
        Some(Self(url))
    }

    /// The host as it stands in the URL.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// True for `https`.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// True when both have scheme, host and port in common: what is meant for one may be told the
    /// other.
    pub fn is_same_server(&self, other: &Self) -> bool {
        (
            self.0.scheme(),
            self.0.host_str(),
            self.0.port_or_known_default(),
        ) == (
            other.0.scheme(),
            other.0.host_str(),
            other.0.port_or_known_default(),
        )
    }

    /// True when the host is this machine, by name or address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// True when a user or a password stands in the URL.
    pub fn has_credentials(&self) -> bool {
        !self.0.username().is_empty() || self.0.password().is_some()
    }

    /// True when there is a query.
    pub fn has_query(&self) -> bool {
        self.0.query().is_some()
    }

    /// The last part of the path, percent-encoded as it stands.
    pub fn file_name(&self) -> &str {
        self.0.path().rsplit('/').next().unwrap_or_default()
    }

    pub(super) fn as_url(&self) -> &Url {
        &self.0
    }

    pub(super) fn into_url(self) -> Url {
        self.0
    }
}

impl fmt::Display for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        write!(f, "{}:", url.scheme())?;
        if let Some(host) = url.host_str() {
            f.write_str("//")?;
            if !url.username().is_empty() || url.password().is_some() {
                write!(f, "{HIDDEN}@")?;
            }
            f.write_str(host)?;
            if let Some(port) = url.port() {
                write!(f, ":{port}")?;
            }
        }
        f.write_str(url.path())?;
        let Some(query) = url.query() else {
            return Ok(());
        };
        for (position, pair) in query.split('&').enumerate() {
            f.write_str(if position == 0 { "?" } else { "&" })?;
            match pair.split_once('=') {
                Some((key, value)) if looks_secret(key, value) => write!(f, "{key}={HIDDEN}")?,
                // A query without names may be a token as a whole.
                None if pair.len() > LONGEST_PLAIN_VALUE => f.write_str(HIDDEN)?,
                _ => f.write_str(pair)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedactedUrl({self})")
    }
}

fn looks_secret(key: &str, value: &str) -> bool {
    const NAMES: [&str; 15] = [
        "token",
        "secret",
        "password",
        "passwd",
        "pwd",
        "key",
        "sig",
        "auth",
        "credential",
        "jwt",
        "session",
        "code",
        "ticket",
        "otp",
        "pass",
    ];
    if value.is_empty() {
        return false;
    }
    let key = percent_encoding::percent_decode_str(key)
        .decode_utf8_lossy()
        .to_lowercase();
    value.len() > LONGEST_PLAIN_VALUE || NAMES.iter().any(|name| key.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let url = RedactedUrl::parse(input).unwrap();
        assert_eq!(url.to_string(), expected);
        assert_eq!(format!("{url:?}"), format!("RedactedUrl({expected})"));
    }

    #[test]
    fn credentials_are_hidden_and_the_rest_is_kept() {
        check("http://a.test", "http://a.test/");
        check("HTTPS://A.test:443/x", "https://a.test/x");
        check("http://a.test:8080/x?page=2", "http://a.test:8080/x?page=2");
        check("http://ann:pw@a.test/", "http://***@a.test/");
        check("http://ann@a.test/", "http://***@a.test/");
        check("http://:pw@a.test/", "http://***@a.test/");
        check("http://[::1]:80/?a", "http://[::1]/?a");
        check("http://a.test/#secret", "http://a.test/");
        check(
            "https://a.test/x?token=abc&page=2&X-Amz-Signature=ff",
            "https://a.test/x?token=***&page=2&X-Amz-Signature=***",
        );
        check("https://a.test/?%74oken=abc", "https://a.test/?%74oken=***");
        check("https://a.test/?API_KEY=abc", "https://a.test/?API_KEY=***");
        check("https://a.test/?token=", "https://a.test/?token=");
        let long = "x".repeat(41);
        check(
            &format!("https://a.test/?q={long}"),
            "https://a.test/?q=***",
        );
        check(&format!("https://a.test/?{long}"), "https://a.test/?***");
    }

    #[test]
    fn what_is_no_web_address_is_refused_without_being_quoted() {
        for (input, expected) in [
            ("", UrlProblem::Empty),
            ("   ", UrlProblem::Empty),
            ("a.test", UrlProblem::Scheme),
            ("localhost:80", UrlProblem::Scheme),
            ("ftp://a.test", UrlProblem::Scheme),
            ("file:///etc/passwd", UrlProblem::Scheme),
            ("http://", UrlProblem::Host),
            ("http://a b/", UrlProblem::Host),
            ("http://[::1/", UrlProblem::Host),
            ("http://1.2.3.999/", UrlProblem::Host),
            ("http://a.test:port/", UrlProblem::Port),
        ] {
            assert_eq!(RedactedUrl::parse(input), Err(expected), "{input:?}");
        }
        let problem = RedactedUrl::parse("http://ann:hunter2@a.test:99999/").unwrap_err();
        assert_eq!(
            problem.to_string(),
            "the port in the URL is not a port number"
        );
    }

    #[test]
    fn a_location_is_read_from_where_it_was_met() {
        let base = RedactedUrl::parse("https://a.test/x/y").unwrap();
        assert_eq!(
            base.join("/login?token=abc").unwrap().to_string(),
            "https://a.test/login?token=***"
        );
        assert_eq!(
            base.join("http://b.test/").unwrap().to_string(),
            "http://b.test/"
        );
    }
}
