//! /proc, what is written to it and what is hidden of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use crate::harness::Case;
use crate::swap::Swap;

fn mount(destination: &str, kind: &str, source: &str) -> serde_json::Value {
    let options: &[&str] = if kind == "bind" { &["rbind"] } else { &[] };
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// CVE-2019-16884: with something else on /proc, the label that is to confine the program is written to a file of the
/// container's.
#[test]
fn nothing_covers_proc() {
    for (destination, kind) in [
        ("/proc", "tmpfs"),
        ("/proc", "bind"),
        ("/proc/self", "bind"),
        ("/proc/self/attr", "tmpfs"),
        ("/link", "bind"),
    ] {
        let mut case = Case::script("echo started");
        let host = case.path().join("host");
        fs::create_dir(&host).unwrap();
        symlink("proc/sys", case.rootfs().join("link")).unwrap();
        case.push("/mounts", mount(destination, kind, host.to_str().unwrap()));
        let said = case.run();
        assert_ne!(said.code, 0, "{kind} on {destination}");
        assert_eq!(said.out, "", "{kind} on {destination}");
    }
}

/// CVE-2019-16884, CVE-2023-28642: the image has plain files where labels are written to.
#[test]
fn labels_go_to_the_kernel_only() {
    let mut case = Case::script("echo started");
    let attributes = case.rootfs().join("proc/self/attr");
    fs::create_dir_all(attributes.join("apparmor")).unwrap();
    for name in ["exec", "apparmor/exec"] {
        fs::write(attributes.join(name), "").unwrap();
    }
    symlink("self", case.rootfs().join("proc/thread-self")).unwrap();
    case.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
    case.config["linux"]["maskedPaths"] = json!([]);
    case.config["linux"]["readonlyPaths"] = json!([]);
    for (field, label) in
        [("apparmorProfile", "confined"), ("selinuxLabel", "system_u:system_r:confined_t:s0")]
    {
        case.config["process"][field] = json!(label);
        let said = case.run();
        if fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs") && field == "selinuxLabel" {
            continue;
        }
        assert_eq!(said.out, "", "started without its {field}: {said:?}");
        for name in ["exec", "apparmor/exec"] {
            assert_eq!(fs::read_to_string(attributes.join(name)).unwrap(), "");
        }
        case.config["process"].as_object_mut().unwrap().remove(field);
    }
}

/// CVE-2025-52881: parameters are written to files of the container's.
#[test]
fn parameters_go_to_the_kernel_only() {
    let mut case = Case::new(&["/bin/sleep", "100"]);
    let directory = case.rootfs().join("proc/sys/net/ipv4");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("ip_forward"), "untouched").unwrap();
    case.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
    case.config["linux"]["maskedPaths"] = json!([]);
    case.config["linux"]["readonlyPaths"] = json!([]);
    case.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    case.call_detached(&["run", "-d"]).ok();
    assert_eq!(fs::read_to_string(directory.join("ip_forward")).unwrap(), "untouched");
    let mut second = Case::script("cat /proc/sys/net/ipv4/ip_forward");
    let path = format!("/proc/{}/ns/net", case.state()["pid"]);
    for namespace in second.config["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "network" {
            namespace["path"] = json!(path);
        }
    }
    assert_eq!(second.run().ok(), "1\n", "it was set where it belongs");
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2025-54867: the image chooses where proc and sysfs are mounted, and so what is
/// masked.
#[test]
fn proc_and_sys_must_be_directories() {
    for name in ["proc", "sys"] {
        let case = Case::script("echo started");
        fs::remove_dir(case.rootfs().join(name)).unwrap();
        fs::create_dir_all(case.rootfs().join("elsewhere").join(name)).unwrap();
        symlink(format!("/elsewhere/{name}"), case.rootfs().join(name)).unwrap();
        let said = case.run();
        assert_eq!((said.out.as_str(), said.code == 0), ("", false), "{name}: {said:?}");
    }
}

/// CVE-2025-31133: the image's /dev/null is a link to what an attacker would like to see bound over the masked path.
#[test]
fn masks_need_the_real_null() {
    for target in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/etc/plain"] {
        let mut case = Case::script("cat /proc/uptime; echo started");
        let dev = case.path().join("dev");
        fs::create_dir(&dev).unwrap();
        fs::write(case.rootfs().join("etc/plain"), "chosen").unwrap();
        symlink(target, dev.join("null")).unwrap();
        case.config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        case.push("/mounts", mount("/dev", "bind", dev.to_str().unwrap()));
        let said = case.run();
        assert_eq!((said.out.as_str(), said.code == 0), ("", false), "{target}: {said:?}");
    }
}

/// The same, while another container exchanges the node and the link all the time: either the creation fails, or the
/// path is masked.
#[test]
fn masks_win_the_race() {
    let mut case = Case::script("cat /proc/uptime");
    let dev = case.path().join("dev");
    fs::create_dir(&dev).unwrap();
    mknod(&dev.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    symlink("/etc/plain", dev.join("link")).unwrap();
    fs::write(case.rootfs().join("etc/plain"), "chosen").unwrap();
    case.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    case.push("/mounts", mount("/dev", "bind", dev.to_str().unwrap()));
    let swap = Swap::start(&dev.join("null"), &dev.join("link"));
    let outputs: Vec<String> = (0..60).map(|_| case.run().out).collect();
    drop(swap);
    assert!(outputs.iter().all(String::is_empty), "{outputs:?}");
}

/// CVE-2025-52565: the terminal is bound over whatever /dev/console of the image leads to.
#[test]
fn the_console_is_no_link() {
    let mut case = Case::script("grep -c ' /proc/sys/kernel/hostname ' /proc/self/mountinfo > /etc/covered");
    symlink("/proc/sys/kernel/hostname", case.rootfs().join("dev/console")).unwrap();
    fs::create_dir(case.rootfs().join("dev/pts")).unwrap();
    case.config["process"]["terminal"] = json!(true);
    case.config["mounts"].as_array_mut().unwrap().retain(|mount| {
        let destination = mount["destination"].as_str().unwrap();
        destination != "/dev" && destination != "/dev/shm"
    });
    let path = case.path().join("console.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let said = case.call_detached(&["run", "-d", "--console-socket", path.to_str().unwrap()]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(!case.rootfs().join("etc/covered").exists(), "the program was started");
}

/// With --no-pivot the host's whole procfs stays in the mount namespace, and seeing one is what the kernel asks of a user
/// namespace that wants to mount a new one.
#[test]
fn no_pivot_leaves_no_bare_proc() {
    let mut case = Case::script(
        "/bin/busybox unshare -mrpf sh -c '/bin/busybox mount -t proc none /proc && cat /proc/uptime'; echo tried",
    );
    for set in ["bounding", "effective", "permitted"] {
        case.push(&format!("/process/capabilities/{set}"), json!("CAP_SETFCAP"));
    }
    for no_pivot in [&["run", "--no-pivot"][..], &["run"]] {
        let said = case.call(no_pivot, &[]);
        assert_eq!(said.out, "tried\n", "{said:?}");
        assert!(said.err.contains("permission denied"), "{said:?}");
    }
}
