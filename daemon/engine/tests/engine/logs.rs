use berth_api::options::{Logs, Tail};

use crate::harness::Lab;

fn all() -> Logs {
    Logs { stdout: true, stderr: true, ..Logs::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_times_and_streams() {
    let lab = Lab::new().await;
    lab.start("cc", r#"{"Cmd":["sh","-c","echo one; sleep 0.5; echo two >&2; sleep 0.5; echo three"]}"#)
        .await;
    lab.wait("cc").await;
    assert_eq!(lab.read_logs("cc", Logs { tail: Tail::Lines(0), ..all() }).await, "");
    assert_eq!(lab.read_logs("cc", Logs { stdout: false, ..all() }).await, "two\n");
    assert_eq!(lab.read_logs("cc", Logs { stderr: false, tail: Tail::Lines(1), ..all() }).await, "three\n");
    let stamped = lab.read_logs("cc", Logs { timestamps: true, ..all() }).await;
    let first = stamped.lines().next().unwrap();
    let (time, text) = first.split_once(' ').unwrap();
    assert_eq!((time.len(), text), ("2026-11-21T02:56:14.209109264Z".len(), "one"));
    let since = Some(jiff::Timestamp::now());
    assert_eq!(lab.read_logs("cc", Logs { since, ..all() }).await, "");
    let error = lab.engine.container_logs("cc", Logs::default()).await.unwrap_err();
    assert_eq!(error.message(), "must specify at least one of 'stdout' or 'stderr'");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn following_ends_with_the_container_and_survives_rotation() {
    let lab = Lab::new().await;
    let json = serde_json::json!({
        "Cmd": ["sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"],
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "20k", "max-file": "50"}}},
    });
    let id = lab.start("cc", &json.to_string()).await;
    let text = lab.read_logs("cc", Logs { follow: true, ..all() }).await;
    let expected: String = (0..2000).map(|number| format!("line {number}\n")).collect();
    assert!(text == expected, "{} of {} bytes", text.len(), expected.len());
    let dir = lab.dir.path().join("root/containers").join(&id);
    assert!(dir.join(format!("{id}-json.log.2")).exists());
    assert_eq!(lab.output("cc").await, expected);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_log_is_read_like_any_other() {
    let lab = Lab::new().await;
    let json = |script: &str| {
        let config = serde_json::json!({"Type": "local", "Config": {"max-size": "20k", "max-file": "50", "compress": "false"}});
        serde_json::json!({"Cmd": ["sh", "-c", script], "HostConfig": {"LogConfig": config}}).to_string()
    };
    let id = lab
        .start("cc", &json("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; echo end >&2"))
        .await;
    let text = lab.read_logs("cc", Logs { follow: true, stderr: false, ..all() }).await;
    let expected: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    assert!(text == expected, "{} of {} bytes", text.len(), expected.len());
    let log = lab.dir.path().join("root/containers").join(&id).join(format!("{id}-json.log"));
    assert!(log.with_extension("log.2").exists());
    assert_eq!(std::fs::read(&log).unwrap()[0], 0xb1, "blocks");
    for lines in [1, 7, 2000, 4999] {
        let tail = lab.read_logs("cc", Logs { stderr: false, tail: Tail::Lines(lines + 1), ..all() }).await;
        let from = expected.lines().count() - usize::try_from(lines).unwrap();
        assert!(
            tail.lines().eq(expected.lines().skip(from)),
            "the last {lines} lines and one of the other stream"
        );
    }
    assert_eq!(lab.read_logs("cc", Logs { stdout: false, ..all() }).await, "end\n");
    let stamped = lab.read_logs("cc", Logs { timestamps: true, ..all() }).await;
    assert!(stamped.lines().all(|line| line[..30].parse::<jiff::Timestamp>().is_ok()));
    let since = Some(jiff::Timestamp::now());
    assert_eq!(lab.read_logs("cc", Logs { since, ..all() }).await, "");
    let (code, output) =
        lab.run("printf a; printf b >&2; head -c 40000 /dev/zero | tr '\\0' x", &json("")).await;
    assert_eq!((code, output.len()), (0, 40_002));
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_log_there_is_nothing_to_read() {
    let lab = Lab::new().await;
    lab.start("cc", r#"{"Cmd":["true"],"HostConfig":{"LogConfig":{"Type":"none"}}}"#).await;
    lab.wait("cc").await;
    let error = lab.engine.container_logs("cc", all()).await.unwrap_err();
    assert_eq!(error.message(), "configured logging driver does not support reading");
    lab.finish().await;
}
