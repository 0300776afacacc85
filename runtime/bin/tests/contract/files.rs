//! The container's file system: mounts, devices, what is hidden.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::harness::Case;

#[test]
fn the_root_can_be_read_only() {
    let mut case = Case::script("touch /tmp/x 2>/dev/null && exit 1; touch /dev/shm/y");
    case.config["root"]["readonly"] = json!(true);
    case.run().ok();
}

#[test]
fn paths_are_hidden_and_protected() {
    let case = Case::script(
        "head -c 1 /proc/uptime; ls /sys/firmware; touch /proc/sys/kernel/x 2>/dev/null; \
         stat -c %t:%T /proc/uptime; grep -c ' /proc/sys ' /proc/self/mountinfo",
    );
    assert_eq!(case.run().ok(), "1:3\n1\n");
}

#[test]
fn binds_of_files_and_directories() {
    let mut case = Case::script(
        "cat /data/a /etc/file; echo x > /data/b && echo rw; echo x > /ro/b 2>/dev/null || echo ro",
    );
    let host = case.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("a"), "A\n").unwrap();
    fs::write(case.path().join("one"), "1\n").unwrap();
    let bind = |source: &std::path::Path, to: &str, more: &[&str]| {
        let options = [&["rbind", "rprivate"], more].concat();
        json!({ "destination": to, "type": "bind", "source": source, "options": options })
    };
    case.push("/mounts", bind(&host, "/data", &[]));
    case.push("/mounts", bind(&host, "/ro", &["ro"]));
    case.push("/mounts", bind(&case.path().join("one"), "/etc/file", &["ro"]));
    assert_eq!(case.run().ok(), "A\n1\nrw\nro\n");
    assert!(host.join("b").exists());
}

#[test]
fn a_bind_is_as_shared_as_asked() {
    let mut case = Case::script("grep ' /data-' /proc/self/mountinfo");
    let host = case.path().join("host");
    fs::create_dir(&host).unwrap();
    for kind in ["shared", "slave", "private"] {
        let to = format!("/data-{kind}");
        let bind = json!({ "destination": to, "type": "bind", "source": host, "options": ["bind", kind] });
        case.push("/mounts", bind);
    }
    let out = case.run().ok();
    let shared: Vec<bool> = out.lines().map(|line| line.contains(" shared:")).collect();
    assert_eq!(shared, [true, false, false], "{out}");
}

#[test]
fn a_missing_bind_source_fails() {
    let mut case = Case::new(&["/bin/true"]);
    case.push(
        "/mounts",
        json!({ "destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"] }),
    );
    case.run().fails_with("no such file or directory");
}

#[test]
fn links_in_the_image_cannot_lead_a_mount_out_of_the_root() {
    let mut case = Case::script("cat /inside/marker");
    let (outside, host) = (case.path().join("outside"), case.path().join("host"));
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&host).unwrap();
    fs::write(host.join("marker"), "mounted\n").unwrap();
    fs::create_dir(case.rootfs().join("inside")).unwrap();
    symlink("/inside", case.rootfs().join("absolute")).unwrap();
    symlink("../../../../../../../../../inside", case.rootfs().join("dots")).unwrap();
    for target in ["/absolute", "/dots"] {
        let mut again = Case::script("cat /inside/marker");
        fs::create_dir(again.rootfs().join("inside")).unwrap();
        symlink(fs::read_link(case.rootfs().join(&target[1..])).unwrap(), again.rootfs().join(&target[1..]))
            .unwrap();
        again.push(
            "/mounts",
            json!({ "destination": target, "type": "bind", "source": host, "options": ["bind"] }),
        );
        assert_eq!(again.run().ok(), "mounted\n", "{target}");
    }
    symlink(&outside, case.rootfs().join("evil")).unwrap();
    case.config["process"]["args"] = json!(["/bin/true"]);
    case.push(
        "/mounts",
        json!({ "destination": "/evil/deep", "type": "tmpfs", "source": "x", "options": [] }),
    );
    case.run().ok();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside the root");
}

