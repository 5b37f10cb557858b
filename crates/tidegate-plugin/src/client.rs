//! What tonic's generated clients make their calls with.
//!
//! Streams go through tonic's own. A call with one message there and one back, which nearly all of
//! the contract is, is made here: encoded into one piece of memory, and decoded out of the frame it
//! came in. tonic would copy it into a buffer of its own, and make room twice for that.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use prost::Message;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::{Codec, CompressionEncoding, Streaming};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, StatusCode, Uri, Version, header};
use tonic::codegen::{Service, StdError, tokio_stream};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

/// In front of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// What tonic takes when nobody says more.
const LIMIT: usize = 4 << 20;
/// As much room is made on a peer's word alone.
const TRUSTED: usize = 4 << 20;
const CONTENT_TYPE: &str = "application/grpc";
const STATUS: &str = "grpc-status";

/// The inside of a generated client.
#[derive(Clone, Debug)]
pub(crate) struct Grpc<T> {
    service: T,
    origin: Uri,
    limit: usize,
    limit_sent: usize,
}

impl<T> Grpc<T> {
    pub(crate) fn new(service: T) -> Self {
        Self::with_origin(service, Uri::default())
    }

    pub(crate) fn with_origin(service: T, origin: Uri) -> Self {
        Self {
            service,
            origin,
            limit: LIMIT,
            limit_sent: usize::MAX,
        }
    }

    /// No way of compressing is compiled in, so there is no value to call this with.
    pub(crate) fn send_compressed(self, _none: CompressionEncoding) -> Self {
        self
    }

    /// No way of compressing is compiled in, so there is no value to call this with.
    pub(crate) fn accept_compressed(self, _none: CompressionEncoding) -> Self {
        self
    }

    pub(crate) fn max_decoding_message_size(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    pub(crate) fn max_encoding_message_size(mut self, limit: usize) -> Self {
        self.limit_sent = limit;
        self
    }
}

impl<T> Grpc<T>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError>,
{
    pub(crate) async fn ready(&mut self) -> Result<(), T::Error> {
        std::future::poll_fn(|context| self.service.poll_ready(context)).await
    }

    fn streams(&mut self) -> tonic::client::Grpc<Through<'_, T>> {
        tonic::client::Grpc::with_origin(Through(&mut self.service), self.origin.clone())
            .max_decoding_message_size(self.limit)
            .max_encoding_message_size(self.limit_sent)
    }

    pub(crate) async fn server_streaming<Q, A, C>(
        &mut self,
        request: Request<Q>,
        path: PathAndQuery,
        codec: C,
    ) -> Result<Response<Streaming<A>>, Status>
    where
        C: Codec<Encode = Q, Decode = A>,
        Q: Send + Sync + 'static,
        A: Send + Sync + 'static,
    {
        self.streams().server_streaming(request, path, codec).await
    }

    pub(crate) async fn streaming<S, Q, A, C>(
        &mut self,
        request: Request<S>,
        path: PathAndQuery,
        codec: C,
    ) -> Result<Response<Streaming<A>>, Status>
    where
        S: tokio_stream::Stream<Item = Q> + Send + 'static,
        C: Codec<Encode = Q, Decode = A>,
        Q: Send + Sync + 'static,
        A: Send + Sync + 'static,
    {
        self.streams().streaming(request, path, codec).await
    }

    /// One message there, one back. `_codec` says which.
    pub(crate) async fn unary<Q, A, C>(
        &mut self,
        request: Request<Q>,
        path: PathAndQuery,
        _codec: C,
    ) -> Result<Response<A>, Status>
    where
        C: Codec<Encode = Q, Decode = A>,
        Q: Message,
        A: Message + Default,
    {
        let (metadata, extensions, message) = request.into_parts();
        let framed = framed(&message, self.limit_sent)?;
        drop(message);
        let mut request = http::Request::new(Body::new(Whole(framed)));
        let mut uri = self.origin.clone().into_parts();
        uri.path_and_query = Some(path);
        *request.uri_mut() =
            Uri::from_parts(uri).map_err(|error| Status::internal(error.to_string()))?;
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.extensions_mut() = extensions;
        let mut headers = metadata.into_headers();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let kind = HeaderValue::from_static(CONTENT_TYPE);
        headers.insert(header::CONTENT_TYPE, kind);
        *request.headers_mut() = headers;

        let answered = self.service.call(request).await;
        let (head, body) = answered
            .map_err(|error| Status::from_error(error.into()))?
            .into_parts();
        // An end may come with nothing before it, in the very first headers.
        let early = ending(&head.headers).transpose()?;
        let mut body = pin!(body);
        let mut received = Received::Length(Bytes::new());
        let trailers = loop {
            let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await;
            let Some(frame) = frame else { break None };
            let frame = frame.map_err(|error| Status::from_error(error.into()))?;
            match frame.into_data() {
                Ok(data) => received = received.with(data, self.limit)?,
                Err(frame) => break frame.into_trailers().ok(),
            }
        };
        match trailers.as_ref().and_then(ending).or(early.map(Ok)) {
            Some(ended) => ended?,
            None => return Err(without_status(head.status)),
        }
        let answer =
            A::decode(received.message()?).map_err(|error| Status::internal(error.to_string()))?;
        let metadata = MetadataMap::from_headers(head.headers);
        Ok(Response::from_parts(metadata, answer, head.extensions))
    }
}

/// A message with its prefix, ready to be sent.
fn framed(message: &impl Message, limit: usize) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let Some(said) = u32::try_from(length).ok().filter(|_| length <= limit) else {
        return Err(Status::out_of_range(format!(
            "Error, encoded message length too large: found {length} bytes, the limit is: {limit} bytes"
        )));
    };
    let mut bytes = Vec::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(said);
    message
        .encode(&mut bytes)
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(bytes.into())
}

