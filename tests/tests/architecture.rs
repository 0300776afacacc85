//! The arrows of docs/architecture.md, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Which workspace crates each workspace crate may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("berth-dockerfile-parser", &[]),
    ("berth-oci", &[]),
    ("berth-init", &[]),
    ("berth-sys", &[]),
    ("berth-dbus", &[]),
    ("berth-spec", &[]),
    ("berth-shim-protocol", &[]),
    ("berth-store", &["berth-oci", "berth-sys"]),
    ("berth-registry", &["berth-oci", "berth-store"]),
    ("berth-cgroup", &["berth-dbus", "berth-spec", "berth-sys"]),
    ("berth-core", &["berth-cgroup", "berth-spec", "berth-sys"]),
    ("berth-runtime", &["berth-core", "berth-cgroup", "berth-spec", "berth-sys"]),
    ("berth-shim", &["berth-core", "berth-cgroup", "berth-spec", "berth-sys", "berth-shim-protocol"]),
    ("berth-runtime-client", &["berth-shim-protocol", "berth-spec"]),
    (
        "berth-builder",
        &[
            "berth-dockerfile-parser",
            "berth-oci",
            "berth-store",
            "berth-sys",
            "berth-runtime-client",
            "berth-shim-protocol",
            "berth-spec",
        ],
    ),
    ("berth-network", &["berth-dbus", "berth-sys"]),
    ("berth-dns", &["berth-sys"]),
    ("berth-api", &["berth-oci"]),
    (
        "berth-engine",
        &[
            "berth-api",
            "berth-builder",
            "berth-dns",
            "berth-dockerfile-parser",
            "berth-init",
            "berth-network",
            "berth-oci",
            "berth-registry",
            "berth-runtime-client",
            "berth-shim-protocol",
            "berth-spec",
            "berth-store",
            "berth-sys",
        ],
    ),
    (
        "berth-buildkit",
        &["berth-api", "berth-builder", "berth-dockerfile-parser", "berth-engine", "berth-oci"],
    ),
    ("berth-http", &["berth-api", "berth-buildkit", "berth-engine", "berth-oci"]),
    ("berth-cri", &["berth-api", "berth-engine"]),
    ("berth-nri", &["berth-engine", "berth-spec"]),
    (
        "berthd",
        &["berth-api", "berth-cgroup", "berth-cri", "berth-dns", "berth-engine", "berth-http", "berth-nri"],
    ),
    ("berth-client", &["berth-api"]),
    ("berth-yaml", &[]),
    ("berth-compose", &["berth-client", "berth-yaml"]),
    ("berth-lab", &["berth-client", "berth-yaml"]),
    (
        "berth",
        &["berth-api", "berth-client", "berth-compose", "berth-dockerfile-parser", "berth-lab", "berth-oci"],
    ),
    ("berth-tests", &["berth-api", "berth-buildkit", "berth-cri"]),
];

/// What each crate really depends on in production (not for its tests).
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let members: BTreeSet<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    metadata
        .packages
        .iter()
        .map(|package| {
            let depends = package
                .dependencies
                .iter()
                .filter(|d| d.kind != DependencyKind::Development && members.contains(&d.name))
                .map(|d| d.name.clone())
                .collect();
            (package.name.to_string(), depends)
        })
        .collect()
}

#[test]
fn every_dependency_is_an_arrow_of_the_architecture() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for (from, to) in edges() {
        let Some(allowed) = allowed.get(from.as_str()) else {
            wrong.push(format!("{from} is not on the architecture page"));
            continue;
        };
        wrong.extend(
            to.iter().filter(|to| !allowed.contains(to.as_str())).map(|to| format!("{from} -> {to}")),
        );
    }
    assert!(wrong.is_empty(), "arrows that docs/architecture.md does not have:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_crate_of_the_page_exists() {
    let edges = edges();
    let missing: Vec<_> = ARROWS.iter().map(|(name, _)| *name).filter(|n| !edges.contains_key(*n)).collect();
    assert!(missing.is_empty(), "on the architecture page but not in the workspace: {missing:?}");
}
