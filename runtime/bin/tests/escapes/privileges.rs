//! Capabilities, ids, keys and cgroups that a container must not have.

use std::fs;
use std::os::unix::fs::chown;

use serde_json::{Value, json};

use crate::harness::Case;

pub(crate) fn in_user_namespace(case: &mut Case, maps: &Value) {
    case.push("/linux/namespaces", json!({ "type": "user" }));
    case.config["linux"]["uidMappings"] = maps.clone();
    case.config["linux"]["gidMappings"] = maps.clone();
    let host = maps[0]["hostID"].as_u64().and_then(|id| u32::try_from(id).ok());
    for path in ["", "tmp", "bin", "bin/busybox", "dev", "proc", "sys", "etc"] {
        chown(case.rootfs().join(path), host, host).unwrap();
    }
}

/// CVE-2022-29162, CVE-2022-27650, CVE-2022-24769, CVE-2025-27612: inheritable capabilities let a program's file
/// capabilities give what the user was not to have.
#[test]
fn nothing_is_inheritable_unasked() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    let first = fs::read_to_string(format!("/proc/{}/status", case.state()["pid"])).unwrap();
    assert!(first.contains("CapInh:\t0000000000000000\n"), "{first}");
    let inside = ["grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status"];
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    assert_eq!(case.call(&["exec"], &inside).ok(), none);
    assert_eq!(case.call(&["exec", "--cap", "CAP_NET_ADMIN"], &inside).ok(), none);
    assert_eq!(case.call(&["exec", "--cap", "CAP_NET_ADMIN", "--user", "1000:1000"], &inside).ok(), none);
}

/// CVE-2023-25809: where the container has no cgroup namespace, the host's hierarchy is bound, and must be as read-only
/// as the mount asks for.
#[test]
fn a_read_only_cgroup_mount_is_one() {
    for user_namespace in [false, true] {
        let mut case = Case::script(
            "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/made 2>/dev/null && echo $d; \
             echo 0 2>/dev/null > $d/cgroup.procs && echo $d/cgroup.procs; done; true",
        );
        if user_namespace {
            in_user_namespace(&mut case, &json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]));
        }
        let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
        case.push(
            "/mounts",
            json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }),
        );
        assert_eq!(case.run().ok(), "", "with a user namespace: {user_namespace}");
    }
}

/// CVE-2021-43784: the lengths of many mappings overflowed in the message that carried them, and others came out.
#[test]
fn id_mappings_are_exact() {
    let maps = |count: u32| -> Value {
        (0..count).map(|n| json!({ "containerID": n, "hostID": 100_000 + n, "size": 1 })).collect()
    };
    let mut case = Case::script("cat /proc/self/uid_map");
    in_user_namespace(&mut case, &maps(200));
    let out = case.run().ok();
    for (number, line) in out.lines().enumerate() {
        let fields: Vec<_> = line.split_whitespace().map(|field| field.parse::<usize>().unwrap()).collect();
        assert_eq!(fields, [number, 100_000 + number, 1]);
    }
    assert_eq!(out.lines().count(), 200);
    for count in [341, 5_500] {
        case.config["linux"]["uidMappings"] = maps(count);
        let said = case.run();
        assert_eq!((said.out.as_str(), said.code == 0), ("", false), "{count}: {}", said.err);
    }
}

/// CVE-2016-3697, CVE-2026-30892, CVE-2026-46680: a numeric user is looked up as a name in the image's passwd file, which says that it is root.
#[test]
fn a_number_is_no_user_name() {
    let mut case = Case::script("id -u; sleep 100");
    fs::write(case.rootfs().join("etc/passwd"), "1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n")
        .unwrap();
    case.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let said = case.call_detached(&["run", "-d"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(case.call(&["exec", "--user", "1000"], &["id", "-u"]).ok(), "1000\n");
    // CVE-2026-30892: one digit was taken for nothing, which is root.
    for user in ["1", "9", "10"] {
        let groups = case.call(&["exec", "--user", user], &["sh", "-c", "id -u; id -g"]).ok();
        assert_eq!(groups, format!("{user}\n1000\n"));
    }
    // CVE-2026-46680: a number that is too large was taken for a name.
    for user in ["4294967296", "18446744073709551616", "-1", "1000x"] {
        assert_ne!(case.call(&["exec", "--user", user], &["true"]).code, 0, "{user}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", case.state()["pid"])).unwrap();
    assert!(status.contains("Uid:\t1000\t1000\t1000\t1000\n"), "{status}");
}

/// The keys of whoever runs an exec are none of the container's.
#[test]
fn an_exec_has_the_containers_keys() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    // A line ends in "_ses.contract-12-3: empty".
    let ring = format!("_ses.{}:", case.id);
    let users = |list: String| {
        let lines: Vec<_> = list.lines().filter(|line| line.contains(&ring)).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "one keyring of that name: {list}");
        lines[0].split_whitespace().nth(2).unwrap().parse::<u32>().unwrap()
    };
    // Ended processes let go of theirs a moment later.
    let mut before = 0;
    while before != users(fs::read_to_string("/proc/keys").unwrap()) {
        before = users(fs::read_to_string("/proc/keys").unwrap());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let during = users(case.call(&["exec"], &["cat", "/proc/keys"]).ok());
    assert!(during > before, "the exec holds the container's keyring: {before}, {during}");
}
