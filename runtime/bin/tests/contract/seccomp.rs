//! Seccomp: filters that deny, that are old, that ask somebody.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

use crate::harness::{Case, Said, is_ours};

#[test]
fn seccomp_denies() {
    let mut case = Case::script("mkdir /tmp/a 2>&1; echo $?; mkdir /tmp/b");
    case.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]
    });
    for no_new_privileges in [true, false] {
        case.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let said = case.run();
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.out.contains("No space left on device"), "{said:?}");
    }
}

/// Without no_new_privs the filter is there before the last steps of the set-up, which must then do with what every
/// profile allows: those written years ago know none of these calls.
#[test]
fn a_profile_older_than_the_runtime_does_not_hinder_it() {
    let mut case = Case::script("echo ran");
    case.config["process"]["noNewPrivileges"] = json!(false);
    case.config["process"]["user"] = json!({ "uid": 1234, "gid": 99 });
    let mut unknown = vec!["faccessat2", "clone3", "pidfd_open", "open_tree", "move_mount", "mount_setattr"];
    if is_ours() {
        // runc fails without them.
        unknown.extend(["openat2", "close_range", "statx", "fsopen", "fsmount", "getcwd"]);
    }
    case.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": unknown, "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }]
    });
    assert_eq!(case.run().ok(), "ran\n");
    case.config["process"]["args"] = json!(["/bin/sleep", "100"]);
    case.call_detached(&["create"]).ok();
    case.call(&["start"], &[]).ok();
    case.wait_for("running");
}

/// The flags are the profile's, but for TSYNC, which changes nothing. Those of the listener that names denied calls are not told.
#[test]
fn debug_tells_the_flags_and_the_protection() {
    let mut case = Case::new(&["/bin/true"]);
    let (sync, log) = ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG");
    for (flags, number) in [
        (None, 4),
        (Some(vec![]), 0),
        (Some(vec![sync]), 0),
        (Some(vec![log]), 2),
        (Some(vec![sync, log]), 2),
    ] {
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] });
        if let Some(flags) = &flags {
            profile["flags"] = json!(flags);
        }
        case.config["linux"]["seccomp"] = profile;
        let bundle = case.path().to_str().unwrap();
        let said = case.command(&["--debug", "run", "--bundle", bundle, &case.id]).output().unwrap();
        let said = Said::from(said);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.err.contains(&format!("\"seccomp filter flags: {number}\"")), "{flags:?}: {said:?}");
        assert!(said.err.contains("exeseal: using "), "{said:?}");
    }
}

/// config-linux.md, "The Container Process State": an agent gets the listener, and what it needs to know about whom.
#[test]
fn an_agent_gets_the_listener_and_the_state() {
    let mut case = Case::script("mkdir /tmp/asked; echo $?");
    let path = case.path().join("agent.sock");
    case.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": path,
        "listenerMetadata": "for the agent",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
    });
    for no_new_privileges in [true, false] {
        case.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let agent = UnixListener::bind(&path).unwrap();
        let id = case.id.clone();
        let said = std::thread::scope(|scope| {
            let told = scope.spawn(move || receive(&agent.accept().unwrap().0));
            let said = case.run();
            let (message, listeners) = told.join().unwrap();
            assert_eq!(message["fds"], json!(["seccompFd"]), "{message}");
            assert_eq!(message["metadata"], "for the agent");
            assert_eq!(message["state"]["id"], id.as_str());
            assert_eq!(message["state"]["status"], "creating");
            assert!(message["pid"].as_i64().unwrap() > 1 && message["pid"] == message["state"]["pid"]);
            assert_eq!(listeners, ["anon_inode:seccomp notify"]);
            said
        });
        // The agent has gone: the kernel answers ENOSYS in its place.
        assert!(said.err.contains("Function not implemented") && said.out == "1\n", "{said:?}");
        fs::remove_file(&path).unwrap();
    }
}

/// One message, and what the descriptors with it are; they are closed.
fn receive(stream: &UnixStream) -> (Value, Vec<String>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let (length, fds) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let got = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
        let fds = got.cmsgs().unwrap().flat_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds,
            other => panic!("{other:?}"),
        });
        (got.bytes, fds.collect::<Vec<_>>())
    };
    let names = fds.iter().map(|fd| {
        let name = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap().to_str().unwrap().to_owned();
        nix::unistd::close(*fd).unwrap();
        name
    });
    let names = names.collect();
    (serde_json::from_slice(&buffer[..length]).unwrap(), names)
}

#[test]
fn a_missing_agent_fails_the_creation_and_leaves_nothing() {
    let mut case = Case::new(&["/bin/true"]);
    case.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": case.path().join("nobody.sock"),
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]
    });
    case.call_detached(&["create"]).fails_with("nobody.sock");
    case.call(&["state"], &[]).fails_with("does not exist");
}

#[test]
fn flags_reach_the_kernel_and_unknown_ones_are_refused() {
    let mut case = Case::script("grep Seccomp: /proc/self/status");
    case.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]
    });
    assert_eq!(case.run().ok(), "Seccomp:\t2\n");
    case.config["linux"]["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_NEW_IDEA"]);
    case.run().fails_with("SECCOMP_FILTER_FLAG_NEW_IDEA");
}