/// An image that could choose where proc is mounted could race the masking of its files (CVE-2019-19921,
/// CVE-2023-27561).
#[test]
fn proc_behind_a_link_is_refused() {
    let case = Case::new(&["/bin/true"]);
    fs::remove_dir(case.rootfs().join("proc")).unwrap();
    fs::create_dir(case.rootfs().join("elsewhere")).unwrap();
    symlink("/elsewhere", case.rootfs().join("proc")).unwrap();
    case.run().fails_with("proc");
}

#[test]
fn default_devices_and_links() {
    let case = Case::script(
        "stat -c '%n %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; \
         for l in fd stdin ptmx; do readlink /dev/$l; done; echo x > /dev/null; mknod /tmp/d c 1 3 2>/dev/null || echo no-mknod",
    );
    assert_eq!(
        case.run().ok(),
        "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n\
         /dev/tty 5:0 666\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\nno-mknod\n"
    );
}

#[test]
fn further_devices_with_owner_and_mode() {
    let mut case = Case::script("stat -c '%F %t:%T %a %u:%g' /dev/more/fuse /dev/pipe");
    case.config["linux"]["devices"] = json!([
        { "path": "/dev/more/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4 },
        { "path": "/dev/pipe", "type": "p", "fileMode": 0o600 }
    ]);
    assert_eq!(case.run().ok(), "character special file a:e5 640 3:4\nfifo 0:0 600 0:0\n");
}

#[test]
fn device_rules_are_enforced() {
    let mut case = Case::script(
        "cat /dev/full >/dev/null & cat /dev/zero | head -c1 >/dev/null; echo x >/dev/full || echo refused",
    );
    case.config["process"]["args"] = json!(["/bin/sh", "-c", "(echo x > /dev/fuse) 2>&1; echo $?"]);
    case.config["linux"]["devices"] = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0 }]);
    case.config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    let out = case.run().ok();
    assert!(out.contains("Operation not permitted") && out.ends_with("1\n"), "{out}");
}

#[test]
fn tmpfs_options_and_copy_up() {
    let mut case =
        Case::script("stat -c %a /fresh; cat /etc/kept; touch /etc/new; grep ' /etc ' /proc/self/mountinfo");
    fs::write(case.rootfs().join("etc/kept"), "kept\n").unwrap();
    case.push(
        "/mounts",
        json!({ "destination": "/fresh", "type": "tmpfs", "source": "tmpfs", "options": ["mode=711", "size=64k"] }),
    );
    case.push(
        "/mounts",
        json!({ "destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nodev"] }),
    );
    let out = case.run().ok();
    assert!(out.starts_with("711\nkept\n"), "{out}");
    assert!(out.contains("nodev"), "{out}");
    assert!(!case.rootfs().join("etc/new").exists());
}

#[test]
fn the_host_sees_no_mount() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(case.path().to_str().unwrap()), "{mounts}");
    let own = fs::read_to_string(format!("/proc/{}/mountinfo", case.state()["pid"])).unwrap();
    let targets: Vec<&str> = own.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    assert!(targets.contains(&"/"), "{own}");
    assert!(!own.contains("/sys/fs/cgroup"), "nothing of the host's tree is left: {own}");
}

#[test]
fn the_roots_propagation_is_as_asked_for() {
    for (asked, mark) in [("shared", "shared:"), ("slave", ""), ("private", ""), ("unbindable", "unbindable")]
    {
        let mut case = Case::script("grep ' / / ' /proc/self/mountinfo || grep ' / ' /proc/self/mountinfo");
        case.config["linux"]["rootfsPropagation"] = json!(asked);
        let out = case.run().ok();
        let root = out.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.contains(mark), "{asked}: {root}");
        assert!(asked == "shared" || !root.contains("shared:"), "{asked}: {root}");
    }
}

#[test]
fn a_relative_protected_path_starts_at_the_root() {
    let mut case = Case::script("touch /etc/plain; echo $?");
    case.config["linux"]["readonlyPaths"] = json!(["etc", "no/such/path"]);
    assert_eq!(case.run().ok(), "1\n");
}