/// How a call ended, when these headers say so.
fn ending(headers: &HeaderMap) -> Option<Result<(), Status>> {
    if headers.get(STATUS)?.as_bytes() == b"0" {
        return Some(Ok(()));
    }
    let status = Status::from_header_map(headers)?;
    Some(match status.code() {
        Code::Ok => Ok(()),
        _ => Err(status),
    })
}

/// What an answer means that does not say how it ended: most likely a gRPC server never saw the call.
fn without_status(answer: StatusCode) -> Status {
    let code = match answer {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(
        code,
        format!("the answer (HTTP {answer}) does not say how the call ended"),
    )
}

/// What has come of an answer.
enum Received {
    /// Less than the prefix.
    Length(Bytes),
    /// Some of the message, and how long it is.
    Part(BytesMut, usize),
    /// A message. Where it lay in one frame it is a part of that frame.
    Whole(Bytes),
}

impl Received {
    fn with(self, data: Bytes, limit: usize) -> Result<Self, Status> {
        match self {
            Self::Length(before) => {
                let mut bytes = match before.is_empty() {
                    true => data,
                    false => [before, data].concat().into(),
                };
                if bytes.len() < PREFIX {
                    return Ok(Self::Length(bytes));
                }
                if bytes.get_u8() != 0 {
                    return Err(Status::internal(
                        "the answer is compressed, which nobody asked for",
                    ));
                }
                let length = bytes.get_u32() as usize;
                if length > limit {
                    return Err(Status::out_of_range(format!(
                        "Error, decoded message length too large: found {length} bytes, the limit is: {limit} bytes"
                    )));
                }
                if bytes.len() >= length {
                    return Ok(Self::Whole(bytes.split_to(length)));
                }
                let mut message = BytesMut::with_capacity(length.min(TRUSTED));
                message.put(bytes);
                Ok(Self::Part(message, length))
            }
            Self::Part(mut message, length) => {
                let missing = length - message.len();
                message.put(data.take(missing));
                Ok(match message.len() == length {
                    true => Self::Whole(message.freeze()),
                    false => Self::Part(message, length),
                })
            }
            // A second message is nobody's.
            whole @ Self::Whole(_) => Ok(whole),
        }
    }

    fn message(self) -> Result<Bytes, Status> {
        match self {
            Self::Whole(message) => Ok(message),
            Self::Length(nothing) if nothing.is_empty() => {
                Err(Status::internal("the answer has no message"))
            }
            Self::Length(_) | Self::Part(..) => Err(Status::internal(
                "the answer ends in the middle of a message",
            )),
        }
    }
}

/// A request that is one piece.
struct Whole(Bytes);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let piece = std::mem::take(&mut self.0);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// Lends a service to tonic's own client for one call.
struct Through<'a, T>(&'a mut T);

impl<T: GrpcService<Body>> Service<http::Request<Body>> for Through<'_, T> {
    type Response = http::Response<T::ResponseBody>;
    type Error = T::Error;
    type Future = T::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> T::Future {
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iac::LockResponse;

    /// All of it, cut into frames of that size.
    fn received(bytes: &[u8], size: usize, limit: usize) -> Result<Bytes, Status> {
        let mut received = Received::Length(Bytes::new());
        for frame in bytes.chunks(size) {
            received = received.with(Bytes::copy_from_slice(frame), limit)?;
        }
        received.message()
    }

    #[test]
    fn a_message_is_put_together_however_it_is_cut() {
        let bytes = b"\0\0\0\0\x05three\0\0\0\0\x03two";
        for size in 1..=bytes.len() {
            assert_eq!(received(bytes, size, LIMIT).unwrap(), "three", "{size}");
        }
        assert_eq!(received(b"\0\0\0\0\0", 2, LIMIT).unwrap(), "");
        let one = framed(&LockResponse::default(), LIMIT).unwrap();
        assert_eq!(one, "\0\0\0\0\0");
    }

    #[test]
    fn what_is_no_message_is_not_taken_for_one() {
        for (bytes, why) in [
            (b"".as_slice(), "no message"),
            (b"\0\0\0", "middle of a message"),
            (b"\0\0\0\0\x03on", "middle of a message"),
            (b"\x01\0\0\0\x03one", "compressed"),
            // Four gigabytes are announced; nobody makes room, or waits.
            (b"\0\xff\xff\xff\xff", "too large"),
        ] {
            for size in 1..=bytes.len().max(1) {
                let status = received(bytes, size, LIMIT).unwrap_err();
                assert!(status.message().contains(why), "{status:?}");
            }
        }
        assert_eq!(received(b"\0\0\0\0\x03one", 9, 3).unwrap(), "one");
        assert_eq!(
            received(b"\0\0\0\0\x03one", 9, 2).unwrap_err().code(),
            Code::OutOfRange
        );
    }

    #[test]
    fn a_call_ends_the_way_its_headers_say() {
        let headers = |rows: &[(&'static str, &'static str)]| {
            let rows = rows.iter().map(|(name, value)| {
                let name = header::HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            rows.collect::<HeaderMap>()
        };
        assert!(ending(&headers(&[("content-type", CONTENT_TYPE)])).is_none());
        ending(&headers(&[(STATUS, "0")])).unwrap().unwrap();
        let refused = headers(&[(STATUS, "5"), ("grpc-message", "no%20such")]);
        let status = ending(&refused).unwrap().unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, "no such")
        );
        assert_eq!(without_status(StatusCode::OK).code(), Code::Unknown);
    }
}
