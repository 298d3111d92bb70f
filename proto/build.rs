//! Compiles the .proto files with protox, so that no `protoc` is needed, and keeps two descriptor sets: one for reflection, and one
//! with every comment, by which the proto is held to its rules.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, FileOptions,
    field_descriptor_proto::{Label, Type},
};
use protox::{
    Compiler,
    file::{ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver},
};

/// In the order of their dependence.
const FILES: [&str; 2] = ["muhurdar/seal/v1/reason.proto", "muhurdar/seal/v1/seal.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=muhurdar");
    let mut files = ChainFileResolver::new();
    files.add(IncludeFileResolver::new(".".into()));
    files.add(GoogleFileResolver::new());
    files.add(DescriptorSetFileResolver::new(googles_status()));
    let mut compiler = Compiler::with_file_resolver(files);
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut descriptors = compiler.file_descriptor_set();
    fs::write(out.join("commented.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(descriptors.clone())?;
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    fs::write(out.join("seal.bin"), descriptors.encode_to_vec())?;
    Ok(())
}

/// google/rpc/status.proto, as googleapis has it. Each language has it ready-made, in Rust in tonic-types, and it must not be compiled
/// twice into one program: so it is told to the compiler here, and is no file of this folder that somebody would copy.
fn googles_status() -> FileDescriptorSet {
    let field = |name: &str, number, label: Label, kind: Type, of: Option<&str>| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name: of.map(str::to_owned),
        json_name: Some(name.to_owned()),
        ..FieldDescriptorProto::default()
    };
    let status = DescriptorProto {
        name: Some("Status".to_owned()),
        field: vec![
            field("code", 1, Label::Optional, Type::Int32, None),
            field("message", 2, Label::Optional, Type::String, None),
            field(
                "details",
                3,
                Label::Repeated,
                Type::Message,
                Some(".google.protobuf.Any"),
            ),
        ],
        ..DescriptorProto::default()
    };
    let options = FileOptions {
        cc_enable_arenas: Some(true),
        go_package: Some("google.golang.org/genproto/googleapis/rpc/status;status".to_owned()),
        java_multiple_files: Some(true),
        java_outer_classname: Some("StatusProto".to_owned()),
        java_package: Some("com.google.rpc".to_owned()),
        objc_class_prefix: Some("RPC".to_owned()),
        ..FileOptions::default()
    };
    let file = FileDescriptorProto {
        name: Some("google/rpc/status.proto".to_owned()),
        package: Some("google.rpc".to_owned()),
        dependency: vec!["google/protobuf/any.proto".to_owned()],
        message_type: vec![status],
        options: Some(options),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }
}
