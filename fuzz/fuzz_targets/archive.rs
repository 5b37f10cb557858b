//! Any bytes in place of a plugin's archive, and any tar inside a good gzip with good checksums:
//! refused, or nothing but plain files at plain places below the folder.
#![no_main]

use std::collections::BTreeSet;
use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use tidegate::package::archive::{DEPTH_MAX, ENTRIES_MAX, unpack};

const BLOCK: usize = 512;

fn check(archive: &[u8]) {
    let Ok(contents) = unpack(archive) else {
        return;
    };
    assert!(contents.len() <= ENTRIES_MAX);
    let mut folded = BTreeSet::new();
    for path in contents.keys() {
        assert!(!path.is_empty() && !path.starts_with('/'), "{path:?}");
        assert!(path.split('/').count() <= DEPTH_MAX, "{path:?}");
        assert!(
            path.bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic()),
            "{path:?}"
        );
        assert!(
            !path.contains(['\\', ':', '*', '?', '"', '<', '>', '|']),
            "{path:?}"
        );
        for part in path.split('/') {
            assert!(!matches!(part, "" | "." | ".."), "{path:?}");
            assert!(
                !part.ends_with([' ', '.']) && !part.starts_with(' '),
                "{path:?}"
            );
        }
        assert!(folded.insert(path.to_ascii_lowercase()), "{path:?} twice");
    }
    // No file is a folder of another.
    for path in &folded {
        for (at, _) in path.match_indices('/') {
            assert!(!folded.contains(&path[..at]), "{path:?}");
        }
    }
}

/// Gives every block that could be a header the form and the checksum of one.
fn repair(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..at + BLOCK) {
        if block.iter().all(|byte| *byte == 0) {
            return;
        }
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = std::str::from_utf8(&block[124..135]).unwrap_or("");
        let size = usize::from_str_radix(digits, 8).unwrap_or(0);
        at = size
            .div_ceil(BLOCK)
            .saturating_add(1)
            .saturating_mul(BLOCK)
            .saturating_add(at);
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut tar = bytes.to_vec();
    repair(&mut tar);
    tar.resize(tar.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(&tar).unwrap();
    check(&encoder.finish().unwrap());
});
