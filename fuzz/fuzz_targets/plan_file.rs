//! Any bytes in place of a plan file: refused, or a plan that nobody signed. What it says survives
//! being written and read, and no member of what was written can change unnoticed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::plan::file::{FileError, Unverified};
use tidegate::secret::{Keyring, Masker};

fuzz_target!(|input: (&[u8], usize, u8)| {
    let (bytes, place, flip) = input;
    let keyring = Keyring::new(&[7; 32]);
    let Ok(found) = Unverified::decode(bytes) else {
        return;
    };
    let claims = found.claims().clone();
    assert!(matches!(found.verify(&keyring), Err(FileError::Altered)));
    let masker = Masker::default();
    let written = claims.encode(&keyring, &masker).unwrap();
    // Sensitive fields are dropped by a second writing only if the first said that they are.
    let again = Unverified::decode(&written)
        .unwrap()
        .verify(&keyring)
        .unwrap();
    assert_eq!(again.encode(&keyring, &masker).unwrap(), written);
    if flip != 0 {
        let mut damaged = written.clone();
        let place = place % damaged.len();
        damaged[place] ^= flip;
        if let Ok(other) = Unverified::decode(&damaged)
            && let Ok(plan) = other.verify(&keyring)
        {
            assert_eq!(plan, again, "byte {place} changed");
        }
    }
});
