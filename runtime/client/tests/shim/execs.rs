//! Processes in a running container.

use std::os::fd::AsFd as _;

use berth_runtime_client::protocol::{
    Attach, Event, Exec, FailureKind, Framing, StdinMode, WindowSize, files,
};
use nix::libc;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{
    LONG, container, demultiplex, exec, expect, interactive, process, raw, read_text, read_to_end,
    wait_until, write,
};

fn detached(id: &str, args: &[&str]) -> Exec {
    Exec { exec_id: id.into(), process: process(args), console_size: None, attach: None }
}

#[tokio::test]
async fn output_codes_events_and_records() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let mut events = shim.events();
    let script = process(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let mut stream = exec(&shim, "one", script, Attach::output(Framing::Stdcopy)).await;
    let (out, err) = demultiplex(&read_to_end(&mut stream).await);
    assert_eq!((out.as_slice(), err.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let record = shim.wait_exec("one").await.unwrap();
    assert_eq!(record.code, 7);
    assert!(matches!(events.recv().await, Some(Event::ExecStarted { exec_id, .. }) if exec_id == "one"));
    assert_eq!(events.recv().await, Some(Event::ExecExited(record)));
    let file = container.run.join(files::exec_record("one"));
    assert!(file.exists());
    shim.forget_exec("one").unwrap();
    assert!(!file.exists());

    shim.exec(detached("two", &["sh", "-c", "kill -9 $$"]), None).await.unwrap();
    assert_eq!(shim.wait_exec("two").await.unwrap().code, 137);
    assert!(shim.state().await.unwrap().execs.is_empty());
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn it_sees_the_containers_world() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let look =
        process(&["sh", "-c", "echo pid $$; cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/self/cgroup"]);
    let mut stream = exec(&shim, "look", look, raw()).await;
    let seen = read_text(&mut stream).await;
    assert!(seen.contains("pid ") && seen.contains("cat ") && seen.contains(&container.create.id), "{seen}");
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn half_close_ends_its_stdin_only() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let mut stream =
        exec(&shim, "cat", process(&["sh", "-c", "cat; echo end"]), interactive(Framing::Raw)).await;
    write(&mut stream, b"in\n").await;
    stream.shutdown().await.unwrap();
    assert_eq!(read_text(&mut stream).await, "in\nend\n");
    assert_eq!(shim.state().await.unwrap().phase, berth_runtime_client::protocol::Phase::Running);
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn a_terminal_of_its_own() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let mut shell = process(&["sh", "-c", "stty size; read x; stty size; exit 4"]);
    shell.set_terminal(Some(true));
    let (mut stream, theirs) = tokio::net::UnixStream::pair().unwrap();
    let request = Exec {
        exec_id: "tty".into(),
        process: shell,
        console_size: Some(WindowSize { rows: 20, cols: 40 }),
        attach: Some(interactive(Framing::Raw)),
    };
    shim.exec(request, Some(theirs.as_fd())).await.unwrap();
    expect(&mut stream, "20 40\r\n").await;
    shim.resize_exec("tty", WindowSize { rows: 21, cols: 41 }).await.unwrap();
    write(&mut stream, b"\n").await;
    expect(&mut stream, "21 41\r\n").await;
    assert_eq!(shim.wait_exec("tty").await.unwrap().code, 4);
    let gone = shim.resize_exec("tty", WindowSize { rows: 1, cols: 1 }).await.unwrap_err();
    assert_eq!(gone.kind(), Some(FailureKind::NoSuchExec));
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn a_missing_program_leaves_the_stream_to_the_engine() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let cases = [
        ("nosuch", FailureKind::NotFound, 127, r#"exec: "nosuch": executable file not found in $PATH"#),
        ("/bin", FailureKind::IsDirectory, 126, "is a directory"),
    ];
    for (program, kind, code, text) in cases {
        let (mut ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let attach = Some(interactive(Framing::Stdcopy));
        let request =
            Exec { exec_id: "bad".into(), process: process(&[program]), console_size: None, attach };
        let error = shim.exec(request, Some(theirs.as_fd())).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind().map(|kind| (kind, kind.exit_code())), Some((kind, code)));
        theirs.write_all(b"told by the engine").await.unwrap();
        drop(theirs);
        assert_eq!(read_text(&mut ours).await, "told by the engine");
    }
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn a_background_child_holds_the_stream_for_two_seconds_at_most() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let before = std::time::Instant::now();
    let mut stream = exec(&shim, "bg", process(&["sh", "-c", "echo fg; sleep 1000 & exit 1"]), raw()).await;
    assert_eq!(read_text(&mut stream).await, "fg\n");
    assert_eq!(shim.wait_exec("bg").await.unwrap().code, 1);
    assert!(before.elapsed() < LONG / 2);
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn the_containers_end_ends_its_execs_first() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let mut events = shim.events();
    shim.exec(detached("long", &["sleep", "1000"]), None).await.unwrap();
    shim.exec(detached("killed", &["sleep", "1000"]), None).await.unwrap();
    assert_eq!(shim.state().await.unwrap().execs.len(), 2);
    shim.kill_exec("killed", libc::SIGTERM).await.unwrap();
    assert_eq!(shim.wait_exec("killed").await.unwrap().code, 143);
    shim.close_stdin().await.unwrap();
    assert_eq!(shim.wait_exec("long").await.unwrap().code, 137);
    assert_eq!(container.finished(&shim).await, 0);
    let mut order = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::ExecExited(record) => order.push(record.exec_id),
            Event::Exited(_) => order.push("container".into()),
            _ => {}
        }
    }
    assert_eq!(order, ["killed", "long", "container"]);
}

#[tokio::test]
async fn many_at_once() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..40 {
        let shim = shim.clone();
        running.spawn(async move {
            let id = format!("e{number}");
            let script = process(&["sh", "-c", &format!("echo {number}; exit {number}")]);
            let mut stream = exec(&shim, &id, script, raw()).await;
            assert_eq!(read_text(&mut stream).await, format!("{number}\n"));
            assert_eq!(shim.wait_exec(&id).await.unwrap().code, number);
        });
    }
    while let Some(result) = running.join_next().await {
        result.unwrap();
    }
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn a_long_command_line_travels() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let words: Vec<String> = (0..30_000).map(|number| format!("argument-{number}")).collect();
    let mut args = vec!["sh", "-c", "echo $#", "sh"];
    args.extend(words.iter().map(String::as_str));
    let mut stream = exec(&shim, "long", process(&args), raw()).await;
    assert_eq!(read_text(&mut stream).await, "30000\n");
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn names_are_checked() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    let bad = shim.exec(detached("../x", &["true"]), None).await.unwrap_err();
    assert_eq!(bad.kind(), Some(FailureKind::Invalid));
    shim.exec(detached("twin", &["sleep", "1000"]), None).await.unwrap();
    let twin = shim.exec(detached("twin", &["true"]), None).await.unwrap_err();
    assert_eq!(twin.kind(), Some(FailureKind::AlreadyExists));
    shim.kill(libc::SIGKILL).await.unwrap();
    assert_eq!(container.finished(&shim).await, 137);
    wait_until("records are there", || container.run.join(files::exec_record("twin")).exists()).await;
}
