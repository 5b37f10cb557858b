//! The wire: a channel over the plugin's private socket, with a limit on everything.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::Reason;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tidegate_plugin::launch::grpc_controller_client::GrpcControllerClient;
use tidegate_plugin::launch::grpc_stdio_client::GrpcStdioClient;
use tidegate_plugin::{retry, tls};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::{Code, Request, Response, Status};

use super::Tools;
use super::handshake::Endpoint;
use super::relay::{Lines, Relay};
use super::wire::Wire;
use crate::provider::{DriverError, ErrorClass};
use crate::report::Report;

/// Largest request a plugin takes: Go's default, which no existing plugin changes.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest answer we take.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// As much of a record as the system allows is handed over at once.
const SEND_BUFFER: usize = 1 << 20;
/// How tonic begins its own complaint about a larger one.
const ANSWER_TOO_LARGE: &str = "Error, decoded message length too large";
/// How Go begins its complaint about a larger request.
const REQUEST_TOO_LARGE: &str = "grpc: received message larger than max";
const STDOUT: i32 = 1;
/// Between two connections a plugin's output is read on; one that hangs up all the time is not asked all
/// the time.
const BEFORE_LISTENING_AGAIN: Duration = Duration::from_secs(1);

/// How much longer an effect that is going on may take once the run is stopped. A little more than the
/// engine gives its steps: where that is what ends it, more is known of what is left open.
const GRACE: Duration = Duration::from_millis(5_500);

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    time: Duration,
    when_stopped: WhenStopped,
}

/// What the wish to stop does to a call.
#[derive(Clone, Copy, Debug)]
enum WhenStopped {
    /// It only looks: nothing is lost when it is dropped at once.
    Drop,
    /// What it does must not be cut off sooner than it has to be.
    Grace,
    /// It is what stopping itself needs, such as giving a lock back.
    GoOn,
}

impl Limit {
    /// Of a call that only looks.
    pub(super) fn look(time: Duration) -> Self {
        Self {
            time,
            when_stopped: WhenStopped::Drop,
        }
    }

    /// Of a call that makes, changes or removes something.
    pub(super) fn effect(time: Duration) -> Self {
        Self {
            time,
            when_stopped: WhenStopped::Grace,
        }
    }

    /// Waits until a stopped run must wait no longer.
    async fn stopped(self, tools: &Tools) {
        match self.when_stopped {
            WhenStopped::Drop => tools.cancel.cancelled().await,
            WhenStopped::Grace => {
                tools.cancel.cancelled().await;
                tools.clock.sleep(GRACE).await;
            }
            WhenStopped::GoOn => std::future::pending().await,
        }
    }

    /// Ends with the limit, or with the run; never well.
    pub(super) async fn over(self, tools: &Tools) -> CallError {
        tokio::select! {
            biased;
            () = self.stopped(tools) => CallError::Stopped,
            () = tools.clock.sleep(self.time) => CallError::Late(self.time),
        }
    }
}

/// Of a call that stopping does not end.
impl From<Duration> for Limit {
    fn from(time: Duration) -> Self {
        Self {
            time,
            when_stopped: WhenStopped::GoOn,
        }
    }
}

/// A connection to one plugin. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    line: Arc<Line>,
    tools: Tools,
    /// The plugin's name, for messages.
    pub(super) plugin: Arc<str>,
}

