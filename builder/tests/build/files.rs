//! Builds that only copy and describe.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_builder::{BuildError, BuildRequest, Context, DockerfileSource};
use berth_oci::{Platform, Reference};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio_util::sync::CancellationToken;

use crate::harness::{Harness, Outcome, args, context};

#[test]
fn copies_and_caches() {
    let h = Harness::new();
    let dockerfile =
        "FROM busybox\nWORKDIR /app\nCOPY src .\nCOPY --chown=app:extra one /data/\nCMD [\"x\"]\n";
    let files = [("src/a", "A"), ("src/d/b", "B"), ("one", "1")];
    let first = h.build(dockerfile, &files);
    let id = first.id().clone();
    assert_eq!(first.steps()[0], "1/5 FROM busybox");
    assert_eq!(h.read(&id, "app/d/b"), "B");
    let meta = h.find(&id, "data/one").unwrap().metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), (100, 200));
    let config = h.config(&id);
    assert_eq!(config["config"]["WorkingDir"], "/app");
    let history: Vec<&str> =
        config["history"].as_array().unwrap().iter().filter_map(|x| x["created_by"].as_str()).collect();
    assert_eq!(
        history[history.len() - 4..],
        [
            "WORKDIR /app",
            "COPY src . # buildkit",
            "COPY --chown=app:extra one /data/ # buildkit",
            "CMD [\"x\"]"
        ]
    );
    let again = h.build(dockerfile, &files);
    assert_eq!((again.id(), again.cached()), (&id, 3), "new files, same contents: all from the cache");
    let changed = h.build(dockerfile, &[files[0], files[1], ("one", "2")]);
    assert_eq!(changed.cached(), 2);
    assert_ne!(changed.id(), &id);
    let uncached = h.build_with(dockerfile, &files, |request| request.no_cache = true);
    assert_eq!(uncached.cached(), 0);
    uncached.id();
    h.assert_clean();
}

