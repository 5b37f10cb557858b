//! Mutual TLS between a host and its plugin, the way the launch library of existing plugins does it.
//!
//! Each side makes a certificate for one launch. The host's travels in `PLUGIN_CLIENT_CERT`, the
//! plugin's in the handshake line; each side then takes exactly the certificate it was given and no
//! other. Nothing is looked up, nothing expires, no authority is trusted.
//!
//! Go's certificates are of the curve P-521 and call themselves authorities. Neither matters here:
//! what is compared is the certificate, byte for byte, and only the proof that the peer holds its key
//! is left to the signature. That signature ring cannot check; the `p521` crate does.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, PrivateKeyDer, PrivatePkcs8KeyDer,
    ServerName, SignatureVerificationAlgorithm, UnixTime, alg_id,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};

/// The name both sides call the other by.
pub const NAME: &str = "localhost";
/// What is spoken inside.
const PROTOCOL: &[u8] = b"h2";
const PEM_LINE: usize = 64;

/// Why there is no TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

fn because(what: &str, error: &dyn fmt::Display) -> TlsError {
    TlsError(format!("{what}: {error}"))
}

/// The certificate of the other side: the only one that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(CertificateDer<'static>);

impl Peer {
    fn of(certificate: CertificateDer<'static>) -> Result<Self, TlsError> {
        // What is no certificate at all is said now, and not when somebody connects.
        match ParsedCertificate::try_from(&certificate) {
            Ok(_) => Ok(Self(certificate)),
            Err(error) => Err(because("it is no certificate", &error)),
        }
    }

    /// From the sixth field of a handshake line.
    ///
    /// # Errors
    /// When it is no certificate.
    pub fn from_field(field: &str) -> Result<Self, TlsError> {
        let bytes = STANDARD_NO_PAD
            .decode(field.trim_end_matches('='))
            .map_err(|error| because("it is not Base64", &error))?;
        Self::of(bytes.into())
    }

    /// From the value of `PLUGIN_CLIENT_CERT`.
    ///
    /// # Errors
    /// When it holds no certificate.
    pub fn from_pem(text: &str) -> Result<Self, TlsError> {
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|error| because("it is not PEM", &error))?;
        Self::of(certificate)
    }
}

/// A key and its certificate, made for one launch.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, TlsError> {
        let failed = |error: rcgen::Error| because("no certificate can be made", &error);
        let key = KeyPair::generate().map_err(failed)?;
        let mut wish = CertificateParams::new(vec![NAME.to_owned()]).map_err(failed)?;
        wish.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wish.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = wish.self_signed(&key).map_err(failed)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: key.serialize_der().into(),
        })
    }

    /// The value of `PLUGIN_CLIENT_CERT`.
    pub fn pem(&self) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(PEM_LINE)
            .filter_map(|line| std::str::from_utf8(line).ok())
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    }

    /// The sixth field of a handshake line.
    pub fn field(&self) -> String {
        STANDARD_NO_PAD.encode(&self.certificate)
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key().into()
    }

    /// How a host speaks to that plugin.
    ///
    /// # Errors
    /// When the provider of cryptography refuses.
    pub fn client(&self, peer: Peer) -> Result<Arc<ClientConfig>, TlsError> {
        let failed = |error: rustls::Error| because("TLS cannot be set up", &error);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(peer)))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key())
            .map_err(failed)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// How a plugin speaks to that host.
    ///
    /// # Errors
    /// When the provider of cryptography refuses.
    pub fn server(&self, peer: Peer) -> Result<Arc<ServerConfig>, TlsError> {
        let failed = |error: rustls::Error| because("TLS cannot be set up", &error);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(Arc::new(Pinned::new(peer)))
            .with_single_cert(vec![self.certificate.clone()], self.key())
            .map_err(failed)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Pinned {
    peer: Peer,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(peer: Peer) -> Self {
        Self {
            peer,
            algorithms: rustls::crypto::ring::default_provider().signature_verification_algorithms,
        }
    }

    fn is_it(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if self.peer.0 == *certificate {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.algorithms.supported_schemes();
        schemes.push(SignatureScheme::ECDSA_NISTP521_SHA512);
        schemes
    }

    fn holds_key(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = match signature.scheme {
            SignatureScheme::ECDSA_NISTP521_SHA512 => &P521,
            _ => &self.algorithms,
        };
        verify_tls13_signature(message, certificate, signature, algorithms)
    }
}

/// TLS 1.2 is not offered; this is never asked.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.is_it(certificate)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.holds_key(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.is_it(certificate)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.holds_key(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

static P521: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[&EcdsaP521Sha512],
    mapping: &[(SignatureScheme::ECDSA_NISTP521_SHA512, &[&EcdsaP521Sha512])],
};

/// The one algorithm ring lacks.
#[derive(Debug)]
struct EcdsaP521Sha512;

impl SignatureVerificationAlgorithm for EcdsaP521Sha512 {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        use p521::ecdsa::signature::Verifier as _;
        let key =
            p521::ecdsa::VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature =
            p521::ecdsa::Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature)
            .map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA512
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_survives_both_of_its_ways() {
        let identity = Identity::generate().unwrap();
        let by_field = Peer::from_field(&identity.field()).unwrap();
        assert_eq!(by_field, Peer::from_pem(&identity.pem()).unwrap());
        assert!(!identity.field().contains('='));
        assert!(identity.client(by_field.clone()).is_ok());
        assert!(identity.server(by_field).is_ok());
        for field in ["", "not base64 at all", &"A".repeat(600)] {
            assert!(Peer::from_field(field).is_err(), "{field}");
        }
        for pem in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(Peer::from_pem(pem).is_err(), "{pem}");
        }
    }

    #[test]
    fn only_the_given_certificate_is_taken() {
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let pinned = Pinned::new(Peer::from_field(&one.field()).unwrap());
        assert!(pinned.is_it(&one.certificate).is_ok());
        assert!(pinned.is_it(&other.certificate).is_err());
    }

    #[test]
    fn p521_signatures_are_checked() {
        use p521::ecdsa::signature::Signer as _;
        let mut scalar = [0; 66];
        scalar[65] = 7;
        let key = p521::ecdsa::SigningKey::from_slice(&scalar).unwrap();
        let public = p521::ecdsa::VerifyingKey::from(&key);
        let public = public.to_sec1_point(false);
        let signature: p521::ecdsa::Signature = key.sign(b"message");
        let der = signature.to_der();
        let check = |message: &[u8], signature: &[u8]| {
            EcdsaP521Sha512
                .verify_signature(public.as_bytes(), message, signature)
                .is_ok()
        };
        assert!(check(b"message", der.as_bytes()));
        assert!(!check(b"massage", der.as_bytes()));
        let mut changed = der.as_bytes().to_vec();
        *changed.last_mut().unwrap() ^= 1;
        assert!(!check(b"message", &changed));
        assert!(!check(b"message", b""));
    }
}