/// A connection at work: nothing on it moves unless this is polled.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The way to a plugin, of which there may be several one after the other: servers ask for a new
/// connection when one has grown old, as Go's do with `MaxConnectionAge`.
struct Line {
    endpoint: Endpoint,
    trust: Trust,
    wire: Mutex<Wire>,
    /// One dials, the others wait.
    turn: tokio::sync::Mutex<()>,
    works: mpsc::UnboundedSender<Work>,
    /// It was told to end: nobody dials any more.
    is_closing: AtomicBool,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    fn wire(&self) -> Wire {
        self.wire
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The wire that something new can be asked for on. Where there is none any more, and none can be
    /// had, the call on the old one fails and says why.
    async fn ready(&self) -> Wire {
        let wire = self.wire();
        if !wire.is_over() {
            return wire;
        }
        let _turn = self.turn.lock().await;
        let wire = self.wire();
        if !wire.is_over() || self.is_closing.load(Ordering::Relaxed) {
            return wire;
        }
        let Ok(stream) = dial(&self.endpoint, &self.trust).await else {
            return wire;
        };
        let Ok((wire, work)) = Wire::open(stream).await else {
            return wire;
        };
        // Where nobody polls it any more, the plugin is being put away.
        drop(self.works.send(Box::pin(work)));
        *self.wire.lock().unwrap_or_else(PoisonError::into_inner) = wire.clone();
        wire
    }
}

/// Keeps the first connection at work, and those that follow it.
async fn keep_at_work(first: impl Future<Output = ()>, mut more: mpsc::UnboundedReceiver<Work>) {
    let mut first = pin!(first);
    let mut others: FuturesUnordered<Work> = FuturesUnordered::new();
    let mut is_first_over = false;
    loop {
        tokio::select! {
            biased;
            () = &mut first, if !is_first_over => is_first_over = true,
            Some(()) = others.next(), if !others.is_empty() => {}
            work = more.recv() => match work {
                Some(work) => others.push(work),
                // Nobody is left who could ask for anything.
                None => return,
            },
        }
    }
}

/// Why a call brought nothing.
#[derive(Debug)]
pub(super) enum CallError {
    /// The plugin answered with an error.
    Refused(Status),
    /// The connection broke, or there was none.
    Broken,
    /// The plugin did not take the call: for certain it was not begun.
    NotTaken,
    /// The plugin broke off this one call, with an HTTP/2 error code.
    Reset {
        /// The code.
        reason: Reason,
        /// Nothing comes of asking again.
        is_question: bool,
    },
    /// The request is too large to send.
    RequestTooLarge(usize),
    /// The answer is larger than we take.
    AnswerTooLarge,
    /// No answer in time.
    Late(Duration),
    /// The run was stopped before there was an answer.
    Stopped,
}

impl CallError {
    pub(super) fn of(status: Status) -> Self {
        if status.code() == Code::OutOfRange && status.message().starts_with(ANSWER_TOO_LARGE) {
            return Self::AnswerTooLarge;
        }
        // A status that was sent has no cause on this side of the wire.
        let Some(cause) = std::error::Error::source(&status) else {
            return Self::Refused(status);
        };
        let causes = std::iter::successors(Some(cause), |cause| cause.source());
        for cause in causes.filter_map(|cause| cause.downcast_ref::<h2::Error>()) {
            if !cause.is_remote() {
                continue;
            }
            match cause.reason() {
                // RFC 9113, 6.8: calls that a GOAWAY ends were not begun; the others go on.
                _ if cause.is_go_away() => return Self::NotTaken,
                // RFC 9113, 8.7: nor was one that is refused so.
                Some(Reason::REFUSED_STREAM) => return Self::NotTaken,
                Some(reason) => {
                    return Self::Reset {
                        reason,
                        is_question: false,
                    };
                }
                None => {}
            }
        }
        Self::Broken
    }

    /// The same, of a call that only looks.
    fn of_look(self) -> Self {
        match self {
            Self::Reset { reason, .. } => Self::Reset {
                reason,
                is_question: true,
            },
            other => other,
        }
    }

    /// The status code, when the plugin sent one.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(status) => Some(status.code()),
            _ => None,
        }
    }
}

/// Calls one method: `unary!(connection, Client.method(request), limit)`.
macro_rules! unary {
    ($connection:expr, $client:ident.$method:ident($request:expr), $deadline:expr) => {
        $connection.unary($deadline, $request, |wire, request| async move {
            $client::new(wire)
                .max_decoding_message_size($crate::provider::plugin::connection::ANSWER_BYTES_MAX)
                .$method(request)
                .await
        })
    };
}
pub(super) use unary;

