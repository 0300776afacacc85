//! Mounts with mapped ids, and options that reach the whole tree.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, chown};
use serde_json::{Value, json};

use crate::harness::{Case, Said, is_ours};

/// `id` of the container's side, `host` of the other.
fn map(id: u32, host: u32) -> Value {
    json!([{ "containerID": id, "hostID": host, "size": 1000 }])
}

/// A directory with a file that belongs to user and group `owner`.
fn owned(case: &Case, owner: u32) -> String {
    let source = case.path().join("source");
    fs::create_dir_all(&source).unwrap();
    // The root of a user namespace could not make it.
    fs::create_dir_all(case.rootfs().join("mnt")).unwrap();
    fs::write(source.join("file"), "text").unwrap();
    chown(&source.join("file"), Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner))).unwrap();
    source.to_str().unwrap().to_owned()
}

fn bind(source: &str, option: &str, mappings: Option<Value>) -> Value {
    let mut mount =
        json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["rbind", option] });
    if let Some(map) = mappings {
        mount["uidMappings"] = map.clone();
        mount["gidMappings"] = map;
    }
    mount
}

fn in_user_namespace(case: &mut Case, host: u32) {
    case.push("/linux/namespaces", json!({ "type": "user" }));
    case.config["linux"]["uidMappings"] = map(0, host);
    case.config["linux"]["gidMappings"] = map(0, host);
}

const OWNER: &str = "stat -c %u:%g /mnt/file; touch /mnt/new && stat -c %u /mnt/new";

#[test]
fn a_mounts_own_mapping_shows_other_ids() {
    let mut case = Case::script(OWNER);
    let source = owned(&case, 7);
    case.push("/mounts", bind(&source, "idmap", Some(map(0, 5000))));
    case.config["process"]["user"] = json!({ "uid": 5000, "gid": 5000 });
    fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(case.run().ok(), "5007:5007\n5000\n");
    let new = fs::metadata(Path::new(&source).join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&new), 0, "on the disk it is the mapped id");
}

/// Files of the host's user 7 belong to user 7 in a container whose users begin at 70000 on the host.
#[test]
fn a_mount_takes_the_mapping_of_the_containers_users() {
    for (option, mappings) in [("idmap", None), ("ridmap", None), ("idmap", Some(map(0, 70_000)))] {
        let mut case = Case::script(OWNER);
        let source = owned(&case, 7);
        in_user_namespace(&mut case, 70_000);
        case.push("/mounts", bind(&source, option, mappings));
        assert_eq!(case.run().ok(), "7:7\n0\n", "{option}");
    }
}

#[test]
fn a_mount_takes_the_mapping_of_a_joined_namespace() {
    let mut first = Case::new(&["/bin/sleep", "100"]);
    in_user_namespace(&mut first, 70_000);
    first.call_detached(&["run", "-d"]).ok();
    let mut case = Case::script(OWNER);
    let source = owned(&case, 7);
    let path = format!("/proc/{}/ns/user", first.state()["pid"]);
    case.push("/linux/namespaces", json!({ "type": "user", "path": path }));
    case.push("/mounts", bind(&source, "idmap", None));
    assert_eq!(case.run().ok(), "7:7\n0\n");
}

#[test]
fn a_mapping_that_cannot_be_is_refused() {
    let mut case = Case::new(&["/bin/true"]);
    let source = owned(&case, 7);
    case.push("/mounts", bind(&source, "idmap", None));
    let said = case.run();
    assert_ne!(said.code, 0);
    assert!(!is_ours() || said.err.contains("idmap needs uidMappings"), "{said:?}");
    case.config["mounts"].as_array_mut().unwrap().pop();
    case.push("/mounts", bind("/proc", "idmap", Some(map(0, 5000))));
    let said = case.run();
    assert_ne!(said.code, 0);
    assert!(!is_ours() || said.err.contains("does its file system support id-mapped mounts?"), "{said:?}");
}

