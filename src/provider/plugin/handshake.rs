//! The one line a plugin prints to say where it listens: parsing it, and every way it can be wrong.

use std::net::SocketAddr;
use std::path::PathBuf;

use tidegate_plugin::convention;
use tidegate_plugin::tls::Peer;

/// The line format we speak.
const CORE_VERSION: i64 = 1;
/// The plugin protocol we offer.
pub const PROTOCOL_VERSION: i64 = 1;
/// Longest line that is read.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Field 6 is a certificate only when longer than this; some plugins print other things there.
const CERTIFICATE_CHARACTERS_MIN: usize = 50;
/// A socket address has room for 107 bytes and a zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where a plugin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket file.
    Unix(PathBuf),
    /// A port of this machine.
    Tcp(SocketAddr),
}

/// What tells us that the one who listens is the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The folder of its socket, which only we can enter. All that a plugin has which knows neither
    /// of the others.
    Folder,
    /// The kernel, which says what process listens.
    Process,
    /// The certificate it will show.
    Certificate(Peer),
}

/// What a plugin's first line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// How it is known.
    pub proof: Proof,
}

/// Why a handshake line is refused. Each has its own code, because each has its own remedy. The texts are
/// the plugin's, whole: whoever shows them hides secrets first and cuts then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not a handshake line at all.
    #[error("its first line is not a handshake: {0}")]
    Unrecognised(String),
    /// Field 1 is no number.
    #[error("the core version `{0}` is not a number")]
    CoreParse(String),
    /// Field 1 is another version.
    #[error("it speaks core version {0}, this host speaks {CORE_VERSION}")]
    CoreMismatch(i64),
    /// Field 2 is no number.
    #[error("the protocol version `{0}` is not a number")]
    AppParse(String),
    /// Field 2 was not offered.
    #[error("it speaks protocol version {0}, this host offers {PROTOCOL_VERSION}")]
    AppMismatch(i64),
    /// Field 3 is neither of the two.
    #[error("it listens on the network `{0}`; known are unix, tcp")]
    Network(String),
    /// Field 4 is no address of that network.
    #[error("it listens at `{0}`, which is not an address on this machine")]
    Address(String),
    /// Field 5 is something else.
    #[error("it speaks `{0}`; allowed is grpc")]
    Protocol(String),
    /// Field 6 holds a certificate, and TLS was not offered.
    #[error("it answers with a certificate, although none was asked for")]
    UnaskedCertificate,
    /// Field 6 holds something, and that is no certificate.
    #[error("the certificate it answers with cannot be read: {0}")]
    Certificate(String),
}

impl HandshakeError {
    /// The stable code of the report.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unrecognised(_) => "plugin/handshake-unrecognised",
            Self::CoreParse(_) => "plugin/handshake-core-parse",
            Self::CoreMismatch(_) => "plugin/handshake-core-mismatch",
            Self::AppParse(_) => "plugin/handshake-app-parse",
            Self::AppMismatch(_) => "plugin/handshake-app-mismatch",
            Self::Network(_) => "plugin/handshake-network",
            Self::Address(_) => "plugin/handshake-address",
            Self::Protocol(_) => "plugin/handshake-protocol",
            Self::UnaskedCertificate | Self::Certificate(_) => "plugin/handshake-certificate",
        }
    }
}

/// Reads the first line of a plugin's standard output. Fields are checked in their order, so that
/// the first thing wrong is what is reported; fields beyond the sixth say nothing to us. TLS was
/// offered when `is_tls_offered`.
pub fn parse(line: &[u8], is_tls_offered: bool) -> Result<Greeting, HandshakeError> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let fields: Vec<&str> = text.split('|').collect();
    let [core, app, network, address, rest @ ..] = fields.as_slice() else {
        return Err(HandshakeError::Unrecognised(quoted(text)));
    };
    match core.parse::<i64>() {
        Err(_) => return Err(HandshakeError::CoreParse((*core).to_owned())),
        Ok(CORE_VERSION) => {}
        Ok(other) => return Err(HandshakeError::CoreMismatch(other)),
    }
    match app.parse::<i64>() {
        Err(_) => return Err(HandshakeError::AppParse((*app).to_owned())),
        Ok(PROTOCOL_VERSION) => {}
        Ok(other) => return Err(HandshakeError::AppMismatch(other)),
    }
    let bad_address = || HandshakeError::Address((*address).to_owned());
    let endpoint = match *network {
        "unix" => {
            let path = PathBuf::from(address);
            let fits = path.is_absolute() && address.len() <= SOCKET_PATH_BYTES_MAX;
            if !fits || address.contains('\0') {
                return Err(bad_address());
            }
            Endpoint::Unix(path)
        }
        "tcp" => {
            let address: SocketAddr = address.parse().map_err(|_| bad_address())?;
            // What goes over it is for nobody else: never off this machine.
            if !address.ip().is_loopback() {
                return Err(bad_address());
            }
            Endpoint::Tcp(address)
        }
        other => return Err(HandshakeError::Network(other.to_owned())),
    };
    match rest.first() {
        None | Some(&"grpc") => {}
        Some(other) => return Err(HandshakeError::Protocol((*other).to_owned())),
    }
    let proof = match rest.get(1) {
        Some(field) if field.len() > CERTIFICATE_CHARACTERS_MIN => {
            if !is_tls_offered {
                return Err(HandshakeError::UnaskedCertificate);
            }
            let peer = Peer::from_field(field)
                .map_err(|why| HandshakeError::Certificate(why.to_string()))?;
            Proof::Certificate(peer)
        }
        Some(&convention::BY_PROCESS) => Proof::Process,
        // A plugin that does not know how goes on in the clear.
        None | Some(_) => Proof::Folder,
    };
    Ok(Greeting { endpoint, proof })
}

