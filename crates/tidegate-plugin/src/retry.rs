//! "Not now, but in ten seconds": how long a plugin wants to be left alone, as it crosses the wire.
//!
//! Said as gRPC says it, in a `google.rpc.RetryInfo` among the details of a status. Also understood
//! is what proxies and HTTP APIs say: `retry-after` in whole seconds, beside the status.

use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const HEADER: &str = "retry-after";

/// `google.rpc.Status`, which goes into the details of a status.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<prost_types::Duration>,
}

/// A status that asks to be left alone for a while.
pub fn status(code: Code, message: &str, wait: Duration) -> Status {
    let info = RetryInfo {
        delay: prost_types::Duration::try_from(wait).ok(),
    };
    let details = Details {
        code: code as i32,
        message: message.to_owned(),
        details: vec![Any {
            type_url: RETRY_INFO.to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// How long the other side wants to be left alone, when it says so in words that are known.
pub fn after(status: &Status) -> Option<Duration> {
    let details = Details::decode(status.details())
        .unwrap_or_default()
        .details;
    let info = details
        .iter()
        .find(|any| any.type_url == RETRY_INFO)
        .and_then(|any| RetryInfo::decode(any.value.as_slice()).ok());
    // A time in the past is no time to wait.
    let said = info.and_then(|info| Duration::try_from(info.delay?).ok());
    said.or_else(|| {
        let seconds = status.metadata().get(HEADER)?.to_str().ok()?;
        Some(Duration::from_secs(seconds.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_understood_in_both_forms() {
        let wait = Duration::from_millis(2_500);
        let said = status(Code::ResourceExhausted, "slow down", wait);
        assert_eq!(after(&said), Some(wait));

        let mut said = Status::unavailable("later");
        assert_eq!(after(&said), None);
        for (text, expected) in [("7", Some(7)), ("Fri, 31 Dec 1999", None), ("-1", None)] {
            said.metadata_mut()
                .insert(HEADER, text.parse().expect("a header"));
            assert_eq!(after(&said), expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn details_that_are_something_else_say_nothing() {
        for bytes in [&[0xff_u8; 8][..], b""] {
            let said = Status::with_details(Code::Unavailable, "later", bytes.to_vec().into());
            assert_eq!(after(&said), None);
        }
        let past = RetryInfo {
            delay: Some(prost_types::Duration {
                seconds: -5,
                nanos: 0,
            }),
        };
        let details = Details {
            details: vec![Any {
                type_url: RETRY_INFO.to_owned(),
                value: past.encode_to_vec(),
            }],
            ..Details::default()
        };
        let bytes = details.encode_to_vec().into();
        let said = Status::with_details(Code::Unavailable, "later", bytes);
        assert_eq!(after(&said), None);
    }
}
