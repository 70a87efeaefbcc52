//! The contract of MiniTectonic-RS: what the metadata service, the chunk services and every client must agree on.
//!
//! Owns the protos and the code generated from them ([`pb`]), typed [`ids`], [`limits`], [`checksum`]s, the signed
//! statements ([`capability`], [`receipt`]), [`token`]s, and the errors on the wire ([`error`], [`status`]).
//! Nothing here touches a disk or a socket, but for `tls`, by which every client dials, and the closed `runtime` feature
//! that only the two services turn on.

pub mod capability;
pub mod checksum;
pub mod codec;
pub mod entropy;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hex;
pub mod ids;
pub mod limits;
pub mod rates;
pub mod receipt;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod secret;
pub mod status;
#[cfg(feature = "tls")]
pub mod tls;
pub mod token;
pub mod traffic;

/// Messages and stubs generated from `proto/minitectonic/v1/*.proto`.
#[allow(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_lines,
    clippy::clone_on_ref_ptr,
    clippy::cast_lossless,
    clippy::large_enum_variant,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    rustdoc::all,
    clippy::disallowed_methods,
    reason = "generated code has its own style"
)]
pub mod pb {
    tonic::include_proto!("minitectonic.v1");
}

/// The encoded `FileDescriptorSet` of every proto of this package and its imports, for reflection and tests.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Path of every method of every service, for example `/minitectonic.v1.ChunkService/ReadChunk`.
pub const METHOD_PATHS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// Those of [`METHOD_PATHS`] whose request is a stream of messages.
pub const STREAMING_METHOD_PATHS: &[&str] = include!(concat!(env!("OUT_DIR"), "/streaming_methods.rs"));
