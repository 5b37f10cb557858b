//! A provider plugin that misbehaves in the way `mode.json` in its folder asks for. It speaks HTTP/2
//! and gRPC frames by hand, because a decent library would not let it do half of this.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::expect_used,
    reason = "a test double stands outside the seams it helps to test"
)]

use std::convert::Infallible;
use std::io::Write as _;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::Value;
use tidegate_plugin::tls::{Identity, Peer};
use tidegate_plugin::{iac, launch, plugin};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

const PACKAGE: &str = "workflow.plugin.external.iac.";
/// `Unimplemented` and `Internal`.
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const CHILD: &str = "--child";

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(CHILD) {
        std::thread::sleep(Duration::from_secs(600));
        return ExitCode::SUCCESS;
    }
    // A decent one would say why, and fail.
    if std::env::var_os("WORKFLOW_PLUGIN").is_none() {
        return ExitCode::SUCCESS;
    }
    let text = std::fs::read("mode.json").unwrap_or_default();
    let mode: Value = serde_json::from_slice(&text).unwrap_or_default();
    if mode["fork"] == true {
        let me = std::env::current_exe().expect("a path");
        #[allow(
            clippy::zombie_processes,
            reason = "a child that is left behind is the point"
        )]
        Command::new(me).arg(CHILD).spawn().expect("a child");
    }
    if let Some(text) = mode["stderr"].as_str() {
        eprintln!("{text}");
    }
    if mode["exit_when_offered_tls"] == true && std::env::var_os("PLUGIN_CLIENT_CERT").is_some() {
        eprintln!("no TLS here");
        return ExitCode::FAILURE;
    }
    if let Some(code) = mode["exit"].as_u64() {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    if let Some(bytes) = mode["print_bytes"].as_u64() {
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..bytes / 65_536 {
            if std::io::stdout().write_all(&chunk).is_err() {
                return ExitCode::FAILURE;
            }
        }
    }
    if mode["not_utf8"] == true {
        let _closed = std::io::stdout().write_all(b"\xff\xfe|\xc3\x28|\n");
    }
    if let Some(line) = mode["line"].as_str() {
        print!("{line}");
        let _closed = std::io::stdout().flush();
    }
    if mode["serve"] != true {
        std::thread::sleep(Duration::from_secs(600));
        return ExitCode::SUCCESS;
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(serve(mode));
    ExitCode::SUCCESS
}

async fn serve(mode: Value) {
    let folder = std::env::var("PLUGIN_UNIX_SOCKET_DIR").expect("a host sets it");
    let path = Path::new(&folder).join(format!("plugin{}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    // One certificate is shown at the door, and another inside.
    let impostor = (mode["impostor"] == true).then(|| {
        let offered = std::env::var("PLUGIN_CLIENT_CERT").expect("a host offers TLS");
        let host = Peer::from_pem(&offered).expect("a certificate");
        let (shown, used) = (Identity::generate(), Identity::generate());
        let config = used.expect("a certificate").server(host).expect("TLS");
        (
            shown.expect("a certificate").field(),
            TlsAcceptor::from(config),
        )
    });
    let field = impostor.as_ref().map_or("", |(field, _)| field);
    println!("1|1|unix|{}|grpc|{field}|true", path.display());
    if mode["handshake_twice"] == true {
        println!("1|1|unix|/nowhere|grpc||true");
    }
    while let Ok((stream, _)) = listener.accept().await {
        let mode = mode.clone();
        let impostor = impostor.clone();
        tokio::spawn(async move {
            if let Some((_, tls)) = impostor {
                let _refused = tls.accept(stream).await;
                return;
            }
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let mode = mode.clone();
                async move { answer(&mode, request).await }
            });
            let _ended = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(Counting::new(stream)), service)
                .await;
        });
    }
}

/// Adds a line to `calls.txt`.
fn note(line: &str) {
    note_in("calls.txt", line);
}

fn note_in(file: &str, line: &str) {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file);
    let _written = writeln!(file.expect("a file"), "{line}");
}

