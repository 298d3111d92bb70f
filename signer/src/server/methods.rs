//! What the methods are that are served, by their own descriptors: how many messages a call has, and its answer.

use std::{collections::HashMap, sync::LazyLock};

use muhurdar_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_reflection::pb::{v1, v1alpha};

/// The shape of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// A call may have many messages; otherwise it has one.
    pub(super) many: bool,
    /// So may its answer.
    pub(super) many_answers: bool,
}

/// The method at a path, where there is one.
pub(super) fn shape(path: &str) -> Option<Shape> {
    static METHODS: LazyLock<HashMap<String, Shape>> = LazyLock::new(|| {
        let sets = [
            FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            v1::FILE_DESCRIPTOR_SET,
            v1alpha::FILE_DESCRIPTOR_SET,
        ];
        sets.into_iter().flat_map(methods).collect()
    });
    METHODS.get(path).copied()
}

fn methods(set: &[u8]) -> Vec<(String, Shape)> {
    let set = FileDescriptorSet::decode(set).expect("the descriptor sets were made by the compiler of this build");
    let files = set.file.into_iter();
    let services = files.flat_map(|file| {
        let package = file.package().to_owned();
        file.service.into_iter().map(move |service| (package.clone(), service))
    });
    let methods = services.flat_map(|(package, service)| {
        let name = format!("/{package}.{}", service.name());
        service.method.into_iter().map(move |method| {
            let shape = Shape {
                many: method.client_streaming(),
                many_answers: method.server_streaming(),
            };
            (format!("{name}/{}", method.name()), shape)
        })
    });
    methods.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_service_that_is_offered_has_its_methods() {
        let shape = |path: &str| super::shape(path).map(|shape| (shape.many, shape.many_answers));
        assert_eq!(shape("/muhurdar.seal.v1.SealService/Seal"), Some((false, false)));
        assert_eq!(shape("/muhurdar.seal.v1.SealService/SealStream"), Some((true, true)));
        assert_eq!(shape("/grpc.health.v1.Health/Check"), Some((false, false)));
        assert_eq!(shape("/grpc.health.v1.Health/Watch"), Some((false, true)));
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            assert_eq!(shape(&path), Some((true, true)), "{path}");
        }
        assert_eq!(shape("/muhurdar.seal.v1.SealService/Forge"), None);
    }
}
