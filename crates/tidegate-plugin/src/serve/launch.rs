//! The launch: what the host put into the environment, and what it gets to see on stdout.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::core::Core;
use super::listen::{Listener, Place};
use super::{connection, stdio};
use crate::tls::{Identity, Peer, TlsError};
use crate::{About, Provider, StateBackend, convention, memory};

const COOKIE: (&str, &str) = ("WORKFLOW_PLUGIN", "workflow-external-plugin-v1");
/// Version of the handshake line itself.
const CORE_PROTOCOL: u32 = 1;
/// Versions of the contract we speak.
const APP_PROTOCOLS: [u32; 1] = [1];

/// What the environment says about the launch.
#[derive(Debug, Default)]
pub(crate) struct Launch {
    cookie: Option<String>,
    versions: Option<String>,
    min_port: Option<String>,
    max_port: Option<String>,
    client_certificate: Option<String>,
    host: Option<String>,
    socket_directory: Option<PathBuf>,
    socket_group: Option<String>,
    temporary: PathBuf,
}

impl Launch {
    pub(crate) fn from_environment() -> Self {
        let mut launch = Self::from(|name| std::env::var_os(name));
        launch.temporary = std::env::temp_dir();
        launch
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(|value| value.to_string_lossy().into_owned())
        };
        Self {
            cookie: text(COOKIE.0),
            versions: text("PLUGIN_PROTOCOL_VERSIONS"),
            min_port: text("PLUGIN_MIN_PORT"),
            max_port: text("PLUGIN_MAX_PORT"),
            client_certificate: text("PLUGIN_CLIENT_CERT"),
            host: text(convention::HOST),
            socket_directory: variable("PLUGIN_UNIX_SOCKET_DIR")
                .filter(|value| !value.is_empty())
                .map(Into::into),
            socket_group: text("PLUGIN_UNIX_SOCKET_GROUP"),
            temporary: PathBuf::new(),
        }
    }

    /// Where to listen.
    fn place(&self) -> Result<Place, String> {
        if cfg!(unix) {
            return Ok(Place::Socket {
                directory: self
                    .socket_directory
                    .clone()
                    .unwrap_or_else(|| self.temporary.clone()),
                group: self.socket_group.clone(),
            });
        }
        Ok(Place::Ports(port_range(
            self.min_port.as_deref(),
            self.max_port.as_deref(),
        )?))
    }
}

/// The ports to try; both unset lets the system choose.
fn port_range(
    min: Option<&str>,
    max: Option<&str>,
) -> Result<std::ops::RangeInclusive<u16>, String> {
    let port = |name: &str, text: Option<&str>| {
        text.map_or(Ok(0), |text| {
            text.parse::<u16>()
                .map_err(|_| format!("{name} is {text:?}, which is not a port"))
        })
    };
    let (min, max) = (port("PLUGIN_MIN_PORT", min)?, port("PLUGIN_MAX_PORT", max)?);
    if min > max {
        return Err(format!(
            "PLUGIN_MIN_PORT {min} is above PLUGIN_MAX_PORT {max}"
        ));
    }
    Ok(min..=max)
}

/// The highest version both sides know. With none in common it is our lowest, and the host, which
/// sees it in the handshake line, refuses with words of its own.
fn negotiate(ours: &[u32], theirs: Option<&str>) -> u32 {
    let lowest = ours.iter().copied().min().unwrap_or_default();
    let offered = theirs
        .unwrap_or_default()
        .split(',')
        .filter_map(|item| item.trim().parse().ok());
    offered
        .filter(|version| ours.contains(version))
        .max()
        .unwrap_or(lowest)
}

/// The whole life of the plugin. `Err` is a sentence for people.
pub(crate) fn run(
    about: About,
    provider: Option<Box<dyn Provider>>,
    backend: Option<Box<dyn StateBackend>>,
    launch: Launch,
) -> Result<(), String> {
    if launch.cookie.as_deref() != Some(COOKIE.1) {
        return Err(
            "this is a provider plugin. A host starts it; it does nothing when started by hand."
                .to_owned(),
        );
    }
    memory::keep();
    let core = Core::new(about, provider, backend).map_err(|problems| problems.join("\n"))?;
    let admission = Admission::new(&launch, parent())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let ended = runtime.block_on(serve(Arc::new(core), &launch, admission));
    // An author's blocking task may still run; the end does not wait for it.
    runtime.shutdown_background();
    ended
}

/// Who is let in.
pub(crate) enum Admission {
    /// Whoever can enter the folder of the socket.
    Anybody,
    /// The process that launched us, which the kernel vouches for.
    Process(u32),
    /// Whoever holds the key of the host's certificate; `field` is what the host takes us by.
    Certificate {
        field: String,
        acceptor: TlsAcceptor,
    },
}

