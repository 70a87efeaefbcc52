//! Compiles the protos without an installed `protoc`.
//!
//! protox parses them and yields the descriptor set; tonic-prost-build turns that into messages and stubs. tonic-build
//! describes the services once more, for the tables of method paths: authentication is tested against every entry of
//! the one, so a new RPC cannot be forgotten; the other knows which requests are streams.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use prost::Message as _;
use tonic_build::{Method as _, Service as _, manual};
use tonic_prost_build::FileDescriptorSet;

/// How messages become bytes, in the stubs and in the tables.
const CODEC: &str = "crate::codec::RoomyCodec";
const PROTO_ROOT: &str = "proto";
const PROTO_FILES: [&str; 5] = [
    "minitectonic/v1/common.proto",
    "minitectonic/v1/metadata_service.proto",
    "minitectonic/v1/chunk_service.proto",
    "minitectonic/v1/cluster_service.proto",
    "minitectonic/v1/signed.proto",
];

fn main() -> anyhow::Result<()> {
    // The folder also holds Rust sources, so the protos are named one by one.
    for file in PROTO_FILES {
        println!("cargo::rerun-if-changed={PROTO_ROOT}/{file}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR").context("cargo sets OUT_DIR")?);
    let descriptors = protox::compile(PROTO_FILES, [PROTO_ROOT]).context("compile the protos")?;
    save(&out.join("descriptors.bin"), &descriptors.encode_to_vec())?;
    let services = services(&descriptors);
    save(&out.join("methods.rs"), method_table(&services, |_any| true)?.as_bytes())?;
    save(&out.join("streaming_methods.rs"), method_table(&services, manual::Method::client_streaming)?.as_bytes())?;
    tonic_prost_build::configure()
        .bytes(".minitectonic.v1")
        .codec_path(CODEC)
        .compile_fds(descriptors)
        .context("generate messages and stubs")
}

fn save(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a build product needs no durability")]
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// Every service of the protos in tonic-build's own terms.
fn services(descriptors: &FileDescriptorSet) -> Vec<manual::Service> {
    let mut found = Vec::new();
    for file in &descriptors.file {
        for service in &file.service {
            let mut builder = manual::Service::builder().package(file.package()).name(service.name());
            for method in &service.method {
                let mut described = manual::Method::builder()
                    .name(method.name())
                    .route_name(method.name())
                    .input_type(method.input_type())
                    .output_type(method.output_type())
                    .codec_path(CODEC);
                if method.client_streaming() {
                    described = described.client_streaming();
                }
                builder = builder.method(described.build());
            }
            found.push(builder.build());
        }
    }
    found
}

/// Rust source of a slice with the paths of methods, for example `/minitectonic.v1.ChunkService/ReadChunk`.
fn method_table(
    services: &[manual::Service],
    belongs: impl Fn(&manual::Method) -> bool,
) -> Result<String, std::fmt::Error> {
    let mut source = String::from("&[\n");
    for service in services {
        for method in service.methods().iter().filter(|method| belongs(method)) {
            let (package, name, route) = (service.package(), service.name(), method.identifier());
            writeln!(source, "    \"/{package}.{name}/{route}\",")?;
        }
    }
    source.push_str("]\n");
    Ok(source)
}
