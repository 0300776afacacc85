//! The floor below every container runtime: only the system calls that the bundle of `runc spec` needs, in the order
//! it needs them, with nothing read, decided, recorded or checked. `make bench` prints how far we are from it.
//!
//! ```text
//! floor ROOTFS PROGRAM
//! ```

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use berth_sys::clone::{Clone3, CloneFlags, Forked, clone3};
use berth_sys::{net, pidfd, process};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root, sethostname, setsid};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const NONE: Option<&str> = None;
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const MASKED: [&str; 3] = ["proc/keys", "proc/timer_list", "proc/sysrq-trigger"];
const READ_ONLY: [&str; 4] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys"];

fn main() -> Result {
    let words: Vec<String> = std::env::args().collect();
    let [_, rootfs, program] = words.as_slice() else { return Err("usage: floor ROOTFS PROGRAM".into()) };
    let groups = make_groups()?;
    let flags =
        CloneFlags::NEWNS | CloneFlags::NEWUTS | CloneFlags::NEWIPC | CloneFlags::NEWPID | CloneFlags::NEWNET;
    let pidfd = match clone3(&Clone3 { flags, cgroup: None })? {
        Forked::Parent { pidfd, .. } => pidfd,
        Forked::Child => {
            if let Err(error) = child(Path::new(rootfs), program, &groups) {
                eprintln!("floor: {error}");
            }
            process::exit_now(1)
        }
    };
    let status = pidfd::wait(&pidfd, true)?.ok_or("no status")?;
    for group in &groups {
        fs::remove_dir(group)?;
    }
    std::process::exit(status.shell_code())
}

/// One group in each hierarchy of version 1.
fn make_groups() -> Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup")? {
        let parent = hierarchy?.path();
        if !parent.join("tasks").exists() {
            continue;
        }
        let group = parent.join(format!("berth-floor-{}", std::process::id()));
        fs::create_dir(&group)?;
        if parent.ends_with("cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(group.join(file), fs::read(parent.join(file))?)?;
            }
        }
        groups.push(group);
    }
    Ok(groups)
}

fn child(rootfs: &Path, program: &str, groups: &[PathBuf]) -> Result {
    for group in groups {
        fs::write(group.join("tasks"), "0")?;
    }
    setsid()?;
    net::loopback_up()?;
    mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE)?;
    mount(Some(rootfs), rootfs, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    chdir(rootfs)?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let device = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let new = |kind, place, flags, data| mount(Some(kind), place, Some(kind), flags, data);
    new("proc", "proc", plain, NONE)?;
    new("tmpfs", "dev", MsFlags::MS_NOSUID, Some("mode=755,size=65536k"))?;
    for place in ["dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(place)?;
    }
    new("devpts", "dev/pts", device, Some("newinstance,ptmxmode=0666,mode=0620,gid=5"))?;
    new("tmpfs", "dev/shm", plain, Some("mode=1777,size=65536k"))?;
    new("mqueue", "dev/mqueue", plain, NONE)?;
    new("sysfs", "sys", plain | MsFlags::MS_RDONLY, NONE)?;
    new("tmpfs", "sys/fs/cgroup", plain, Some("mode=755"))?;
    for group in groups {
        let name = group.parent().and_then(Path::file_name).ok_or("a group below a hierarchy")?;
        let place = Path::new("sys/fs/cgroup").join(name);
        fs::create_dir(&place)?;
        mount(Some(group), &place, NONE, MsFlags::MS_BIND, NONE)?;
        mount(NONE, &place, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | plain | MsFlags::MS_RDONLY, NONE)?;
    }
    for (name, major, minor) in DEVICES {
        mknod(
            &Path::new("dev").join(name),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(major, minor),
        )?;
    }
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    for place in READ_ONLY {
        mount(Some(place), place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
        mount(NONE, place, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | plain | MsFlags::MS_RDONLY, NONE)?;
    }
    for place in MASKED.iter().filter(|place| Path::new(place).exists()) {
        mount(Some("dev/null"), *place, NONE, MsFlags::MS_BIND, NONE)?;
    }
    sethostname("floor")?;
    let program = CString::new(program)?;
    match nix::unistd::execve(&program, std::slice::from_ref(&program), &[] as &[CString])? {}
}
