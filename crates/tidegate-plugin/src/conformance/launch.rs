//! Launches a plugin as a host does.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tonic::body::Body;

use super::Conformance;
use crate::launch::Empty;
use crate::launch::grpc_controller_client::GrpcControllerClient;
use crate::tls::{self, Identity, Peer};

/// A connection to a plugin; clone it for every client.
#[derive(Clone, Debug)]
pub struct Channel {
    sender: SendRequest<Body>,
}

impl tower_service::Service<http::Request<Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// Lines that are repeated of a plugin that ended when it should not have.
const LAST_LINES: usize = 20;

/// A plugin that has answered the handshake. Dropping it kills the process.
#[derive(Debug)]
pub struct Launched {
    /// The handshake line, without its end.
    pub line: String,
    /// The process.
    pub child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: tokio::task::JoinHandle<String>,
}

/// What a host sets.
pub(super) fn command(conformance: &Conformance) -> Command {
    let executable = std::path::absolute(&conformance.executable)
        .unwrap_or_else(|_| conformance.executable.clone());
    let mut command = Command::new(&executable);
    for name in [
        "PLUGIN_CLIENT_CERT",
        "PLUGIN_MULTIPLEX_GRPC",
        "PLUGIN_UNIX_SOCKET_DIR",
        "PLUGIN_UNIX_SOCKET_GROUP",
        crate::convention::HOST,
    ] {
        command.env_remove(name);
    }
    command
        .env("WORKFLOW_PLUGIN", "workflow-external-plugin-v1")
        .env("PLUGIN_PROTOCOL_VERSIONS", "1")
        .env("PLUGIN_MIN_PORT", "10000")
        .env("PLUGIN_MAX_PORT", "25000")
        .envs(
            conformance
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir(executable.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Reads a pipe to its end and keeps the beginning.
pub(super) async fn drain(mut pipe: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 8192];
    while let Ok(read @ 1..) = pipe.read(&mut piece).await {
        if kept.len() < 1 << 20 {
            kept.extend_from_slice(&piece[..read]);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

impl Launched {
    pub(super) async fn start(conformance: &Conformance) -> Result<Self, String> {
        Self::start_with(command(conformance)).await
    }

    pub(super) async fn start_with(mut command: Command) -> Result<Self, String> {
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start it: {error}"))?;
        let stderr = child.stderr.take().map(drain);
        let stderr = tokio::spawn(async move {
            match stderr {
                Some(stderr) => stderr.await,
                None => String::new(),
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stdout.read_line(&mut line)).await;
        match read {
            Ok(Ok(1..)) => {}
            Ok(_) => {
                let printed = tokio::time::timeout(Duration::from_secs(2), stderr).await;
                let printed = printed.ok().and_then(Result::ok).unwrap_or_default();
                return Err(format!("no handshake; it said: {}", printed.trim()));
            }
            Err(_) => return Err("no handshake within 20 s".to_owned()),
        }
        let line = line
            .strip_suffix('\n')
            .ok_or("the handshake line does not end")?
            .to_owned();
        Ok(Self {
            line,
            child,
            stdout,
            stderr,
        })
    }

    /// How it ended, if it did, and what it said last; nothing of one that goes on.
    pub(super) async fn last_words(mut self) -> String {
        let ended = tokio::time::timeout(Duration::from_secs(2), self.child.wait()).await;
        let Ok(Ok(status)) = ended else {
            return String::new();
        };
        let said = tokio::time::timeout(Duration::from_secs(2), self.stderr).await;
        let said = said.ok().and_then(Result::ok).unwrap_or_default();
        let lines: Vec<&str> = said.trim().lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        format!("the plugin ended ({status}); it said: {last}")
    }

    /// A field of the handshake line, counted from 1.
    pub fn field(&self, number: usize) -> &str {
        self.line.split('|').nth(number - 1).unwrap_or_default()
    }

    /// The unix socket, if it listens on one.
    pub fn socket(&self) -> Option<PathBuf> {
        (self.field(3) == "unix").then(|| PathBuf::from(self.field(4)))
    }

    /// A new connection.
    ///
    /// # Errors
    /// When there is nobody to connect to.
    pub async fn connect(&self) -> Result<Channel, String> {
        let refused =
            |error: std::io::Error| format!("cannot connect to {}: {error}", self.field(4));
        #[cfg(unix)]
        if let Some(socket) = self.socket() {
            return handshake(
                tokio::net::UnixStream::connect(socket)
                    .await
                    .map_err(refused)?,
            )
            .await;
        }
        handshake(
            tokio::net::TcpStream::connect(self.field(4))
                .await
                .map_err(refused)?,
        )
        .await
    }

    /// A new connection over mutual TLS.
    ///
    /// # Errors
    /// When there is nobody, or somebody else.
    pub async fn connect_tls(&self, identity: &Identity) -> Result<Channel, String> {
        let peer = Peer::from_field(self.field(6)).map_err(|error| error.to_string())?;
        let config = identity.client(peer).map_err(|error| error.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let name = ServerName::try_from(tls::NAME).map_err(|error| error.to_string())?;
        let refused =
            |error: std::io::Error| format!("cannot connect to {}: {error}", self.field(4));
        #[cfg(unix)]
        if let Some(socket) = self.socket() {
            let stream = tokio::net::UnixStream::connect(socket)
                .await
                .map_err(refused)?;
            return handshake(connector.connect(name, stream).await.map_err(refused)?).await;
        }
        let stream = tokio::net::TcpStream::connect(self.field(4))
            .await
            .map_err(refused)?;
        handshake(connector.connect(name, stream).await.map_err(refused)?).await
    }

    /// Asks it to end and waits for that; `Err` when it has to be killed.
    ///
    /// # Errors
    /// When it is still there after two seconds.
    pub async fn shut_down(mut self) -> Result<(ExitStatus, String), String> {
        let mut controller =
            GrpcControllerClient::with_origin(self.connect().await?, super::process::origin());
        let answer =
            tokio::time::timeout(Duration::from_secs(2), controller.shutdown(Empty {})).await;
        // The process may be gone before its answer arrives; not answering is the only fault.
        drop(answer.map_err(|_| "no answer to Shutdown")?);
        drop(controller);
        let exit = tokio::time::timeout(Duration::from_secs(2), self.child.wait())
            .await
            .map_err(|_| "still running two seconds after Shutdown")?
            .map_err(|error| error.to_string())?;
        Ok((exit, drain(&mut self.stdout).await))
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Channel, String> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("no HTTP/2: {error}"))?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(Channel { sender })
}
