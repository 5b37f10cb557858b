//! Archives nobody should install: generated, refused one and all, and held against the listing
//! that Python's `tarfile` makes of them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use tidegate::package::archive::{self, ArchiveError};

use super::server::digest;
use super::tarball::{Header, Tar, descriptor, gzip, noise};
use crate::harness::{lab_tool, skip_without};

/// A good start, to which each case adds what is wrong.
fn good() -> Tar {
    Tar::default()
        .file("plugin.json", &descriptor("demo", "1.0.0"), 0o644)
        .file("demo", b"#!/bin/sh\n", 0o755)
}

struct Case {
    name: String,
    bytes: Vec<u8>,
}

/// Every hostile case.
fn hostile() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>| cases.push(Case { name, bytes });

    // Names that lead elsewhere, as a file, a folder, and below a good folder.
    let names: &[&[u8]] = &[
        b"/etc/passwd",
        b"//etc/passwd",
        b"../evil",
        b"../../evil",
        b"a/../../evil",
        b"a/..",
        b"..",
        b"a/../b",
        b"./../evil",
        b"a//b",
        b"a/./b",
        b"C:\\evil",
        b"C:evil",
        b"c:/evil",
        b"..\\evil",
        b"a\\..\\..\\evil",
        b"\\\\host\\share",
        b"a\nb",
        b"a\rb",
        b"a\tb",
        b"a\x1b[2Jb",
        b"a\x7fb",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"\xff\xfe",
        b"a\xe2\x80\xaeb",
        b"\xef\xbc\x8e\xef\xbc\x8e/x",
        b"nul",
        b"NUL.txt",
        b"con",
        b"a/prn",
        b"aux.c",
        b"com1",
        b"LPT9.log",
        b"a.",
        b"a ",
        b" a",
        b"a /b",
        b"a./b",
        b"a:stream",
        b"a?",
        b"a*",
        b"a|b",
        b"a<b",
        b"a>b",
        b"a\"b",
        b"demo/x",
        b"DEMO",
        b"Demo",
        b"PLUGIN.JSON",
        b"Plugin.json",
        b"demo",
        b"plugin.json",
        b"./demo",
        b"././plugin.json",
        b"plugin.json/x",
        b"dEmO/sub/x",
        b"-/../x",
        b"a/b/c/../../../../x",
        b"...//x",
        b"a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r",
    ];
    for name in names {
        let shown = String::from_utf8_lossy(name).escape_debug().to_string();
        let file = Header::new(name, b'0', 4, 0o644);
        add(format!("file {shown}"), good().raw(&file, b"evil").gzip());
        if !name.ends_with(b"/") && name.len() < 99 {
            let mut below = b"ok/".to_vec();
            below.extend_from_slice(name);
            // `ok/demo` and its like are honest names; only what stays wrong below a folder counts.
            if archive::unpack(
                &good()
                    .file(&String::from_utf8_lossy(&below), b"x", 0o644)
                    .gzip(),
            )
            .is_err()
            {
                let header = Header::new(&below, b'0', 4, 0o644);
                add(
                    format!("file below {shown}"),
                    good().raw(&header, b"evil").gzip(),
                );
            }
            let mut prefixed = Header::new(b"leaf", b'0', 4, 0o644);
            prefixed.put(345, name);
            let prefixed = prefixed.sum();
            let bytes = good().raw(&prefixed, b"evil").gzip();
            let honest = [&b"demo/x"[..], b"demo", b"plugin.json"];
            if !honest.contains(name) || archive::unpack(&bytes).is_err() {
                add(format!("prefix {shown}"), bytes);
            }
        }
    }

    // Every kind of entry but files and folders, with and without a target, with and without data.
    for kind in 0..=255_u8 {
        if matches!(kind, 0 | b'0' | b'5') {
            continue;
        }
        let header = Header::new(b"thing", kind, 0, 0o777).with(157, b"../../etc/passwd");
        add(format!("kind {kind}"), good().raw(&header, b"").gzip());
    }
    for (kind, body) in [
        (b'x', &b"30 path=../../../../etc/passwd\n"[..]),
        (b'x', b"18 size=000000004\n"),
        (b'g', b"22 linkpath=/etc/shadow\n"),
        (b'L', b"../../../../etc/passwd\0"),
        (b'K', b"/etc/shadow\0"),
        (b'S', b"0"),
        (b'1', b"x"),
        (b'2', b"x"),
    ] {
        let header = Header::new(b"././@PaxHeader", kind, body.len(), 0o644);
        let tar = good().raw(&header, body).file("after", b"x", 0o644);
        add(format!("extension {}", char::from(kind)), tar.gzip());
    }

    // Fields that two readers read differently.
    let base = || Header::new(b"thing", b'0', 4, 0o644);
    let fields: &[(&str, usize, &[u8])] = &[
        ("size in base 256", 124, b"\x80\0\0\0\0\0\0\0\0\0\0\x04"),
        (
            "negative size",
            124,
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfc",
        ),
        ("size with a sign", 124, b"-0000000004\0"),
        ("size with a plus", 124, b"+0000000004\0"),
        ("size in hexadecimal", 124, b"0x000000004\0"),
        ("size with a letter", 124, b"000000004a \0"),
        ("size with a gap", 124, b"0000 000004\0"),
        ("size with a zero byte inside", 124, b"0000\x000000004"),
        ("empty size", 124, b"\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("blank size", 124, b"            "),
        ("huge size", 124, b"77777777777\0"),
        ("size past the end", 124, b"00000100000\0"),
        ("mode in base 256", 100, b"\x80\0\0\0\0\0\x01\xff"),
        ("set-user-id", 100, b"0004755\0"),
        ("set-group-id", 100, b"0002755\0"),
        ("sticky", 100, b"0001755\0"),
        ("owner in base 256", 108, b"\x80\0\0\0\0\0\0\x01"),
        ("owner that is text", 108, b"rootroot"),
        ("time in base 256", 136, b"\x80\0\0\0\0\0\0\0\0\0\0\x01"),
        ("time that is text", 136, b"yesterday!!!"),
        ("link target on a file", 157, b"/etc/passwd"),
        ("bytes behind the link target's end", 157, b"\0x"),
        ("device number", 329, b"0000001\0"),
        ("minor number", 337, b"0000007\0"),
        ("name with bytes behind its end", 10, b"hidden"),
        ("prefix with bytes behind its end", 345, b"\0hidden"),
        ("bytes behind the last field", 500, b"x"),
        ("last byte", 511, b"x"),
        ("no magic", 257, b"\0\0\0\0\0\0\0\0"),
        ("old magic", 257, b"ustar\0\0\0"),
        ("star magic", 508, b"tar\0"),
        ("wrong version", 257, b"ustar\x0001"),
    ];
    for (name, at, bytes) in fields {
        let header = base().with(*at, bytes);
        add((*name).to_owned(), good().raw(&header, b"evil").gzip());
        let folder = Header::new(b"folder/", b'5', 0, 0o755).with(*at, bytes);
        let bytes = good().raw(&folder, b"").gzip();
        // An empty size is wrong for a folder too; only the size past the end is not one's own.
        add(format!("{name}, on a folder"), bytes);
    }
    let gnu = Header::new(b"thing", b'0', 4, 0o644).with(257, b"ustar  \0");
    for at in [345, 357, 369, 386, 482, 483, 495] {
        let header = gnu.clone().with(at, b"1");
        add(
            format!("GNU field at {at}"),
            good().raw(&header, b"evil").gzip(),
        );
    }
    let mut unsummed = base();
    unsummed.put(0, b"other");
    add("checksum".to_owned(), good().raw(&unsummed, b"evil").gzip());
    let mut signed = base().with(0, b"th\xefng");
    signed.put(148, b"000000\0 ");
    add(
        "zero checksum".to_owned(),
        good().raw(&signed, b"evil").gzip(),
    );
    add(
        "folder with a size".to_owned(),
        good()
            .raw(&Header::new(b"f/", b'5', 4, 0o755), b"evil")
            .gzip(),
    );
    add(
        "file that ends in a slash".to_owned(),
        good()
            .raw(&Header::new(b"f/", b'0', 4, 0o644), b"evil")
            .gzip(),
    );
    add(
        "empty name".to_owned(),
        good()
            .raw(&Header::new(b"", b'0', 4, 0o644), b"evil")
            .gzip(),
    );

    // One path as two things.
    for (first, second) in [
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "A/b/d"),
        ("x/y", "X/y"),
    ] {
        let tar = good().file(first, b"1", 0o644).file(second, b"2", 0o644);
        add(format!("{first} and {second}"), tar.gzip());
    }
    add(
        "folder twice".to_owned(),
        good().folder("f/").folder("f/").gzip(),
    );
    add(
        "folder, then file".to_owned(),
        good().folder("f/").file("f", b"", 0o644).gzip(),
    );
    add(
        "file, then folder".to_owned(),
        good().file("f", b"", 0o644).folder("f/").gzip(),
    );

    // Ends that are none, and bytes that belong to nobody.
    let whole = good().end();
    let content = whole.len() - 1024;
    for cut in (1..=content + 1023).step_by(61) {
        add(format!("tar cut at {cut}"), gzip(&whole[..cut]));
    }
    let compressed = gzip(&whole);
    for cut in (0..compressed.len()).step_by(17) {
        add(format!("gzip cut at {cut}"), compressed[..cut].to_vec());
    }
    for (name, tail) in [
        ("zero", vec![0]),
        ("gzip", gzip(b"more")),
        ("text", b"x".to_vec()),
    ] {
        let mut bytes = compressed.clone();
        bytes.extend(tail);
        add(format!("{name} behind the gzip stream"), bytes);
    }
    let mut smuggled = whole.clone();
    smuggled.extend_from_slice(&Tar::default().file("evil", b"evil", 0o755).end());
    add(
        "a second tar behind the end mark".to_owned(),
        gzip(&smuggled),
    );
    let mut padded = whole.clone();
    let last = padded.len();
    padded[last - 1] = 1;
    add("a byte in the end mark".to_owned(), gzip(&padded));
    let mut padded = whole;
    padded[512 + descriptor("demo", "1.0.0").len() + 1] = 1;
    add("a byte behind a file".to_owned(), gzip(&padded));
    add("not gzip".to_owned(), good().end());
    add("empty".to_owned(), Vec::new());
    add("random".to_owned(), noise(7, 4096));

    // Bombs.
    let zeros = vec![0_u8; 8 << 20];
    add(
        "ratio".to_owned(),
        good().file("zeros", &zeros, 0o644).gzip(),
    );
    let mut many = good();
    for number in 0..archive::ENTRIES_MAX {
        many = many.file(&format!("n{number}"), b"", 0o644);
    }
    add(
        "entries".to_owned(),
        gzip(&[many.end(), Vec::new()].concat()),
    );
    cases
}