impl Connection {
    /// Dials. The socket must be held by a process of our own user: a plugin cannot send us to
    /// somebody else's. Beyond that, whoever answers must be the one of `trust`. The second value is
    /// the connection at work, and has to be polled.
    pub(super) async fn open(
        plugin: &str,
        endpoint: Endpoint,
        trust: Trust,
        tools: &Tools,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), Report> {
        let unreachable = |why: String| {
            Report::error(
                "plugin/unreachable",
                format!("plugin `{plugin}` does not answer where it says it listens"),
            )
            .because(tools.excerpt(&why))
            .fix("the plugin is broken: report it to its author")
        };
        let meeting = async {
            let stream = dial(&endpoint, &trust)
                .await
                .map_err(|error| error.to_string())?;
            Wire::open(stream).await.map_err(|error| error.to_string())
        };
        let (wire, work) = tokio::select! {
            met = meeting => met.map_err(unreachable)?,
            () = tools.clock.sleep(tools.deadlines.setup) => {
                return Err(unreachable(format!(
                    "no connection within {} s", tools.deadlines.setup.as_secs()
                )));
            }
        };
        tidegate_plugin::memory::keep();
        let (works, more) = mpsc::unbounded_channel();
        let connection = Self {
            line: Arc::new(Line {
                endpoint,
                trust,
                wire: Mutex::new(wire),
                turn: tokio::sync::Mutex::default(),
                works,
                is_closing: AtomicBool::new(false),
            }),
            tools: tools.clone(),
            plugin: plugin.into(),
        };
        Ok((connection, keep_at_work(work, more)))
    }

