//! The text of messages. A shim outlives the daemon that started it, so a newer daemon meets older shims: what is
//! written here must stay readable.

use berth_shim_protocol::{
    Answer, Attach, Create, Event, ExitRecord, Failure, FailureKind, Framing, Log, LogFile, Message, Op,
    Reply, Request, Rootfs, StdinMode, WindowSize, decode, encode, files,
};
use serde::{Serialize, de::DeserializeOwned};

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: T, text: &str) {
    assert_eq!(String::from_utf8(encode(&message)).unwrap(), text);
    assert_eq!(decode::<T>(text.as_bytes()).unwrap(), message);
}

#[test]
fn requests() {
    check(Request { seq: 1, op: Op::Start }, r#"{"seq":1,"op":"start"}"#);
    check(
        Request { seq: 2, op: Op::Kill { signal: 9, all: true } },
        r#"{"seq":2,"op":{"kill":{"signal":9,"all":true}}}"#,
    );
    let attach = Attach {
        stdin: true,
        detach_keys: b"\x10\x11".to_vec(),
        initial_stdin: vec![0, 255],
        ..Attach::output(Framing::Stdcopy)
    };
    check(
        Request { seq: 3, op: Op::Attach(attach) },
        concat!(
            r#"{"seq":3,"op":{"attach":{"stdin":true,"stdout":true,"stderr":true,"framing":"stdcopy","#,
            r#""detach_keys":"EBE=","initial_stdin":"AP8=","hold":false}}}"#
        ),
    );
    let create = Create {
        id: "c".into(),
        bundle: "/b".into(),
        rootfs: Rootfs::Overlay {
            lower: vec!["/l".into()],
            upper: "/u".into(),
            work: "/w".into(),
            volatile: false,
            users: None,
        },
        terminal: true,
        console_size: Some(WindowSize { rows: 24, cols: 80 }),
        stdin: StdinMode::OpenOnce,
        log: Log {
            file: Some(LogFile { path: "/log".into(), max_size: 10, max_file: 3, ..LogFile::default() }),
            forward: None,
        },
        systemd_cgroup: false,
        runtime: None,
        restore: None,
    };
    check(
        Request { seq: 4, op: Op::Create(Box::new(create)) },
        concat!(
            r#"{"seq":4,"op":{"create":{"id":"c","bundle":"/b","#,
            r#""rootfs":{"overlay":{"lower":["/l"],"upper":"/u","work":"/w"}},"terminal":true,"#,
            r#""console_size":{"rows":24,"cols":80},"stdin":"open_once","#,
            r#""log":{"file":{"format":"json","path":"/log","max_size":10,"max_file":3},"forward":null}}}}"#
        ),
    );
}

#[test]
fn replies_events_and_records() {
    let failure = Failure::new(FailureKind::NotFound, "gone");
    check(
        Message::Reply(Reply { seq: 5, result: Err(failure) }),
        r#"{"reply":{"seq":5,"result":{"Err":{"kind":"not_found","message":"gone"}}}}"#,
    );
    check(
        Message::Reply(Reply { seq: 6, result: Ok(Answer::Exec { pid: 7 }) }),
        r#"{"reply":{"seq":6,"result":{"Ok":{"exec":{"pid":7}}}}}"#,
    );
    let at = "2026-01-02T03:04:05.6Z".parse().unwrap();
    let exit = ExitRecord { code: 137, signal: Some(9), oom_killed: true, started_at: None, at, error: None };
    check(
        Message::Event(Event::Exited(exit)),
        concat!(
            r#"{"event":{"exited":{"code":137,"signal":9,"oom_killed":true,"started_at":null,"#,
            r#""at":"2026-01-02T03:04:05.6Z","error":null}}}"#
        ),
    );
}

#[test]
fn nonsense_is_refused() {
    for text in ["", "@", "{}", r#"{"seq":1,"op":"no_such"}"#, r#"{"seq":1,"op":"start"} trailing"#] {
        assert!(decode::<Request>(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn exec_ids_are_safe_file_names() {
    for id in ["a", "0123abcd", "A-b_c"] {
        assert_eq!(files::exec_id_of(&files::exec_record(id)), Some(id));
    }
    for id in ["", ".", "..", "a/b", "a.b", "\u{e4}", &"x".repeat(129)] {
        assert!(!files::valid_exec_id(id), "{id}");
        assert_eq!(files::exec_id_of(&files::exec_record(id)), None, "{id}");
    }
}
