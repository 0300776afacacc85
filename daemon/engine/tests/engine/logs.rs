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
async fn without_a_log_there_is_nothing_to_read() {
    let lab = Lab::new().await;
    lab.start("cc", r#"{"Cmd":["true"],"HostConfig":{"LogConfig":{"Type":"none"}}}"#).await;
    lab.wait("cc").await;
    let error = lab.engine.container_logs("cc", all()).await.unwrap_err();
    assert_eq!(error.message(), "configured logging driver does not support reading");
    lab.finish().await;
}
