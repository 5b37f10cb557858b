//! Any first line of a plugin: an address on this machine, or a short reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::provider::plugin::handshake::{Endpoint, Proof, parse};

fuzz_target!(|input: (bool, &[u8])| {
    let (is_tls_offered, line) = input;
    match parse(line, is_tls_offered) {
        Ok(greeting) => {
            assert!(is_tls_offered || !matches!(greeting.proof, Proof::Certificate(_)));
            match greeting.endpoint {
                Endpoint::Unix(path) => assert!(path.is_absolute() && path.as_os_str().len() < 108),
                Endpoint::Tcp(address) => assert!(address.ip().is_loopback()),
            }
        }
        Err(error) => assert!(error.to_string().chars().count() < 300, "{error}"),
    }
});
