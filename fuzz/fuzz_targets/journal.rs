//! Any bytes in place of a journal, with bad checksums and with good ones: read as far as they are
//! whole, or refused. What was written comes back; cut anywhere it is a shorter journal, and no byte
//! of it can change unnoticed.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use tidegate::resource::{ActionKind, Address, Kind};
use tidegate::state::journal::{Before, Entry, open_intents, parse, write_line};

#[derive(Arbitrary, Debug)]
enum Said {
    Begin(String, u64, String),
    Intent([String; 6], Vec<String>, bool, u8),
    Outcome(String, String),
    End(String),
}

impl From<Said> for Entry {
    fn from(said: Said) -> Self {
        match said {
            Said::Begin(run_id, fence, at) => Self::Begin { run_id, fence, at },
            Said::Intent(
                [operation, address, kind, provider, config_hash, at],
                ids,
                is_unsure,
                action,
            ) => Self::Intent {
                operation,
                address: Address::new(address),
                kind: Kind::new(kind),
                provider,
                action: [
                    ActionKind::Create,
                    ActionKind::Update,
                    ActionKind::Replace,
                    ActionKind::Delete,
                ][usize::from(action) % 4],
                config_hash,
                at,
                before: Before {
                    ids: ids.into_iter().filter(|id| !id.is_empty()).collect(),
                    is_unsure,
                },
            },
            Said::Outcome(operation, outcome) => Self::Outcome { operation, outcome },
            Said::End(run_id) => Self::End { run_id },
        }
    }
}

fn check(bytes: &[u8]) {
    if let Ok(journal) = parse(bytes) {
        assert_eq!(journal.good_bytes + journal.torn_bytes, bytes.len());
        let again = parse(&bytes[..journal.good_bytes]).unwrap();
        assert_eq!(again.entries, journal.entries);
        assert_eq!((again.serial, again.torn_bytes), (journal.serial, 0));
        assert!(open_intents(&journal.entries).len() <= journal.entries.len());
    }
}

/// A line with that body, and a checksum that fits.
fn framed(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    let hex: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{{\"n\":{},\"c\":\"{hex}\",{body}\n", body.len())
}

fuzz_target!(|input: (Vec<Said>, &str, usize, u8, &[u8])| {
    let (said, body, place, flip, raw) = input;
    check(raw);
    check(framed(body).as_bytes());
    check(framed(&format!("\"f\":1,\"e\":{body}}}")).as_bytes());
    let entries: Vec<Entry> = said.into_iter().map(Entry::from).collect();
    let mut text = String::new();
    for (fence, entry) in (1..).zip(&entries) {
        write_line(&mut text, fence, entry).unwrap();
    }
    assert_eq!(parse(text.as_bytes()).unwrap().entries, entries);
    if text.is_empty() {
        return;
    }
    let place = place % text.len();
    let cut = parse(&text.as_bytes()[..place]).unwrap();
    assert_eq!(cut.entries, entries[..cut.entries.len()]);
    let whole = text.as_bytes()[..place]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count();
    assert_eq!(cut.entries.len(), whole);
    if flip != 0 {
        let mut damaged = text.into_bytes();
        damaged[place] ^= flip;
        // A last line end that is zero was, for all anybody can tell, never there.
        let is_torn = place + 1 == damaged.len() && damaged[place] == 0;
        assert!(is_torn || parse(&damaged).is_err(), "{place} {flip}");
    }
});
