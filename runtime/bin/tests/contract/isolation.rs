//! Namespaces, cgroups, kernel parameters.

use std::fs;

use serde_json::json;

use crate::harness::Case;

fn namespace(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn listed_namespaces_are_new_and_others_are_the_hosts() {
    let mut case = Case::script(
        "for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done; hostname",
    );
    let out = case.run().ok();
    let lines: Vec<&str> = out.lines().collect();
    for (line, name) in lines.iter().zip(["mnt", "pid", "net", "ipc", "uts"]) {
        assert_ne!(*line, namespace(name));
    }
    assert_eq!(lines[5], namespace("cgroup"));
    assert_eq!(lines[6], namespace("user"));
    assert_eq!(lines[7], "contract");
    case.push("/linux/namespaces", json!({ "type": "cgroup" }));
    assert_ne!(case.run().ok().lines().nth(5).unwrap(), namespace("cgroup"));
}

#[test]
fn the_cgroup_namespace_starts_at_the_containers_cgroup() {
    let mut case = Case::script("cat /proc/self/cgroup");
    let out = case.run().ok();
    assert!(
        out.contains(&format!(":pids:/berth/{}\n", case.id))
            || out.contains(&format!("0::/berth/{}\n", case.id))
    );
    case.push("/linux/namespaces", json!({ "type": "cgroup" }));
    let out = case.run().ok();
    assert!(out.lines().filter(|line| line.contains("pids")).all(|line| line.ends_with(":/")), "{out}");
}

#[test]
fn namespaces_are_joined_by_path() {
    let first = Case::new(&["/bin/sleep", "100"]);
    first.call_detached(&["run", "-d"]).ok();
    let pid = &first.state()["pid"];
    let mut second = Case::script("for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; ps");
    let path = |name: &str| json!(format!("/proc/{pid}/ns/{name}"));
    second.config.as_object_mut().unwrap().remove("hostname");
    second.config["linux"]["namespaces"] = json!([
        { "type": "network", "path": path("net") }, { "type": "ipc", "path": path("ipc") },
        { "type": "uts", "path": path("uts") }, { "type": "pid", "path": path("pid") }, { "type": "mount" }
    ]);
    let out = second.run().ok();
    for (line, name) in out.lines().zip(["net", "ipc", "uts", "pid"]) {
        let expected = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(line, expected.to_str().unwrap());
    }
    assert!(out.contains("sleep 100"), "{out}");
    assert_eq!(first.status(), "running");
}

#[test]
fn a_namespace_of_the_wrong_kind_is_refused() {
    let mut case = Case::new(&["/bin/true"]);
    case.config["linux"]["namespaces"] =
        json!([{ "type": "network", "path": "/proc/self/ns/uts" }, { "type": "mount" }, { "type": "pid" }]);
    assert_ne!(case.run().code, 0);
}

#[test]
fn a_user_namespace_maps_ids() {
    let mut case = Case::script(
        "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /tmp/x; grep Cap /proc/self/status",
    );
    case.push("/linux/namespaces", json!({ "type": "user" }));
    case.config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    case.config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    for path in ["", "tmp", "bin", "bin/busybox", "dev", "proc", "sys", "etc"] {
        std::os::unix::fs::chown(case.rootfs().join(path), Some(100_000), Some(100_000)).unwrap();
    }
    let out = case.run().ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "1000"]);
    assert_eq!(lines[2], "0");
    let made = fs::metadata(case.rootfs().join("tmp/x")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 100_000);
    case.config["process"]["args"] = json!(["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    assert_eq!(case.call(&["exec"], &["id", "-u"]).ok(), "0\n");
    let host = fs::read_to_string(format!("/proc/{}/status", case.state()["pid"])).unwrap();
    assert!(host.contains("Uid:\t100000\t100000"), "{host}");
}

#[test]
fn limits_are_set_and_updated() {
    let mut case = Case::new(&["/bin/sleep", "100"]);
    case.config["linux"]["resources"] = json!({
        "memory": { "limit": 33_554_432 }, "pids": { "limit": 20 }, "cpu": { "shares": 512, "quota": 20_000, "period": 100_000 }
    });
    case.call_detached(&["run", "-d"]).ok();
    let read = |v1: &str, v2: &str| {
        let path =
            |file: &str, controller: &str| format!("/sys/fs/cgroup/{controller}/berth/{}/{file}", case.id);
        let (controller, file) = v1.split_once('/').unwrap();
        let text = fs::read_to_string(path(file, controller)).or_else(|_| fs::read_to_string(path(v2, "")));
        text.unwrap().trim().to_owned()
    };
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max"), "33554432");
    assert_eq!(read("pids/pids.max", "pids.max"), "20");
    case.call(&["update", "--memory", "64M", "--pids-limit", "30"], &[]).ok();
    assert_eq!(read("memory/memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(read("pids/pids.max", "pids.max"), "30");
}

#[test]
fn sysctls_hold_inside_only() {
    let mut case = Case::script(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; echo 1 > /proc/sys/kernel/msgmax",
    );
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    case.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "9999" });
    let said = case.run();
    assert_eq!(said.out, "1\n9999\n");
    assert_ne!(said.code, 0, "/proc/sys is read-only: {said:?}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before);
}

#[test]
fn the_loopback_device_is_up() {
    let case = Case::script("cat /sys/class/net/lo/flags; ls /sys/class/net");
    let out = case.run().ok();
    let flags = u32::from_str_radix(out.lines().next().unwrap().trim_start_matches("0x"), 16).unwrap();
    assert_eq!(flags & 1, 1, "{out}");
    assert!(!out.contains("eth0"), "{out}");
}