/// A connection that notes in `frames.txt` every ping of the other side, and every call.
struct Counting {
    stream: UnixStream,
    /// Bytes still to pass before the next frame begins; first of all the preface.
    left: usize,
    head: Vec<u8>,
}

impl Counting {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            left: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len(),
            head: Vec::new(),
        }
    }

    fn look(&mut self, mut bytes: &[u8]) {
        const HEAD: usize = 9;
        const HEADERS: u8 = 1;
        const PING: u8 = 6;
        const ACKNOWLEDGED: u8 = 1;
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if self.head.len() == HEAD {
                match self.head[3] {
                    PING if self.head[4] & ACKNOWLEDGED == 0 => note_in("frames.txt", "PING"),
                    HEADERS => note_in("frames.txt", "HEADERS"),
                    _ => {}
                }
                let size = [0, self.head[0], self.head[1], self.head[2]];
                self.left = u32::from_be_bytes(size) as usize;
                self.head.clear();
            }
        }
    }
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled()[before..].to_vec();
        self.look(&read);
        polled
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(message.len()).expect("it fits").to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

fn words(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn reply(bytes: Vec<u8>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a number"));
    let body = Full::new(Bytes::from(bytes))
        .with_trailers(async move { Some(Ok(trailers)) })
        .boxed_unsync();
    Response::builder()
        .header("content-type", "application/grpc")
        .body(body)
        .expect("a response")
}

fn ok(message: &impl Message) -> Response<Body> {
    reply(frame(&message.encode_to_vec()))
}

fn refuse(code: u32, text: &str) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code.to_string())
        .header("grpc-message", text)
        .body(Full::new(Bytes::new()).boxed_unsync())
        .expect("a response")
}

