//! Whether the kernel can start an executable at all. What it refuses is not left to chance: the C library
//! hands such a file to `/bin/sh`, which would read a program for another machine as commands, with the
//! plugin's secrets in its environment.

use std::path::Path;

use crate::disk::Disk;
use crate::package::name::this_platform;
use crate::report::Report;

/// As much of a file as says what it is.
const HEAD_BYTES: usize = 64;
/// How a program of Linux begins, and where it says what it is.
const ELF: &[u8] = b"\x7fELF";
const ELF_IS_BIG_ENDIAN: usize = 5;
const ELF_TYPE: usize = 16;
const ELF_MACHINE: usize = 18;
/// Kinds of ELF files that can be started: with a fixed address, or with any.
const ELF_STARTS: [u16; 2] = [2, 3];
/// Numbers of machines, and what they are called in the names of packages.
const MACHINES: [(u16, &str); 5] = [
    (0x03, "386"),
    (0x28, "arm"),
    (0x3e, "amd64"),
    (0xb7, "arm64"),
    (0xf3, "riscv64"),
];
/// Where the kernel tells which further kinds of files it starts, such as through an emulator.
const FURTHER: &str = "/proc/sys/fs/binfmt_misc";
const FURTHER_BYTES_MAX: u64 = 64 * 1024;

/// Refuses a file that the kernel would not start.
pub(super) fn check(disk: &dyn Disk, plugin: &str, executable: &Path) -> Result<(), Report> {
    let head = disk.head(executable, HEAD_BYTES).map_err(|error| {
        Report::error(
            "plugin/no-executable",
            format!("the executable of plugin `{plugin}` cannot be read"),
        )
        .caused_by(&error)
    })?;
    let platform = this_platform();
    let here = platform.split_once('-').map_or("", |(_, here)| here);
    match refusal(&head, here) {
        Some(why) if !is_taken_further(disk, &head) => Err(Report::error(
            "plugin/start",
            format!("plugin `{plugin}` cannot be started"),
        )
        .because(why)
        .because(format!("its executable is `{}`", executable.display()))
        .fix(format!("install the build of it for {platform}"))),
        _ => Ok(()),
    }
}

/// Why the kernel does not start a file that begins like this; a clause. `None` when it does.
fn refusal(head: &[u8], here: &str) -> Option<String> {
    if head.starts_with(b"#!") {
        return None;
    }
    if head.is_empty() {
        return Some("its executable is empty".to_owned());
    }
    if !head.starts_with(ELF) {
        return Some(
            "its executable is neither a program for this system nor a script that begins with `#!`"
                .to_owned(),
        );
    }
    let number = |at: usize| {
        let two = [*head.get(at)?, *head.get(at + 1)?];
        Some(if head.get(ELF_IS_BIG_ENDIAN) == Some(&2) {
            u16::from_be_bytes(two)
        } else {
            u16::from_le_bytes(two)
        })
    };
    let (Some(kind), Some(machine)) = (number(ELF_TYPE), number(ELF_MACHINE)) else {
        return Some("its executable is cut off".to_owned());
    };
    if !ELF_STARTS.contains(&kind) {
        return Some("its executable is an object file or a memory dump, no program".to_owned());
    }
    let known = MACHINES.iter().find(|(of, _)| *of == machine);
    match known {
        Some((_, name)) if *name == here => None,
        Some((_, name)) => Some(format!(
            "it is built for {name}, and this machine is {here}"
        )),
        // A machine we have no name for: it may be this one.
        None if !MACHINES.iter().any(|(_, name)| *name == here) => None,
        None => Some(format!(
            "it is built for another machine (ELF {machine:#x}), and this machine is {here}"
        )),
    }
}

/// True when the kernel was told to start such files through another program.
fn is_taken_further(disk: &dyn Disk, head: &[u8]) -> bool {
    let folder = Path::new(FURTHER);
    disk.list(folder).unwrap_or_default().iter().any(|name| {
        disk.read(&folder.join(name), FURTHER_BYTES_MAX)
            .is_ok_and(|entry| takes(&String::from_utf8_lossy(&entry), head))
    })
}

/// Whether one registration of `binfmt_misc` is about files that begin like this.
fn takes(entry: &str, head: &[u8]) -> bool {
    let field = |name: &str| {
        entry
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .map(str::trim)
    };
    let bytes = |text: &str| -> Option<Vec<u8>> {
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect()
    };
    let Some(magic) = field("magic").and_then(bytes) else {
        return false;
    };
    let mask = field("mask")
        .and_then(bytes)
        .unwrap_or_else(|| vec![0xff; magic.len()]);
    let at = field("offset")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let begin: Option<&[u8]> = head.get(at..at + magic.len());
    entry.lines().next() == Some("enabled")
        && begin.is_some_and(|begin| {
            begin
                .iter()
                .zip(&magic)
                .zip(mask.iter().chain(std::iter::repeat(&0xff)))
                .all(|((byte, magic), mask)| byte & mask == magic & mask)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kind: u8, machine: u8) -> Vec<u8> {
        let mut head = vec![0_u8; HEAD_BYTES];
        head[..4].copy_from_slice(ELF);
        head[4] = 2;
        head[5] = 1;
        head[ELF_TYPE] = kind;
        head[ELF_MACHINE] = machine;
        head
    }

    #[test]
    fn only_what_the_kernel_starts_is_started() {
        for (head, here, said) in [
            (elf(2, 0x3e), "amd64", None),
            (elf(3, 0xb7), "arm64", None),
            (b"#!/bin/sh\n".to_vec(), "amd64", None),
            (elf(2, 0xb7), "amd64", Some("built for arm64")),
            (elf(2, 0x03), "amd64", Some("built for 386")),
            (elf(2, 0x08), "amd64", Some("another machine")),
            (elf(2, 0x08), "mips", None),
            (elf(1, 0x3e), "amd64", Some("object file")),
            (b"\x7fELF\x02\x01".to_vec(), "amd64", Some("cut off")),
            (Vec::new(), "amd64", Some("empty")),
            (b"echo $TOKEN > leak\n".to_vec(), "amd64", Some("neither")),
        ] {
            let why = refusal(&head, here);
            match said {
                None => assert_eq!(why, None, "{head:?}"),
                Some(said) => assert!(why.clone().unwrap_or_default().contains(said), "{why:?}"),
            }
        }
    }

    #[test]
    fn an_emulator_that_is_registered_counts() {
        let entry = "enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: POCF\noffset 0\n\
                     magic 7f454c460201010000000000000000000200b700\n\
                     mask ffffffffffffff00fffffffffffffffffeffffff\n";
        let mut head = elf(3, 0xb7);
        head[6] = 1;
        assert!(takes(entry, &head));
        assert!(!takes(&entry.replace("enabled", "disabled"), &head));
        head[ELF_MACHINE] = 0x3e;
        assert!(!takes(entry, &head));
        assert!(!takes("enabled\n", &head) && !takes("", &head));
    }
}