impl Admission {
    /// Answers what the host asks for. There is no way back to plaintext for everybody: a host that
    /// asks for TLS gets it, or the kernel's word that nobody else is there, or nothing.
    fn new(launch: &Launch, parent: Option<u32>) -> Result<Self, String> {
        let host = launch.host.as_deref().and_then(|host| host.parse().ok());
        // With somebody between us and the host the kernel would name the wrong one.
        if let Some(host) = host
            && parent == Some(host)
        {
            return Ok(Self::Process(host));
        }
        let Some(pem) = &launch.client_certificate else {
            return Ok(Self::Anybody);
        };
        let set_up = || {
            let identity = Identity::generate()?;
            let config = identity.server(Peer::from_pem(pem)?)?;
            Ok(Self::Certificate {
                field: identity.field(),
                acceptor: TlsAcceptor::from(config),
            })
        };
        set_up().map_err(|error: TlsError| {
            format!("the host asks for mutual TLS (PLUGIN_CLIENT_CERT), and {error}")
        })
    }

    /// The sixth field of the handshake line, with its bar.
    fn field(&self) -> String {
        match self {
            Self::Anybody => String::new(),
            Self::Process(_) => format!("|{}", convention::BY_PROCESS),
            Self::Certificate { field, .. } => format!("|{field}"),
        }
    }
}

/// The process that started us, where sockets know processes.
fn parent() -> Option<u32> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        rustix::process::getppid()
            .and_then(|parent| u32::try_from(parent.as_raw_nonzero().get()).ok())
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    None
}

async fn serve(core: Arc<Core>, launch: &Launch, admission: Admission) -> Result<(), String> {
    // Ctrl-C in a terminal reaches the plugin too; the host decides what becomes of it.
    #[cfg(unix)]
    let _interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(|error| format!("cannot ignore interrupts: {error}"))?;
    let listener = Listener::bind(&launch.place()?)?;
    let line = format!(
        "{CORE_PROTOCOL}|{}|{}|{}|grpc{}\n",
        negotiate(&APP_PROTOCOLS, launch.versions.as_deref()),
        listener.network(),
        listener.address(),
        admission.field(),
    );
    let mut stdout = std::io::stdout();
    stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("cannot tell the host where to find us: {error}"))?;
    #[cfg(unix)]
    let _stdout = stdio::capture(Arc::clone(&core.stdio))
        .map_err(|error| format!("cannot take over stdout: {error}"))?;
    connection::accept(core, listener, admission).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_both_know_is_chosen() {
        assert_eq!(negotiate(&[1], Some("1")), 1);
        assert_eq!(negotiate(&[1, 2, 3], Some("2, 1,nonsense,9")), 2);
        assert_eq!(negotiate(&[2, 3], Some("1")), 2);
        assert_eq!(negotiate(&[2, 3], None), 2);
        assert_eq!(negotiate(&[1], Some("")), 1);
    }

    #[test]
    fn ports_are_a_range_or_nothing() {
        assert_eq!(port_range(None, None), Ok(0..=0));
        assert_eq!(
            port_range(Some("10000"), Some("25000")),
            Ok(10_000..=25_000)
        );
        for (min, max) in [("a", "1"), ("1", "b"), ("2", "1"), ("70000", "70001")] {
            assert!(port_range(Some(min), Some(max)).is_err(), "{min} {max}");
        }
    }

    #[test]
    fn a_host_is_known_by_its_process_only_to_its_own_child() {
        let launch = |host: &str, pem: Option<&str>| Launch {
            host: Some(host.to_owned()),
            client_certificate: pem.map(str::to_owned),
            ..Launch::default()
        };
        let host = Identity::generate().unwrap().pem();
        let field = |host: &str, pem: Option<&str>, parent| {
            Admission::new(&launch(host, pem), parent).unwrap().field()
        };
        assert_eq!(field("42", Some(&host), Some(42)), "|by-process");
        assert_eq!(field("42", None, Some(42)), "|by-process");
        // A wrapper between the two, or nonsense: the certificate it is.
        for (said, parent) in [
            ("42", Some(43)),
            ("42", None),
            ("", Some(42)),
            ("0x2a", Some(42)),
        ] {
            assert!(
                field(said, Some(&host), parent).len() > 100,
                "{said} {parent:?}"
            );
            assert_eq!(field(said, None, parent), "");
        }
    }

    #[test]
    fn an_empty_variable_is_no_variable() {
        let launch = Launch::from(|name| (name == "PLUGIN_CLIENT_CERT").then(OsString::new));
        assert!(launch.client_certificate.is_none());
        let launch = Launch::from(|name| (name == COOKIE.0).then(|| COOKIE.1.into()));
        assert_eq!(launch.cookie.as_deref(), Some(COOKIE.1));
    }
}
