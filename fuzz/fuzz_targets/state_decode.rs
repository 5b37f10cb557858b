//! Any bytes in place of a record, a document, a journal, a key file or another tool's files: read
//! whole or refused, and what is read comes back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::state::{Record, Snapshot, journal, tfstate, upstream};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::decode(bytes, "it")
        && let Ok(again) = record.encode()
    {
        assert_eq!(Record::decode(&again, "it").unwrap(), record);
    }
    if let Ok(snapshot) = Snapshot::decode(bytes, "it") {
        let again = snapshot.encode().unwrap();
        assert_eq!(Snapshot::decode(&again, "it").unwrap(), snapshot);
    }
    drop(tidegate::secret::age::open(&[], bytes));
    if let Ok(journal) = journal::parse(bytes) {
        assert_eq!(journal.good_bytes + journal.torn_bytes, bytes.len());
    }
    if let Ok(records) = tfstate::import(bytes, "it", "now") {
        drop(upstream::write(&records));
    }
    drop(upstream::read(&[("x.json".to_owned(), bytes.to_vec())].into()));
});