    /// One call within a limit. Use [`unary!`].
    pub(super) async fn unary<Q, A, F>(
        &self,
        limit: impl Into<Limit>,
        request: Q,
        call: impl FnOnce(Wire, Request<Q>) -> F,
    ) -> Result<A, CallError>
    where
        Q: prost::Message,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let bytes = request.encoded_len();
        if bytes > REQUEST_BYTES_MAX {
            return Err(CallError::RequestTooLarge(bytes));
        }
        let limit = limit.into();
        let answer = async {
            let wire = self.line.ready().await;
            call(wire, Request::new(request)).await
        };
        tokio::select! {
            biased;
            // Dropping the call resets its stream, which tells the plugin.
            over = limit.over(&self.tools) => Err(over),
            answer = answer => answer.map(Response::into_inner).map_err(|status| {
                let error = CallError::of(status);
                match limit.when_stopped {
                    WhenStopped::Drop => error.of_look(),
                    WhenStopped::Grace | WhenStopped::GoOn => error,
                }
            }),
        }
    }

    /// The wire itself, for streams.
    pub(super) async fn wire(&self) -> Wire {
        self.line.ready().await
    }

    /// What this connection was made with.
    pub(super) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Tells it to end. Servers hang up at once, so any answer is as good as another.
    pub(super) async fn shut_down(&self) {
        self.line.is_closing.store(true, Ordering::Relaxed);
        let mut client = GrpcControllerClient::new(self.wire().await);
        drop(client.shutdown(tidegate_plugin::launch::Empty {}).await);
    }

    /// Reads what plugin code prints until the plugin ends. Nothing may wait for this: Go servers
    /// send not even headers before there is something to say.
    pub(super) async fn relay_output(self, relay: Arc<Relay>) {
        let (mut stdout, mut stderr) = (Lines::default(), Lines::default());
        loop {
            let wire = self.wire().await;
            let mut client = GrpcStdioClient::new(wire.clone());
            let Ok(stream) = client.stream_stdio(()).await else {
                break;
            };
            let mut stream = stream.into_inner();
            while let Ok(Some(piece)) = stream.message().await {
                let lines = if piece.channel == STDOUT {
                    &mut stdout
                } else {
                    &mut stderr
                };
                lines.push(&piece.data, &relay);
                tokio::task::yield_now().await;
            }
            // It ends with its connection, or because the plugin has no more to say.
            if !wire.is_over() || self.line.is_closing.load(Ordering::Relaxed) {
                break;
            }
            self.tools.clock.sleep(BEFORE_LISTENING_AGAIN).await;
        }
        stdout.finish(&relay);
        stderr.finish(&relay);
    }

    /// A failed call as the engine wants it.
    pub(super) fn driver_error(&self, error: &CallError) -> DriverError {
        let plugin = &self.plugin;
        match error {
            CallError::Refused(status) => {
                let (class, message) = classify(status);
                DriverError {
                    answered: !is_cut_off(status),
                    retry_after: retry::after(status),
                    ..DriverError::new(class, self.tools.excerpt(&message))
                }
            }
            CallError::Broken => DriverError::new(
                ErrorClass::Unknown,
                format!("plugin `{plugin}` ended, or hung up, before it answered"),
            ),
            CallError::NotTaken => DriverError::new(
                ErrorClass::Transient,
                format!("plugin `{plugin}` turned the call away before it began"),
            ),
            CallError::Reset {
                reason,
                is_question,
            } => DriverError::new(
                if *is_question {
                    ErrorClass::Transient
                } else {
                    ErrorClass::Unknown
                },
                format!("plugin `{plugin}` broke the call off ({reason:?})"),
            ),
            CallError::RequestTooLarge(bytes) => DriverError::new(
                ErrorClass::Invalid,
                format!(
                    "the request has {bytes} bytes; plugin `{plugin}` takes at most {REQUEST_BYTES_MAX}"
                ),
            ),
            CallError::AnswerTooLarge => DriverError::new(
                ErrorClass::Unknown,
                format!(
                    "the answer of plugin `{plugin}` is larger than the {ANSWER_BYTES_MAX} bytes that are taken"
                ),
            ),
            CallError::Late(limit) => DriverError::new(
                ErrorClass::Unknown,
                format!(
                    "plugin `{plugin}` did not answer within {} s",
                    limit.as_secs()
                ),
            ),
            CallError::Stopped => DriverError::new(
                ErrorClass::Unknown,
                format!("the run was stopped before plugin `{plugin}` answered"),
            ),
        }
    }

    /// A failed call while loading.
    pub(super) fn load_error(&self, code: &'static str, what: &str, error: &CallError) -> Report {
        let error = self.driver_error(error);
        Report::error(
            code,
            format!("plugin `{}` cannot be used: {what} failed", self.plugin),
        )
        .because(error.message)
    }
}

/// Who has to be at the other end.
#[derive(Clone)]
pub(super) enum Trust {
    /// Whoever listens in a folder that is ours alone.
    Folder,
    /// This process, says the kernel.
    Process(u32),
    /// The holder of a certificate.
    Tls(Arc<ClientConfig>),
}

async fn dial(endpoint: &Endpoint, trust: &Trust) -> io::Result<Stream> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let stream: Stream = match endpoint {
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await?;
            let peer = stream.peer_cred()?;
            if peer.uid() != rustix::process::getuid().as_raw() {
                return refused("the socket belongs to another user");
            }
            if let Trust::Process(plugin) = trust
                && peer.pid().and_then(|pid| u32::try_from(pid).ok()) != Some(*plugin)
            {
                return refused(
                    "the socket belongs to another process than the one that was started",
                );
            }
            // A smaller one does as well, only slower.
            let _larger = set_socket_send_buffer_size(&stream, SEND_BUFFER);
            Box::new(stream)
        }
        Endpoint::Tcp(_) if matches!(trust, Trust::Process(_)) => {
            return refused("a port does not say which process is behind it");
        }
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    };
    let Trust::Tls(config) = trust else {
        return Ok(stream);
    };
    let name = ServerName::try_from(tls::NAME).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("mutual TLS, which it offered, failed: {error}"),
            )
        })?;
    Ok(Box::new(stream))
}

type Stream = Box<dyn ReadWrite>;

