//! Sealed boxes as GitHub (libsodium's `crypto_box_seal`) opens them. Pure: key and plaintext in,
//! ciphertext out.
//!
//! Promises: a [`Sealed`] value can only be opened by the holder of the recipient's private key.
//! Deliberately absent: any way back, and any way to make a [`RecipientKey`] out of a point that
//! everybody can open boxes for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_box::PublicKey;
use crypto_box::aead::rand_core::{CryptoRng, Error as RandomError, RngCore};
use curve25519_dalek::MontgomeryPoint;

use super::Secret;
use crate::random::Random;

/// The largest plaintext GitHub takes, in bytes: 48 KiB.
pub const PLAINTEXT_BYTES_MAX: usize = 48 * 1024;

/// Length of an X25519 public key in bytes.
pub const KEY_BYTES: usize = 32;

/// A box is this much longer than its plaintext: the ephemeral public key and the authenticator.
pub const OVERHEAD_BYTES: usize = 48;

/// Every point of small order on Curve25519 and its twist, in the field elements' canonical and
/// non-canonical spellings (Bernstein's list as libsodium keeps it). The top bit of the last byte
/// is ignored by X25519, so it is cleared before comparing.
const LOW_ORDER_POINTS: [[u8; KEY_BYTES]; 7] = [
    // 0, of order 4
    [0; KEY_BYTES],
    // 1, of order 1
    spelled(1, 0, 0),
    // 325606250916557431795983626356110631294008115727848805560023387167927233504, of order 8
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    // 39382357235489614581723060781553021112529911719440698176882885853963445705823, of order 8
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    // p − 1, of order 2
    spelled(0xec, 0xff, 0x7f),
    // p, which is 0 again
    spelled(0xed, 0xff, 0x7f),
    // p + 1, which is 1 again
    spelled(0xee, 0xff, 0x7f),
];

const fn spelled(first: u8, middle: u8, last: u8) -> [u8; KEY_BYTES] {
    let mut bytes = [middle; KEY_BYTES];
    bytes[0] = first;
    bytes[KEY_BYTES - 1] = last;
    bytes
}

/// Why a public key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not standard base64 with padding.
    #[error("the public key is not standard base64")]
    NotBase64,
    /// The key decodes to another length.
    #[error("the public key is {0} bytes long, not {KEY_BYTES}")]
    Length(usize),
    /// Anyone could open what is sealed for this key.
    #[error("the public key is a point of low order: anyone could open what is sealed for it")]
    LowOrder,
    /// The key has no id.
    #[error("the public key has an empty id")]
    NoId,
}

/// Why a plaintext cannot be sealed. Callers add the secret's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Zero bytes.
    #[error("the value is empty")]
    Empty,
    /// More than [`PLAINTEXT_BYTES_MAX`].
    #[error("the value is {0} bytes long, and GitHub takes at most {PLAINTEXT_BYTES_MAX} (48 KB)")]
    TooLong(usize),
}

/// A checked X25519 public key that boxes can be sealed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientKey {
    key_id: String,
    key: PublicKey,
}

impl RecipientKey {
    /// Takes a key as GitHub sends it: an opaque id and the standard base64 of exactly 32 bytes.
    /// Points of low order are refused: the shared secret would be all zero for every sender.
    pub fn parse(key_id: &str, base64: &str) -> Result<Self, KeyError> {
        if key_id.is_empty() {
            return Err(KeyError::NoId);
        }
        let bytes = STANDARD.decode(base64).map_err(|_| KeyError::NotBase64)?;
        let bytes: [u8; KEY_BYTES] = bytes
            .try_into()
            .map_err(|bytes: Vec<u8>| KeyError::Length(bytes.len()))?;
        if is_low_order(bytes) {
            return Err(KeyError::LowOrder);
        }
        Ok(Self {
            key_id: key_id.to_owned(),
            key: PublicKey::from_bytes(bytes),
        })
    }

    /// The id to send along with what was sealed for this key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

/// Two independent tests: the published list, and the definition itself. X25519 clears the
/// cofactor, so its result is all zero exactly for the points of low order, whatever the scalar.
fn is_low_order(bytes: [u8; KEY_BYTES]) -> bool {
    let mut masked = bytes;
    masked[KEY_BYTES - 1] &= 0x7f;
    LOW_ORDER_POINTS.contains(&masked)
        || MontgomeryPoint(bytes).mul_clamped([0x5a; KEY_BYTES]).0 == [0; KEY_BYTES]
}

/// Ciphertext for one recipient: the only form of a secret that the network code accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    key_id: String,
    ciphertext_base64: String,
}

impl Sealed {
    /// The id of the key it was sealed for.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Standard base64, with padding, of ephemeral public key, authenticator and ciphertext.
    pub fn ciphertext_base64(&self) -> &str {
        &self.ciphertext_base64
    }
}

