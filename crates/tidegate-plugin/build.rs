//! Compiles `proto/` into `OUT_DIR`: generated code stays out of the repository.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script stands outside the program's seams"
)]

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;

const FILES: [&str; 3] = ["iac.proto", "launch.proto", "plugin.proto"];
/// What they are called in Rust.
const PACKAGES: [&str; 3] = [
    "workflow.plugin.external.iac",
    "plugin",
    "workflow.plugin.v1",
];

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
        .codec_path("crate::codec::Exact")
        // Same maps, same bytes, every time.
        .btree_map(".")
        // A state record may be megabytes, and its JSON only passes through: shared, never copied.
        .bytes(".workflow.plugin.external.iac.IaCState")
        .bytes(".workflow.plugin.external.iac.LogChunk")
        .bytes(".plugin.StdioData")
        .compile_fds(descriptors)?;
    for package in PACKAGES {
        let path = out.join(format!("{package}.rs"));
        let generated = without_method_names(&std::fs::read_to_string(&path)?)?
            // `src/client.rs` says why.
            .replace("tonic::client::Grpc<", "crate::client::Grpc<")
            .replace("tonic::client::Grpc::", "crate::client::Grpc::");
        std::fs::write(path, generated)?;
    }
    Ok(())
}

/// Leaves out of generated clients that each request carries the name of its method for whoever
/// stands between a client and its connection. Nobody does, and it is a map and two boxes for each call.
fn without_method_names(generated: &str) -> Result<String, String> {
    const BEGIN: &str = "req.extensions_mut()";
    let mut pieces = generated.split(BEGIN);
    let mut kept = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (named, rest) = piece.split_once(';').ok_or("a statement has an end")?;
        if !named.contains("GrpcMethod::new") {
            return Err(format!("tonic generates something new: {BEGIN}{named}"));
        }
        kept.push_str(rest);
    }
    Ok(kept)
}
