//! Images: import, list, inspect, tag, save, load, remove, push, pull.

use super::Fixture;
use crate::base;
use crate::registry::Registry;

/// `version` and `info` answer with both halves.
pub fn version_and_info(f: &Fixture) {
    let version = f.cli.ok(&["version"]);
    assert!(version.contains("Client") && version.contains("Server"), "{version}");
    let api = f.cli.ok(&["version", "--format", "{{.Server.APIVersion}}"]);
    assert!(api.starts_with("1."), "{api}");
    let info = f.cli.ok(&["info", "--format", "{{.Driver}} {{.OSType}} {{.NCPU}}"]);
    let words: Vec<&str> = info.split(' ').collect();
    assert_eq!(words[..2], ["overlay2", "linux"], "{info}");
    assert!(words[2].parse::<u32>().expect("a number of processors") > 0);
}

/// An imported image is listed, inspected and removed.
pub fn import_list_inspect_remove(f: &Fixture) {
    let args = ["import", "--change", "ENV A=b", "--change", "CMD [\"env\"]", "-", "imported:one"];
    let id = f.cli.run_with_input(&args, &base::busybox_tar()).success();
    assert!(id.starts_with("sha256:"), "{id}");
    let listed = f.cli.ok(&["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
    assert!(listed.lines().any(|l| l == format!("imported:one {id}")), "{listed}");
    let config =
        f.cli.ok(&["inspect", "--format", "{{json .Config.Env}} {{json .Config.Cmd}}", "imported:one"]);
    assert!(config.contains("A=b") && config.contains("[\"env\"]"), "{config}");
    assert!(f.cli.ok(&["run", "--rm", "imported:one"]).contains("A=b"));
    f.cli.run(&["rmi", "imported:one"]).expect_code(0).expect_text("Untagged: imported:one");
    f.cli.run(&["inspect", "imported:one"]).expect_code(1).expect_text("o such");
}

/// A second tag keeps the image when the first goes.
pub fn tag_and_untag(f: &Fixture) {
    f.cli.ok(&["tag", "busybox", "example.test:5000/team/box:v2"]);
    let ids = f.cli.ok(&["images", "-q", "--no-trunc"]);
    let unique: std::collections::BTreeSet<&str> = ids.lines().collect();
    assert_eq!(unique.len(), 1, "{ids}");
    f.cli.run(&["rmi", "example.test:5000/team/box:v2"]).expect_code(0).expect_text("Untagged:");
    f.cli.ok(&["inspect", "busybox"]);
    f.cli.run(&["tag", "nosuch", "x"]).expect_code(1).expect_text("o such image: nosuch:latest");
    f.cli.run(&["tag", "busybox", "UPPER"]).expect_code(1).expect_text("must be lowercase");
}

/// An image in use is not removed, even when its container has ended.
pub fn remove_in_use_is_refused(f: &Fixture) {
    f.cli.ok(&["run", "--name", "user", "busybox", "true"]);
    f.cli.run(&["rmi", "busybox"]).expect_code(1).expect_text("conflict");
    f.cli.ok(&["rm", "user"]);
    f.cli.ok(&["rmi", "busybox"]);
    assert_eq!(f.cli.ok(&["images", "-q"]), "");
}

/// A saved archive loads again, with the same id.
pub fn save_and_load(f: &Fixture) {
    let archive = f.scratch.join("busybox.tar");
    let archive = archive.to_str().expect("utf-8");
    let id = f.cli.ok(&["inspect", "--format", "{{.Id}}", "busybox"]);
    f.cli.ok(&["save", "-o", archive, "busybox"]);
    f.cli.ok(&["rmi", "busybox"]);
    f.cli.run(&["load", "-i", archive]).expect_code(0).expect_text("Loaded image: busybox:latest");
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.Id}}", "busybox"]), id);
    assert_eq!(f.cli.ok(&["run", "--rm", "busybox", "echo", "loaded"]), "loaded");
    f.cli.run_with_input(&["load"], b"this is no archive").expect_code(1);
}

/// An image goes to a real registry and comes back the same.
pub fn push_and_pull(f: &Fixture) {
    let registry = Registry::start();
    let name = registry.name("team/box:v1");
    let id = f.cli.ok(&["inspect", "--format", "{{.Id}}", "busybox"]);
    f.cli.ok(&["tag", "busybox", &name]);
    f.cli.run(&["push", &name]).expect_code(0).expect_text("digest: sha256:");
    f.cli.ok(&["rmi", "-f", &name, "busybox"]);
    assert_eq!(f.cli.ok(&["images", "-q"]), "");
    f.cli.run(&["pull", &name]).expect_code(0).expect_text("Downloaded newer image");
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.Id}}", &name]), id);
    f.cli.run(&["pull", &name]).expect_code(0).expect_text("Image is up to date");
    assert_eq!(f.cli.ok(&["run", "--rm", &name, "echo", "pulled"]), "pulled");
    let digests = f.cli.ok(&["inspect", "--format", "{{json .RepoDigests}}", &name]);
    assert!(digests.contains("@sha256:"), "{digests}");
}

/// What a registry does not have is said in one line.
pub fn pull_of_a_missing_image_fails(f: &Fixture) {
    let registry = Registry::start();
    f.cli.run(&["pull", &registry.name("nosuch:v1")]).expect_code(1).expect_text("not found");
}

/// `run` of an image that is not there pulls it first.
pub fn run_pulls_what_is_missing(f: &Fixture) {
    let registry = Registry::start();
    let name = registry.name("box");
    f.cli.ok(&["tag", "busybox", &name]);
    f.cli.ok(&["push", &name]);
    f.cli.ok(&["rmi", "-f", &name, "busybox"]);
    f.cli.run(&["run", "--rm", &name, "echo", "came"]).expect_code(0).expect_text("came");
    f.cli.run(&["run", "--rm", &registry.name("nosuch"), "true"]).expect_code(125);
}

/// `history` tells the steps, newest first.
pub fn history(f: &Fixture) {
    let shown = f.cli.ok(&["history", "--format", "{{.Comment}}", "busybox"]);
    assert!(shown.contains("Imported from -"), "{shown}");
}
