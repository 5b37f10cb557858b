//! Archives written byte by byte, so that a test can write any of them.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// A header under construction.
#[derive(Clone)]
pub(super) struct Header(pub(super) [u8; 512]);

impl Header {
    /// A plain ustar header.
    pub(super) fn new(name: &[u8], kind: u8, size: usize, mode: u32) -> Self {
        let mut header = Self([0; 512]);
        header.put(0, &name[..name.len().min(100)]);
        header.put(100, format!("{mode:07o}\0").as_bytes());
        header.put(108, b"0000000\0");
        header.put(116, b"0000000\0");
        header.put(124, format!("{size:011o}\0").as_bytes());
        header.put(136, b"00000000000\0");
        header.put(156, &[kind]);
        header.put(257, b"ustar\x0000");
        header.put(265, b"root\0");
        header.put(297, b"root\0");
        header.put(329, b"0000000\0");
        header.put(337, b"0000000\0");
        header.sum()
    }

    /// Overwrites bytes; the checksum has to be made anew.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// With its checksum made anew.
    pub(super) fn sum(mut self) -> Self {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self
    }

    /// With these bytes changed.
    pub(super) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self.sum()
    }
}

/// A tar being written.
#[derive(Clone, Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    pub(super) fn file(self, name: &str, bytes: &[u8], mode: u32) -> Self {
        self.raw(
            &Header::new(name.as_bytes(), b'0', bytes.len(), mode),
            bytes,
        )
    }

    pub(super) fn folder(self, name: &str) -> Self {
        self.raw(&Header::new(name.as_bytes(), b'5', 0, 0o755), b"")
    }

    pub(super) fn raw(mut self, header: &Header, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&header.0);
        self.0.extend_from_slice(bytes);
        let padding = bytes.len().div_ceil(512) * 512 - bytes.len();
        self.0.extend(std::iter::repeat_n(0, padding));
        self
    }

    /// With the end mark.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend(std::iter::repeat_n(0, 1024));
        self.0
    }

    /// With the end mark, compressed.
    pub(super) fn gzip(self) -> Vec<u8> {
        gzip(&self.end())
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// `plugin.json` of a plugin.
pub(super) fn descriptor(name: &str, version: &str) -> Vec<u8> {
    format!(
        r#"{{"name":"workflow-plugin-{name}","version":"{}","author":"Acme","description":"A test plugin","minEngineVersion":"0.60.0","capabilities":{{"iacProvider":{{"name":"{name}","computePlanVersion":"v2"}}}}}}"#,
        version.trim_start_matches('v')
    )
    .into_bytes()
}

/// A plugin as its author would publish it: one leading folder, the long name, a readme.
pub(super) fn plugin(name: &str, version: &str, binary: &[u8]) -> Vec<u8> {
    let top = format!("workflow-plugin-{name}-{version}");
    Tar::default()
        .folder(&format!("{top}/"))
        .file(&format!("{top}/README.md"), b"read me\n", 0o644)
        .file(
            &format!("{top}/plugin.json"),
            &descriptor(name, version),
            0o644,
        )
        .file(&format!("{top}/workflow-plugin-{name}"), binary, 0o755)
        .gzip()
}
