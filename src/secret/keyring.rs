//! The state key: keyed fingerprints of secrets, and authenticated encryption for what a record
//! must keep but may never show (sensitive outputs, provider-private blobs, generated secrets).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Masker, Secret};
use crate::random::{Random, encode_hex};

/// Length of a state key in bytes.
pub const KEY_BYTES: usize = 32;

const NONCE_BYTES: usize = 24;

/// A sealed value that does not open: wrong key, moved to another place, or altered.
#[derive(Debug, thiserror::Error)]
#[error(
    "a sealed value does not open: it was altered, moved from another resource, or sealed with another state key"
)]
pub struct SealedValueError;

/// Two keys derived from one 32-byte state key: one for fingerprints, one for sealing.
pub struct Keyring {
    fingerprint: Zeroizing<[u8; KEY_BYTES]>,
    seal: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring([secret])")
    }
}

fn mac(key: &[u8], domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("any key length");
    mac.update(domain.as_bytes());
    for part in parts {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl Keyring {
    /// Derives both keys from the 32-byte state key.
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self {
            fingerprint: Zeroizing::new(mac(key, "tidegate/fingerprint/1", &[])),
            seal: Zeroizing::new(mac(key, "tidegate/seal/1", &[])),
        }
    }

    /// A keyed fingerprint (HMAC-SHA256, first 16 bytes, hex): equal values give equal
    /// fingerprints, and without the key nobody can test a guess.
    pub fn fingerprint(&self, secret: &Secret) -> String {
        encode_hex(&mac(&*self.fingerprint, "value", &[secret.expose().as_bytes()])[..16])
    }

    /// [`Keyring::fingerprint`] of text that is not known to be a secret and may still be one, such
    /// as the value of a variable.
    pub fn fingerprint_text(&self, text: &str) -> String {
        encode_hex(&mac(&*self.fingerprint, "value", &[text.as_bytes()])[..16])
    }

    /// A tag (HMAC-SHA256, hex) that only the holder of the state key can make for these bytes.
    /// `purpose` keeps tags of one thing from fitting another.
    pub fn authenticate(&self, purpose: &str, bytes: &[u8]) -> String {
        encode_hex(&mac(
            &*self.fingerprint,
            "authenticate",
            &[purpose.as_bytes(), bytes],
        ))
    }

    /// Seals bytes for one place. `place` (for example `dev/orders-db/password`) is authenticated:
    /// a value moved to another place does not open. The answer is base64 of nonce and ciphertext.
    pub fn seal_bytes(&self, random: &dyn Random, place: &str, plain: &[u8]) -> String {
        STANDARD.encode(self.seal_raw(random, place, plain))
    }

    /// [`Keyring::seal_bytes`] without the base64.
    pub fn seal_raw(&self, random: &dyn Random, place: &str, plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0_u8; NONCE_BYTES];
        random.fill(&mut out);
        let cipher = XChaCha20Poly1305::new((&*self.seal).into());
        #[expect(
            clippy::expect_used,
            reason = "sealing fails only for plaintexts beyond 256 GiB"
        )]
        let sealed = cipher
            .encrypt(
                XNonce::from_slice(&out),
                Payload {
                    msg: plain,
                    aad: place.as_bytes(),
                },
            )
            .expect("plaintext is far below the cipher's limit");
        out.extend_from_slice(&sealed);
        out
    }

    /// Opens what [`Keyring::seal_bytes`] made for the same place.
    pub fn open_bytes(
        &self,
        place: &str,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, SealedValueError> {
        let bytes = STANDARD.decode(sealed).map_err(|_| SealedValueError)?;
        self.open_raw(place, &bytes)
    }

    /// Opens what [`Keyring::seal_raw`] made for the same place.
    pub fn open_raw(
        &self,
        place: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealedValueError> {
        let (nonce, ciphertext) = sealed
            .split_at_checked(NONCE_BYTES)
            .ok_or(SealedValueError)?;
        XChaCha20Poly1305::new((&*self.seal).into())
            .decrypt(
                XNonce::from_slice(nonce),
                Payload {
                    msg: ciphertext,
                    aad: place.as_bytes(),
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| SealedValueError)
    }

    /// Seals a secret for one place.
    pub fn seal(&self, random: &dyn Random, place: &str, secret: &Secret) -> String {
        self.seal_bytes(random, place, secret.expose().as_bytes())
    }

    /// Opens a sealed secret; it is known to the masker before it is returned.
    pub fn open(
        &self,
        masker: &Masker,
        place: &str,
        sealed: &str,
    ) -> Result<Secret, SealedValueError> {
        self.open_with(place, sealed, |text| masker.admit(place, text))
    }

    /// The same, of what may be sealed only because nobody knew what it was: `take` is how the masker is
    /// to know it.
    pub fn open_with(
        &self,
        place: &str,
        sealed: &str,
        take: impl FnOnce(String) -> Secret,
    ) -> Result<Secret, SealedValueError> {
        let bytes = self.open_bytes(place, sealed)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| SealedValueError)?;
        Ok(take(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    const PLACE: &str = "dev/orders-db/output/password";

    #[test]
    fn sealed_bytes_open_with_their_key_at_their_place_only() {
        let keyring = Keyring::new(&[7; KEY_BYTES]);
        let random = SeededRandom::new(1);
        for plain in [&b""[..], b"x", &[0, 255, 10], &[7; 5000]] {
            let sealed = keyring.seal_bytes(&random, PLACE, plain);
            assert_eq!(*keyring.open_bytes(PLACE, &sealed).unwrap(), plain);
            assert!(
                keyring
                    .open_bytes("dev/users-db/output/password", &sealed)
                    .is_err()
            );
            assert!(
                Keyring::new(&[8; KEY_BYTES])
                    .open_bytes(PLACE, &sealed)
                    .is_err()
            );
            let again = keyring.seal_bytes(&random, PLACE, plain);
            assert_ne!(sealed, again, "every seal has its own nonce");
        }
    }

    #[test]
    fn no_cut_and_no_flipped_bit_opens() {
        let keyring = Keyring::new(&[7; KEY_BYTES]);
        let sealed = keyring.seal_bytes(&SeededRandom::new(1), PLACE, b"hunter2");
        for length in 0..sealed.len() {
            assert!(
                keyring.open_bytes(PLACE, &sealed[..length]).is_err(),
                "cut to {length}"
            );
        }
        let bytes = STANDARD.decode(&sealed).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                keyring
                    .open_bytes(PLACE, &STANDARD.encode(flipped))
                    .is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn fingerprints_tell_values_apart_and_depend_on_the_key() {
        let masker = Masker::default();
        let secret = |text: &str| masker.admit("test", text.to_owned());
        let (one, two) = (Keyring::new(&[1; KEY_BYTES]), Keyring::new(&[2; KEY_BYTES]));
        let print = one.fingerprint(&secret("hunter2"));
        assert_eq!(print.len(), 32);
        assert_eq!(print, one.fingerprint(&secret("hunter2")));
        assert_ne!(print, one.fingerprint(&secret("hunter3")));
        assert_ne!(print, two.fingerprint(&secret("hunter2")));
    }

    #[test]
    fn a_keyring_shows_nothing_of_itself() {
        assert_eq!(
            format!("{:?}", Keyring::new(&[7; KEY_BYTES])),
            "Keyring([secret])"
        );
    }
}