/// Runs the container in a mount namespace of the test's own, prepared by a script.
fn run_among_mounts(case: &Case, prepare: &str) -> Said {
    let runtime = case.command(&["run", "--bundle", case.path().to_str().unwrap(), &case.id]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-e", "-c", &format!("{prepare}; exec \"$@\""), "sh"]);
    command.arg(runtime.get_program()).args(runtime.get_args()).output().unwrap().into()
}

/// A source with a mount below it; its file belongs to user 7.
fn tree(case: &Case) -> (String, String) {
    let source = case.path().join("tree");
    fs::create_dir_all(source.join("below")).unwrap();
    let source = source.to_str().unwrap().to_owned();
    let prepare = format!(
        "mount -t tmpfs -o mode=777 one {source}; mkdir {source}/below; mount -t tmpfs -o mode=777 two {source}/below; \
         for d in {source} {source}/below; do echo text > $d/file; chown 7:7 $d/file; cp /bin/busybox $d/; done"
    );
    (source, prepare)
}

#[test]
fn ridmap_reaches_mounts_below_and_idmap_does_not() {
    for (option, below) in [("idmap", "7"), ("ridmap", "5007")] {
        let mut case = Case::script("stat -c %u /mnt/file; stat -c %u /mnt/below/file");
        let (source, prepare) = tree(&case);
        case.push("/mounts", bind(&source, option, Some(map(0, 5000))));
        assert_eq!(run_among_mounts(&case, &prepare).ok(), format!("5007\n{below}\n"), "{option}");
    }
}

#[test]
fn an_option_with_an_r_in_front_reaches_mounts_below() {
    let script = "for d in /mnt /mnt/below; do \
                    touch $d/new 2>/dev/null; echo $?; $d/busybox true 2>/dev/null; echo $?; \
                    grep \" $d \" /proc/self/mountinfo | grep -c nosuid; done; exit 0";
    let cases = [
        (vec!["rbind", "rro"], "1 0 0 1 0 0"),
        (vec!["rbind", "ro"], "1 0 0 0 0 0"),
        (vec!["rbind", "rnoexec", "rnosuid"], "0 126 1 0 126 1"),
        (vec!["rbind", "rro", "rw"], "1 0 0 1 0 0"),
    ];
    for (options, expected) in cases {
        let mut case = Case::script(script);
        let (source, prepare) = tree(&case);
        case.push(
            "/mounts",
            json!({ "destination": "/mnt", "type": "bind", "source": source, "options": options }),
        );
        let said = run_among_mounts(&case, &prepare);
        let out: Vec<&str> = said.out.split_whitespace().collect();
        assert_eq!(out.join(" "), expected, "{options:?}: {said:?}");
    }
}

/// What is bound may be what mounts of the container have made before: it is there only when its turn has come.
#[test]
fn what_earlier_mounts_show_can_be_bound() {
    for (users, mapping, owner) in [
        (false, None, "7"),
        (true, None, "65534"),
        (false, Some(map(0, 5000)), "5007"),
        (true, Some(map(0, 70_000)), "7"),
    ] {
        let mut case = Case::script("cat /again/file /again/below/file; stat -c %u /again/file");
        let source = owned(&case, 7);
        let below = case.path().join("below");
        for directory in [&below, &Path::new(&source).join("below"), &case.rootfs().join("again")] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(below.join("file"), " below ").unwrap();
        if users {
            in_user_namespace(&mut case, 70_000);
        }
        case.push("/mounts", bind(&source, "rprivate", None));
        let mut deeper = bind(below.to_str().unwrap(), "rprivate", None);
        deeper["destination"] = json!("/mnt/below");
        case.push("/mounts", deeper);
        let mut again = bind(case.rootfs().join("mnt").to_str().unwrap(), "rprivate", mapping);
        // The root's own path is taken off.
        again["destination"] = json!(case.rootfs().join("again"));
        case.push("/mounts", again);
        assert_eq!(case.run().ok(), format!("text below {owner}\n"), "{users}");
    }
}

