//! clone3 needs a single-threaded process, so this test has no harness: `main` is the test.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use berth_sys::clone::{Clone3, CloneFlags, Forked, clone3};
use berth_sys::pidfd::{self, ExitStatus};
use berth_sys::{Errno, process};

fn run(flags: CloneFlags, child: impl FnOnce() -> i32) -> ExitStatus {
    match clone3(&Clone3 { flags, cgroup: None }).expect("clone3") {
        Forked::Child => process::exit_now(child()),
        Forked::Parent { pid, pidfd } => {
            assert!(pid.as_raw() > 0);
            pidfd::wait(&pidfd, true).expect("wait").expect("blocking wait returns a status")
        }
    }
}

fn main() {
    let plain = run(CloneFlags::empty(), || 42);
    assert_eq!(plain, ExitStatus::Code(42));

    let all =
        CloneFlags::NEWNS | CloneFlags::NEWPID | CloneFlags::NEWUTS | CloneFlags::NEWIPC | CloneFlags::NEWNET;
    let first = run(all, || std::process::id().cast_signed());
    assert_eq!(first, ExitStatus::Code(1), "the child is pid 1 of its pid namespace");

    let host = nix::unistd::gethostname().expect("gethostname");
    let renamed = run(CloneFlags::NEWUTS, || i32::from(nix::unistd::sethostname("inside").is_err()));
    assert_eq!(renamed, ExitStatus::Code(0));
    assert_eq!(nix::unistd::gethostname().expect("gethostname"), host, "the host keeps its name");

    let unmapped = run(CloneFlags::NEWUSER, || i32::from(nix::unistd::getuid().as_raw() == 65534));
    assert_eq!(unmapped, ExitStatus::Code(1), "no map yet: the overflow id");

    let mount = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/unified"
    };
    let dir = format!("{mount}/berth-clone3-{}", std::process::id());
    std::fs::create_dir(&dir).expect("make a cgroup");
    let cgroup = std::fs::File::open(&dir).expect("open the cgroup");
    let request = Clone3 { flags: CloneFlags::empty(), cgroup: Some(cgroup.as_fd()) };
    let born = match clone3(&request).expect("clone3 into a cgroup") {
        Forked::Child => {
            let mine = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            process::exit_now(i32::from(!mine.contains("berth-clone3-")));
        }
        Forked::Parent { pidfd, .. } => pidfd::wait(&pidfd, true).expect("wait"),
    };
    std::fs::remove_dir(&dir).expect("remove the cgroup");
    assert_eq!(born, Some(ExitStatus::Code(0)), "born inside the cgroup");

    let (mut said, tell) = std::io::pipe().expect("pipe");
    let failed = run(CloneFlags::empty(), || {
        process::exec_alone(c"/proc/self/fd/3/../../bin/true", &[], &[], 3, &[tell.as_fd()], |errno| {
            (&tell).write_all(&[u8::try_from(errno as i32).unwrap_or(0)]).ok();
        })
    });
    drop(tell);
    assert_eq!(failed, ExitStatus::Code(1));
    let mut errnos = Vec::new();
    said.read_to_end(&mut errnos).expect("read");
    assert_eq!(
        errnos,
        [Errno::ENOENT as u8],
        "a path through a closed descriptor leads nowhere, and that is told"
    );

    let thread = std::thread::spawn(|| clone3(&Clone3::default()).map(|_| ()));
    let refused = thread.join().expect("join");
    assert_eq!(refused, Err(Errno::EDEADLK), "a threaded process must not fork");
    println!("clone3: ok");
}