#[test]
fn stages() {
    let h = Harness::new();
    let outcome = h.build(
        "FROM busybox AS one\nCOPY a /x/a\nFROM nowhere.invalid/none AS unused\nFROM scratch AS two\nCOPY --from=one /x/ /y/\nFROM two\nCOPY --from=0 /x/a /z\nCOPY --from=busybox /etc/passwd /\n",
        &[("a", "A")],
    );
    let id = outcome.id();
    assert_eq!((h.read(id, "y/a"), h.read(id, "z")), ("A".into(), "A".into()));
    assert!(h.read(id, "passwd").starts_with("root"));
    assert_eq!(h.config(id)["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    assert!(outcome.steps().iter().all(|step| !step.contains("unused")));
}

#[test]
fn arguments_labels_and_tags() {
    let h = Harness::new();
    let outcome =
        h.build_with("ARG V=busybox\nFROM $V\nARG A=1\nARG B\nENV X=$A$B\nLABEL l=$X\n", &[], |request| {
            request.build_args = args(&[("B", "b"), ("NOT", "used")]);
            request.labels = [("own".to_owned(), "1".to_owned())].into();
            request.tags = vec![Reference::parse("made:here").unwrap()];
        });
    let config = h.config(outcome.id());
    assert_eq!(config["config"]["Labels"], serde_json::json!({"l": "1b", "own": "1"}));
    assert_eq!(&h.store.images().resolve("made:here").unwrap().id, outcome.id());
    assert!(format!("{:?}", outcome.events).contains("[NOT] were not consumed"));
}

#[test]
fn triggers_run_in_the_child() {
    let h = Harness::new();
    let base = h.build_with("FROM busybox\nONBUILD COPY a /on/\nONBUILD ENV E=1\n", &[], |request| {
        request.tags = vec![Reference::parse("base").unwrap()];
    });
    assert!(h.find(base.id(), "on/a").is_none());
    let child = h.build("FROM base\n", &[("a", "A")]);
    assert_eq!(h.read(child.id(), "on/a"), "A");
    let config = h.config(child.id());
    assert!(config["config"]["Env"].as_array().unwrap().contains(&"E=1".into()));
    assert!(config["config"].get("OnBuild").is_none_or(serde_json::Value::is_null));
}

#[test]
fn archives_and_heredocs() {
    let h = Harness::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o600);
    header.set_uid(7);
    header.set_gid(7);
    header.set_mtime(1);
    header.set_size(2);
    tar.append_data(&mut header, "in/tar", &b"xy"[..]).unwrap();
    let dir = context(
        "FROM scratch\nADD a.tar /un/\nCOPY a.tar /un/\nCOPY <<ONE <<'TWO' /here/\n$X \"q\"\nONE\n$X\nTWO\n",
        &[],
    );
    std::fs::write(dir.path().join("a.tar"), tar.into_inner().unwrap()).unwrap();
    let request = BuildRequest::new(Context::Directory(dir.path().to_owned()));
    let outcome = h.run(request, CancellationToken::new());
    let id = outcome.id();
    assert_eq!(h.read(id, "un/in/tar"), "xy");
    assert_eq!(h.find(id, "un/in/tar").unwrap().metadata().unwrap().uid(), 7);
    assert!(h.find(id, "un/a.tar").is_some());
    assert_eq!((h.read(id, "here/ONE"), h.read(id, "here/TWO")), (" \"q\"\n".into(), "$X\n".into()));
}

#[test]
fn contexts_from_archives() {
    let h = Harness::new();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [
        ("docker/File", "FROM scratch\nCOPY . /\n"),
        ("keep", "k"),
        ("drop", "d"),
        (".dockerignore", "drop\ndocker"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(1000);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let mut archive = tar.into_inner().unwrap();
    let build = |archive: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, archive).unwrap();
        let mut request = BuildRequest::new(Context::Tar(file));
        request.dockerfile = DockerfileSource::Path("docker/File".into());
        h.run(request, CancellationToken::new())
    };
    let outcome = build(&archive);
    let id = outcome.id();
    let last = archive.windows(11).rposition(|end| end == b"drop\ndocker").unwrap();
    archive.truncate(last + 11);
    assert_eq!(build(&archive).id(), id, "the docker CLI leaves out what fills up the last block");
    archive.truncate(last + 9);
    let error = build(&archive).result.unwrap_err().to_string();
    assert!(error.contains("the archive ends within .dockerignore"), "{error}");
    assert_eq!(h.find(id, "keep").unwrap().metadata().unwrap().uid(), 0);
    assert!(h.find(id, "drop").is_none() && h.find(id, "docker").is_none());
    h.assert_clean();
}

#[test]
fn an_image_cannot_lead_a_copy_outside() {
    let h = Harness::new();
    let outside = tempfile::tempdir().unwrap();
    let dir = context("FROM busybox\nCOPY link /evil\nCOPY f /evil/\n", &[("f", "F")]);
    // A relative link is copied as its target's contents, so build the hostile link through an archive.
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    tar.append_link(&mut header, "evil", outside.path()).unwrap();
    std::fs::write(dir.path().join("link.tar"), tar.into_inner().unwrap()).unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM busybox\nADD link.tar /\nCOPY f /evil/\n").unwrap();
    let outcome =
        h.run(BuildRequest::new(Context::Directory(dir.path().to_owned())), CancellationToken::new());
    let inside = outside.path().strip_prefix("/").unwrap().join("f");
    assert_eq!(h.read(outcome.id(), inside.to_str().unwrap()), "F", "within the image the link is followed");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    symlink(outside.path(), dir.path().join("ctx")).unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\nCOPY ctx/secret /\n").unwrap();
    let outcome =
        h.run(BuildRequest::new(Context::Directory(dir.path().to_owned())), CancellationToken::new());
    assert!(outcome.error().to_string().contains("not found"), "{}", outcome.error());
}

#[test]
fn faults_name_their_place() {
    let h = Harness::new();
    for (dockerfile, wanted) in [
        ("FROM busybox\n\nCOPY none /\n", "\"/none\": not found in the build context"),
        ("FROM busybox\n\nCOPY --chown=nobody Dockerfile /\n", "no user nobody"),
        ("FROM busybox\n\nADD http://127.0.0.1:1/x /\n", "cannot fetch http://127.0.0.1:1/x"),
        (
            "FROM busybox\n\nADD http://127.0.0.1:1/x.git /\n",
            "git ls-remote for http://127.0.0.1:1/x.git failed",
        ),
        (
            "FROM busybox\n\nADD --checksum=sha256:1 Dockerfile /\n",
            "checksum requires HTTP(S) or Git sources",
        ),
        ("FROM busybox\n\nCOPY --parents a/none /\n", "\"/a/none\": not found in the build context"),
        ("FROM busybox\n\nENV A=${B:?gone}\n", "B: gone"),
        ("FROM scratch\n\nFROM none-such\n", "No such image: none-such"),
        ("FROM busybox\n\nCOYP a b\n", "unknown instruction: COYP (did you mean COPY?)"),
    ] {
        let outcome = h.build(dockerfile, &[]);
        let error = outcome.error();
        assert!(error.to_string().contains(wanted), "{dockerfile}: {error}");
        assert_eq!(error.excerpt().map(|e| e.line), Some(3), "{dockerfile}: {error}");
        assert!(error.to_string().contains(">>>"), "{error}");
    }
    assert!(matches!(h.build("", &[]).error(), BuildError::Invalid { .. }));
    let outcome = h.build_with("FROM busybox AS a\n", &[], |request| request.target = Some("b".into()));
    assert!(outcome.error().to_string().contains("it has a"), "{}", outcome.error());
    h.assert_clean();
}

#[test]
fn a_fixed_time_makes_builds_repeatable() {
    let h = Harness::new();
    let build = || {
        h.build_with("FROM scratch\nCOPY Dockerfile /\n", &[], |request| {
            request.no_cache = true;
            request.build_args = args(&[("SOURCE_DATE_EPOCH", "1000000000")]);
        })
    };
    let config = h.config(build().id());
    assert_eq!(config["created"], "2001-09-09T01:46:40Z");
    assert_eq!(config["history"][0]["created"], config["created"]);
}

#[test]
fn what_is_copied_keeps_its_time() {
    let h = Harness::new();
    for _ in 0..5 {
        // `now` is saved in the same tick of the clock, more often than not, in which the step begins.
        let dir = context("FROM busybox\nCOPY tomorrow now /x/\n", &[("tomorrow", "t"), ("now", "n")]);
        let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
        fs::File::open(dir.path().join("tomorrow")).unwrap().set_modified(tomorrow).unwrap();
        let mut request = BuildRequest::new(Context::Directory(dir.path().to_owned()));
        request.no_cache = true;
        request.build_args = args(&[("SOURCE_DATE_EPOCH", "1000000000")]);
        let outcome = h.run(request, CancellationToken::new());
        let copied = |path: &str| h.find(outcome.id(), path).unwrap().metadata().unwrap().modified().unwrap();
        for name in ["now", "tomorrow"] {
            let had = fs::metadata(dir.path().join(name)).unwrap().modified().unwrap();
            assert_eq!(copied(&format!("x/{name}")), had, "{name}");
        }
        assert_eq!(copied("x"), UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    }
}

#[test]
fn lint_can_fail_a_build() {
    let h = Harness::new();
    let outcome = h.build("# check=error=true\nFROM busybox\nMAINTAINER me\n", &[]);
    assert!(outcome.error().to_string().contains("MaintainerDeprecated"), "{}", outcome.error());
    h.build("# check=skip=MaintainerDeprecated;error=true\nFROM busybox\nMAINTAINER me\n", &[]).id();
}

#[test]
fn a_cancelled_build_leaves_nothing() {
    let h = Harness::new();
    let dir = context("FROM busybox\nCOPY . /\n", &[]);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let outcome = h.run(BuildRequest::new(Context::Directory(dir.path().to_owned())), cancel);
    assert!(matches!(outcome.error(), BuildError::Cancelled));
    h.assert_clean();
}

#[test]
fn new_layers_have_nothing_newer_than_the_fixed_time() {
    const EPOCH: u64 = 1_000_000_000;
    let h = Harness::new();
    let dir = context(
        "FROM busybox\nCOPY old new /f/\nCOPY tree /tree\n",
        &[("old", ""), ("new", ""), ("tree/n", "")],
    );
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH - 5);
    fs::File::open(dir.path().join("old")).unwrap().set_modified(old).unwrap();
    let build = |rewrite| {
        let mut request = BuildRequest::new(Context::Directory(dir.path().to_owned()));
        request.build_args = args(&[("SOURCE_DATE_EPOCH", &EPOCH.to_string())]);
        request.rewrite_timestamp = rewrite;
        h.run(request, CancellationToken::new())
    };
    let (plain, rewritten) = (build(false), build(true));
    let time = |outcome: &Outcome, path: &str| {
        let found = h.find(outcome.id(), path).unwrap_or_else(|| panic!("{path}"));
        u64::try_from(found.symlink_metadata().unwrap().mtime()).unwrap()
    };
    assert!(time(&plain, "f/new") > EPOCH, "a copied file keeps its time otherwise");
    for (path, want) in
        [("f/old", EPOCH - 5), ("f/new", EPOCH), ("f", EPOCH), ("tree", EPOCH), ("tree/n", EPOCH)]
    {
        assert_eq!(time(&rewritten, path), want, "{path}");
    }
    let layers = |outcome: &Outcome| h.store.images().config_of(outcome.id()).unwrap().diff_ids().to_vec();
    assert_eq!(layers(&plain)[0], layers(&rewritten)[0], "the base is what it was");
    assert_ne!(layers(&plain)[1], layers(&rewritten)[1]);
}

#[test]
fn unchanged_files_are_not_read_again() {
    let h = Harness::new();
    let dir = context("FROM busybox\nCOPY data /data\n", &[("data/same", "1"), ("data/other", "1")]);
    // What changed a moment ago is not trusted.
    std::thread::sleep(Duration::from_millis(200));
    let build =
        || h.run(BuildRequest::new(Context::Directory(dir.path().to_owned())), CancellationToken::new());
    let first = build();
    let opened = || -> Vec<String> {
        let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        watch.add_watch(&dir.path().join("data"), AddWatchFlags::IN_OPEN).unwrap();
        assert_eq!(build().cached(), 1);
        let mut names = Vec::new();
        while let Ok(events) = watch.read_events() {
            names.extend(
                events.into_iter().filter_map(|event| Some(event.name?.to_string_lossy().into_owned())),
            );
        }
        names
    };
    assert_eq!(opened(), Vec::<String>::new());
    fs::write(dir.path().join("data/other"), "1").unwrap();
    std::thread::sleep(Duration::from_millis(25));
    assert_eq!(opened(), ["other"], "written again with the same contents");
    assert_eq!(build().id(), first.id());
}

#[test]
fn an_image_for_each_platform() {
    let h = Harness::new();
    let dockerfile = "FROM --platform=$BUILDPLATFORM busybox AS tools\nFROM scratch\nARG TARGETARCH\nCOPY for-$TARGETARCH /f\n\
        COPY --from=tools /etc/passwd /\n";
    let files = [("for-arm64", "arm"), ("for-riscv64", "riscv")];
    let outcome = h.build_with(dockerfile, &files, |request| {
        request.platforms = ["linux/arm64", "linux/riscv64"].map(|p| Platform::parse(p).unwrap()).into();
        request.tags = vec![Reference::parse("both").unwrap()];
    });
    let images = outcome.images.clone();
    assert_eq!(images.len(), 2, "{outcome:?}");
    for ((platform, id), (architecture, text)) in images.iter().zip([("arm64", "arm"), ("riscv64", "riscv")])
    {
        assert_eq!(platform.architecture, architecture);
        assert_eq!(h.config(id)["architecture"], architecture);
        assert_eq!(h.read(id, "f"), text);
        assert!(h.find(id, "passwd").is_some());
    }
    assert_eq!(outcome.id(), &images[0].1, "none is for this machine: the first has the name");
    let steps: Vec<String> = outcome.steps().into_iter().filter(|step| step.contains("for-$")).collect();
    assert_eq!(steps, ["4/5 COPY for-$TARGETARCH /f", "4/5 COPY for-$TARGETARCH /f"]);
    assert_eq!(outcome.cached(), 1, "each has files of its own, but what both have is copied once");
}
