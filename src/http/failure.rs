//! Why there is no (whole) answer: a closed list, decided from error types and never from their
//! text, each with its own plain sentence.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::CertificateError;

/// Why a request has no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The name does not resolve.
    #[error("the name `{host}` does not resolve")]
    UnknownHost {
        /// The name.
        host: String,
    },
    /// Nobody listens there.
    #[error("the connection was refused: nothing listens on that port")]
    Refused,
    /// Not even the proxy was reached, which is asked in the host's place.
    #[error("the proxy {proxy}, which is asked in its place, was not reached: {reason}")]
    Proxy {
        /// Host and port.
        proxy: String,
        /// Why.
        reason: Box<Self>,
    },
    /// There is no route to it.
    #[error("the host cannot be reached: the network has no route to it")]
    Unreachable,
    /// No connection in time.
    #[error("no connection within {}", seconds(*within))]
    ConnectTimeout {
        /// How long it was tried.
        within: Duration,
    },
    /// The server's certificate is not acceptable.
    #[error("the server's certificate was not accepted: {reason}")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS handshake failed for another reason.
    #[error("the TLS handshake failed: {reason}")]
    Tls {
        /// What went wrong.
        reason: String,
    },
    /// Connected, and then nothing.
    #[error("connected, but no answer within {}", seconds(*within))]
    NoAnswer {
        /// The request's budget.
        within: Duration,
    },
    /// The connection ended before an answer.
    #[error("the server closed the connection without a complete answer")]
    ClosedEarly,
    /// The answer began and did not end in time.
    #[error(
        "the answer (status {status}) did not end within {}; {received_bytes} bytes of body arrived",
        seconds(*within)
    )]
    AnswerUnfinished {
        /// Status of the answer.
        status: u16,
        /// Body bytes that arrived.
        received_bytes: u64,
        /// The request's budget.
        within: Duration,
    },
    /// The answer began and was torn.
    #[error(
        "the answer (status {status}) was cut off: the connection ended after {received_bytes} bytes of body, before its end"
    )]
    AnswerCut {
        /// Status of the answer.
        status: u16,
        /// Body bytes that arrived.
        received_bytes: u64,
    },
    /// What came back is not HTTP.
    #[error("the answer is not valid HTTP")]
    NotHttp,
    /// This machine has no means left to make a connection.
    #[error("this machine cannot open another connection: {reason}")]
    Exhausted {
        /// What it says.
        reason: String,
    },
    /// The client itself cannot do it.
    #[error("the request cannot be made: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
    /// Something else.
    #[error("the request failed: {reason}")]
    Other {
        /// The chain of causes.
        reason: String,
    },
}

impl Failure {
    /// The word used in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::UnknownHost { .. } => "dns",
            Self::Refused => "refused",
            Self::Proxy { reason, .. } => reason.word(),
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout { .. } => "connect-timeout",
            Self::Certificate { .. } => "certificate",
            Self::Tls { .. } => "tls",
            Self::NoAnswer { .. } => "no-answer",
            Self::ClosedEarly => "closed",
            Self::AnswerUnfinished { .. } => "unfinished",
            Self::AnswerCut { .. } => "cut-off",
            Self::NotHttp => "not-http",
            Self::Exhausted { .. } => "exhausted",
            Self::Client { .. } => "client",
            Self::Other { .. } => "other",
        }
    }

    /// True when the time ran out, in whatever phase.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Proxy { reason, .. } => reason.is_timeout(),
            other => matches!(
                other,
                Self::ConnectTimeout { .. } | Self::NoAnswer { .. } | Self::AnswerUnfinished { .. }
            ),
        }
    }

    /// The same of a request that goes through a proxy: what kept it from getting anywhere is the proxy's.
    pub(super) fn through(self, proxy: Option<String>) -> Self {
        match (self, proxy) {
            (
                reason @ (Self::UnknownHost { .. }
                | Self::Refused
                | Self::Unreachable
                | Self::ConnectTimeout { .. }),
                Some(proxy),
            ) => Self::Proxy {
                reason: Box::new(match reason {
                    Self::UnknownHost { .. } => Self::UnknownHost {
                        host: proxy
                            .rsplit_once(':')
                            .map_or("", |(host, _)| host)
                            .to_owned(),
                    },
                    other => other,
                }),
                proxy,
            },
            (failure, _) => failure,
        }
    }

    /// The status of the answer, when at least that much of it arrived.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::AnswerUnfinished { status, .. } | Self::AnswerCut { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// `0.3 s`, `10 s`.
fn seconds(duration: Duration) -> String {
    let tenths = (duration.as_millis() + 50) / 100;
    if tenths.is_multiple_of(10) && tenths > 0 {
        format!("{} s", tenths / 10)
    } else if tenths == 0 {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{}.{} s", tenths / 10, tenths % 10)
    }
}

/// A name that did not resolve.
#[derive(Debug, thiserror::Error)]
#[error("the name does not resolve")]
pub(super) struct DnsFailure {
    #[source]
    pub(super) source: io::Error,
}