fn quoted(text: &str) -> String {
    if text.is_empty() {
        "it is empty".to_owned()
    } else {
        format!("`{text}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> &'static str {
        match parse(line.as_bytes(), false) {
            Ok(_) => "ok",
            Err(error) => error.code(),
        }
    }

    #[test]
    fn h5_lines_of_four_to_many_fields_are_accepted() {
        for line in [
            "1|1|unix|/tmp/plugin42|grpc||true",
            "1|1|unix|/tmp/plugin42",
            "1|1|unix|/tmp/plugin42|grpc",
            "1|1|unix|/tmp/plugin42|grpc|",
            "1|1|unix|/tmp/plugin42|grpc||true|more|and more",
            "1|1|unix|/tmp/plugin42|grpc|short, so no certificate|false",
            "  1|1|unix|/tmp/plugin42|grpc||true\r",
        ] {
            assert_eq!(
                parse(line.as_bytes(), true),
                Ok(Greeting {
                    endpoint: Endpoint::Unix("/tmp/plugin42".into()),
                    proof: Proof::Folder
                }),
                "{line:?}"
            );
        }
        let known = parse(b"1|1|unix|/tmp/plugin42|grpc|by-process", true).unwrap();
        assert_eq!(known.proof, Proof::Process);
        let tcp = parse(b"1|1|tcp|127.0.0.1:10000|grpc", true).unwrap();
        assert_eq!(
            tcp.endpoint,
            Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 10000)))
        );
    }

    #[test]
    fn h7_each_wrong_field_has_an_error_of_its_own() {
        for (line, expected) in [
            ("", "plugin/handshake-unrecognised"),
            ("hello there", "plugin/handshake-unrecognised"),
            ("1|1|unix", "plugin/handshake-unrecognised"),
            ("one|1|unix|/s|grpc", "plugin/handshake-core-parse"),
            ("2|1|unix|/s|grpc", "plugin/handshake-core-mismatch"),
            ("1|x|unix|/s|grpc", "plugin/handshake-app-parse"),
            ("1|7|unix|/s|grpc", "plugin/handshake-app-mismatch"),
            ("1|1|udp|/s|grpc", "plugin/handshake-network"),
            ("1|1|tcp|nowhere|grpc", "plugin/handshake-address"),
            ("1|1|tcp|203.0.113.9:443|grpc", "plugin/handshake-address"),
            ("1|1|unix|relative|grpc", "plugin/handshake-address"),
            ("1|1|unix|/s|netrpc", "plugin/handshake-protocol"),
            ("1|1|unix|/s|", "plugin/handshake-protocol"),
        ] {
            assert_eq!(code(line), expected, "{line:?}");
        }
        let certificate = "A".repeat(51);
        assert_eq!(
            code(&format!("1|1|unix|/s|grpc|{certificate}|true")),
            "plugin/handshake-certificate"
        );
        // Offered or not, what is there must be a certificate.
        let garbage = parse(
            format!("1|1|unix|/s|grpc|{certificate}|true").as_bytes(),
            true,
        );
        assert!(
            matches!(garbage, Err(HandshakeError::Certificate(_))),
            "{garbage:?}"
        );
        let identity = tidegate_plugin::tls::Identity::generate().unwrap();
        let line = format!("1|1|unix|/s|grpc|{}|true", identity.field());
        assert!(matches!(
            parse(line.as_bytes(), true).unwrap().proof,
            Proof::Certificate(_)
        ));
        assert_eq!(
            parse(line.as_bytes(), false),
            Err(HandshakeError::UnaskedCertificate)
        );
        let long = format!("1|1|unix|/{}|grpc", "s".repeat(200));
        assert_eq!(code(&long), "plugin/handshake-address");
    }

    #[test]
    fn a_refused_line_is_quoted_whole_for_whoever_hides_its_secrets() {
        let line = "x".repeat(5000);
        assert_eq!(
            parse(line.as_bytes(), false),
            Err(HandshakeError::Unrecognised(format!("`{line}`")))
        );
        assert!(parse(&[0xff, 0xfe, b'|'], false).is_err());
    }
}
