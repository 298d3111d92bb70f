//! What is said on the wire: the messages and services of `muhurdar/seal/v1/`, generated at build time, and
//! their descriptor set for server reflection.
//!
//! Nothing is decided here. Types come in and go out as the wire has them; what they mean is the signer's business.

/// `muhurdar.seal.v1`: sealing.
pub mod seal {
    /// Version 1, the only one.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        unreachable_pub,
        unused_qualifications,
        missing_debug_implementations
    )]
    pub mod v1 {
        tonic::include_proto!("muhurdar.seal.v1");
    }
}

/// The encoded `google.protobuf.FileDescriptorSet` of the wire, with everything it imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seal.bin"));

/// The same with the comments of its sources: what `buf lint` and `buf breaking` read.
pub const COMMENTED_FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/commented.bin"));

/// The `domain` of every `google.rpc.ErrorInfo` that this service answers.
pub const ERROR_DOMAIN: &str = "muhurdar";
