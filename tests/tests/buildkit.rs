//! BuildKit's protocol, from the client's side: what docker buildx and docker compose rely on.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use berth_buildkit::protocol::control::{DiskUsageRequest, ListWorkersRequest, SolveRequest};
use berth_buildkit::protocol::frontend::RpcStatus;
use berth_buildkit::protocol::pb;
use berth_tests::buildkit::{Client, Offer};
use berth_tests::cli::Frontend;
use berth_tests::daemon::Daemon;
use berth_tests::registry::Registry;
use prost::Message;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("directories");
        fs::write(path, text).expect("a file");
    }
}

async fn client(daemon: &Daemon) -> Client {
    Client::connect(daemon.run_root().join("berth.sock")).await
}

const IMAGE: Option<(&str, &[(&str, &str)])> = Some(("moby", &[("name", "app:1")]));

#[test]
fn only_what_changed_is_sent_and_built_again() {
    let daemon = Daemon::with_busybox();
    let dir = daemon.scratch("app");
    write(
        &dir,
        &[
            (
                "Dockerfile",
                "FROM busybox\nARG GREETING\nCOPY . /app\nRUN echo $GREETING $(cat /app/sub/name) > /said\n",
            ),
            (".dockerignore", "secret\nskipped\n"),
            ("secret", "x"),
            ("skipped/file", "x"),
            ("sub/name", "world"),
            ("other", "y"),
        ],
    );
    let attributes = [("build-arg:GREETING", "hello"), ("label:from", "test")];
    run(async {
        let client = client(&daemon).await;
        let offer = Offer::of(&dir);
        let first = client.build(&client.session(&offer).await, &attributes, IMAGE).await;
        assert_eq!(offer.take_asked(), [".dockerignore", "Dockerfile", "other", "sub/name"]);
        assert_eq!(first.result.as_ref().unwrap()["image.name"], "docker.io/library/app:1");
        let second = client.build(&client.session(&offer).await, &attributes, IMAGE).await;
        assert_eq!(second.image(), first.image());
        assert!(offer.take_asked().is_empty() && second.cached("COPY") && second.cached("RUN"));
        write(&dir, &[("sub/name", "moon!")]);
        // Over the other way that sessions have.
        let third = client.build(&client.session_in_call(&offer).await, &attributes, IMAGE).await;
        assert_eq!(offer.take_asked(), ["sub/name"]);
        assert!(!third.cached("COPY") && third.image() != first.image());
    });
    let cli = daemon.cli(Frontend::Docker);
    let out = cli.ok(&["run", "--rm", "app:1", "sh", "-c", "cat /said; ls -A /app"]);
    assert_eq!(out, "hello moon!\n.dockerignore\nDockerfile\nother\nsub");
    assert_eq!(cli.ok(&["inspect", "-f", "{{.Config.Labels.from}}", "app:1"]).trim(), "test");
}

