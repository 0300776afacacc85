//! Failures that a user can cause: each says what, where, and what to do next, and leaves nothing behind.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::json;

use crate::harness::{Case, Said, is_ours};

fn executable(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An image with a program for each way not to run.
fn broken(case: &mut Case) {
    let bin = case.rootfs().join("bin");
    let busybox = fs::read("/bin/busybox").unwrap();
    executable(&bin.join("no-interpreter"), b"#!/bin/bash -e\necho\n");
    executable(&bin.join("crlf"), b"#!/bin/sh\r\necho\r\n");
    executable(&bin.join("nameless"), b"echo no first line\n");
    executable(&bin.join("empty"), b"");
    // e_machine: EM_S390
    let mut foreign = busybox.clone();
    foreign[18..20].copy_from_slice(&[22, 0]);
    executable(&bin.join("foreign"), &foreign);
    executable(&bin.join("foreign-interpreter"), b"#!/bin/foreign\n");
    executable(&bin.join("no-loader"), &fs::read("/bin/ls").unwrap());
    fs::write(bin.join("plain"), "x").unwrap();
    symlink("/nowhere", bin.join("dangling")).unwrap();
    let volume = case.path().join("volume");
    fs::create_dir(&volume).unwrap();
    executable(&volume.join("tool"), &busybox);
    case.push(
        "/mounts",
        json!({ "destination": "/volume", "type": "bind", "source": volume, "options": ["bind", "noexec"] }),
    );
}

/// Runs a command with `--debug`.
fn debugged(case: &Case, verb: &[&str], rest: &[&str]) -> Said {
    let bundle = case.path().to_str().unwrap();
    let mut args = vec!["--debug"];
    args.extend(verb);
    if verb[0] == "run" {
        args.extend(["--bundle", bundle]);
    }
    args.push(&case.id);
    args.extend(rest);
    case.command(&args).output().unwrap().into()
}

/// Program, what runc says too, and the cause.
const PROGRAMS: [(&str, &str, &str); 11] = [
    (
        "/bin/no-interpreter",
        "no such file or directory",
        "its interpreter /bin/bash does not exist in the container",
    ),
    ("/bin/crlf", "no such file or directory", "its first line ends in CRLF"),
    ("/bin/nameless", "exec format error", "begin it with #!/bin/sh"),
    ("/bin/empty", "exec format error", "the file is empty"),
    ("/bin/foreign", "exec format error", "it is built for s390x, and this machine is"),
    (
        "/bin/foreign-interpreter",
        "exec format error",
        "its interpreter is /bin/foreign: it is built for s390x",
    ),
    ("/bin/no-loader", "no such file or directory", "its dynamic loader /lib"),
    ("/bin/plain", "permission denied", "it is not executable, its mode is 0644: chmod +x"),
    ("/volume/tool", "permission denied", "mounted noexec"),
    ("/bin/dangling", "no such file or directory", "it is a link to /nowhere, which does not exist"),
    ("plain", "executable file not found in $PATH", "/bin/plain is there, but it is not executable"),
];

#[test]
fn a_program_that_does_not_run_is_explained() {
    for (program, text, cause) in PROGRAMS {
        let mut case = Case::new(&[program]);
        broken(&mut case);
        let said = debugged(&case, &["run"], &[]);
        assert!(said.err.contains(text), "{program}: {said:?}");
        // runc says 255 where only execve sees it.
        said.refuses(1, cause);
    }
}

/// A script that looks at the output of `run` finds runc's one line where only execve has seen the mistake.
#[test]
fn one_that_only_execve_refuses_is_one_line() {
    for (program, text, _) in &PROGRAMS[..7] {
        let mut case = Case::new(&[program]);
        broken(&mut case);
        let said = case.run();
        assert_ne!(said.code, 0, "{said:?}");
        assert_eq!(said.err, format!("exec {program}: {text}\n"));
    }
}

#[test]
fn so_is_one_of_an_exec() {
    let mut case = Case::new(&["/bin/sleep", "100"]);
    broken(&mut case);
    case.call_detached(&["run", "-d"]).ok();
    for (program, text, cause) in PROGRAMS {
        let said = case.call(&["exec"], &[program]);
        assert_eq!(said.code, 255, "{said:?}");
        assert!(said.err.contains(text), "{program}: {said:?}");
        assert!(!is_ours() || said.err.contains(cause), "{program}: {said:?}");
    }
}

/// What create can see is told by create, what only execve sees by start.
#[test]
fn so_is_one_of_create_and_start() {
    for (program, text, cause) in PROGRAMS {
        let mut case = Case::new(&[program]);
        broken(&mut case);
        let created = case.call_detached(&["create"]);
        if created.code != 0 {
            assert!(created.err.contains(text) && (!is_ours() || created.err.contains(cause)), "{created:?}");
            case.call(&["state"], &[]).fails_with("does not exist");
            continue;
        }
        // runc's start has gone before.
        if is_ours() {
            let said = case.call(&["start"], &[]);
            assert_eq!(said.code, 1, "{program}: {said:?}");
            assert!(said.err.contains(text) && said.err.contains(cause), "{program}: {said:?}");
            case.wait_for("stopped");
        }
    }
}

#[test]
fn a_missing_library_is_named() {
    if !is_ours() {
        return;
    }
    let mut case = Case::new(&["/bin/ls"]);
    executable(
        &{
            fs::remove_file(case.rootfs().join("bin/ls")).unwrap();
            case.rootfs().join("bin/ls")
        },
        &fs::read("/bin/ls").unwrap(),
    );
    let listed = std::process::Command::new("ldd").arg("/bin/ls").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let loader =
        listed.split_whitespace().find(|word| word.starts_with("/lib") && word.contains("/ld-")).unwrap();
    let place = case.rootfs().join(&loader[1..]);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(loader, place).unwrap();
    let said = case.run();
    assert_eq!(said.code, 127, "{said:?}");
    assert!(
        said.err.contains("/bin/ls ended with 127: it needs") && said.err.contains("libc.so.6"),
        "{said:?}"
    );
    case.config["process"]["args"] = json!(["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    let said = case.call(&["exec"], &["ls"]);
    assert_eq!(said.code, 127, "{said:?}");
    assert!(said.err.contains("libc.so.6, which is not in the container"), "{said:?}");
    assert!(
        !case.call(&["exec"], &["/bin/sh", "-c", "exit 127"]).err.contains("library"),
        "busybox needs none"
    );
}

#[test]
fn other_mistakes_are_explained() {
    let mut unmapped = Case::new(&["/bin/true"]);
    unmapped.push("/linux/namespaces", json!({ "type": "user" }));
    for field in ["uidMappings", "gidMappings"] {
        unmapped.config["linux"][field] = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    }
    unmapped.config["process"]["user"] = json!({ "uid": 1000, "gid": 0 });
    unmapped.run().refuses(1, "user 1000 is unknown in the container's user namespace");

    let mut source = Case::new(&["/bin/true"]);
    let mount = json!({ "destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"] });
    source.push("/mounts", mount);
    let said = source.run();
    assert!(said.err.contains("no such file or directory"), "{said:?}");
    said.refuses(1, "the source does not exist on the host");

    for (source, destination) in [("/etc/passwd", "/etc"), ("/etc", "/bin/busybox")] {
        let mut kinds = Case::new(&["/bin/true"]);
        let bind =
            json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind"] });
        kinds.push("/mounts", bind);
        let said = kinds.run();
        assert!(said.err.contains("not a directory"), "dockerd looks for these words: {said:?}");
        said.refuses(1, "one of source and destination is a directory and the other is a file");
    }

    let mut controller = Case::new(&["/bin/true"]);
    controller.config["linux"]["resources"] =
        json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 3_145_728 }] });
    // The controller or the field has a name.
    controller.run().refuses(1, "huge");
    controller.config["linux"]["resources"] = json!({ "rdma": { "mlx5_0": { "hcaHandles": 3 } } });
    // No machine has this device, and most have no controller.
    controller.run().refuses(1, "rdma");

    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    case.call(&["exec", "--user", "nobody"], &["true"]).refuses(255, "--user \"nobody\": give numbers");
}