async fn answer(mode: &Value, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let (_, call) = path.rsplit_once('.').unwrap_or_default();
    if mode["notes_calls"] == true {
        note(call);
    }
    if mode["hang_on"] == call {
        std::future::pending::<()>().await;
    }
    if mode["die_on"] == call {
        std::process::abort();
    }
    // All of them, or the first few.
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    let refusals = mode["refuse_times"].as_u64().unwrap_or(u64::MAX);
    if mode["refuse_on"] == call && REFUSED.fetch_add(1, Ordering::Relaxed) < refusals {
        let mut refusal = refuse(
            u32::try_from(mode["code"].as_u64().unwrap_or(2)).unwrap_or(2),
            mode["text"].as_str().unwrap_or_default(),
        );
        if let Some(seconds) = mode["retry_after"].as_str() {
            let seconds = seconds.parse().expect("a header");
            refusal.headers_mut().insert("retry-after", seconds);
        }
        return Ok(refusal);
    }
    if mode["flood_on"] == call {
        for _ in 0..20_000 {
            eprintln!("flood flood flood flood flood flood flood flood flood flood flood flood");
        }
    }
    if mode["huge_on"] == call {
        return Ok(reply(frame(&vec![0; 200 * 1024 * 1024])));
    }
    if mode["garbage_on"] == call {
        return Ok(reply(frame(&[0xff; 64])));
    }
    if mode["twice_on"] == call {
        let one = frame(&created(mode, "web").encode_to_vec());
        return Ok(reply([one.clone(), one].concat()));
    }
    Ok(match call {
        "PluginService/GetManifest" => match mode["manifest"].as_str() {
            Some("empty") => ok(&plugin::Manifest::default()),
            Some("internal") => refuse(INTERNAL, "no manifest today"),
            Some(version) => ok(&plugin::Manifest {
                version: version.to_owned(),
                ..plugin::Manifest::default()
            }),
            None => refuse(UNIMPLEMENTED, ""),
        },
        "PluginService/GetContractRegistry" => registry(mode),
        "IaCProviderRequired/Initialize" => ok(&iac::InitializeResponse {}),
        "IaCProviderRequired/Capabilities" => ok(&iac::CapabilitiesResponse {
            capabilities: vec![iac::IaCCapabilityDeclaration {
                resource_type: "infra.vpc".to_owned(),
                operations: words(&mode["operations"]),
                ..iac::IaCCapabilityDeclaration::default()
            }],
            compute_plan_version: mode["plan_version"].as_str().unwrap_or("v2").to_owned(),
            canonical_keys: match &mode["canonical_keys"] {
                Value::Array(keys) => keys
                    .iter()
                    .filter_map(|key| key.as_str().map(str::to_owned))
                    .collect(),
                _ => Vec::new(),
            },
        }),
        "ResourceDriver/Create" => ok(&created(mode, "web")),
        "ResourceDriver/Read" => match mode["reads"].as_str() {
            Some(name) => ok(&iac::ResourceReadResponse {
                output: created(mode, name).output,
            }),
            None => refuse(2, "iac: resource not found: web"),
        },
        "ResourceDriver/Update" => ok(&iac::ResourceUpdateResponse {
            output: Some(iac::ResourceOutput {
                provider_id: "id-1".to_owned(),
                outputs_json: mode["updates_outputs"]
                    .as_str()
                    .unwrap_or("{}")
                    .as_bytes()
                    .to_vec(),
                ..iac::ResourceOutput::default()
            }),
        }),
        "ResourceDriver/Diff" if mode["diff"].is_array() => ok(&compared(mode)),
        "ResourceDriver/Troubleshoot" if mode["explains"].is_string() => {
            let text = || mode["explains"].as_str().unwrap_or_default().to_owned();
            ok(&iac::TroubleshootResponse {
                diagnostics: vec![iac::Diagnostic {
                    cause: text(),
                    detail: text(),
                    ..iac::Diagnostic::default()
                }],
            })
        }
        "ResourceDriver/SensitiveKeys" => ok(&iac::SensitiveKeysResponse::default()),
        "IaCProviderFinalizer/FinalizeApply" => ok(&iac::FinalizeApplyResponse {
            errors: match mode["unfinished"].as_str() {
                Some(error) => vec![iac::ActionError {
                    resource: "db".to_owned(),
                    action: "deferred_update".to_owned(),
                    error: error.to_owned(),
                }],
                None => Vec::new(),
            },
        }),
        "IaCProviderRequired/Status" => match mode["status"].as_str() {
            Some(status) => ok(&iac::StatusResponse {
                statuses: vec![iac::ResourceStatus {
                    name: "what the cloud calls it".to_owned(),
                    provider_id: "id-1".to_owned(),
                    status: status.to_owned(),
                    ..iac::ResourceStatus::default()
                }],
            }),
            None => refuse(UNIMPLEMENTED, ""),
        },
        // As plugins do that only know the flag.
        "IaCProviderDriftDetector/DetectDrift" if mode["drifted"].is_boolean() => {
            ok(&iac::DetectDriftResponse {
                drifts: vec![iac::DriftResult {
                    name: "web".to_owned(),
                    r#type: "infra.vpc".to_owned(),
                    drifted: mode["drifted"] == true,
                    ..iac::DriftResult::default()
                }],
            })
        }
        "IaCProviderRequired/Import" if mode["imports"] == "unimplemented" => {
            refuse(UNIMPLEMENTED, "unknown method Import")
        }
        "IaCProviderRequired/Import" => ok(&iac::ImportResponse {
            state: Some(iac::ResourceState {
                provider_id: "id-1".to_owned(),
                outputs_json: mode["imports_outputs"]
                    .as_str()
                    .unwrap_or_default()
                    .as_bytes()
                    .to_vec(),
                ..iac::ResourceState::default()
            }),
        }),
        "IaCProviderRequired/ResolveSizing" if mode["sizes"] == "none" => {
            ok(&iac::ResolveSizingResponse::default())
        }
        "IaCProviderRunner/RunJob" => ok(&iac::JobHandle {
            id: "job-1".to_owned(),
            metadata: [("owner".to_owned(), "it's ours".to_owned())].into(),
            ..iac::JobHandle::default()
        }),
        "IaCProviderRunner/JobStatus" => ok(&iac::JobStatusReply {
            state: iac::JobState::Succeeded as i32,
            ..iac::JobStatusReply::default()
        }),
        "IaCProviderRunner/JobLogs" => ok(&iac::LogChunk {
            data: b"migrated\n".to_vec().into(),
            eof: true,
            ..iac::LogChunk::default()
        }),
        call if call.starts_with("IaCStateBackend/") => state(mode, call),
        "GRPCController/Shutdown" if mode["no_controller"] == true => refuse(UNIMPLEMENTED, ""),
        "GRPCController/Shutdown" if mode["ignores_shutdown"] == true => {
            std::future::pending::<()>().await;
            ok(&launch::Empty {})
        }
        "GRPCController/Shutdown" => std::process::exit(0),
        _ => refuse(UNIMPLEMENTED, ""),
    })
}