#[test]
fn a_failure_says_what_and_where() {
    let daemon = Daemon::with_busybox();
    let dir = daemon.scratch("app");
    write(&dir, &[("Dockerfile", "FROM busybox\nRUN echo so far; exit 3\n")]);
    run(async {
        let client = client(&daemon).await;
        let offer = Offer::of(&dir);
        let built = client.build(&client.session(&offer).await, &[], IMAGE).await;
        let status = built.result.unwrap_err();
        let expected =
            "process \"/bin/sh -c echo so far; exit 3\" did not complete successfully: exit code: 3";
        assert_eq!(status.message(), expected);
        let details = RpcStatus::decode(status.details()).unwrap().details;
        let place: serde_json::Value = serde_json::from_slice(&details[0].value).unwrap();
        assert_eq!(place["ranges"][0]["start"]["line"], 2);
        assert!(built.output.contains("so far"), "{}", built.output);
        assert!(built.vertexes.iter().any(|vertex| vertex.error.contains("non-zero code: 3")));

        // A Dockerfile that is not there, and one that makes no sense.
        let session = client.session(&offer).await;
        let missing = client.build(&session, &[("filename", "none")], IMAGE).await.result.unwrap_err();
        assert!(missing.message().contains("open none: no such file"), "{missing:?}");
        write(&dir, &[("Dockerfile", "FROM busybox\nRUM x\n")]);
        let wrong = client.build(&session, &[], IMAGE).await.result.unwrap_err();
        assert!(wrong.message().contains("unknown instruction: RUM"), "{wrong:?}");

        // What is not a Dockerfile is refused.
        let graph = pb::Definition { def: vec![vec![1].into()], ..pb::Definition::default() };
        let request =
            SolveRequest { r#ref: "graph".into(), definition: Some(graph), ..SolveRequest::default() };
        let refused = client.control().solve(request).await.unwrap_err();
        assert!(refused.message().contains("Berth builds Dockerfiles only"), "{refused:?}");
    });
    assert!(daemon.cli(Frontend::Docker).run(&["inspect", "app:1"]).expect_code(1).stdout.starts_with("[]"));
}

#[test]
fn secrets_agents_targets_and_contexts_come_from_the_client() {
    let daemon = Daemon::with_busybox();
    let (dir, more) = (daemon.scratch("app"), daemon.scratch("more"));
    write(
        &dir,
        &[(
            "app.Dockerfile",
            "FROM busybox AS first\n\
         RUN --mount=type=secret,id=key cat /run/secrets/key > /key\n\
         RUN --mount=type=ssh,required test -S $SSH_AUTH_SOCK && echo agent > /agent\n\
         COPY --from=more f /more\n\
         COPY --from=image /bin/busybox /other\n\
         FROM first\nRUN false\n",
        )],
    );
    write(&more, &[("f", "more"), ("left", "out"), (".dockerignore", "left\n")]);
    run(async {
        let client = client(&daemon).await;
        let mut offer = Offer { agent: true, ..Offer::of(&dir) };
        offer.secrets.insert("key".into(), "hidden".into());
        offer.directories.insert("more".into(), more.clone());
        let attributes = [
            ("filename", "app.Dockerfile"),
            ("target", "first"),
            ("context:more", "local:more"),
            ("context:image", "docker-image://busybox"),
        ];
        let built = client.build(&client.session(&offer).await, &attributes, IMAGE).await;
        built.image();
        assert!(!offer.take_asked().contains(&"left".to_owned()));
        let out =
            daemon.cli(Frontend::Docker).ok(&["run", "--rm", "app:1", "cat", "/key", "/more", "/agent"]);
        assert_eq!(out, "hiddenmoreagent");
    });
    let left: Vec<_> = fs::read_dir(daemon.run_root().join("builds")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_client_that_goes_takes_its_build_along() {
    let daemon = Daemon::with_busybox();
    let dir = daemon.scratch("app");
    write(&dir, &[("Dockerfile", "FROM busybox\nRUN echo started; sleep 1000\n")]);
    let builds = daemon.run_root().join("builds");
    let running = || fs::read_dir(&builds).is_ok_and(|mut list| list.next().is_some());
    run(async {
        let offer = Offer::of(&dir);
        let first = client(&daemon).await;
        let session = first.session(&offer).await;
        let build = tokio::spawn(async move { first.build(&session, &[], IMAGE).await });
        daemon.cli(Frontend::Docker).eventually("the step runs", |_| running());
        build.abort();
        daemon.cli(Frontend::Docker).eventually("the step has ended", |_| !running());
        // Nothing of it is in the way of the next one.
        write(&dir, &[("Dockerfile", "FROM busybox\nRUN true\n")]);
        let second = client(&daemon).await;
        second.build(&second.session(&offer).await, &[], IMAGE).await.image();
    });
}

#[test]
fn builds_of_one_directory_do_not_wait_for_each_other() {
    let daemon = Daemon::with_busybox();
    let dir = daemon.scratch("app");
    // Each waits for the other: they end only if they run at the same time.
    let step =
        "--mount=type=cache,target=/c,id=meet touch /c/$ME; until [ -e /c/$OTHER ]; do sleep 0.1; done";
    let text = format!("FROM busybox\nARG ME\nARG OTHER\nCOPY file /\nRUN {step}\n");
    write(&dir, &[("Dockerfile", &text), ("file", "x")]);
    run(async {
        let (one, two) = (client(&daemon).await, client(&daemon).await);
        let offer = Offer::of(&dir);
        let (first, second) = (one.session(&offer).await, two.session(&offer).await);
        let (a, b) = (
            [("build-arg:ME", "a"), ("build-arg:OTHER", "b")],
            [("build-arg:ME", "b"), ("build-arg:OTHER", "a")],
        );
        let (first, second) = tokio::join!(one.build(&first, &a, None), two.build(&second, &b, None));
        first.result.unwrap();
        second.result.unwrap();
    });
}

#[test]
fn results_go_to_files_and_registries() {
    let registry = Registry::start();
    let daemon = Daemon::with_busybox();
    let dir = daemon.scratch("app");
    write(&dir, &[("Dockerfile", "FROM scratch\nCOPY f /d/f\n"), ("f", "text")]);
    let name = registry.name("app:1");
    run(async {
        let client = client(&daemon).await;
        let offer = Offer::of(&dir);
        let session = client.session(&offer).await;
        client.build(&session, &[], Some(("tar", &[]))).await.result.unwrap();
        let bytes = std::mem::take(&mut *offer.received.lock().unwrap());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert!(names.iter().any(|name| name.ends_with("d/f")), "{names:?}");

        client.build(&session, &[], Some(("docker", &[("name", "saved:1")]))).await.result.unwrap();
        let bytes = std::mem::take(&mut *offer.received.lock().unwrap());
        let cli = daemon.cli(Frontend::Docker);
        cli.run(&["inspect", "saved:1"]).expect_code(1);
        let loaded = cli.run_with_input(&["load"], &bytes).success();
        assert!(loaded.contains("saved:1"), "{loaded}");

        let built = client.build(&session, &[], Some(("image", &[("name", &name), ("push", "true")]))).await;
        let told = built.result.unwrap();
        cli.ok(&["rmi", "-f", &name]);
        cli.ok(&["pull", &name]);
        assert!(
            cli.ok(&["inspect", "-f", "{{.RepoDigests}}", &name]).contains(&told["containerimage.digest"])
        );

        let workers =
            client.control().list_workers(ListWorkersRequest::default()).await.unwrap().into_inner();
        assert_eq!(workers.record.len(), 1);
        let usage = client.control().disk_usage(DiskUsageRequest::default()).await.unwrap().into_inner();
        assert!(!usage.record.is_empty());
    });
}

/// Serves one file to everybody who asks; its address.
fn served(file: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
            let asked: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let only_head = asked.first().is_some_and(|line| line.starts_with("HEAD"));
            let length = file.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let body = if only_head { &[] } else { file.as_slice() };
            // A client that has gone has no use for it.
            stream.write_all(&[head.as_bytes(), body].concat()).ok();
        }
    });
    format!("http://{address}/context.tar")
}

#[test]
fn a_context_elsewhere_can_be_looked_into_before_it_is_built_from() {
    let daemon = Daemon::with_busybox();
    let dir = daemon.scratch("elsewhere");
    write(&dir, &[("Dockerfile", "FROM busybox\nCOPY rules /rules\n"), ("rules", "none\n")]);
    let archive =
        Command::new("tar").args(["-c", "-C"]).arg(&dir).arg(".").output().expect("tar runs").stdout;
    let url = served(archive);
    run(async {
        let client = client(&daemon).await;
        let session = client.session(&Offer::default()).await;
        let files = client.look(&session, &url, &["rules", "Dockerfile.rego"]).await;
        assert_eq!(files[0].as_deref().expect("the file is there"), b"none\n");
        let missing = files[1].as_ref().expect_err("there is no such file");
        assert!(missing.message().contains("no such file"), "{missing}");
        let session = client.session(&Offer::default()).await;
        let built = client.build(&session, &[("context", &url)], IMAGE).await;
        assert!(built.result.is_ok(), "{:?}", built.result);
    });
    let cli = daemon.cli(Frontend::Docker);
    assert_eq!(cli.ok(&["run", "--rm", "app:1", "cat", "/rules"]), "none");
}
