//! Files of the age format (age-encryption.org/v1), opened with X25519 identities: how a state key
//! is kept for several people and machines, each with a key of their own. Pure.
//!
//! Only as much of the format as a key needs. Files are made, and recipients added and taken away,
//! with age's own tools; passphrases, SSH keys and plugins are theirs too. The `age` crate would
//! bring a translation framework and some forty crates into the executable for this.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use curve25519_dalek::MontgomeryPoint;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The first line of every file.
const VERSION_LINE: &[u8] = b"age-encryption.org/v1\n";
const ARMOR_BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const ARMOR_END: &str = "-----END AGE ENCRYPTED FILE-----";
const IDENTITY_PREFIX: &str = "age-secret-key-";
/// What begins the last line of a header.
const MAC_MARK: &[u8] = b"---";
const PAYLOAD_NONCE_BYTES: usize = 16;
/// The first and only chunk: the counter at 0, and the mark of the last one.
const ONLY_CHUNK: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Longest chunk with its tag. A key is never longer.
const CHUNK_BYTES_MAX: usize = 64 * 1024 + 16;

/// Why a file was not opened. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// The identity is not one.
    #[error("it is no age identity: those begin with `AGE-SECRET-KEY-1`")]
    Identity,
    /// The file is not of the format.
    #[error("it is no whole age file")]
    Format,
    /// Nobody of ours is among the recipients.
    #[error("it is not encrypted for the identity that was given")]
    NotForUs,
    /// The header or the content was changed.
    #[error("it was altered: its authentication fails")]
    Altered,
}

/// Is this an age file, binary or armored?
pub fn is_age(bytes: &[u8]) -> bool {
    bytes.starts_with(VERSION_LINE) || bytes.trim_ascii_start().starts_with(ARMOR_BEGIN.as_bytes())
}

/// An X25519 identity. Has no `Debug`.
pub struct Identity {
    secret: Zeroizing<[u8; 32]>,
    recipient: [u8; 32],
}

impl Identity {
    /// Every identity in the text of an identity file: one a line, with comments after `#`.
    ///
    /// # Errors
    /// [`AgeError::Identity`] for a line that is none, and for a text without any.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, AgeError> {
        let mut identities = Vec::new();
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                identities.push(Self::parse(line)?);
            }
        }
        if identities.is_empty() {
            return Err(AgeError::Identity);
        }
        Ok(identities)
    }

    fn parse(line: &str) -> Result<Self, AgeError> {
        let secret = bech32_of(line, IDENTITY_PREFIX).ok_or(AgeError::Identity)?;
        let recipient = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        Ok(Self { secret, recipient })
    }

    /// The key of the file, if this stanza holds it for us.
    fn unwrap_key(&self, share: [u8; 32], body: &[u8]) -> Option<Zeroizing<[u8; 16]>> {
        let shared = Zeroizing::new(MontgomeryPoint(share).mul_clamped(*self.secret).to_bytes());
        if *shared == [0; 32] {
            return None;
        }
        let mut salt = [0; 64];
        salt[..32].copy_from_slice(&share);
        salt[32..].copy_from_slice(&self.recipient);
        let key = derive(&*shared, &salt, "age-encryption.org/v1/X25519");
        let opened = open_chunk(&key, [0; 12], body)?;
        let key: [u8; 16] = opened.as_slice().try_into().ok()?;
        Some(Zeroizing::new(key))
    }
}

/// Opens a file with the first identity that it is encrypted for.
///
/// # Errors
/// [`AgeError`], which says nothing of the content.
pub fn open(identities: &[Identity], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    if bytes.starts_with(VERSION_LINE) {
        return open_binary(identities, bytes);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| AgeError::Format)?;
    let body = text
        .trim()
        .strip_prefix(ARMOR_BEGIN)
        .and_then(|rest| rest.strip_suffix(ARMOR_END))
        .ok_or(AgeError::Format)?;
    let base64: String = body.split_whitespace().collect();
    let bytes = STANDARD.decode(base64).map_err(|_| AgeError::Format)?;
    open_binary(identities, &bytes)
}

fn open_binary(identities: &[Identity], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let (header, payload) = Header::read(bytes).ok_or(AgeError::Format)?;
    let key = header
        .stanzas
        .iter()
        .find_map(|(share, body)| {
            identities
                .iter()
                .find_map(|identity| identity.unwrap_key(*share, body))
        })
        .ok_or(AgeError::NotForUs)?;
    let mut mac = hmac_of(&*derive(&*key, &[], "header"));
    mac.update(header.signed);
    mac.verify_slice(&header.mac)
        .map_err(|_| AgeError::Altered)?;
    let (nonce, chunk) = payload
        .split_at_checked(PAYLOAD_NONCE_BYTES)
        .filter(|(_, chunk)| chunk.len() <= CHUNK_BYTES_MAX)
        .ok_or(AgeError::Format)?;
    let key = derive(&*key, nonce, "payload");
    open_chunk(&key, ONLY_CHUNK, chunk).ok_or(AgeError::Altered)
}

