//! What tonic's clients talk through: one HTTP/2 connection, and nothing in between.
//!
//! tonic's own channel balances and queues, each in a task or a box of its own. A plugin is one process
//! at one socket; `connection` dials again where it asks for a new connection.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use http_body::{Body as _, Frame};
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::{Service, StdError};

/// A state record of a megabyte comes through without a question back, and in one frame.
const WINDOW: u32 = 8 << 20;
const FRAME: u32 = 1 << 20;
/// A status may hold a long text; more than this is no status. Go cuts headers into frames of 16 KiB
/// whatever we take, and h2 counts frames as if each were full: of 16 KiB it takes 80 then, 1.3 MB.
const HEADER_BYTES_MAX: u32 = 64 << 20;
/// Where a status keeps more than a text.
const DETAILS: &str = "grpc-status-details-bin";
/// A placeholder: the socket knows the way.
const AUTHORITY: &str = "unused";

/// A connection to one peer. Cheap to clone.
#[derive(Clone)]
pub(super) struct Wire {
    requests: SendRequest<Bytes>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    /// Greets the peer. The second value is the connection at work: nothing moves unless it is
    /// polled, and it ends with the connection.
    pub(super) async fn open(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), h2::Error> {
        let mut builder = Builder::new();
        // Nothing pings: Go servers hang up on hosts that do so more often than every five minutes.
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(HEADER_BYTES_MAX)
            .enable_push(false);
        let (requests, connection) = builder.handshake::<_, Bytes>(stream).await?;
        let work = async move {
            // Why it ended is what every call on it is told.
            drop(connection.await);
        };
        Ok((Self { requests }, work))
    }

    /// True when nothing new can be asked for on it: the peer asked for another connection, or is gone.
    pub(super) fn is_over(&self) -> bool {
        let mut requests = self.requests.clone();
        let mut context = Context::from_waker(Waker::noop());
        matches!(requests.poll_ready(&mut context), Poll::Ready(Err(_)))
    }
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Answer>;
    type Error = StdError;
    type Future = Exchange;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        // tonic would make a text of what went wrong; `call` fails for the same reason and keeps it.
        self.requests.poll_ready(context).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Exchange {
        let (mut head, body) = request.into_parts();
        let mut uri = head.uri.into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::from_static(AUTHORITY));
        // With all three parts there is nothing that could be refused.
        head.uri = Uri::from_parts(uri).unwrap_or_default();
        head.version = Version::HTTP_2;
        let sent = self
            .requests
            .send_request(Request::from_parts(head, ()), false);
        Exchange(match sent {
            Ok((answer, stream)) => Ok(Waiting {
                request: Some(Sending {
                    body,
                    stream,
                    held: None,
                }),
                answer,
            }),
            Err(error) => Err(Some(error)),
        })
    }
}

/// One call on its way. Dropped before its end it resets the stream, which tells the peer.
pub(super) struct Exchange(Result<Waiting, Option<h2::Error>>);

struct Waiting {
    /// Until all of it is sent.
    request: Option<Sending>,
    answer: ResponseFuture,
}

struct Sending {
    body: Body,
    stream: SendStream<Bytes>,
    /// The latest piece: the last one says that it is the last, and is not followed by an empty one.
    held: Option<Bytes>,
}

impl Sending {
    /// Ready when everything was handed over. How much of it goes out at a time is the connection's
    /// business; how large a request may be was looked at before.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(next) = frame.into_data() else {
                        continue;
                    };
                    if let Some(piece) = self.held.replace(next) {
                        self.stream.send_data(piece, false)?;
                    }
                }
                Poll::Ready(Some(Err(status))) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(status.into()));
                }
                Poll::Ready(None) => {
                    let last = self.held.take().unwrap_or_default();
                    self.stream.send_data(last, true)?;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    if let Some(piece) = self.held.take() {
                        self.stream.send_data(piece, false)?;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Future for Exchange {
    type Output = Result<Response<Answer>, StdError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waiting = match &mut self.0 {
            Ok(waiting) => waiting,
            Err(error) => {
                return Poll::Ready(Err(match error.take() {
                    Some(error) => error.into(),
                    None => "it has failed before".into(),
                }));
            }
        };
        if let Some(request) = &mut waiting.request
            && let Poll::Ready(sent) = request.poll(context)
        {
            waiting.request = None;
            sent?;
        }
        let (mut head, stream) = ready!(Pin::new(&mut waiting.answer).poll(context))?.into_parts();
        head.headers = readable(head.headers);
        Poll::Ready(Ok(Response::from_parts(head, Answer { stream })))
    }
}

/// Without the details of a status when they are not the Base64 they have to be: tonic takes that for
/// a mistake of ours, and panics.
fn readable(mut headers: HeaderMap) -> HeaderMap {
    let garbled = |details: &HeaderValue| {
        let bytes = details.as_bytes();
        STANDARD_NO_PAD.decode(bytes).is_err() && STANDARD.decode(bytes).is_err()
    };
    if headers.get_all(DETAILS).iter().any(garbled) {
        headers.remove(DETAILS);
    }
    headers
}

/// What comes back.
#[derive(Debug)]
pub(super) struct Answer {
    stream: RecvStream,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.stream.poll_data(context)) {
            let data = data?;
            // The peer may send as much again.
            let taken = self.stream.flow_control().release_capacity(data.len());
            return Poll::Ready(Some(taken.map(|()| Frame::data(data))));
        }
        let trailers = ready!(self.stream.poll_trailers(context))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(readable(trailers)))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;

    #[test]
    fn a_status_with_garbled_details_is_a_status() {
        for (details, is_kept) in [
            ("%&/", false),
            ("YWI=YWI=", false),
            ("a", false),
            ("YWI=", true),
            ("YWI", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static("5"));
            headers.insert("grpc-message", HeaderValue::from_static("no%20such"));
            headers.insert(DETAILS, HeaderValue::from_static(details));
            let status = Status::from_header_map(&readable(headers)).unwrap();
            assert_eq!(
                (status.code(), status.message()),
                (Code::NotFound, "no such")
            );
            assert_eq!(status.details() == b"ab", is_kept, "{details}");
        }
    }
}
