//! /dev of an image or of a shared volume, where the container has no mount of its own on it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use crate::harness::Case;
use crate::privileges::in_user_namespace;
use crate::swap::Swap;

/// A container whose /dev is the image's.
fn without_dev(script: &str) -> Case {
    let mut case = Case::script(script);
    let mounts = case.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    case
}

fn names(directory: &PathBuf) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// CVE-2026-41579, CVE-2026-47766: the image's /dev is a link, and nodes, links and the terminal are made where it leads.
#[test]
fn nothing_is_made_through_a_link() {
    for terminal in [false, true] {
        for up in ["", "../../../../../../../.."] {
            let mut case = without_dev("true");
            let outside = case.path().join("outside");
            fs::create_dir_all(outside.join("pts")).unwrap();
            fs::remove_dir(case.rootfs().join("dev")).unwrap();
            symlink(format!("{up}{}", outside.display()), case.rootfs().join("dev")).unwrap();
            case.config["linux"]["devices"] =
                json!([{ "path": "/dev/made", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }]);
            case.config["process"]["terminal"] = json!(terminal);
            if terminal {
                let path = case.path().join("console.sock");
                let _listener = UnixListener::bind(&path).unwrap();
                case.call_detached(&["run", "-d", "--console-socket", path.to_str().unwrap()]);
            } else {
                case.run();
            }
            assert_eq!(names(&outside), ["pts"], "terminal: {terminal}, by {up:?}");
            assert!(names(&outside.join("pts")).is_empty());
        }
    }
}

/// CVE-2026-88265: the container's /dev/null becomes a standard stream, and those are given to its user. Here it is a link
/// to a file of another volume, whenever the runtime looks away.
#[test]
fn streams_are_the_real_null() {
    let mut case = without_dev("echo taken >&0; true");
    let (dev, volume) = (case.path().join("dev"), case.path().join("volume"));
    for directory in [&dev, &volume] {
        fs::create_dir(directory).unwrap();
    }
    let file = volume.join("file");
    fs::write(&file, "untouched").unwrap();
    mknod(&dev.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
    symlink("/volume/file", dev.join("link")).unwrap();
    for (place, source) in [("/dev", &dev), ("/volume", &volume)] {
        let bind = json!({ "destination": place, "type": "bind", "source": source, "options": ["rbind"] });
        case.push("/mounts", bind);
    }
    case.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    case.config["linux"]["maskedPaths"] = json!([]);
    let swap = Swap::start(&dev.join("null"), &dev.join("link"));
    let said: Vec<_> = (0..80).map(|_| case.run()).collect();
    drop(swap);
    assert!(said.iter().any(|said| said.code == 0), "no container ran at all: {:?}", said[0]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "untouched");
    assert_eq!(fs::metadata(&file).unwrap().uid(), 0);
}

/// A container with users of its own gets the host's nodes bound: not over what a link of the image leads to.
#[test]
fn a_bound_device_follows_no_link() {
    let mut case = without_dev("grep -c ' /etc/plain ' /proc/self/mountinfo; true");
    fs::write(case.rootfs().join("etc/plain"), "").unwrap();
    in_user_namespace(&mut case, &json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]));
    symlink("/etc/plain", case.rootfs().join("dev/null")).unwrap();
    // Files are masked by the null device, whose absence would be noticed.
    case.config["linux"]["maskedPaths"] = json!([]);
    let said = case.run();
    assert_eq!((said.out.as_str(), said.code == 0), ("", false), "{said:?}");
}
