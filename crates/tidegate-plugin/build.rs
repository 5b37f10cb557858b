//! Compiles `proto/` into `OUT_DIR`: generated code stays out of the repository.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script stands outside the program's seams"
)]

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;

const FILES: [&str; 3] = ["iac.proto", "launch.proto", "plugin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", folder.join(file).display());
    }
    let descriptors = protox::compile(FILES, [&folder])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Connections are the caller's business: a plugin is reached over a socket of its own.
        .build_transport(false)
        // Same maps, same bytes, every time.
        .btree_map(".")
        // A state record may be megabytes, and its JSON only passes through: shared, never copied.
        .bytes(".workflow.plugin.external.iac.IaCState")
        .bytes(".workflow.plugin.external.iac.LogChunk")
        .bytes(".plugin.StdioData")
        .compile_fds(descriptors)?;
    Ok(())
}
