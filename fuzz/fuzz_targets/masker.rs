//! Any secrets, any text, any cuts: streaming equals masking at once, and no raw secret survives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::secret::Masker;

fuzz_target!(|input: (Vec<String>, String, Vec<u16>)| {
    let (secrets, text, cuts) = input;
    let masker = Masker::default();
    for secret in secrets.iter().take(8) {
        masker.admit("s", secret.clone());
    }
    let whole = masker.mask(&text);
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| usize::from(*cut) % (text.len() + 1))
        .collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    let mut filter = masker.filter();
    let mut out = Vec::new();
    for pair in places.windows(2) {
        filter.push(&text.as_bytes()[pair[0]..pair[1]], &mut out);
    }
    filter.finish(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), whole);
    // With a `*` of its own, a secret could stand in what is left of the others.
    for secret in secrets.iter().take(8) {
        if masker.is_sensitive(secret) && !secret.contains(['*', '\n', '\r']) {
            assert!(
                !whole.contains(secret.as_str()),
                "{secret:?} is in {whole:?}"
            );
        }
    }
});
