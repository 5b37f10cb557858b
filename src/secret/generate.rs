//! Fresh secrets. Pure but for the randomness it is handed; the value is known to the masker
//! before anyone can hold it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Masker, Secret};
use crate::random::{Random, encode_hex};

const ALPHANUMERIC: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// `length` random bytes as lower-case hex: 2×`length` characters.
pub fn random_hex(random: &dyn Random, masker: &Masker, label: &str, length: usize) -> Secret {
    masker.admit(label, encode_hex(&bytes(random, length)))
}

/// `length` random bytes as standard base64 with padding.
pub fn random_base64(random: &dyn Random, masker: &Masker, label: &str, length: usize) -> Secret {
    masker.admit(label, STANDARD.encode(&*bytes(random, length)))
}

/// `length` characters from `[A-Za-z0-9]`, each equally likely.
pub fn random_alphanumeric(
    random: &dyn Random,
    masker: &Masker,
    label: &str,
    length: usize,
) -> Secret {
    // 248 is the greatest multiple of 62 that a byte can hold: taking bytes modulo 62 above it
    // would favour the first eight letters.
    const FAIR: u8 = 248;
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let missing = length - text.len();
        text.extend(
            bytes(random, missing + missing / 16 + 8)
                .iter()
                .filter(|byte| **byte < FAIR)
                .take(missing)
                .map(|byte| char::from(ALPHANUMERIC[usize::from(byte % 62)])),
        );
    }
    masker.admit(label, text)
}

fn bytes(random: &dyn Random, length: usize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    random.fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn each_form_has_its_length_and_alphabet() {
        let random = SeededRandom::new(1);
        let masker = Masker::default();
        for length in [1, 2, 3, 16, 32, 33, 1_000] {
            let hex = random_hex(&random, &masker, "a", length);
            assert_eq!(hex.len_bytes(), 2 * length);
            assert!(
                hex.expose()
                    .bytes()
                    .all(|b| b"0123456789abcdef".contains(&b))
            );

            let base64 = random_base64(&random, &masker, "b", length);
            assert_eq!(STANDARD.decode(base64.expose()).unwrap().len(), length);

            let letters = random_alphanumeric(&random, &masker, "c", length);
            assert_eq!(letters.len_bytes(), length);
            assert!(letters.expose().bytes().all(|b| b.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn no_two_values_are_equal() {
        let random = SeededRandom::new(2);
        let masker = Masker::default();
        let values: std::collections::BTreeSet<String> = (0..100)
            .map(|_| random_hex(&random, &masker, "a", 16).expose().to_owned())
            .collect();
        assert_eq!(values.len(), 100);
    }

    /// Chi-squared over 62 cells: 61 degrees of freedom, 0.999999 quantile about 129.
    #[test]
    fn every_character_is_equally_likely() {
        let random = SeededRandom::new(3);
        let count = 620_000_usize;
        let value = random_alphanumeric(&random, &Masker::default(), "a", count);
        let mut cells = [0_u32; 128];
        for byte in value.expose().bytes() {
            cells[usize::from(byte)] += 1;
        }
        let expected = 10_000.0;
        let chi: f64 = ALPHANUMERIC
            .iter()
            .map(|letter| (f64::from(cells[usize::from(*letter)]) - expected).powi(2) / expected)
            .sum();
        assert!(chi < 129.0, "chi squared is {chi}");
    }

    /// A source that answers one byte for ever until it is told otherwise.
    #[derive(Debug)]
    struct Rising(std::sync::Mutex<u8>);

    impl Random for Rising {
        fn fill(&self, bytes: &mut [u8]) {
            let mut next = self.0.lock().unwrap();
            for byte in bytes {
                *byte = *next;
                *next = next.wrapping_add(1);
            }
        }
    }

    #[test]
    fn bytes_that_would_favour_some_letters_are_thrown_away() {
        let random = Rising(std::sync::Mutex::new(246));
        let value = random_alphanumeric(&random, &Masker::default(), "a", 4);
        // 246 and 247 are the last fair bytes; 248 to 255 are skipped; then 0 and 1.
        assert_eq!(value.expose(), "89AB");
    }
}
