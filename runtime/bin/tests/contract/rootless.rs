//! Containers of a user without privileges.

use std::fs;

use serde_json::json;

use crate::harness::{Case, USER};

/// What `spec --rootless` changes, in the bundle of the other tests.
fn rootless(script: &str) -> Case {
    let mut case = Case::script(script);
    let namespaces = case.config.pointer_mut("/linux/namespaces").unwrap().as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({ "type": "user" }));
    for mount in case.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/sys" {
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        } else if mount["destination"] == "/dev/pts" {
            mount["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
        }
    }
    let own = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    case.config["linux"]["uidMappings"] = own.clone();
    case.config["linux"]["gidMappings"] = own;
    case
}

#[test]
fn a_user_is_root_inside() {
    let mut case =
        rootless("id -u; id -g; cat /proc/self/uid_map; touch /made; echo x > /dev/null; hostname");
    case.become_user("");
    let out = case.run().ok();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "0", "65534", "1", "contract"]);
    let made = fs::metadata(case.rootfs().join("made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), USER);
}

#[test]
fn a_users_container_lives_as_any_other() {
    let mut case = rootless("exec sleep 1000");
    case.become_user("");
    case.call_detached(&["create"]).ok();
    assert_eq!(case.status(), "created");
    case.call(&["start"], &[]).ok();
    assert_eq!(case.call(&["exec"], &["id", "-u"]).ok(), "0\n");
    case.call(&["kill"], &["KILL"]).ok();
    case.wait_for("stopped");
    case.call(&["delete"], &[]).ok();
}

#[test]
fn more_ids_come_from_newuidmap() {
    let mut case = rootless("id -u; id -g; chown 1:1 /tmp && stat -c %u:%g /tmp");
    let ids = json!([
        { "containerID": 0, "hostID": USER, "size": 1 },
        { "containerID": 1, "hostID": 200_000, "size": 1000 }
    ]);
    case.config["linux"]["uidMappings"] = ids.clone();
    case.config["linux"]["gidMappings"] = ids;
    case.config["process"]["user"] = json!({ "uid": 1, "gid": 1 });
    case.config["process"]["capabilities"]["ambient"] = json!([]);
    case.config["process"]["args"] = json!(["/bin/sh", "-c", "id -u; id -g; cat /proc/self/uid_map"]);
    let given = case.path().join("given");
    fs::write(&given, "nobody:200000:1000\n").unwrap();
    // As an administrator would have it in /etc/subuid.
    let bind = |file: &str| format!("touch {file}; mount --bind {} {file}", given.display());
    case.become_user(&format!("{}; {}", bind("/etc/subuid"), bind("/etc/subgid")));
    let out = case.run().ok();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["1", "1", "0", "65534", "1", "1", "200000", "1000"]);
}

#[test]
fn ids_that_were_not_given_are_refused() {
    let mut case = rootless("true");
    let ids = json!([{ "containerID": 0, "hostID": 0, "size": 10 }]);
    case.config["linux"]["uidMappings"] = ids.clone();
    case.config["linux"]["gidMappings"] = ids;
    case.become_user("");
    case.run().refuses(1, "newgidmap");
}

#[test]
fn limits_need_a_cgroup() {
    let mut case = rootless("true");
    case.config["linux"]["resources"] = json!({ "memory": { "limit": 10_000_000 } });
    case.become_user("");
    case.run().refuses(1, "rootless needs no limits + no cgrouppath");
}

#[test]
fn a_user_needs_a_user_namespace() {
    let mut case = Case::new(&["/bin/true"]);
    case.become_user("");
    case.run().fails_with("rootless container requires user namespaces");
}