/// Any value of the wrong type is named by its path, and nothing is made.
#[test]
fn an_invalid_configuration_is_named_by_its_path() {
    // runc runs any version.
    let version = is_ours().then(|| ("/ociVersion", json!("7.0.0"), "ociVersion"));
    let cases = [
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/process/args", json!("true"), "process.args"),
        ("/process/args", json!([]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/env/0", json!(7), "process.env[0]"),
        ("/root/path", json!(null), "root"),
        ("/mounts/1/destination", json!(5), "mounts[1].destination"),
        ("/mounts/1/destination", json!(""), "mounts[1].destination"),
        ("/linux/namespaces/0/type", json!("moon"), "linux.namespaces[0].type"),
        ("/linux/resources", json!({ "memory": { "limit": "much" } }), "linux.resources.memory.limit"),
        ("/linux/maskedPaths/0", json!(5), "linux.maskedPaths[0]"),
    ];
    for (pointer, value, path) in cases.into_iter().chain(version) {
        let mut case = Case::new(&["/bin/true"]);
        *case.config.pointer_mut(pointer).unwrap() = value.clone();
        for verb in ["run", "create"] {
            let said = case.call_detached(&[verb]);
            assert_ne!(said.code, 0, "{pointer} = {value}: {said:?}");
            said.refuses(1, path);
            case.call(&["state"], &[]).fails_with("does not exist");
        }
    }
}

/// With --debug a denied system call has a name, and what the program sees of it stays the same.
#[test]
fn denied_system_calls_are_named() {
    if !is_ours() {
        return;
    }
    let profile = |names: &[&str], action: &str| {
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": names, "action": action, "errnoRet": 28 }] })
    };
    let calls = ["mkdir", "mkdirat"];
    for privileges in [true, false] {
        let mut case = Case::script("mkdir /tmp/a; mkdir /tmp/b; echo $?");
        case.config["process"]["noNewPrivileges"] = json!(privileges);
        case.config["linux"]["seccomp"] = profile(&calls, "SCMP_ACT_ERRNO");
        let said = debugged(&case, &["run"], &[]);
        assert_eq!((said.code, said.out.as_str()), (0, "1\n"), "{said:?}");
        assert_eq!(
            said.err.matches("seccomp denied mkdir to mkdir: no space left on device").count(),
            1,
            "{said:?}"
        );
        assert!(said.err.contains("can't create directory '/tmp/b': No space left on device"), "{said:?}");
        assert!(!case.run().err.contains("seccomp"), "only with --debug");

        case.config["linux"]["seccomp"] = profile(&calls, "SCMP_ACT_KILL_PROCESS");
        case.config["process"]["args"] = json!(["/bin/mkdir", "/tmp/c"]);
        let said = debugged(&case, &["run"], &[]);
        assert_eq!(said.code, 137, "{said:?}");
        assert!(said.err.contains("seccomp denied mkdir to mkdir: the process is killed"), "{said:?}");

        // Calls that the runtime itself makes under the filter, and one without which nobody could answer.
        for name in ["execve", "setgroups", "capset", "sendmsg"] {
            case.config["linux"]["seccomp"] = profile(&[name], "SCMP_ACT_ERRNO");
            case.config["process"]["args"] = json!(["/bin/true"]);
            let (named, plain) = (debugged(&case, &["run"], &[]), case.run());
            assert_eq!(named.code, plain.code, "{name}: {named:?} {plain:?}");
        }
    }
    let mut case = Case::new(&["/bin/sleep", "100"]);
    case.config["linux"]["seccomp"] = profile(&calls, "SCMP_ACT_ERRNO");
    case.call_detached(&["run", "-d"]).ok();
    let said = debugged(&case, &["exec"], &["mkdir", "/tmp/d"]);
    assert!(said.code == 1 && said.err.contains("seccomp denied mkdir to mkdir"), "{said:?}");
}
