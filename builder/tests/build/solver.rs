//! Stages side by side, merged steps, what the cache tells, what it forgets, the network.

use std::io::{Read, Write};
use std::net::TcpListener;

use berth_builder::{BuildEvent, Context, PruneOptions};

use crate::harness::{Harness, args};

#[test]
fn stages_run_side_by_side() {
    let h = Harness::new();
    // Each of the two can only end if the other one runs at the same time.
    let dockerfile = "FROM busybox AS a\nRUN --mount=type=cache,id=meet,target=/m touch /m/a; until [ -e /m/b ]; do sleep 0.01; done\n\
                      FROM busybox AS b\nRUN --mount=type=cache,id=meet,target=/m touch /m/b; until [ -e /m/a ]; do sleep 0.01; done\n\
                      FROM scratch\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n";
    h.build(dockerfile, &[]).id();
    h.assert_clean();
}

#[test]
fn equal_steps_run_once() {
    let h = Harness::new();
    let dockerfile = "FROM busybox AS a\nRUN echo ran; sleep 0.2; touch /made\n\
                      FROM busybox AS b\nRUN echo ran; sleep 0.2; touch /made\n\
                      FROM scratch\nCOPY --from=a /made /a\nCOPY --from=b /made /b\n";
    for no_cache in [false, true] {
        let outcome = h.build_with(dockerfile, &[], |request| request.no_cache = no_cache);
        assert_eq!(outcome.output(), "ran\n");
    }
}

#[test]
fn the_first_failure_ends_all_stages() {
    let h = Harness::new();
    let dockerfile = "FROM busybox AS a\nRUN sleep 300\nFROM busybox AS b\nRUN exit 3\n\
                      FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n";
    assert_eq!(h.build(dockerfile, &[]).error().exit_code(), Some(3));
    h.assert_clean();
}

#[test]
fn a_miss_is_explained() {
    let h = Harness::new();
    let dockerfile = "FROM busybox\nARG A\nCOPY . /c\nRUN echo $A\n";
    let build = |text: &str, a: &str| {
        h.build_with(dockerfile, &[("f", text), ("g", "g")], |request| request.build_args = args(&[("A", a)]))
    };
    assert_eq!(build("1", "x").missed()[0], "this step was not built before");
    assert!(build("1", "x").missed().is_empty());
    assert_eq!(build("1", "y").missed(), ["env A was \"x\" and is \"y\""]);
    let missed = build("2", "y").missed();
    assert_eq!(missed[0], "file f changed");
    assert!(missed[1].starts_with("the file system that it starts from changed"), "{missed:?}");
}

#[test]
fn the_same_inputs_make_the_same_image() {
    let dockerfile = "FROM busybox\nWORKDIR /w\nCOPY f .\nRUN mkdir d && echo made > d/f\n";
    let build = || {
        let h = Harness::new();
        let dir = crate::harness::context(dockerfile, &[("f", "f")]);
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        std::fs::File::open(dir.path().join("f")).unwrap().set_modified(time).unwrap();
        let request = berth_builder::BuildRequest::new(Context::Directory(dir.path().to_owned()));
        h.run(request, tokio_util::sync::CancellationToken::new()).id().clone()
    };
    assert_eq!(build(), build());
}

#[test]
fn a_copy_is_not_made_again_for_what_changed_beside_it() {
    let build = |h: &Harness, dockerfile: &str, a: &str| {
        let dir = crate::harness::context(dockerfile, &[("a", a), ("b", "b")]);
        for (name, seconds) in [("a", 1_200_000_000), ("b", 1_000_000_000), ("Dockerfile", 7), (".", 7)] {
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::open(dir.path().join(name)).unwrap().set_modified(time).unwrap();
        }
        let request = berth_builder::BuildRequest::new(Context::Directory(dir.path().to_owned()));
        h.run(request, tokio_util::sync::CancellationToken::new())
    };
    let h = Harness::new();
    for second in ["COPY b /new/b", "COPY --chown=7:8 --chmod=640 b /bin/", "COPY . /new", "COPY b /b"] {
        let dockerfile = format!("FROM busybox\nCOPY a /a\n{second}\n");
        let of_context = usize::from(second == "COPY . /new");
        build(&h, &dockerfile, "1").id();
        let changed = build(&h, &dockerfile, second);
        assert_eq!(changed.missed().len(), 1 + of_context, "{second}");
        assert_eq!(build(&Harness::new(), &dockerfile, second).id(), changed.id(), "{second}");
    }
    // What has the same name, and what leads elsewhere, does make a difference.
    for first in ["COPY a /b", "COPY a /bin/b", "RUN ln -s /bin /new"] {
        let dockerfile = format!("FROM busybox\n{first}\nCOPY b /b\nCOPY b /bin/\nCOPY b /new/\n");
        let built = build(&h, &dockerfile, "3");
        assert_eq!(build(&Harness::new(), &dockerfile, "3").id(), built.id(), "{first}");
    }
}

