//! Seccomp: filters that deny, that are old, that ask somebody.

use serde_json::json;

use crate::harness::{Case, is_ours};

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
