//! Terminals and console sockets.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use nix::sys::socket::MsgFlags;
use serde_json::json;

use crate::harness::{Case, is_ours};

/// Receives the one descriptor a runtime sends.
fn receive(listener: &UnixListener) -> std::fs::File {
    let (stream, _) = listener.accept().unwrap();
    let (_, fds) = berth_sys::socket::recv_with_fds(&stream, &mut [0; 4096], MsgFlags::empty()).unwrap();
    std::fs::File::from(fds.into_iter().next().expect("a descriptor"))
}

#[test]
fn the_console_socket_gets_the_terminal() {
    let mut case =
        Case::script("tty; stat -c %t:%T /dev/console; stty size 2>/dev/null; read -r line; echo got $line");
    case.config["process"]["terminal"] = json!(true);
    let path = case.path().join("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    case.call_detached(&["run", "-d", "--console-socket", path.to_str().unwrap()]).ok();
    let mut master = receive(&listener);
    master.write_all(b"hello\n").unwrap();
    let mut text = Vec::new();
    // The end is EIO: the last holder of the other side is gone.
    master.read_to_end(&mut text).ok();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("/dev/pts/0\r\n") || text.contains("/dev/console\r\n"), "{text}");
    assert!(text.contains("88:0\r\n"), "{text}");
    assert!(text.contains("got hello\r\n"), "{text}");
    case.wait_for("stopped");
}

#[test]
fn a_terminal_needs_a_socket_when_nobody_stays() {
    let mut case = Case::new(&["/bin/true"]);
    case.config["process"]["terminal"] = json!(true);
    case.call_detached(&["create"]).fails_with("cannot allocate tty");
    case.config["process"]["terminal"] = json!(false);
    let path = case.path().join("console.sock");
    case.call_detached(&["create", "--console-socket", path.to_str().unwrap()])
        .fails_with("cannot use console socket");
}

#[test]
fn exec_with_a_terminal() {
    let case = Case::new(&["/bin/sleep", "100"]);
    case.call_detached(&["run", "-d"]).ok();
    let path = case.path().join("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = path.to_str().unwrap();
    let said =
        case.call(&["exec", "-d", "-t", "--console-socket", socket], &["sh", "-c", "test -t 0 && echo tty"]);
    said.ok();
    let mut text = Vec::new();
    receive(&listener).read_to_end(&mut text).ok();
    assert_eq!(String::from_utf8_lossy(&text), "tty\r\n");
}

#[test]
fn run_serves_the_terminal_itself() {
    if !is_ours() {
        // runc insists on a /dev/tty of its own, which a test run does not have.
        return;
    }
    let mut case = Case::script("tty; exit 3");
    case.config["process"]["terminal"] = json!(true);
    let said = case.run();
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.out.contains("/dev/"), "{said:?}");
}

#[test]
fn much_input_and_output_do_not_wait_for_each_other() {
    if !is_ours() {
        return;
    }
    const MUCH: usize = 300_000;
    // Raw mode first: a line discipline that assembles lines would drop what is too long for one.
    let mut case = Case::script("stty raw -echo; echo ready; exec head -c 300000");
    case.config["process"]["terminal"] = json!(true);
    std::os::unix::fs::symlink("busybox", case.rootfs().join("bin/stty")).unwrap();
    let bundle = case.path().to_str().unwrap();
    let mut child = case
        .command(&["run", "--bundle", bundle, &case.id])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    // From a thread of its own: with more under way than terminal and pipes hold, both directions must keep moving.
    let writer = std::thread::spawn(move || stdin.write_all(&[b'x'; MUCH]).map(|()| stdin));
    let mut echoed = Vec::new();
    stdout.read_to_end(&mut echoed).unwrap();
    drop(writer.join().unwrap().unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(echoed.iter().filter(|byte| **byte == b'x').count(), MUCH);
}
