//! What goes wrong, in classes that hosts of every make recognise.
//!
//! Some hosts read the status code, some the text, so a classified error carries both: the code of
//! its class and a message that begins with the class's fixed words.

use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

use crate::retry;

/// Result of everything a plugin does.
pub type Result<T> = std::result::Result<T, Error>;

/// The kind of a failure. Hosts decide from it alone whether to adopt, retry or stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The resource does not exist.
    NotFound,
    /// A resource of that name exists already.
    AlreadyExists,
    /// Asked to slow down.
    RateLimited,
    /// Failed for now; the same call may succeed later.
    Transient,
    /// The credentials are missing or wrong.
    Unauthorized,
    /// The credentials are right and not enough.
    Forbidden,
    /// The request is wrong.
    Invalid,
    /// The registry has no such image.
    ImageNotFound,
    /// This plugin cannot do that.
    Unimplemented,
    /// Not now: something has to happen first, such as being configured.
    NotReady,
    /// Something else changed it or holds it.
    Conflict,
    /// What is stored cannot be read.
    Damaged,
    /// None of the others.
    Other,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 13] = [
        Self::NotFound,
        Self::AlreadyExists,
        Self::RateLimited,
        Self::Transient,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Invalid,
        Self::ImageNotFound,
        Self::Unimplemented,
        Self::NotReady,
        Self::Conflict,
        Self::Damaged,
        Self::Other,
    ];

    /// The words by which hosts recognise the class in a message, where there are such words.
    pub fn words(self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound => "iac: resource not found",
            Self::AlreadyExists => "iac: resource already exists",
            Self::RateLimited => "iac: rate limited",
            Self::Transient => "iac: transient error",
            Self::Unauthorized => "iac: unauthorized",
            Self::Forbidden => "iac: forbidden",
            Self::Invalid => "iac: validation error",
            Self::ImageNotFound => "iac: image tag or digest not found in registry",
            Self::Unimplemented => "iac: provider method unimplemented",
            Self::NotReady | Self::Conflict | Self::Damaged | Self::Other => return None,
        })
    }

    /// The status code it travels under.
    pub fn code(self) -> Code {
        match self {
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::RateLimited => Code::ResourceExhausted,
            Self::Transient => Code::Unavailable,
            Self::Unauthorized => Code::Unauthenticated,
            Self::Forbidden => Code::PermissionDenied,
            Self::Invalid => Code::InvalidArgument,
            Self::ImageNotFound | Self::NotReady => Code::FailedPrecondition,
            Self::Unimplemented => Code::Unimplemented,
            Self::Conflict => Code::Aborted,
            Self::Damaged => Code::DataLoss,
            Self::Other => Code::Unknown,
        }
    }
}

/// A failure with its class and one sentence for people. Never put a secret into the sentence: it
/// is shown and logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    class: ErrorClass,
    message: String,
    retry_after: Option<Duration>,
}

macro_rules! constructors {
    ($($name:ident => $class:ident),* $(,)?) => {$(
        #[doc = concat!("An error of the class [`ErrorClass::", stringify!($class), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorClass::$class, message)
        }
    )*};
}

impl Error {
    /// An error of any class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Asks the host to leave the provider alone for this long: what `Retry-After` of an HTTP API
    /// says, for instance. It counts for [`Error::rate_limited`] and [`Error::transient`].
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    constructors! {
        not_found => NotFound,
        already_exists => AlreadyExists,
        rate_limited => RateLimited,
        transient => Transient,
        unauthorized => Unauthorized,
        forbidden => Forbidden,
        invalid => Invalid,
        image_not_found => ImageNotFound,
        unimplemented => Unimplemented,
        not_ready => NotReady,
        conflict => Conflict,
        damaged => Damaged,
        other => Other,
    }

    /// Its class.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// The sentence, without the class's words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How long to leave the provider alone, when the error says so.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }

    /// True for [`ErrorClass::NotFound`]: what a delete or a lookup asks most often.
    pub fn is_not_found(&self) -> bool {
        self.class == ErrorClass::NotFound
    }

    /// The error a status stands for. Words win over the code: many plugins send every error under
    /// the code `Unknown`, and the code `NotFound` alone may just as well speak of a resource *type*
    /// nobody knows.
    pub fn from_status(status: &Status) -> Self {
        Self {
            retry_after: retry::after(status),
            ..Self::classified(status)
        }
    }

    fn classified(status: &Status) -> Self {
        let message = status.message();
        for class in ErrorClass::ALL {
            if let Some((before, after)) = class.words().and_then(|words| message.split_once(words))
            {
                let rest = after.strip_prefix(':').unwrap_or(after).trim();
                let rest = if before.trim().is_empty() && !rest.is_empty() {
                    rest
                } else {
                    message
                };
                return Self::new(class, rest);
            }
        }
        let class = match status.code() {
            Code::AlreadyExists => ErrorClass::AlreadyExists,
            Code::ResourceExhausted => ErrorClass::RateLimited,
            Code::Unavailable | Code::DeadlineExceeded => ErrorClass::Transient,
            Code::Unauthenticated => ErrorClass::Unauthorized,
            Code::PermissionDenied => ErrorClass::Forbidden,
            Code::InvalidArgument | Code::OutOfRange => ErrorClass::Invalid,
            Code::FailedPrecondition => ErrorClass::NotReady,
            Code::Unimplemented => ErrorClass::Unimplemented,
            Code::Aborted => ErrorClass::Conflict,
            Code::DataLoss => ErrorClass::Damaged,
            _ => ErrorClass::Other,
        };
        Self::new(class, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class.words() {
            Some(words) if self.message.is_empty() => f.write_str(words),
            Some(words) => write!(f, "{words}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, text) = (error.class.code(), error.to_string());
        match error.retry_after {
            Some(wait) => retry::status(code, &text, wait),
            None => Self::new(code, text),
        }
    }
}

/// A file that is missing need not be the resource that was asked for, so `NotFound` is not taken
/// over: say [`Error::not_found`] where that is what it means.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let class = match error.kind() {
            ErrorKind::PermissionDenied => ErrorClass::Forbidden,
            ErrorKind::TimedOut | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
                ErrorClass::Transient
            }
            _ => ErrorClass::Other,
        };
        Self::new(class, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_survives_the_wire() {
        for class in ErrorClass::ALL {
            let sent = Error::new(class, "web: it is gone");
            let status = Status::from(sent.clone());
            assert_eq!(status.code(), class.code());
            if class != ErrorClass::ImageNotFound {
                assert_eq!(
                    Error::from_status(&Status::new(class.code(), sent.to_string())),
                    sent
                );
            }
            // What reads texts only must see the same.
            if class.words().is_some() {
                assert_eq!(Error::from_status(&Status::unknown(status.message())), sent);
            }
        }
    }

    #[test]
    fn how_long_to_wait_survives_the_wire() {
        let wait = Duration::from_secs(17);
        let sent = Error::rate_limited("120 requests a minute").retry_after(wait);
        let received = Error::from_status(&Status::from(sent.clone()));
        assert_eq!((received.wait(), &received), (Some(wait), &sent));
        assert_eq!(Error::transient("x").wait(), None);
    }

    #[test]
    fn s12_not_found_has_the_code_and_the_words() {
        let status = Status::from(Error::not_found("no bucket named web"));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(
            status.message(),
            "iac: resource not found: no bucket named web"
        );
    }

    #[test]
    fn the_code_not_found_alone_does_not_say_that_the_resource_is_gone() {
        let error = Error::from_status(&Status::not_found("no driver for infra.moon"));
        assert_eq!(error.class(), ErrorClass::Other);
    }
}
