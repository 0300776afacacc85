//! Readiness told through `NOTIFY_SOCKET` (sd_notify(3)), with the test as the service manager.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::harness::{Case, is_ours};

/// Says something as a program of the container would: busybox has none that sends to a unix socket.
fn say(case: &Case, message: &str) {
    let pid = case.state()["pid"].as_i64().unwrap();
    let socket = format!("/proc/{pid}/root/run/notify/notify.sock");
    UnixDatagram::unbound().unwrap().send_to(message.as_bytes(), socket).unwrap();
}

fn manager(case: &Case) -> UnixDatagram {
    let socket = UnixDatagram::bind(case.path().join("manager")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

fn heard(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = manager.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn readiness_reaches_the_service_manager() {
    let case = Case::script("echo $NOTIFY_SOCKET > /tmp/told; exec sleep 100");
    let manager = manager(&case);
    let call = |verb: &str| {
        let bundle = case.path().to_str().unwrap().to_owned();
        let mut args = vec![verb];
        if verb == "create" {
            args.extend(["--bundle", &bundle]);
        }
        args.push(&case.id);
        let mut command = case.command(&args);
        let out = std::fs::File::create(case.path().join(verb)).unwrap();
        command
            .env("NOTIFY_SOCKET", case.path().join("manager"))
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        command.spawn().unwrap()
    };
    assert!(call("create").wait().unwrap().success());
    let mut start = call("start");
    case.wait_for("running");
    say(&case, "STATUS=not yet\nMAINPID=1");
    assert_eq!(start.try_wait().unwrap(), None, "it waits until the container is ready");
    say(&case, "READY=1\nSTATUS=now\nMAINPID=1");
    assert_eq!(heard(&manager), "READY=1\n");
    assert_eq!(heard(&manager), format!("MAINPID={}\n", case.state()["pid"]));
    // The pipe that came with it is closed as nobody takes it.
    assert_eq!(heard(&manager), "BARRIER=1");
    assert!(start.wait().unwrap().success());
    let told = std::fs::read_to_string(case.rootfs().join("tmp/told")).unwrap();
    assert_eq!(told, "/run/notify/notify.sock\n");
}

#[test]
fn in_the_foreground_the_runtime_is_the_main_process() {
    let case = Case::script("touch /tmp/up; until test -e /tmp/go; do sleep 0.01; done; exit 7");
    let manager = manager(&case);
    let bundle = case.path().to_str().unwrap().to_owned();
    let mut run = case.command(&["run", "--bundle", &bundle, &case.id]);
    let mut run = run.env("NOTIFY_SOCKET", case.path().join("manager")).spawn().unwrap();
    while !case.rootfs().join("tmp/up").exists() {
        assert_eq!(run.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(10));
    }
    say(&case, "READY=1");
    assert_eq!(heard(&manager), "READY=1\n");
    assert_eq!(heard(&manager), format!("MAINPID={}\n", run.id()));
    if !is_ours() {
        // It needs the barrier to be taken before it goes on.
        assert_eq!(heard(&manager), "BARRIER=1");
    }
    std::fs::write(case.rootfs().join("tmp/go"), "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(7));
}

#[test]
fn a_container_that_is_never_ready_ends_as_ever() {
    if !is_ours() {
        // runc waits for ever.
        return;
    }
    let case = Case::new(&["/bin/false"]);
    let manager = manager(&case);
    let bundle = case.path().to_str().unwrap().to_owned();
    for flags in [&["run", "--bundle", &bundle][..], &["run", "--detach", "--bundle", &bundle]] {
        let args = [flags, &[case.id.as_str()]].concat();
        let mut command = case.command(&args);
        let status = command.env("NOTIFY_SOCKET", case.path().join("manager")).status().unwrap();
        assert_eq!(status.code(), Some(i32::from(flags.len() == 3)));
    }
    drop(manager);
}