/// A state backend that has nothing.
fn state(mode: &Value, call: &str) -> Response<Body> {
    const FAILED_PRECONDITION: u32 = 9;
    static CONFIGURED: AtomicBool = AtomicBool::new(false);
    match call {
        "IaCStateBackend/ListBackendNames" => ok(&iac::ListBackendNamesResponse {
            backend_names: mode["backends"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
        }),
        "IaCStateBackend/Configure" if mode["configures"] == true => {
            CONFIGURED.store(true, Ordering::Relaxed);
            ok(&iac::ConfigureResponse {})
        }
        "IaCStateBackend/Configure" => refuse(UNIMPLEMENTED, ""),
        _ if !CONFIGURED.load(Ordering::Relaxed) => {
            refuse(FAILED_PRECONDITION, "Configure comes first")
        }
        "IaCStateBackend/GetState" => ok(&iac::GetStateResponse::default()),
        _ => refuse(UNIMPLEMENTED, ""),
    }
}

fn registry(mode: &Value) -> Response<Body> {
    let kind = match mode["registry"].as_str() {
        Some("unimplemented") => return refuse(UNIMPLEMENTED, ""),
        Some("internal") => return refuse(INTERNAL, "the registry is on fire"),
        Some("module") => plugin::ContractKind::Module,
        _ => plugin::ContractKind::Service,
    };
    let mut names = vec![
        "grpc.health.v1.Health".to_owned(),
        "plugin.GRPCBroker".to_owned(),
    ];
    names.push(format!("{PACKAGE}IaCProviderRequired"));
    if mode["registry"] != "no-driver" {
        names.push(format!("{PACKAGE}ResourceDriver"));
    }
    if let Some(more) = mode["serves"].as_str() {
        names.push(format!("{PACKAGE}{more}"));
    }
    ok(&plugin::ContractRegistry {
        contracts: names
            .into_iter()
            .map(|name| plugin::ContractDescriptor {
                kind: kind as i32,
                service_name: name,
                ..plugin::ContractDescriptor::default()
            })
            .collect(),
        file_descriptor_set: None,
    })
}

/// Each as path, old and new; nothing is none.
fn compared(mode: &Value) -> iac::ResourceDiffResponse {
    let changes: Vec<iac::FieldChange> = mode["diff"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| iac::FieldChange {
            path: change[0].as_str().unwrap_or_default().to_owned(),
            old_json: change[1].to_string().into_bytes(),
            new_json: change[2].to_string().into_bytes(),
            ..iac::FieldChange::default()
        })
        .collect();
    iac::ResourceDiffResponse {
        result: Some(iac::DiffResult {
            needs_update: !changes.is_empty(),
            changes,
            ..iac::DiffResult::default()
        }),
    }
}

fn created(mode: &Value, name: &str) -> iac::ResourceCreateResponse {
    let text = |key: &str, default: &str| mode[key].as_str().unwrap_or(default).to_owned();
    iac::ResourceCreateResponse {
        output: Some(iac::ResourceOutput {
            name: text("answers_name", name),
            r#type: text("answers_type", "infra.vpc"),
            provider_id: text("answers_id", "id-1"),
            outputs_json: text("answers_outputs", "{}").into_bytes(),
            sensitive: words(&mode["flags"])
                .into_iter()
                .map(|name| (name, true))
                .collect(),
            ..iac::ResourceOutput::default()
        }),
    }
}
