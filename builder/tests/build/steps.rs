//! Builds that run commands, in containers of a real berth-shim.

use std::time::{Duration, Instant};

use berth_builder::{BuildError, BuildRequest, Context, Secret};
use berth_oci::Platform;
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, args, context, shim};

fn harness() -> Harness {
    assert!(shim().exists(), "no shim at {}: cargo build -p berth-shim", shim().display());
    Harness::new()
}

#[test]
fn commands_change_the_image() {
    let h = harness();
    let outcome = h.build(
        "FROM busybox\nARG A=1\nENV E=2\nWORKDIR /w\nRUN echo hello && echo $A$E > out && rm /etc/group\n",
        &[],
    );
    let id = outcome.id();
    assert_eq!(outcome.output(), "hello\n");
    assert_eq!(h.read(id, "w/out"), "12\n");
    assert!(h.find(id, "etc/group").is_none());
    let config = h.config(id);
    let last = config["history"].as_array().unwrap().last().unwrap();
    assert_eq!(
        last["created_by"],
        "RUN |1 A=1 /bin/sh -c echo hello && echo $A$E > out && rm /etc/group # buildkit"
    );
    let again = h.build(
        "FROM busybox\nARG A=1\nENV E=2\nWORKDIR /w\nRUN echo hello && echo $A$E > out && rm /etc/group\n",
        &[],
    );
    assert_eq!((again.id(), again.cached(), again.output().as_str()), (id, 2, ""));
    let other = h.build_with(
        "FROM busybox\nARG A=1\nENV E=2\nWORKDIR /w\nRUN echo hello && echo $A$E > out && rm /etc/group\n",
        &[],
        |request| request.build_args = args(&[("A", "9")]),
    );
    assert_eq!((h.read(other.id(), "w/out").as_str(), other.cached()), ("92\n", 1));
    h.assert_clean();
}

#[test]
fn the_runtime_leaves_no_traces() {
    let h = harness();
    let outcome = h.build("FROM busybox\nRUN touch /made\n", &[]);
    let id = outcome.id();
    assert!(h.find(id, "made").is_some());
    for trace in ["etc/hosts", "etc/resolv.conf"] {
        assert!(h.find(id, trace).is_none(), "{trace}");
    }
    let top = h.store.images().config_of(id).unwrap().diff_ids().last().unwrap().clone();
    let mut names: Vec<_> =
        std::fs::read_dir(h.store.layers().path(&top)).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    // The image had no /proc and so on; they stay, empty, as in other builders.
    assert_eq!(names, ["dev", "made", "proc", "sys"], "what the command did and nothing else");
}

#[test]
fn users_and_heredocs() {
    let h = harness();
    let outcome = h.build(
        "FROM busybox\nUSER app\nRUN <<EOF\nid -u\nid -G\necho $HOME\nEOF\nUSER root\nRUN <<X\n#!/bin/sh\necho script $0\nX\nRUN cat <<A - <<B\na\nA\nb\nB\n",
        &[],
    );
    outcome.id();
    let output = outcome.output();
    assert!(output.starts_with("100\n101 200\n/home/app\nscript /dev/pipes/X\n"), "{output}");
}

#[test]
fn failures_tell_code_line_and_command() {
    let h = harness();
    let outcome = h.build("FROM busybox\n\nRUN echo before; exit 7\nRUN true\n", &[]);
    let BuildError::Run { command, code, .. } = outcome.error() else { panic!("{}", outcome.error()) };
    assert_eq!((command.as_str(), *code), ("/bin/sh -c echo before; exit 7", 7));
    assert_eq!(outcome.error().exit_code(), Some(7));
    assert_eq!(outcome.error().excerpt().unwrap().line, 3);
    assert_eq!(outcome.output(), "before\n");
    let BuildError::Run { image: Some(image), .. } = outcome.error() else { panic!("nothing was kept") };
    let image = image.clone();
    assert!(h.store.images().get(&image).unwrap().is_some(), "what the step left can be looked at");
    assert!(h.build("FROM busybox\nRUN [\"/none\"]\n", &[]).result.is_err());
    assert!(h.store.images().get(&image).unwrap().is_none(), "until the next build");
    h.assert_clean();
}