#[test]
fn every_hostile_archive_is_refused() {
    let cases = hostile();
    assert!(cases.len() >= 300, "{} cases", cases.len());
    let accepted: Vec<&str> = cases
        .iter()
        .filter(|case| archive::unpack(&case.bytes).is_ok())
        .map(|case| case.name.as_str())
        .collect();
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
}

#[test]
fn the_good_start_of_every_case_is_good() {
    let contents = archive::unpack(&good().gzip()).unwrap();
    let names: Vec<&str> = contents.keys().map(String::as_str).collect();
    assert_eq!(names, ["demo", "plugin.json"]);
    assert!(contents["demo"].is_executable && !contents["plugin.json"].is_executable);
}

#[test]
fn limits_are_said_aloud() {
    let zeros = vec![0_u8; 8 << 20];
    let refused = archive::unpack(&good().file("zeros", &zeros, 0o644).gzip()).unwrap_err();
    assert_eq!(refused, ArchiveError::Ratio);
    assert_eq!(
        refused.to_string(),
        "it unpacks to more than 100 times its size"
    );
    assert!(ArchiveError::TooLarge.to_string().contains("200 MiB"));
    assert!(ArchiveError::TooMany.to_string().contains("4096"));
}

/// Lists archives as `tarfile` reads them: name, kind, size, digest of the content.
const PYTHON: &str = r#"
import sys, tarfile, io, json, struct, hashlib
out = []
data = sys.stdin.buffer.read()
at = 0
while at < len(data):
    (size,) = struct.unpack(">I", data[at:at+4])
    blob = data[at+4:at+4+size]
    at += 4 + size
    try:
        entries = []
        with tarfile.open(fileobj=io.BytesIO(blob), mode="r:gz") as tar:
            for member in tar:
                kind = "file" if member.type in (b"0", b"\0") else "folder" if member.type == b"5" else "other"
                content = tar.extractfile(member).read() if kind == "file" else b""
                name = member.name.encode("utf-8", "replace").decode()
                entries.append([name, kind, len(content), hashlib.sha256(content).hexdigest()])
        out.append(entries)
    except Exception as error:
        out.append(str(type(error).__name__))