trait ReadWrite: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> ReadWrite for T {}

/// The fixed texts that existing plugins put into an error, and what each means. They are part of
/// the contract: plain Go errors arrive as `Unknown`, so the code alone tells nothing.
const TEXTS: [(&str, ErrorClass); 9] = [
    ("iac: resource not found", ErrorClass::NotFound),
    ("iac: resource already exists", ErrorClass::AlreadyExists),
    ("iac: rate limited", ErrorClass::Throttled),
    ("iac: transient error", ErrorClass::Transient),
    ("iac: unauthorized", ErrorClass::Denied),
    ("iac: forbidden", ErrorClass::Denied),
    ("iac: validation error", ErrorClass::Invalid),
    (
        "iac: image tag or digest not found in registry",
        ErrorClass::Invalid,
    ),
    (
        "iac: provider method unimplemented",
        ErrorClass::Unimplemented,
    ),
];

/// How Go says that its own request to a cloud was cut off: whether it was heard there nobody knows.
const CUT_OFF: [&str; 8] = [
    "context deadline exceeded",
    "context canceled",
    "unexpected EOF",
    ": EOF",
    "connection reset by peer",
    "broken pipe",
    "i/o timeout",
    "Client.Timeout exceeded",
];

/// True when an answer says no more than that somebody else's did not arrive.
fn is_cut_off(status: &Status) -> bool {
    let text = status.message();
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded => true,
        Code::Unknown | Code::Internal => {
            text == "EOF" || CUT_OFF.iter().any(|words| text.contains(words))
        }
        _ => false,
    }
}