/// Says early, before any request, whether [`seal`] would refuse the value.
pub fn check(secret: &Secret) -> Result<(), SealError> {
    match secret.len_bytes() {
        0 => Err(SealError::Empty),
        length if length > PLAINTEXT_BYTES_MAX => Err(SealError::TooLong(length)),
        _ => Ok(()),
    }
}

/// Seals a secret for one recipient. Each call makes a fresh ephemeral key, so equal plaintexts
/// give different boxes. Refuses empty values and values over [`PLAINTEXT_BYTES_MAX`].
pub fn seal(
    random: &dyn Random,
    recipient: &RecipientKey,
    secret: &Secret,
) -> Result<Sealed, SealError> {
    check(secret)?;
    #[expect(
        clippy::expect_used,
        reason = "the cipher fails only for plaintexts beyond 256 GiB"
    )]
    let sealed = recipient
        .key
        .seal(&mut Generator(random), secret.expose().as_bytes())
        .expect("the plaintext is at most 48 KiB");
    Ok(Sealed {
        key_id: recipient.key_id.clone(),
        ciphertext_base64: STANDARD.encode(sealed),
    })
}

/// Our source of randomness in the shape the cryptography crates ask for.
struct Generator<'a>(&'a dyn Random);

impl RngCore for Generator<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl CryptoRng for Generator<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{SeededRandom, SystemRandom};
    use crate::secret::Masker;

    fn pair() -> (crypto_box::SecretKey, RecipientKey) {
        let private = crypto_box::SecretKey::generate(&mut Generator(&SystemRandom));
        let public = STANDARD.encode(private.public_key().as_bytes());
        (private, RecipientKey::parse("7", &public).unwrap())
    }

    fn secret(text: &str) -> Secret {
        Masker::default().admit("test", text.to_owned())
    }

    #[test]
    fn keys_of_any_other_length_are_refused() {
        for length in [0, 1, 31, 33, 64] {
            // 33 bytes is what the example in GitHub's own API description decodes to.
            assert_eq!(
                RecipientKey::parse("7", &STANDARD.encode(vec![9; length])),
                Err(KeyError::Length(length))
            );
        }
    }

    #[test]
    fn keys_that_are_not_standard_base64_are_refused() {
        let good = STANDARD.encode([0xfb; 32]);
        for bad in [
            good.trim_end_matches('=').to_owned(),
            good.replace('+', "-").replace('/', "_"),
            format!("{good}\n"),
            format!(" {good}"),
            "secret".to_owned(),
        ] {
            assert_eq!(
                RecipientKey::parse("7", &bad),
                Err(KeyError::NotBase64),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn every_low_order_point_is_refused_with_and_without_the_ignored_bit() {
        for point in LOW_ORDER_POINTS {
            for top in [0x00, 0x80] {
                let mut bytes = point;
                bytes[31] |= top;
                assert_eq!(
                    RecipientKey::parse("7", &STANDARD.encode(bytes)),
                    Err(KeyError::LowOrder),
                    "{bytes:02x?}"
                );
                // The list and the definition agree.
                assert_eq!(MontgomeryPoint(bytes).mul_clamped([0x5a; 32]).0, [0; 32]);
            }
        }
        assert_eq!(
            RecipientKey::parse("7", &STANDARD.encode([9; 32])).map(|key| key.key_id),
            Ok("7".to_owned())
        );
    }

    #[test]
    fn a_key_needs_an_id() {
        assert_eq!(
            RecipientKey::parse("", &STANDARD.encode([9; 32])),
            Err(KeyError::NoId)
        );
    }

    #[test]
    fn boxes_open_to_the_exact_bytes_up_to_the_limit() {
        let (private, recipient) = pair();
        for length in [1, 2, 15, 16, 17, 31, 32, 33, 4_095, PLAINTEXT_BYTES_MAX] {
            let text = "x".repeat(length);
            let sealed = seal(&SystemRandom, &recipient, &secret(&text)).unwrap();
            let bytes = STANDARD.decode(sealed.ciphertext_base64()).unwrap();
            assert_eq!(bytes.len(), length + OVERHEAD_BYTES);
            assert_eq!(private.unseal(&bytes).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn empty_and_oversized_values_are_refused_before_sealing() {
        let (_, recipient) = pair();
        let over = PLAINTEXT_BYTES_MAX + 1;
        for (length, error) in [(0, SealError::Empty), (over, SealError::TooLong(over))] {
            let value = secret(&"x".repeat(length));
            assert_eq!(seal(&SystemRandom, &recipient, &value), Err(error.clone()));
            assert_eq!(check(&value), Err(error));
        }
    }

    #[test]
    fn equal_values_make_different_boxes() {
        let (_, recipient) = pair();
        let random = SeededRandom::new(1);
        let value = secret("same");
        assert_ne!(
            seal(&random, &recipient, &value).unwrap(),
            seal(&random, &recipient, &value).unwrap()
        );
    }
}
