//! Standard streams: logs, attach, stdin, terminals.

use berth_runtime_client::protocol::{Attach, Framing, StdinMode, WindowSize};
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, time::sleep};

use crate::harness::{
    attach, container, demultiplex, entries, expect, interactive, raw, read_text, read_to_end, script, write,
};

#[tokio::test]
async fn output_is_logged_and_streamed_apart() {
    let container = script("echo out; echo err >&2; printf end");
    let shim = container.created().await;
    let mut stream = attach(&shim, Attach::output(Framing::Stdcopy)).await;
    shim.start().await.unwrap();
    let (out, err) = demultiplex(&read_to_end(&mut stream).await);
    assert_eq!((out.as_slice(), err.as_slice()), (&b"out\nend"[..], &b"err\n"[..]));
    assert_eq!(container.finished(&shim).await, 0);
    let mut logged = container.logged();
    logged.sort();
    let pair = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
    assert_eq!(logged, [pair("stderr", "err\n"), pair("stdout", "end"), pair("stdout", "out\n")]);
}

#[tokio::test]
async fn attached_before_create_nothing_is_lost() {
    let container = script("echo first; cat").stdin(StdinMode::OpenOnce);
    let shim = container.spawned().await;
    let early = Attach { initial_stdin: b"early ".to_vec(), ..interactive(Framing::Raw) };
    let mut stream = attach(&shim, early).await;
    let mut other = attach(&shim, Attach { stdout: false, ..raw() }).await;
    write(&mut stream, b"bird\n").await;
    stream.shutdown().await.unwrap();
    shim.create(container.create.clone(), None).await.unwrap();
    shim.start().await.unwrap();
    assert_eq!(read_text(&mut stream).await, "first\nearly bird\n");
    assert_eq!(read_text(&mut other).await, "", "it only wanted stderr");
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn half_close_ends_stdin_and_output_goes_on() {
    let container = script("cat; echo rest").stdin(StdinMode::OpenOnce);
    let shim = container.created().await;
    let mut stream = attach(&shim, interactive(Framing::Raw)).await;
    shim.start().await.unwrap();
    write(&mut stream, b"typed\n").await;
    expect(&mut stream, "typed\n").await;
    stream.shutdown().await.unwrap();
    assert_eq!(read_text(&mut stream).await, "rest\n");
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn without_open_once_stdin_survives_its_clients() {
    let container = script("read a; read b; echo $a-$b").stdin(StdinMode::Open);
    let shim = container.started().await;
    let mut first = attach(&shim, interactive(Framing::Raw)).await;
    write(&mut first, b"one\n").await;
    drop(first);
    let mut second = attach(&shim, interactive(Framing::Raw)).await;
    let mut half_closed = attach(&shim, interactive(Framing::Raw)).await;
    half_closed.shutdown().await.unwrap();
    write(&mut second, b"two\n").await;
    assert_eq!(read_text(&mut second).await, "one-two\n");
    assert_eq!(read_text(&mut half_closed).await, "one-two\n");
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn close_stdin_by_request() {
    let container = container(&["cat"]).stdin(StdinMode::Open);
    let shim = container.started().await;
    shim.close_stdin().await.unwrap();
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn closed_stdin_is_empty() {
    let container = script("cat; echo done");
    let shim = container.started().await;
    assert_eq!(container.finished(&shim).await, 0);
    assert_eq!(container.logged(), [("stdout".to_owned(), "done\n".to_owned())]);
}

#[tokio::test]
async fn much_input_goes_through_a_full_pipe() {
    let container = script("sleep 0.2; wc -c; cat").stdin(StdinMode::OpenOnce);
    let shim = container.started().await;
    let mut stream = attach(&shim, interactive(Framing::Raw)).await;
    let (mut reader, mut writer) = stream.split();
    let input = vec![b'x'; 3_000_000];
    let feed = async {
        writer.write_all(&input).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut output = String::new();
    let (read, ()) = tokio::join!(reader.read_to_string(&mut output), feed);
    read.unwrap();
    assert!(output.contains("3000000"), "{output}");
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn a_terminal_echoes_and_resizes() {
    let mut container = script(
        "stty size; read line; trap 'stty size; exit 3' WINCH; echo got $line; while :; do sleep 0.05; done",
    )
    .terminal()
    .stdin(StdinMode::Open);
    container.create.console_size = Some(WindowSize { rows: 33, cols: 99 });
    let shim = container.created().await;
    let mut stream = attach(&shim, interactive(Framing::Raw)).await;
    shim.start().await.unwrap();
    expect(&mut stream, "33 99\r\n").await;
    write(&mut stream, b"hello\n").await;
    let seen = expect(&mut stream, "got hello\r\n").await;
    assert!(seen.contains("hello\r\ngot"), "the terminal echoes: {seen:?}");
    shim.resize(WindowSize { rows: 50, cols: 120 }).await.unwrap();
    expect(&mut stream, "50 120\r\n").await;
    assert_eq!(container.finished(&shim).await, 3);
    assert!(container.logged().iter().all(|(stream, _)| stream == "stdout"));
}

#[tokio::test]
async fn detach_keys_leave_the_container_running() {
    let container = container(&["sh"]).terminal().stdin(StdinMode::OpenOnce);
    let shim = container.started().await;
    let keys = Attach { detach_keys: b"\x10\x11".to_vec(), ..interactive(Framing::Raw) };
    let mut leaving = attach(&shim, keys).await;
    let mut staying = attach(&shim, interactive(Framing::Raw)).await;
    write(&mut leaving, b"echo a$((1+1))b\n\x10\x11echo not-this\n").await;
    read_to_end(&mut leaving).await;
    write(&mut staying, b"echo still; exit 5\n").await;
    let seen = read_text(&mut staying).await;
    assert!(seen.contains("still\r\n") && !seen.contains("not-this"), "{seen}");
    assert_eq!(container.finished(&shim).await, 5);
}

#[tokio::test]
async fn a_held_session_follows_its_replay_without_gap() {
    let container = script("echo one; printf par; read x; echo tial; echo two").stdin(StdinMode::Open);
    let shim = container.started().await;
    crate::harness::wait_until("the first line is logged", || {
        container.log.exists() && !container.logged().is_empty()
    })
    .await;
    sleep(std::time::Duration::from_millis(50)).await;
    let (mut stream, theirs) = tokio::net::UnixStream::pair().unwrap();
    let attached = shim.attach(Attach { hold: true, ..raw() }, &theirs).await.unwrap();
    let position = std::fs::metadata(&container.log).unwrap().len();
    assert_eq!(attached.log_position, Some(position));
    let mut other = attach(&shim, interactive(Framing::Raw)).await;
    write(&mut other, b"\n").await;
    expect(&mut other, "two\n").await;
    shim.release(attached.session).await.ok();
    assert_eq!(
        read_text(&mut stream).await,
        "partial\ntwo\n",
        "what the replay to the position does not hold"
    );
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn fifty_megabytes_through_a_slow_reader() {
    const SIZE: usize = 50 * 1024 * 1024;
    let mut container = script("yes 0123456789abcdef | head -c 52428800");
    container.create.log = berth_runtime_client::protocol::Log::default();
    let shim = container.created().await;
    let mut slow = attach(&shim, Attach::output(Framing::Stdcopy)).await;
    shim.start().await.unwrap();
    let mut received = Vec::with_capacity(SIZE + SIZE / 64);
    let mut buffer = vec![0; 256 * 1024];
    let mut reads = 0;
    loop {
        let length = slow.read(&mut buffer).await.unwrap();
        if length == 0 {
            break;
        }
        received.extend_from_slice(&buffer[..length]);
        reads += 1;
        if reads % 50 == 0 {
            sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    let (out, err) = demultiplex(&received);
    assert_eq!((out.len(), err.len()), (SIZE, 0));
    let whole = b"0123456789abcdef\n";
    assert!(out.chunks(whole.len()).all(|line| whole.starts_with(line)), "nothing is lost or mixed up");
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn a_reader_that_sleeps_at_the_end_gets_the_rest() {
    let container = script("head -c 150000 /dev/zero | tr '\\0' x");
    let shim = container.created().await;
    let mut stream = attach(&shim, raw()).await;
    shim.start().await.unwrap();
    assert_eq!(shim.wait().await.unwrap().code, 0, "the end does not wait for slow readers");
    sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(read_to_end(&mut stream).await.len(), 150_000);
    assert_eq!(container.finished(&shim).await, 0);
}

#[tokio::test]
async fn logs_rotate_and_long_lines_are_split() {
    let container = script("head -c 20000 /dev/zero | tr '\\0' x; echo; seq 1 3000").log(50_000, 3);
    let shim = container.started().await;
    assert_eq!(container.finished(&shim).await, 0);
    let rotated = |number: u32| container.log.with_file_name(format!("json.log.{number}"));
    let all: Vec<_> =
        [rotated(2), rotated(1), container.log.clone()].iter().flat_map(|path| entries(path)).collect();
    assert!(!rotated(3).exists());
    assert_eq!(all.last().unwrap().1, "3000\n");
    let container = script("head -c 20000 /dev/zero | tr '\\0' x; echo");
    let shim = container.started().await;
    assert_eq!(container.finished(&shim).await, 0);
    let lengths: Vec<_> = container.logged().iter().map(|(_, text)| text.len()).collect();
    assert_eq!(lengths, [16_384, 3_617]);
}
