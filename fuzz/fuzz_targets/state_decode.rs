//! Any bytes in place of a record, a document, a journal, a key file or another tool's files: read
//! whole or refused, and what is read comes back the same. Once as they are, once closed with the
//! checksum they should have, as a CBOR record and as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use tidegate::state::{Record, Snapshot, journal, tfstate, upstream};

/// A stored record around any content.
fn wrapped(content: &[u8]) -> Vec<u8> {
    let mut bytes = b"\xd9\xd9\xf7\x85\x68tidegate\x02\x01".to_vec();
    bytes.extend_from_slice(content);
    let checksum = Sha256::digest(&bytes);
    bytes.push(0x50);
    bytes.extend_from_slice(&checksum[..16]);
    bytes
}

/// A JSON document, closed.
fn closed(content: &[u8]) -> Vec<u8> {
    let checksum: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let end = format!(",\n  \"tidegate_checksum\": \"{checksum}\"\n}}\n");
    [content, end.as_bytes()].concat()
}

fn check(bytes: &[u8]) {
    if let Ok(record) = Record::decode(bytes, "it") {
        // What was read can be written again, in both forms, and is the same then.
        let again = record.encode().unwrap();
        assert_eq!(Record::decode(&again, "it").unwrap(), record);
        let document = record.document().unwrap();
        assert_eq!(Record::decode(&document, "it").unwrap(), record);
        for (at, flip) in [(again.len() / 2, 1), (again.len() - 1, 0x80), (0, 4)] {
            let mut damaged = again.clone();
            damaged[at] ^= flip;
            assert!(Record::decode(&damaged, "it").is_err());
        }
    }
    if let Ok(snapshot) = Snapshot::decode(bytes, "it") {
        let again = snapshot.encode().unwrap();
        assert_eq!(Snapshot::decode(&again, "it").unwrap(), snapshot);
    }
    drop(tidegate::secret::age::open(&[], bytes));
    if let Ok(journal) = journal::parse(bytes) {
        assert_eq!(journal.good_bytes + journal.torn_bytes, bytes.len());
    }
    if let Ok(imported) = tfstate::import(bytes, "it", "now") {
        let records: Vec<Record> = imported.records.into_iter().map(|one| one.record).collect();
        drop(upstream::write(&records));
    }
    drop(upstream::read(
        &[("x.json".to_owned(), bytes.to_vec())].into(),
    ));
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&wrapped(bytes));
    check(&closed(bytes));
});