struct Header<'b> {
    /// Shares and bodies of the X25519 stanzas; others are for others.
    stanzas: Vec<([u8; 32], Vec<u8>)>,
    /// What the authenticator covers.
    signed: &'b [u8],
    mac: Vec<u8>,
}

impl<'b> Header<'b> {
    /// The header and what follows it.
    fn read(bytes: &'b [u8]) -> Option<(Self, &'b [u8])> {
        let mut rest = bytes.strip_prefix(VERSION_LINE)?;
        let mut stanzas = Vec::new();
        loop {
            let line = take_line(&mut rest)?;
            if let Some(mac) = line.strip_prefix(MAC_MARK) {
                let mac = STANDARD_NO_PAD.decode(mac.strip_prefix(b" ")?).ok()?;
                let end = bytes.len() - rest.len() - 1 - line.len() + MAC_MARK.len();
                let signed = &bytes[..end];
                return Some((
                    Self {
                        stanzas,
                        signed,
                        mac,
                    },
                    rest,
                ));
            }
            let arguments = std::str::from_utf8(line.strip_prefix(b"-> ")?).ok()?;
            let mut base64 = Vec::new();
            loop {
                let line = take_line(&mut rest)?;
                base64.extend_from_slice(line);
                // A full line is never the last one.
                match line.len() {
                    0..64 => break,
                    64 => {}
                    _ => return None,
                }
            }
            let body = STANDARD_NO_PAD.decode(base64).ok()?;
            let mut arguments = arguments.split(' ');
            if arguments.next() == Some("X25519") {
                let share = STANDARD_NO_PAD.decode(arguments.next()?).ok()?;
                stanzas.push((share.try_into().ok()?, body));
            }
        }
    }
}

fn take_line<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = rest.split_at(end);
    *rest = &after[1..];
    Some(line)
}

fn open_chunk(key: &[u8; 32], nonce: [u8; 12], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    ChaCha20Poly1305::new(key.into())
        .decrypt(Nonce::from_slice(&nonce), sealed)
        .ok()
        .map(Zeroizing::new)
}

fn hmac_of(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("any key length")
}

/// HKDF-SHA-256 (RFC 5869) for one block of output.
fn derive(secret: &[u8], salt: &[u8], purpose: &str) -> Zeroizing<[u8; 32]> {
    let mut extract = hmac_of(salt);
    extract.update(secret);
    let extracted = Zeroizing::new(<[u8; 32]>::from(extract.finalize().into_bytes()));
    let mut expand = hmac_of(&*extracted);
    expand.update(purpose.as_bytes());
    expand.update(&[1]);
    Zeroizing::new(expand.finalize().into_bytes().into())
}

