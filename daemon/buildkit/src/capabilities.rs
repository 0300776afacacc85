//! What is told to clients of who builds here and what he can do. Clients leave alone what they are not told of.

use std::collections::HashMap;

use berth_oci::Platform;

use crate::protocol::{pb, types};

/// What the bridge understands, in the names of BuildKit's `frontend/gateway/pb/caps.go`.
const BRIDGE: [&str; 13] = [
    "solve.base",
    "solve.inlinereturn",
    "return",
    "returnmap",
    "importcaches",
    "readfile",
    "statfile",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "gateway.evaluate",
    "gateway.warnings",
];

/// What inputs and outputs may ask for, in the names of BuildKit's `solver/pb/caps.go`.
const GRAPH: [&str; 17] = [
    "source.image",
    "source.local",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.git",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.http",
    "constraints",
    "platform",
    "file.base",
    "meta.description",
    "exporter.multiple",
];

pub(crate) fn of_the_bridge() -> Vec<types::ApiCap> {
    list(&BRIDGE)
}

pub(crate) fn of_graphs() -> Vec<types::ApiCap> {
    list(&GRAPH)
}

fn list(names: &[&str]) -> Vec<types::ApiCap> {
    names.iter().map(|name| types::ApiCap { id: (*name).to_owned(), enabled: true }).collect()
}

pub(crate) fn version() -> types::BuildkitVersion {
    types::BuildkitVersion {
        package: "berth".to_owned(),
        version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: String::new(),
    }
}

/// The one who builds. `gateway` is what `host-gateway` means in `--add-host`.
pub(crate) fn worker(id: &str, gateway: Option<&str>) -> types::WorkerRecord {
    let label =
        |name: &str, value: &str| (format!("org.mobyproject.buildkit.worker.{name}"), value.to_owned());
    let mut labels: HashMap<String, String> = HashMap::from([
        label("executor", "berth"),
        // buildx takes it as a sign that images of several platforms, archives and pushes are ours to make.
        label("snapshotter", "overlayfs"),
    ]);
    labels.extend(gateway.map(|address| label("moby.host-gateway-ip", address)));
    types::WorkerRecord {
        id: id.to_owned(),
        labels,
        platforms: vec![platform(&Platform::host())],
        buildkit_version: Some(version()),
    }
}

fn platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}
