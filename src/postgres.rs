//! The one way to a PostgreSQL server: how a connection is protected, and the connection itself.
//! Databases of resources and the state store both come through here.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How the connection is protected; PostgreSQL's own words and meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Never TLS.
    Disable,
    /// TLS when the server offers it, its certificate unchecked.
    Prefer,
    /// TLS or nothing, its certificate unchecked.
    Require,
    /// TLS, and the certificate must be valid for the host.
    VerifyFull,
}

/// Every word for a [`Protection`].
pub(crate) const PROTECTIONS: &[&str] = &["disable", "prefer", "require", "verify-full"];

/// Largest file of certificates.
pub(crate) const CERTIFICATE_BYTES_MAX: u64 = 1024 * 1024;

impl Protection {
    /// What a word means.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// PostgreSQL's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// An open connection. Its traffic is driven by a task that ends with it.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// The task; dropped, and thereby ended, with the session.
    #[expect(dead_code, reason = "held for its drop")]
    traffic: JoinSet<()>,
}

/// Connects. Without `tls`, the connection is not encrypted, whatever `protection` prefers.
///
/// # Errors
/// What the server, or the way to it, answered.
pub(crate) async fn connect(
    mut config: Config,
    protection: Protection,
    tls: Option<&ClientConfig>,
) -> Result<Session, Error> {
    config.ssl_mode(match protection {
        Protection::Prefer if tls.is_some() => SslMode::Prefer,
        Protection::Require | Protection::VerifyFull if tls.is_some() => SslMode::Require,
        Protection::Disable | Protection::Prefer | Protection::Require | Protection::VerifyFull => {
            SslMode::Disable
        }
    });
    let mut traffic = JoinSet::new();
    // A broken connection shows as the error of the query that needed it.
    let client = match tls {
        Some(tls) => {
            let connector = MakeRustlsConnect::new(tls.clone());
            let (client, connection) = config.connect(connector).await?;
            traffic.spawn(async move { drop(connection.await) });
            client
        }
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            traffic.spawn(async move { drop(connection.await) });
            client
        }
    };
    Ok(Session { client, traffic })
}

/// An error and everything below it, in one line.
pub(crate) fn causes(error: &Error) -> String {
    let mut causes = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes = format!("{causes}: {cause}");
        source = cause.source();
    }
    causes
}

/// The certificates of a PEM file; `None` when it holds none.
pub(crate) fn parse_certificates(bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Some(certificates),
        _ => None,
    }
}

/// TLS as `protection` wants it. Given certificates are the only roots, and are always checked.
///
/// # Errors
/// When the roots cannot be used.
pub(crate) fn client_config(
    protection: Protection,
    certificates: Option<Vec<CertificateDer<'static>>>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    Ok(match (protection, certificates) {
        (_, Some(certificates)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        (Protection::VerifyFull, None) => builder.with_platform_verifier()?.with_no_client_auth(),
        (Protection::Disable | Protection::Prefer | Protection::Require, None) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
            .with_no_client_auth(),
    })
}

/// What `prefer` and `require` mean to PostgreSQL: encrypted, but to whoever answers. The
/// handshake's signature is still checked.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