/// The 32 bytes in Bech32 (BIP 173, without its limit of length) behind this prefix.
fn bech32_of(text: &str, prefix: &str) -> Option<Zeroizing<[u8; 32]>> {
    const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const CHECKSUM: usize = 6;
    /// 32 bytes in groups of five bits.
    const GROUPS: usize = 52;
    // One case or the other, never both.
    let upper = text.to_ascii_uppercase() == text;
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    if !upper && *lower != text {
        return None;
    }
    let data = lower.strip_prefix(prefix)?.strip_prefix('1')?;
    let mut values = Zeroizing::new(Vec::with_capacity(GROUPS + CHECKSUM));
    for byte in data.bytes() {
        let value = ALPHABET.iter().position(|one| *one == byte)?;
        values.push(u8::try_from(value).ok()?);
    }
    if values.len() != GROUPS + CHECKSUM {
        return None;
    }
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    let all = high.chain([0]).chain(low).chain(values.iter().copied());
    if polymod(all) != 1 {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    let (mut bits, mut count, mut filled) = (0_u32, 0, 0);
    for value in &values[..GROUPS] {
        bits = bits << 5 | u32::from(*value);
        count += 5;
        if count >= 8 {
            count -= 8;
            *bytes.get_mut(filled)? = u8::try_from(bits >> count & 0xff).ok()?;
            filled += 1;
        }
    }
    // The bits that are left over say nothing, and must.
    (bits & ((1 << count) - 1) == 0).then_some(bytes)
}

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATORS: [u32; 5] = [
        0x3b6a_57b2,
        0x2650_8e6d,
        0x1ea1_19fa,
        0x3d42_33dd,
        0x2a14_62b3,
    ];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATORS
            .iter()
            .enumerate()
            .filter(|(bit, _)| top >> bit & 1 == 1)
            .fold(sum, |sum, (_, generator)| sum ^ generator)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by rage's library, for two recipients: these.
    const IDENTITIES: [&str; 2] = [
        "AGE-SECRET-KEY-1TREHAXFDGEQWEALWY8P2W3CZ424FHLUN6ZPYQC0SL3VKLDC8NDZS7MMU87",
        "AGE-SECRET-KEY-17PJAA04DX2DHJ6Z6R4FJ5WGA6MJLU6E0J7HA43330M6UHNYZ454SDSKZ4P",
    ];
    const STRANGER: &str =
        "AGE-SECRET-KEY-10JVJKGJEQQWWU963JTKS5Y0TUAK6M9WYZ2ASGFKXE04U9Q2S3W7SJTGDNA";
    const FILE: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBqNkJuSndkYzdXRExkS0x4c05CSjlGb1VQb2VwWXpBRmdCc3JteGJibkVrClZSZ2RndHhhYUh1b0QwZWwvdTJaYk1DMWdWcHFaTFczVU92aUpDa1E3S00KLT4gWDI1NTE5IFpOdUxWMlA1UWs0cTB1c21JTTMydVAzTjFDa25lYzBjL1FKWGdPWWFBanMKak1MYzBKS0czT2EwVW9oTkxIUHRhWHZ5dkkxRkEzK0I0azNSVzdoalQyNAotPiBwPkQmLWdyZWFzZQppY2JrMkEKLS0tIGkzQW9kN1ZOVDc0cjI5dXM5eWc1dWNNczlWdW5sRTVNUTRmczdVWGI2eU0Kvj2fwIpJoo1VQCb7n5D+A5tPeONz4FuUynh5reNus0pZlT2Cn2WwUjgRVQkO10fRemrjfRgczPoHAyQebEDYcWTfrVpCKjRKJSmWLA0trmNXlIylHNzOmwbmtexn9i043g==";
    const ARMORED: &str = "-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBrMjFHbDErNXZFS2dnMm5F
QlY0eTgwc0J6VzFFcmUrM0JxMEZ3a2F3dXc0ClBFZlhlV0ttaTRlaG9DUjJxd1pI
RVFmTTdhSngxcDNPNEd5KzlzcTNhVEUKLT4gWDI1NTE5IFZhNkp6c3ozcUZlSlNp
UmFTdmhsekJYY1NlMXJpRjNhWHRXM2ZMS2ErWHcKMmZTTGlKczhaN3RIYUhUYXhO
bFNMSEs4WnNpVldCOU56TWNDVXl0c2hNWQotPiBgLWdyZWFzZSAmRwp0TVNjN3gr
SFRBZHlnVDlsbzFWaGVRSUQ1T3hGbUIvUXZSZWJkU05XQTJEbUhXQmExbUZ6MmlV
VURMZmJMQVhRCm10ckZpSGovcmVxakI1VQotLS0gazJOUUtrT2xiTGRzMzF1ZXo0
MTVaVG1uQ3dQTlJKMEpiS0xIU3pEZmRyWQpedG1W84t1nQ3SwAgsRKdrbEHFEVaz
o/QqCnzoB9sR0btaYewYVr6Rdwckbvkngtrp09jLV+hTlVUVZxJOHNUG8HKgeLmW
xlewtSVBI1ym62tV/ex7to4DOdudLArMTSn/
-----END AGE ENCRYPTED FILE-----
";

    fn identities(text: &str) -> Vec<Identity> {
        Identity::parse_all(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn file() -> Vec<u8> {
        STANDARD.decode(FILE).unwrap()
    }

    #[test]
    fn a_file_opens_for_each_of_its_recipients_and_nobody_else() {
        let key = format!("{}\n", "5a".repeat(32));
        for bytes in [file(), ARMORED.as_bytes().to_vec()] {
            assert!(is_age(&bytes));
            for identity in IDENTITIES {
                let opened = open(&identities(identity), &bytes).unwrap();
                assert_eq!(*opened, key.as_bytes());
            }
            let both = format!("# created: today\n\n{STRANGER}\n{}\n", IDENTITIES[1]);
            assert!(open(&identities(&both), &bytes).is_ok());
            let refused = open(&identities(STRANGER), &bytes).unwrap_err();
            assert_eq!(refused, AgeError::NotForUs);
        }
    }

    #[test]
    fn no_cut_and_no_flipped_bit_opens() {
        let ours = identities(IDENTITIES[0]);
        let whole = file();
        for length in 0..whole.len() {
            assert!(open(&ours, &whole[..length]).is_err(), "cut to {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&ours, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        let one = IDENTITIES[0];
        let mixed = one.replace("TREHAX", "trehax");
        let flipped = one.replace("TREHAX", "TREHAZ");
        let other = "AGE1GH4MZPDRNXF0SUN4HATQRZJGK397WLWCEM8VRN72RZ4NG280WAMSXE6KU9";
        for bad in ["", "# nothing", "x", &mixed, &flipped, &one[..70], other] {
            let parsed = Identity::parse_all(bad);
            assert!(matches!(parsed, Err(AgeError::Identity)), "{bad}");
        }
        assert!(Identity::parse_all(&one.to_lowercase()).is_ok());
    }
}