#[test]
fn the_cache_is_bounded_and_pruned() {
    let h = Harness::with_limit(Some(300_000));
    let build = |n: &str| {
        let text = "x".repeat(100_000) + n;
        h.build("FROM busybox\nCOPY f /\n", &[("f", text.as_str())])
    };
    for n in ["1", "2", "3", "4", "5"] {
        build(n).id();
        let total: u64 = h.builder.cache().unwrap().iter().map(|entry| entry.size).sum();
        assert!(total <= 300_000, "{total}");
    }
    assert_eq!(build("5").cached(), 1, "what was used last stays");
    let shared = h.builder.prune(&PruneOptions::default()).unwrap();
    assert_eq!(shared.ids, [] as [String; 0], "images have these layers");
    let pruned = h.builder.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    assert!(!pruned.ids.is_empty() && h.builder.cache().unwrap().is_empty());
    assert_eq!(build("5").cached(), 0);
    let history = h.builder.history().unwrap();
    assert_eq!((history.len(), history[0].steps.len()), (7, 2));
    assert!(h.builder.log(&history[1].id).unwrap().unwrap().contains("CACHED"));
}

#[test]
fn the_cache_travels() {
    let h = Harness::new();
    let dockerfile = "FROM busybox\nRUN --mount=type=cache,target=/c echo kept > /c/f; echo ran\n";
    let outcome = h.build(dockerfile, &[]);
    let image = h.builder.export_cache(outcome.records.as_ref().unwrap(), true).unwrap();
    let mut archive = Vec::new();
    h.store.save(&[image.as_str()], &mut archive).unwrap();
    let other = Harness::new();
    let loaded = other.store.load(archive.as_slice(), &|_| {}).unwrap();
    assert_eq!(other.builder.import_cache(&loaded[0].id).unwrap(), 1);
    assert_eq!(other.build(dockerfile, &[]).cached(), 1);
    let dockerfile = "FROM busybox\nRUN --mount=type=cache,target=/c cat /c/f\n";
    assert_eq!(other.build(dockerfile, &[]).output(), "kept\n");
}

#[test]
fn files_come_from_the_network() {
    let h = Harness::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..n]).to_lowercase();
            let known = request.contains("if-none-match: \"1\"");
            let last = request.contains("/last");
            asked.push(known);
            let answer = match known {
                true => "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned(),
                false => "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndata".to_owned(),
            };
            stream.write_all(answer.as_bytes()).unwrap();
            if last {
                return asked;
            }
        }
        asked
    });
    let dockerfile = format!("FROM scratch\nADD http://{address}/dir/file /d/\n");
    let outcome = h.build(&dockerfile, &[]);
    assert_eq!(h.read(outcome.id(), "d/file"), "data");
    let meta = h.find(outcome.id(), "d/file").unwrap().metadata().unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o600, 784_111_777));
    assert_eq!(h.build(&dockerfile, &[]).cached(), 1);
    let wrong = format!("FROM scratch\nADD --checksum=sha256:{} http://{address}/last /d/\n", "0".repeat(64));
    assert!(h.build(&wrong, &[]).error().to_string().contains("digest mismatch"));
    assert_eq!(server.join().unwrap(), [false, true, false]);
}

#[test]
fn what_is_not_allowed_is_refused() {
    let h = Harness::new();
    let outcome = h.build("FROM busybox\nRUN --security=insecure true\n", &[]);
    assert!(outcome.error().to_string().contains("--allow security.insecure"));
    let outcome = h.build("FROM busybox\nRUN --network=host true\n", &[]);
    assert!(outcome.error().to_string().contains("--allow network.host"));
}

#[test]
fn named_contexts() {
    let h = Harness::new();
    let other = crate::harness::context("", &[("x", "X"), ("hidden", ""), (".dockerignore", "hidden")]);
    let dockerfile = "FROM extra AS e\nFROM busybox\nCOPY --from=extra . /e\nRUN --mount=from=extra,target=/m cat /m/x\nCOPY --from=e /x /y\n";
    let outcome = h.build_with(dockerfile, &[], |request| {
        let context = Context::Directory(other.path().to_owned());
        request.named_contexts = [("extra".to_owned(), context)].into();
    });
    assert_eq!(outcome.output(), "X");
    assert_eq!((h.read(outcome.id(), "e/x"), h.read(outcome.id(), "y")), ("X".into(), "X".into()));
    assert!(h.find(outcome.id(), "e/hidden").is_none());
    let warned = outcome.events.iter().any(|event| matches!(event, BuildEvent::Warning { .. }));
    assert!(!warned);
}
