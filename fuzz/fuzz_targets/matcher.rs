//! Any patterns in any text: the hits of the output filter are those of a search that tries every
//! pattern at every place, and it never calls a place decided that such a search does not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_matcher::{Matcher, PATTERN_BYTES_MIN, Pending};

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fuzz_target!(|input: (Vec<Vec<u8>>, Vec<u8>)| {
    let (patterns, text) = input;
    let mut matcher = Matcher::default();
    let mut known: Vec<Vec<u8>> = Vec::new();
    for pattern in patterns.iter().take(64) {
        let plain: Vec<u8> = pattern
            .iter()
            .copied()
            .filter(|byte| !is_break(*byte))
            .collect();
        let is_new = plain.len() >= PATTERN_BYTES_MIN && !known.contains(&plain);
        assert_eq!(matcher.insert(pattern), is_new);
        if is_new {
            known.push(plain);
        }
    }
    // The text without its line breaks, and where each of its bytes stands.
    let places: Vec<usize> = (0..text.len()).filter(|at| !is_break(text[*at])).collect();
    let plain: Vec<u8> = places.iter().map(|at| text[*at]).collect();
    let mut wanted = Vec::new();
    let (mut any, mut long) = (text.len(), text.len());
    for (index, start) in places.iter().enumerate() {
        let rest = &plain[index..];
        let longest = known
            .iter()
            .filter(|known| rest.starts_with(known))
            .map(Vec::len)
            .max();
        if let Some(length) = longest {
            wanted.push((*start, places[index + length - 1] + 1));
        }
        if known
            .iter()
            .any(|known| known.len() > rest.len() && known.starts_with(rest))
        {
            any = any.min(*start);
            if rest.len() >= Pending::LONG_BYTES {
                long = long.min(*start);
            }
        }
    }
    let mut hits = Vec::new();
    let pending = matcher.search(&text, &mut |start, end| hits.push((start, end)));
    assert_eq!(hits, wanted);
    // It may hold back more than it has to, never less.
    assert!(
        pending.any <= any && pending.long <= long,
        "{pending:?} {any} {long}"
    );
});