#[test]
fn a_slave_root_receives_what_a_shared_host_mounts() {
    let mut case = Case::script("grep ' / ' /proc/self/mountinfo");
    case.config["linux"]["rootfsPropagation"] = json!("slave");
    let out = run_among_mounts(&case, "mount --make-rshared /").ok();
    let root = out.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.contains(" master:") && !root.contains(" shared:"), "{root}");
}

/// Flags of a bind mount are its source's if config.json names none, and otherwise those that are named, but for access
/// times. A container with users of its own cannot take away what its source has.
#[test]
fn a_bind_has_the_flags_that_are_named() {
    // flags of the source, options, with users of its own, flags that must be there, flags that must not be
    type Row =
        (&'static str, &'static [&'static str], bool, &'static [&'static str], &'static [&'static str]);
    let rows: [Row; 13] = [
        ("ro,noexec,nodiratime", &[], false, &["ro", "noexec", "nodiratime"], &["rw"]),
        ("ro,noexec,nodiratime", &[], true, &["ro", "noexec", "nodiratime"], &["rw"]),
        ("ro,noexec,nodiratime", &["dev"], false, &["rw", "nodiratime"], &["noexec"]),
        ("ro,noexec,nodiratime", &["dev"], true, &["ro", "noexec", "nodiratime"], &[]),
        ("ro,nosuid", &["nodev"], false, &["rw", "nodev"], &["nosuid"]),
        ("ro,nosuid", &["nodev"], true, &["ro", "nodev", "nosuid"], &[]),
        ("ro", &["rw", "nosuid"], false, &["rw", "nosuid"], &[]),
        ("nosuid,noatime", &["ro", "atime"], false, &["ro", "noatime"], &["nosuid"]),
        ("noatime", &["norelatime"], true, &["noatime"], &[]),
        ("noatime", &["nodiratime"], false, &["nodiratime", "relatime"], &["noatime"]),
        ("noatime", &["strictatime"], false, &[], &["noatime", "relatime"]),
        ("nodev,nosymfollow", &["ro", "symfollow"], true, &["ro", "nodev"], &["nosymfollow"]),
        ("nodiratime", &["diratime"], true, &["nodiratime"], &[]),
    ];
    for (host, options, users, there, gone) in rows {
        let said = flags_of_a_bind(host, options, users);
        let line = said.out.clone();
        assert_eq!(said.code, 0, "{host} {options:?} {users}: {said:?}");
        let flags: Vec<&str> = line.trim().split(',').collect();
        assert!(there.iter().all(|flag| flags.contains(flag)), "{host} {options:?} {users}: {line}");
        assert!(!gone.iter().any(|flag| flags.contains(flag)), "{host} {options:?} {users}: {line}");
    }
    for (host, options) in
        [("ro", ["rw"]), ("nodev", ["dev"]), ("noatime", ["relatime"]), ("relatime", ["nodiratime"])]
    {
        let said = flags_of_a_bind(host, &options, true);
        assert_ne!(said.code, 0, "{host} {options:?}: {said:?}");
        let text = "error during container init: error mounting";
        assert!(said.err.contains(text) && said.err.contains("operation not permitted"), "{said:?}");
    }
}

fn flags_of_a_bind(host: &str, options: &[&str], users: bool) -> Said {
    let mut case = Case::script("busybox awk '$2 == \"/mnt\" { print $4 }' /proc/self/mounts");
    let source = owned(&case, 7);
    if users {
        in_user_namespace(&mut case, 70_000);
    }
    let options = [&["bind"], options].concat();
    case.push(
        "/mounts",
        json!({ "destination": "/mnt", "type": "bind", "source": source, "options": options }),
    );
    let prepare = format!(
        "mount -t tmpfs -o strictatime one {source}; mount --bind -o remount,diratime,strictatime {source}; \
         mount --bind -o remount,{host} {source}"
    );
    run_among_mounts(&case, &prepare)
}