json.dump(out, sys.stdout)
"#;

fn python_listings(archives: &[Vec<u8>]) -> Option<Vec<Value>> {
    let python = lab_tool("v/bin/python3")?;
    let mut child = Command::new(python)
        .args(["-I", "-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take().unwrap();
    let blobs: Vec<u8> = archives
        .iter()
        .flat_map(|bytes| {
            let size = u32::try_from(bytes.len()).unwrap();
            size.to_be_bytes().into_iter().chain(bytes.iter().copied())
        })
        .collect();
    let writer = std::thread::spawn(move || input.write_all(&blobs));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// What we accept reads the same in Python: same files, same bytes. Single changed bytes in
/// headers and data make thousands of archives of which some are accepted and most are not.
#[test]
fn what_is_accepted_reads_the_same_in_python() {
    let mut archives: Vec<Vec<u8>> = hostile().into_iter().map(|case| case.bytes).collect();
    let hostile_count = archives.len();
    let plain = Tar::default()
        .folder("./")
        .folder("top/")
        .file("top/plugin.json", &descriptor("demo", "1.0.0"), 0o644)
        .file("top/demo", &noise(3, 700), 0o755)
        .end();
    // As Python writes a file whose time has a fraction.
    let records = b"28 mtime=1700000000.2512345\n17 path=top/demo\n";
    let extended = Tar::default()
        .raw(
            &Header::new(b"././@PaxHeader", b'x', records.len(), 0o644),
            records,
        )
        .file("short", &noise(3, 700), 0o755)
        .end();
    let files = archive::unpack(&gzip(&extended)).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["top/demo"]);
    for plain in [plain, extended] {
        for at in 0..plain.len() {
            for change in [1_u8, 0x20, 0x80] {
                let mut bytes = plain.clone();
                bytes[at] ^= change;
                archives.push(gzip(&bytes));
            }
            // The same, with a checksum that fits again.
            if at % 512 < 500 && at / 512 < 4 {
                let block = at / 512 * 512;
                let mut bytes = plain.clone();
                bytes[at] ^= 1;
                let mut header = Header(bytes[block..block + 512].try_into().unwrap());
                if !(148..156).contains(&(at % 512)) {
                    header = header.sum();
                }
                bytes[block..block + 512].copy_from_slice(&header.0);
                archives.push(gzip(&bytes));
            }
        }
    }
    let Some(listings) = python_listings(&archives) else {
        skip_without("python3");
        return;
    };
    let mut accepted = 0;
    for (number, (bytes, listing)) in archives.iter().zip(&listings).enumerate() {
        let Ok(contents) = archive::unpack(bytes) else {
            continue;
        };
        assert!(number >= hostile_count, "a hostile case was accepted");
        accepted += 1;
        let ours: BTreeMap<String, String> = contents
            .iter()
            .map(|(path, file)| (path.clone(), digest(&file.bytes)))
            .collect();
        let theirs: BTreeMap<String, String> = listing
            .as_array()
            .unwrap_or_else(|| panic!("case {number}: Python says {listing}"))
            .iter()
            .filter(|entry| entry[1] == "file")
            .map(|entry| {
                let name = entry[0].as_str().unwrap();
                let name = name.strip_prefix("./").unwrap_or(name);
                (name.to_owned(), entry[3].as_str().unwrap().to_owned())
            })
            .collect();
        assert_eq!(ours, theirs, "case {number}");
        let other = listing
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry[1] == "other");
        assert_eq!(other, None, "case {number}");
    }
    assert!(
        accepted > 100,
        "{accepted} accepted: the comparison compared too little"
    );
}
