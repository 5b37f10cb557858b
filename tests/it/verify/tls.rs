//! Certificates, and TLS that is torn.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidegate::http::Http;

use super::server::Act::{Close, Pause, Reset, Sever};
use super::server::{CHUNKED, HANG, Server, Tls, chunk, head_of, ok, send};
use super::{RIGHT, ms, once, run, run_with, target};

/// A certificate authority of the test's own, and servers it vouches for.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    fn vouch(&self, change: impl FnOnce(&mut CertificateParams)) -> Tls {
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        server_config(certificate.der().clone(), &key)
    }
}

fn server_config(certificate: CertificateDer<'static>, key: &KeyPair) -> Tls {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    Some(Arc::new(config))
}

fn secure(server: &Server) -> String {
    format!("https://{}/healthz", server.address)
}

#[test]
fn certificates_are_checked_unless_told_otherwise() {
    let authority = Authority::new("Right");
    let stranger = Authority::new("Stranger");
    // Bears the right authority's name, without its key.
    let impostor = Authority::new("Right");
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        server_config(parameters.self_signed(&key).unwrap().der().clone(), &key)
    };
    let other_name = authority.vouch(|parameters| {
        *parameters = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
    });
    let expired = authority.vouch(|parameters| {
        parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let future = authority.vouch(|parameters| {
        parameters.not_before = rcgen::date_time_ymd(4000, 1, 1);
    });
    let client_only = authority.vouch(|parameters| {
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let authority_itself = {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        server_config(parameters.self_signed(&key).unwrap().der().clone(), &key)
    };
    for (name, tls, sentence) in [
        (
            "an authority",
            authority_itself,
            Some("marked as an authority"),
        ),
        ("good", authority.vouch(|_| ()), None),
        (
            "self-signed",
            self_signed,
            Some("self-signed or signed by an authority"),
        ),
        (
            "stranger",
            stranger.vouch(|_| ()),
            Some("self-signed or signed by an authority"),
        ),
        (
            "impostor",
            impostor.vouch(|_| ()),
            Some("signature does not fit"),
        ),
        ("other name", other_name, Some("for another host name")),
        ("expired", expired, Some("has expired")),
        ("not yet valid", future, Some("not valid yet")),
        (
            "not for servers",
            client_only,
            Some("not meant for servers"),
        ),
    ] {
        let server = Server::start_with(vec![ok(RIGHT)], tls);
        let http = || Http::trusting_only(authority.pem.as_bytes()).unwrap();
        let checked = run_with(http(), &once(target(&secure(&server))));
        match sentence {
            None => assert!(checked.is_open(), "{name}: {checked:?}"),
            Some(sentence) => {
                assert!(!checked.is_open(), "{name}");
                let last = checked.targets[0].last.as_ref().unwrap();
                assert_eq!(last.cause, "certificate", "{name}: {last:?}");
                assert!(last.message.contains(sentence), "{name}: {last:?}");
            }
        }
        let mut unchecked = target(&secure(&server));
        unchecked.tls_verify = false;
        let report = run_with(http(), &once(unchecked));
        assert!(report.is_open(), "{name}, unchecked: {report:?}");
    }
}

#[test]
fn torn_tls_never_opens_the_gate() {
    let authority = Authority::new("Right");
    let whole = head_of(RIGHT.len()) + RIGHT;
    let unbounded = format!("HTTP/1.1 200 OK\r\n\r\n{RIGHT}");
    for (name, cause, script) in [
        // Without a length only TLS's goodbye proves that the body ended.
        (
            "no goodbye, no length",
            "cut-off",
            vec![send(&unbounded), Sever],
        ),
        (
            "no goodbye, short",
            "cut-off",
            vec![send(&(head_of(99) + RIGHT)), Sever],
        ),
        (
            "goodbye, short",
            "cut-off",
            vec![send(&(head_of(99) + RIGHT)), Close],
        ),
        (
            "no goodbye, chunks",
            "cut-off",
            vec![send(&format!("{CHUNKED}{}", chunk(RIGHT))), Sever],
        ),
        (
            "reset in the body",
            "cut-off",
            vec![send(&(head_of(99) + RIGHT)), Pause(ms(20)), Reset],
        ),
        ("nothing", "closed", vec![Close]),
        ("hang", "no-answer", vec![HANG]),
        (
            "not HTTP",
            "not-http",
            vec![send("220 mail.test ESMTP\r\n"), Close],
        ),
    ] {
        let server = Server::start_with(vec![script], authority.vouch(|_| ()));
        let http = Http::trusting_only(authority.pem.as_bytes()).unwrap();
        let report = run_with(http, &once(target(&secure(&server))));
        let last = report.targets[0].last.as_ref();
        assert!(!report.is_open(), "{name}");
        assert_eq!(
            last.map(|last| last.cause),
            Some(cause),
            "{name}: {report:?}"
        );
    }
    // A whole answer needs no goodbye; one without a length is whole with it.
    for script in [vec![send(&whole), Sever], vec![send(&unbounded), Close]] {
        let server = Server::start_with(vec![script], authority.vouch(|_| ()));
        let http = Http::trusting_only(authority.pem.as_bytes()).unwrap();
        let report = run_with(http, &once(target(&secure(&server))));
        assert!(report.is_open(), "{report:?}");
    }
}

#[test]
fn plain_http_where_tls_was_expected_is_said_in_plain_words() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        // Read until the client leaves: closing with unread bytes would reset what was sent.
        let mut sink = Vec::new();
        drop(stream.read_to_end(&mut sink));
    });
    let report = run(&once(target(&format!("https://{address}/"))));
    server.join().unwrap();
    let last = report.targets[0].last.as_ref().unwrap();
    assert_eq!(last.cause, "tls", "{last:?}");
    assert!(last.message.contains("does not speak TLS"), "{last:?}");
}

/// The platform's verifier reads `SSL_CERT_FILE` from the process environment, so this test runs
/// itself again with it.
#[test]
fn ssl_cert_file_is_honoured() {
    const URL: &str = "TIDEGATE_TEST_URL";
    if let Ok(url) = std::env::var(URL) {
        let report = run(&once(target(&url)));
        assert!(report.is_open(), "{report:?}");
        return;
    }
    let authority = Authority::new("Right");
    let server = Server::start_with(vec![ok(RIGHT)], authority.vouch(|_| ()));
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca.pem");
    std::fs::write(&bundle, &authority.pem).unwrap();
    let empty = folder.path().join("none.pem");
    std::fs::write(&empty, Authority::new("Other").pem).unwrap();
    for (file, is_open) in [(&bundle, true), (&empty, false)] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "verify::tls::ssl_cert_file_is_honoured",
                "--nocapture",
            ])
            .env(URL, secure(&server))
            .env("SSL_CERT_FILE", file)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        assert_eq!(output.status.success(), is_open, "{output:?}");
    }
}
