use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use berth_api::options::{Attach, WaitCondition};
use berth_engine::{ExecClient, ExecReader, Kind};

use crate::harness::{Lab, exec_client, read_to_end, unframe, until, write};

fn both() -> Attach {
    Attach { stream: true, stdout: true, stderr: true, stdin: true, ..Attach::default() }
}

async fn attach(lab: &Lab, name: &str, options: Attach) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let replays = options.logs;
    let prepared = lab.engine.prepare_attach(name, options).await.unwrap();
    // A client reads while it is attached.
    let attached = tokio::spawn(prepared.attach(theirs.into(), b"HEAD".to_vec(), Vec::new()));
    if !replays {
        attached.await.unwrap().unwrap();
    }
    ours
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_before_start_loses_nothing() {
    let lab = Lab::new().await;
    lab.create("cc", r#"{"Cmd":["cat"],"OpenStdin":true,"StdinOnce":true,"AttachStdin":true}"#).await;
    let client = attach(&lab, "cc", both()).await;
    let wait = lab.engine.wait_container("cc", WaitCondition::NextExit).await.unwrap();
    lab.engine.start_container("cc").await.unwrap();
    write(&client, b"hello\n").await;
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(wait.await.status_code, 0);
    let bytes = read_to_end(client).await;
    assert_eq!(bytes.strip_prefix(b"HEAD").unwrap(), b"\x01\0\0\0\0\0\0\x06hello\n");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_replays_and_goes_on_without_gap_or_duplicate() {
    let lab = Lab::new().await;
    let script = "i=0; while [ $i -lt 3000 ]; do [ $i = 1500 ] && sleep 0.5; echo $i; i=$((i+1)); done";
    lab.start("cc", &serde_json::json!({"Cmd": ["sh", "-c", script]}).to_string()).await;
    let client = attach(&lab, "cc", Attach { logs: true, stdin: false, ..both() }).await;
    let bytes = read_to_end(client).await;
    let text = String::from_utf8(unframe(bytes.strip_prefix(b"HEAD").unwrap())).unwrap();
    let expected: String = (0..3000).map(|number| format!("{number}\n")).collect();
    assert!(text == expected, "{} of {} bytes", text.len(), expected.len());
    lab.wait("cc").await;
    // Of a container that has ended, the log alone.
    let client = attach(&lab, "cc", Attach { logs: true, stream: false, ..both() }).await;
    assert_eq!(unframe(read_to_end(client).await.strip_prefix(b"HEAD").unwrap()), expected.into_bytes());
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn execs() {
    let lab = Lab::new().await;
    lab.start("cc", r#"{"Cmd":["sleep","1000"],"Env":["A=container"],"User":"app"}"#).await;
    let (code, output) = lab
        .exec(
            "cc",
            r#"{"Cmd":["sh","-c","echo $A $B; id -u; id -G; exit 3"],"AttachStdout":true,"Env":["B=exec"]}"#,
        )
        .await;
    assert_eq!((code, output.as_str()), (3, "container exec\n1000\n1000 2000\n"));
    let (code, output) = lab
        .exec("cc", r#"{"Cmd":["sh","-c","tty; stty size"],"AttachStdout":true,"Tty":true,"User":"0"}"#)
        .await;
    assert!(output.contains("\r\n"), "{output:?} {code}");
    // Who wants to know it is told the exit code behind the output, on the same stream; a terminal's output is framed, too.
    for (tty, end) in [(false, "\n"), (true, "\r\n")] {
        let config = format!(r#"{{"Cmd":["sh","-c","echo out; exit 7"],"AttachStdout":true,"Tty":{tty}}}"#);
        let id = lab.engine.create_exec("cc", serde_json::from_str(&config).unwrap()).await.unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let client = ExecClient { reads: ExecReader::ToTheExitCode, ..exec_client(theirs, b"G", tty) };
        lab.engine.start_exec(&id, None, client).await.unwrap();
        let bytes = read_to_end(ours).await;
        let (output, code) = bytes.strip_prefix(b"G").unwrap().split_at(bytes.len() - 1 - 12);
        assert_eq!(unframe(output), format!("out{end}").as_bytes());
        assert_eq!(code, b"\x04\0\0\0\0\0\0\x04\0\0\0\x07");
    }
    let id = {
        let config = serde_json::from_str(r#"{"Cmd":["nosuch"],"AttachStdout":true}"#).unwrap();
        lab.engine.create_exec("cc", config).await.unwrap()
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let error = lab.engine.start_exec(&id, None, exec_client(theirs, b"G", false)).await.unwrap_err();
    let expected = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": \
                    executable file not found in $PATH";
    assert!(error.message().starts_with(expected), "{}", error.message());
    assert_eq!(read_to_end(ours).await, b"G");
    assert_eq!(lab.engine.inspect_exec(&id).await.unwrap().exit_code, Some(127));
    let (_, theirs) = UnixStream::pair().unwrap();
    let error = lab.engine.start_exec(&id, None, exec_client(theirs, b"", false)).await.unwrap_err();
    assert_eq!(error.message(), format!("exec command {id} has already run"));
    assert_eq!(lab.engine.inspect_exec("nope").await.unwrap_err().message(), "No such exec instance: nope");
    lab.engine.pause_container("cc").await.unwrap();
    let config = serde_json::from_str(r#"{"Cmd":["true"]}"#).unwrap();
    let error = lab.engine.create_exec("cc", config).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (Kind::Conflict, "Container cc is paused, unpause the container before exec")
    );
    lab.engine.unpause_container("cc").await.unwrap();
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_exec_and_top_and_stats() {
    let lab = Lab::new().await;
    lab.start("cc", r#"{"Cmd":["sleep","1000"]}"#).await;
    let config = serde_json::from_str(r#"{"Cmd":["sleep","1001"]}"#).unwrap();
    let id = lab.engine.create_exec("cc", config).await.unwrap();
    lab.engine.start_exec_detached(&id, None).await.unwrap();
    let exec = lab.engine.inspect_exec(&id).await.unwrap();
    assert!(exec.running && exec.pid > 0);
    assert_eq!(lab.inspect("cc").await.exec_ids.unwrap(), std::slice::from_ref(&id));
    let top = lab.engine.top_container("cc", "").await.unwrap();
    assert_eq!(top.processes.len(), 2, "{top:?}");
    let mut stats = lab
        .engine
        .container_stats("cc", berth_api::options::Stats { stream: false, one_shot: true })
        .await
        .unwrap();
    let sample = futures_util::StreamExt::next(&mut stats).await.unwrap();
    assert_eq!(sample.pids_stats.current, 2);
    assert!(sample.memory_stats.usage > 0 && sample.cpu_stats.system_cpu_usage > 0);
    assert!(sample.networks.unwrap().contains_key("eth0"));
    assert!(futures_util::StreamExt::next(&mut stats).await.is_none());
    lab.stop("cc").await;
    until("the exec's end", || async { !lab.engine.inspect_exec(&id).await.unwrap().running }).await;
    lab.finish().await;
}