#[test]
fn mounts() {
    let h = harness();
    let dockerfile = "FROM busybox AS other\nCOPY b /b\nFROM busybox\nRUN --mount=target=/ctx --mount=from=other,source=/b,target=/b cat /ctx/a /b; touch /ctx/no 2>/dev/null || echo ro\nRUN --mount=type=cache,target=/c echo x >> /c/f; cat /c/f\nRUN --mount=type=cache,target=/c cat /c/f\nRUN --mount=type=tmpfs,target=/t touch /t/gone\nRUN --mount=type=secret,id=s cat /run/secrets/s\nRUN --mount=type=secret,id=s,env=S echo $S\n";
    let outcome = h.build_with(dockerfile, &[("a", "A"), ("b", "B")], |request| {
        request.secrets = [("s".to_owned(), Secret(b"hush\n".to_vec()))].into();
    });
    let id = outcome.id();
    let output = outcome.output();
    assert!(output.starts_with("AB"), "{output}");
    assert!(output.ends_with("ro\nx\nx\nhush\nhush\n"), "{output}");
    for trace in ["ctx", "b", "c", "t", "run"] {
        assert!(h.find(id, trace).is_none(), "{trace}");
    }
    let outcome = h.build("FROM busybox\nRUN --mount=type=ssh,required true\n", &[]);
    assert!(outcome.error().to_string().contains("give it with --ssh default"), "{}", outcome.error());
    h.assert_clean();
}

#[test]
fn cancelling_ends_the_running_step() {
    let h = harness();
    let dir = context("FROM busybox\nRUN sleep 300\n", &[]);
    let cancel = CancellationToken::new();
    let trigger = cancel.clone();
    let waiter = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        trigger.cancel();
    });
    let started = Instant::now();
    let outcome = h.run(BuildRequest::new(Context::Directory(dir.path().to_owned())), cancel);
    waiter.join().unwrap();
    assert!(matches!(outcome.error(), BuildError::Cancelled), "{}", outcome.error());
    assert!(started.elapsed() < Duration::from_secs(30));
    h.assert_clean();
}

#[test]
fn devices_by_name() {
    let h = harness();
    let build = |line: &str, allowed: &[&str]| {
        let devices: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        h.build_with(&format!("FROM busybox\n{line}\n"), &[], |request| request.allow.devices = devices)
    };
    let read = "RUN --device=test.example/zero,required busybox head -c 3 /dev/zeroes | busybox od -An -tx1";
    let outcome = build(read, &["test.example/zero"]);
    outcome.id();
    assert_eq!(outcome.output().trim(), "00 00 00");
    let refused = build(read, &[]);
    assert!(
        refused.error().to_string().contains("--allow device=test.example/zero=one"),
        "{}",
        refused.error()
    );
    let missing = build("RUN --device=test.example/one=x,required true", &[""]);
    assert!(missing.error().to_string().contains("there are test.example/zero=one"), "{}", missing.error());
    build("RUN --device=test.example/one=x test ! -e /dev/zeroes", &[""]).id();
    h.assert_clean();
}

#[test]
fn a_step_without_memory_says_so() {
    let h = harness();
    let grow = "FROM busybox\nRUN x=a; while true; do x=$x$x; done\n";
    let outcome = h.build_with(grow, &[], |request| {
        request.limits.memory = Some(32 << 20);
    });
    let BuildError::Run { oom_killed, code, .. } = outcome.error() else { panic!("{}", outcome.error()) };
    assert!(*oom_killed && *code == 137, "{code}");
    assert!(outcome.error().to_string().contains("memory"), "{}", outcome.error());
    h.assert_clean();
}

#[test]
fn a_program_for_another_machine_asks_for_an_emulator() {
    let h = harness();
    let dir = context("FROM scratch\nCOPY sh /bin/sh\nRUN true\n", &[]);
    let mut program = std::fs::read("/bin/busybox").unwrap();
    // e_machine: EM_S390
    program[18..20].copy_from_slice(&[22, 0]);
    std::fs::write(dir.path().join("sh"), program).unwrap();
    std::fs::set_permissions(dir.path().join("sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let mut request = BuildRequest::new(Context::Directory(dir.path().to_owned()));
    request.platforms = vec![Platform::parse("linux/s390x").unwrap()];
    let outcome = h.run(request, CancellationToken::new());
    let said = outcome.error().to_string();
    for part in ["it is built for s390x", "programs for linux/s390x need an emulator", "$BUILDPLATFORM"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(outcome.error().excerpt().unwrap().line, 3);
    h.assert_clean();
}