/// Classifies an error from before the answer's head.
pub(super) fn before_answer(error: &reqwest::Error, host: &str, elapsed: Duration) -> Failure {
    if find::<DnsFailure>(error).is_some() {
        return Failure::UnknownHost {
            host: host.to_owned(),
        };
    }
    if let Some(error) = find::<rustls::Error>(error) {
        return tls(error);
    }
    // Before the I/O error, which hyper wraps: a torn head is "closed", whatever tore it.
    if let Some(error) = find::<hyper::Error>(error) {
        if error.is_parse() || error.is_parse_status() {
            return Failure::NotHttp;
        }
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return Failure::ClosedEarly;
        }
    }
    if error.is_timeout() {
        return Failure::ConnectTimeout { within: elapsed };
    }
    if let Some(error) = find::<io::Error>(error) {
        return io_failure(error);
    }
    if error.is_builder() {
        return Failure::Client {
            reason: chain(error),
        };
    }
    Failure::Other {
        reason: chain(error),
    }
}

/// Classifies an error from inside the answer's body.
pub(super) fn inside_answer(error: &reqwest::Error, status: u16, received_bytes: u64) -> Failure {
    if let Some(error) = find::<rustls::Error>(error) {
        return tls(error);
    }
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        return Failure::NotHttp;
    }
    // A chunk that does not follow the rules comes as plain invalid data.
    if find::<io::Error>(error).is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        )
    }) {
        return Failure::NotHttp;
    }
    Failure::AnswerCut {
        status,
        received_bytes,
    }
}

fn io_failure(error: &io::Error) -> Failure {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            Failure::Unreachable
        }
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::NotConnected => Failure::ClosedEarly,
        ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory | ErrorKind::QuotaExceeded => {
            Failure::Exhausted {
                reason: error.to_string(),
            }
        }
        // EMFILE and ENFILE have no kind of their own.
        _ if matches!(error.raw_os_error(), Some(23 | 24)) => Failure::Exhausted {
            reason: error.to_string(),
        },
        _ => Failure::Other {
            reason: error.to_string(),
        },
    }
}

fn tls(error: &rustls::Error) -> Failure {
    let reason = match error {
        rustls::Error::InvalidCertificate(problem) => {
            return Failure::Certificate {
                reason: certificate(problem),
            };
        }
        rustls::Error::NoCertificatesPresented => {
            return Failure::Certificate {
                reason: "the server presented none".to_owned(),
            };
        }
        rustls::Error::InvalidMessage(_) => "what answers on that port does not speak TLS".into(),
        rustls::Error::AlertReceived(alert) => {
            format!("the server refused it (alert {alert:?})")
        }
        other => other.to_string(),
    };
    Failure::Tls { reason }
}

fn certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::UnknownIssuer => {
            "it is self-signed or signed by an authority this machine does not trust".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another host name".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::BadSignature => {
            "its signature does not fit the authority it names".to_owned()
        }
        CertificateError::Revoked => "it was revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not meant for servers".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
            "it is signed in a way that is not accepted any more".to_owned()
        }
        CertificateError::BadEncoding => "it is malformed".to_owned(),
        // The checker's own words are names of its code: they follow for those who look them up.
        CertificateError::Other(other) => format!(
            "it is not one that a server may show, such as a self-signed one that is marked as an \
             authority (`CA:TRUE`): {}",
            other.0
        ),
        other => other.to_string(),
    }
}

/// Every cause, outermost first. `reqwest` would print the URL, credentials and all: left out.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        cause = error.source();
    }
    if texts.is_empty() {
        "no reason given".to_owned()
    } else {
        texts.join(": ")
    }
}

/// The first error of type `T` in the chain. An [`io::Error`] made from another error hides that
/// error from `source`, so its inside is looked at too.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    // Error chains are a handful deep; the bound only guards against one that loops.
    for _ in 0..32 {
        let error = cause?;
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        cause = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_a_person_would_say_them() {
        for (milliseconds, expected) in [
            (0, "0 ms"),
            (49, "49 ms"),
            (50, "0.1 s"),
            (300, "0.3 s"),
            (1_000, "1 s"),
            (1_250, "1.3 s"),
            (9_960, "10 s"),
            (300_000, "300 s"),
        ] {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn an_error_inside_an_io_error_is_found() {
        let inside = rustls::Error::DecryptError;
        let outside = io::Error::other(io::Error::other(inside.clone()));
        assert_eq!(find::<rustls::Error>(&outside), Some(&inside));
        assert!(find::<DnsFailure>(&outside).is_none());
    }

    #[test]
    fn operating_system_errors_are_told_apart() {
        use io::ErrorKind;
        for (error, word) in [
            (io::Error::from(ErrorKind::ConnectionRefused), "refused"),
            (
                io::Error::from(ErrorKind::NetworkUnreachable),
                "unreachable",
            ),
            (io::Error::from(ErrorKind::HostUnreachable), "unreachable"),
            (io::Error::from(ErrorKind::ConnectionReset), "closed"),
            (io::Error::from(ErrorKind::UnexpectedEof), "closed"),
            (io::Error::from_raw_os_error(24), "exhausted"),
            (io::Error::from(ErrorKind::AddrNotAvailable), "exhausted"),
            (io::Error::from(ErrorKind::PermissionDenied), "other"),
        ] {
            assert_eq!(io_failure(&error).word(), word, "{error}");
        }
    }
}