/// What kind of failure a status is, and its text.
fn classify(status: &Status) -> (ErrorClass, String) {
    let text = status.message();
    let said = || {
        if text.is_empty() {
            format!("the plugin answered {:?} without a reason", status.code())
        } else {
            text.to_owned()
        }
    };
    // What stands first is the error's own; what follows is quoted from its causes.
    let first = TEXTS
        .iter()
        .filter_map(|(fixed, class)| Some((text.find(fixed)?, class)))
        .min_by_key(|(at, _)| *at);
    if let Some((_, class)) = first {
        return (*class, said());
    }
    let class = match status.code() {
        Code::AlreadyExists => ErrorClass::AlreadyExists,
        Code::ResourceExhausted if text.starts_with(REQUEST_TOO_LARGE) => {
            return (
                ErrorClass::Invalid,
                format!(
                    "{text}; existing plugins take requests of at most {REQUEST_BYTES_MAX} bytes"
                ),
            );
        }
        Code::ResourceExhausted => ErrorClass::Throttled,
        Code::Unavailable | Code::Aborted => ErrorClass::Transient,
        Code::Unauthenticated | Code::PermissionDenied => ErrorClass::Denied,
        // Without the fixed text, `NotFound` is about something else: the type of the resource, or
        // a plugin that was not initialised.
        Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            ErrorClass::Invalid
        }
        Code::Unimplemented => ErrorClass::Unimplemented,
        _ => ErrorClass::Unknown,
    };
    (class, said())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that meets the first call with a reset or with a GOAWAY that says it was not begun.
    async fn refused_with(reason: Option<Reason>) -> CallError {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let peer = async {
            let mut server = h2::server::handshake(theirs).await.unwrap();
            if reason.is_none() {
                // The call crosses it on its way.
                server.abrupt_shutdown(Reason::NO_ERROR);
                while server.accept().await.is_some() {}
                return;
            }
            while let Some(Ok((_, mut answer))) = server.accept().await {
                answer.send_reset(reason.unwrap_or(Reason::NO_ERROR));
            }
        };
        let host = async {
            let (wire, work) = Wire::open(ours).await.unwrap();
            let mut client = GrpcControllerClient::new(wire);
            let call = client.shutdown(tidegate_plugin::launch::Empty {});
            tokio::pin!(call, work);
            let answer = tokio::select! {
                answer = &mut call => answer,
                () = &mut work => call.await,
            };
            CallError::of(answer.unwrap_err())
        };
        tokio::select! {
            error = host => error,
            () = async { peer.await; std::future::pending().await } => unreachable!(),
        }
    }

    #[tokio::test]
    async fn what_was_not_begun_is_told_from_what_was_broken_off() {
        let refused = refused_with(Some(Reason::REFUSED_STREAM)).await;
        assert!(matches!(refused, CallError::NotTaken), "{refused:?}");
        let gone = refused_with(None).await;
        assert!(matches!(gone, CallError::NotTaken), "{gone:?}");
        for code in [Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM] {
            let broken = refused_with(Some(code)).await;
            assert!(
                matches!(broken, CallError::Reset { reason, .. } if reason == code),
                "{broken:?}"
            );
            assert!(matches!(
                broken.of_look(),
                CallError::Reset {
                    is_question: true,
                    ..
                }
            ));
        }
    }

    #[test]
    fn an_answer_about_a_request_that_was_cut_off_is_none() {
        for (code, text, expected) in [
            (Code::DeadlineExceeded, "", true),
            (Code::Cancelled, "context canceled", true),
            (Code::Unknown, "Post \"https://api.example/v2\": EOF", true),
            (Code::Unknown, "read tcp: connection reset by peer", true),
            (Code::Unknown, "quota of this account is used up", false),
            (Code::PermissionDenied, "context canceled", false),
        ] {
            let status = Status::new(code, text);
            assert_eq!(is_cut_off(&status), expected, "{code:?} {text}");
        }
    }

    #[test]
    fn h26_texts_decide_before_codes() {
        for (code, text, expected) in [
            (
                Code::Unknown,
                "iac: resource not found: droplet 12",
                ErrorClass::NotFound,
            ),
            (
                Code::Unknown,
                "read: iac: resource not found",
                ErrorClass::NotFound,
            ),
            (
                Code::Unknown,
                "iac: forbidden: cannot delete db: lookup of replica r1: iac: resource not found",
                ErrorClass::Denied,
            ),
            (
                Code::NotFound,
                "unknown resource type infra.nothing",
                ErrorClass::Invalid,
            ),
            (Code::NotFound, "", ErrorClass::Invalid),
            (
                Code::Unknown,
                "iac: resource already exists: web",
                ErrorClass::AlreadyExists,
            ),
            (Code::AlreadyExists, "taken", ErrorClass::AlreadyExists),
            (Code::Unknown, "iac: rate limited", ErrorClass::Throttled),
            (
                Code::Unknown,
                "iac: transient error: 503",
                ErrorClass::Transient,
            ),
            (Code::Unavailable, "try later", ErrorClass::Transient),
            (Code::Unknown, "iac: unauthorized", ErrorClass::Denied),
            (Code::Unknown, "iac: forbidden", ErrorClass::Denied),
            (Code::PermissionDenied, "no", ErrorClass::Denied),
            (
                Code::Unknown,
                "iac: validation error: size",
                ErrorClass::Invalid,
            ),
            (Code::InvalidArgument, "no type", ErrorClass::Invalid),
            (Code::Unimplemented, "", ErrorClass::Unimplemented),
            (Code::Unknown, "HTTP 404: 409 conflict", ErrorClass::Unknown),
            (Code::Internal, "panic", ErrorClass::Unknown),
        ] {
            let (class, _) = classify(&Status::new(code, text));
            assert_eq!(class, expected, "{code:?} {text}");
        }
    }

    #[test]
    fn h15_a_request_that_go_refuses_names_the_limit() {
        let status = Status::resource_exhausted(
            "grpc: received message larger than max (5000000 vs. 4194304)",
        );
        let (class, text) = classify(&status);
        assert_eq!(class, ErrorClass::Invalid);
        assert!(text.contains("at most 4194304 bytes"), "{text}");
        assert_eq!(
            classify(&Status::resource_exhausted("quota")).0,
            ErrorClass::Throttled
        );
    }
}
