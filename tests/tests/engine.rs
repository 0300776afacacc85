//! What a daemon is configured to do: other runtimes, log services, devices by name, TLS, settings in a file.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;

fn with_busybox(arguments: &[&str]) -> (Daemon, Cli) {
    let daemon = Daemon::with_arguments(arguments);
    let cli = daemon.cli(Frontend::Docker);
    cli.import_busybox("busybox");
    (daemon, cli)
}

/// A life under another runtime: streams, terminal, exec, limits, pause, logs, exit codes, failures.
fn lives_under(name: &str, path: &str) {
    let (mut daemon, cli) = with_busybox(&["--add-runtime", &format!("{name}={path}")]);
    let run = |words: &[&str]| cli.run(&[&["run", "--rm", "--runtime", name], words].concat());
    let script = "echo out; echo err >&2; exit 7";
    let ended = run(&["busybox", "sh", "-c", script]).expect_code(7);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out\n", "err\n"));
    run(&["busybox", "nosuch"]).expect_code(127);
    assert_eq!(
        run(&["-m", "32m", "busybox", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]).stdout,
        "33554432\n"
    );
    let terminal = [
        "run",
        "--rm",
        "--runtime",
        name,
        "-it",
        "busybox",
        "sh",
        "-c",
        "test -t 1 && read x && echo got-$x",
    ];
    cli.run_on_terminal(&terminal, b"typed\n").expect_code(0).expect_text("got-typed");
    assert_eq!(run(&["--init", "busybox", "sh", "-c", "test $$ != 1 && echo child"]).stdout, "child\n");
    let volume =
        run(&["--mount", "type=volume,src=vol,dst=/v", "busybox", "sh", "-c", "echo x >/v/f; cat /v/f"]);
    assert_eq!(volume.stdout, "x\n");
    let image = run(&["--mount", "type=image,src=busybox,dst=/i", "busybox", "test", "-x", "/i/bin/busybox"]);
    drop(image.expect_code(0));

    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    cli.ok(&["run", "-d", "--runtime", name, "--name", "stays", "busybox", "sh", "-c", script]);
    cli.eventually("it has begun", |cli| cli.ok(&["logs", "stays"]) == "ready");
    assert_eq!(cli.ok(&["exec", "stays", "echo", "inside"]), "inside");
    cli.run(&["exec", "stays", "sh", "-c", "exit 4"]).expect_code(4);
    cli.run(&["exec", "stays", "nosuch"]).expect_code(127);
    cli.run_on_terminal(&["exec", "-it", "stays", "sh", "-c", "test -t 0 && echo tty"], b"")
        .expect_text("tty");
    cli.ok(&["pause", "stays"]);
    cli.ok(&["unpause", "stays"]);
    assert!(cli.ok(&["top", "stays"]).contains("sh -c"));
    assert!(
        cli.ok(&["stats", "--no-stream", "--format", "{{.PIDs}}", "stays"])
            .parse::<u32>()
            .is_ok_and(|n| n > 0)
    );
    cli.ok(&["update", "--pids-limit", "50", "stays"]);
    daemon.kill();
    daemon.start_again();
    assert_eq!(
        cli.ok(&["inspect", "--format", "{{.State.Status}} {{.HostConfig.Runtime}}", "stays"]),
        format!("running {name}")
    );
    assert_eq!(cli.ok(&["exec", "stays", "echo", "still"]), "still");
    cli.ok(&["stop", "stays"]);
    assert_eq!(cli.ok(&["inspect", "--format", "{{.State.ExitCode}}", "stays"]), "5");
    cli.ok(&["start", "stays"]);
    cli.ok(&["rm", "-f", "stays"]);
    assert!(cli.ok(&["info", "--format", "{{json .Runtimes}}"]).contains(path));
}

#[test]
fn containers_live_under_runc() {
    lives_under("real-runc", "/usr/sbin/runc");
}

/// Lines reach syslog in its form, over every kind of socket, and `logs` reads them all the same.
#[test]
fn syslog_gets_every_line() {
    let (daemon, cli) = with_busybox(&[]);
    let dir = daemon.scratch("syslog");
    let path = dir.join("log");
    let receive = |local: &UnixDatagram| {
        let mut buffer = [0; 65536];
        let length = local.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let local = UnixDatagram::bind(&path).expect("bind");
    local.set_read_timeout(Some(Duration::from_secs(60))).expect("time-out");
    let address = format!("syslog-address=unixgram://{}", path.display());
    let run = [
        "run",
        "--name",
        "told",
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "tag={{.Name}}",
    ];
    cli.ok(&[
        &run[..],
        &["--log-opt", "syslog-facility=local0", "busybox", "sh", "-c", "echo one; echo two >&2"],
    ]
    .concat());
    let mut said = [receive(&local), receive(&local)];
    said.sort();
    // local0 is 16: 16 × 8 + 3 for stderr, + 6 for stdout.
    assert!(
        said[0].starts_with("<131>") && said[0].contains(" told[") && said[0].ends_with(": two\n"),
        "{said:?}"
    );
    assert!(said[1].starts_with("<134>") && said[1].ends_with(": one\n"), "{said:?}");
    assert_eq!(cli.ok(&["logs", "told"]), "one");

    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    udp.set_read_timeout(Some(Duration::from_secs(60))).expect("time-out");
    let address = format!("syslog-address=udp://{}", udp.local_addr().expect("address"));
    let run = [
        "run",
        "--rm",
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "syslog-format=rfc5424",
    ];
    cli.ok(&[&run[..], &["busybox", "echo", "packet"]].concat());
    let mut buffer = [0; 2048];
    let length = udp.recv(&mut buffer).expect("a packet");
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(text.starts_with("<30>1 20") && text.ends_with(" - packet\n"), "{text}");

    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("syslog-address=tcp://{}", tcp.local_addr().expect("address"));
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done";
    let run =
        ["run", "-d", "--log-driver", "syslog", "--log-opt", &address, "--log-opt", "cache-disabled=true"];
    cli.ok(&[&run[..], &["--name", "many", "busybox", "sh", "-c", script]].concat());
    let (mut stream, _) = tcp.accept().expect("a connection");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("messages");
    assert_eq!(text.lines().count(), 2000);
    assert!(text.lines().last().is_some_and(|line| line.ends_with(": line 1999")));
    cli.run(&["logs", "many"])
        .expect_code(1)
        .expect_text("configured logging driver does not support reading");
}

/// A syslog that is spoken to over TLS: each knows the other by a certificate, and messages are counted (RFC 5425).
#[test]
fn syslog_over_tls() {
    let (daemon, cli) = with_busybox(&[]);
    let dir = daemon.scratch("tls");
    let path = |name: &str| dir.join(name).display().to_string();
    authority(&dir);
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-Verify", "1", "-verify_return_error"])
        .args(["-cert", "server.pem", "-key", "server-key.pem", "-CAfile", "ca.pem"])
        .current_dir(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl s_server");
    let mut said = BufReader::new(server.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.starts_with("ACCEPT ") {
        line.clear();
        assert!(said.read_line(&mut line).expect("a line") > 0, "it does not listen");
    }
    let address = format!("syslog-address=tcp+tls://{}", line["ACCEPT ".len()..].trim());
    let options = [
        address.as_str(),
        "syslog-format=rfc5424",
        &format!("syslog-tls-ca-cert={}", path("ca.pem")),
        &format!("syslog-tls-cert={}", path("client.pem")),
        &format!("syslog-tls-key={}", path("client-key.pem")),
    ];
    let options = options.iter().flat_map(|option| ["--log-opt", option]);
    let run = ["run", "--rm", "--log-driver", "syslog"].into_iter().chain(options);
    let run: Vec<&str> = run.chain(["busybox", "sh", "-c", "echo one; echo two"]).collect();
    assert_eq!(cli.ok(&run), "one\ntwo");
    let mut text = String::new();
    while !text.contains(" - two\n") {
        assert!(said.read_line(&mut text).expect("what was received") > 0, "{text}");
    }
    let first = text.lines().find(|line| line.ends_with(" - one")).expect("the first message");
    let (length, message) = first.split_once(' ').expect("a length");
    assert!(message.starts_with("<30>1 20"), "{first}");
    assert_eq!(length.parse(), Ok(message.len() + 1));
    // s_server ends with its one client, or with its input.
    drop(server.stdin.take());
    server.wait().expect("s_server");
    let missing = ["--log-driver", "syslog", "--log-opt", "syslog-tls-ca-cert=/nosuch", "busybox", "true"];
    let refused = cli.run(&[&["run", "--rm"], &missing[..]].concat());
    refused.expect_code(125).expect_text("log opt syslog-tls-ca-cert: /nosuch is no file");
}

/// Files that were rotated away are compressed, and read as before.
#[test]
fn compressed_logs_read_the_same() {
    let (daemon, cli) = with_busybox(&[]);
    let options = ["--log-opt", "max-size=30k", "--log-opt", "max-file=50", "--log-opt", "compress=true"];
    // A file that output outruns is not compressed: there is a pause in which one is filled slowly, and too little comes after
    // it to outrun anything.
    let padding = "x".repeat(90);
    let script = format!(
        "i=0; while [ $i -lt 2900 ]; do echo $i {padding}; i=$((i+1)); [ $i = 2500 ] && sleep 5; done; true"
    );
    let run = [&["run", "-d", "--name", "much"], &options[..], &["busybox", "sh", "-c", &script]].concat();
    let id = cli.ok(&run);
    cli.ok(&["wait", "much"]);
    let dir = daemon.root().join("containers").join(&id);
    let compressed = || {
        let names = std::fs::read_dir(&dir).expect("its directory").flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".gz")).count()
    };
    cli.eventually("a file is compressed", |_| compressed() > 0);
    let expected: Vec<String> = (0..2900).map(|number| format!("{number} {padding}")).collect();
    assert_eq!(cli.ok(&["logs", "much"]), expected.join("\n"));
    assert_eq!(cli.ok(&["logs", "--tail", "2500", "much"]), expected[400..].join("\n"));
}

/// What a service does not take is dropped in the mode that asks for it, and the container does not wait.
#[test]
fn a_service_that_hangs_stops_nobody_in_non_blocking_mode() {
    let (daemon, cli) = with_busybox(&[]);
    let path = daemon.scratch("hung").join("log");
    let _deaf = UnixDatagram::bind(&path).expect("bind");
    let address = format!("syslog-address=unixgram://{}", path.display());
    let run =
        ["run", "--rm", "--log-driver", "syslog", "--log-opt", &address, "--log-opt", "mode=non-blocking"];
    let run = [
        &run[..],
        &["--log-opt", "max-buffer-size=64k", "busybox", "sh", "-c", "yes line | head -c 4000000"],
    ]
    .concat();
    assert_eq!(cli.run(&run).expect_code(0).stdout.len(), 4_000_000);
}

/// Tags, labels and variables are said beside each line, and `--details` shows them.
#[test]
fn details_stand_beside_lines() {
    let (_daemon, cli) = with_busybox(&[]);
    let options = ["--log-opt", "labels=team", "--log-opt", "env=MODE", "--log-opt", "tag={{.Name}}"];
    let run = [
        &["run", "--name", "said", "-l", "team=a b", "-e", "MODE=x"],
        &options[..],
        &["busybox", "echo", "hi"],
    ]
    .concat();
    cli.ok(&run);
    assert_eq!(cli.ok(&["logs", "--details", "said"]), "MODE=x,tag=said,team=a+b hi");
    assert_eq!(cli.ok(&["logs", "said"]), "hi");
}

/// Devices by name, from a file as a vendor's tool writes it.
#[test]
fn devices_by_name() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let yaml = "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env: [DRIVER=1]\ndevices:\n  - name: \"0\"\n    \
                containerEdits:\n      deviceNodes:\n        - {path: /dev/gpu0, hostPath: /dev/zero}\n  - name: \"1\"\n    \
                containerEdits:\n      deviceNodes:\n        - {path: /dev/gpu1, hostPath: /dev/full}\n";
    std::fs::write(dir.path().join("gpu.yaml"), yaml).expect("write the file");
    let (_daemon, cli) = with_busybox(&["--cdi-spec-dir", &dir.path().display().to_string()]);
    let seen = "ls /dev | grep gpu | xargs; head -c1 /dev/gpu* >/dev/null && echo $DRIVER";
    let show = |flags: &[&str]| cli.ok(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", seen]].concat());
    assert_eq!(show(&["--gpus", "all"]), "gpu0 gpu1\n1");
    assert_eq!(show(&["--gpus", "1"]), "gpu0\n1");
    assert_eq!(show(&["--gpus", "device=1"]), "gpu1\n1");
    assert_eq!(show(&["--device", "nvidia.com/gpu=0"]), "gpu0\n1");
    cli.run(&["run", "--rm", "--device", "nvidia.com/gpu=7", "busybox", "true"])
        .expect_code(125)
        .expect_text("unresolvable CDI devices nvidia.com/gpu=7");
}

fn openssl(dir: &Path, words: &str) {
    let status = Command::new("openssl").args(words.split(' ')).current_dir(dir).output().expect("openssl");
    assert!(status.status.success(), "{words}: {}", String::from_utf8_lossy(&status.stderr));
}

/// Certificates of a server on 127.0.0.1 and of a client, signed by an authority of their own.
fn authority(dir: &Path) {
    openssl(dir, "req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem -subj /CN=ca -days 2");
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").expect("write");
    for name in ["server", "client"] {
        let request =
            format!("req -newkey rsa:2048 -nodes -keyout {name}-key.pem -out {name}.csr -subj /CN={name}");
        openssl(dir, &request);
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out {name}.pem -extfile san -days 2"
        );
        openssl(dir, &sign);
    }
}

/// TCP is for clients with a certificate of the right authority; streams flow over it.
#[test]
fn tcp_with_mutual_tls() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    authority(dir.path());
    let probe = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let tcp = format!("tcp://{probe}");
    let settings = format!(
        r#"{{"tlsverify":true,"tlscacert":"{}","tlscert":"{}","tlskey":"{}"}}"#,
        path("ca.pem"),
        path("server.pem"),
        path("server-key.pem")
    );
    std::fs::write(path("daemon.json"), settings).expect("write");
    let daemon = Daemon::with_arguments(&[
        "--config-file",
        &path("daemon.json"),
        "-H",
        &tcp,
        "-H",
        "unix://RUN_ROOT/berth.sock",
    ]);
    let cli = daemon.cli(Frontend::Docker);
    cli.import_busybox("busybox");
    let client = |words: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["-H", &tcp, "--tlsverify", "--tlscacert", &path("ca.pem")]);
        command.args(["--tlscert", &path("client.pem"), "--tlskey", &path("client-key.pem")]).args(words);
        berth_tests::cli::finish(command, b"over tls\n", words.join(" "))
    };
    let ran =
        client(&["run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo err >&2; exit 3"]).expect_code(3);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("over tls\n", "err\n"));
    drop(cli.ok(&["run", "-d", "--name", "stays", "busybox", "sleep", "100"]));
    assert_eq!(client(&["exec", "-i", "stays", "cat"]).success(), "over tls");
    // The same by Berth's own command line, with a context that has the files.
    let berth = |words: &[&str]| {
        let mut command = Command::new(berth_tests::cli::bin_dir().join("berth"));
        command.env("DOCKER_CONFIG", path("docker")).env("XDG_CONFIG_HOME", path("config"));
        command.env_remove("BERTH_HOST").args(words);
        berth_tests::cli::finish(command, b"over tls\n", words.join(" "))
    };
    let files = format!("ca={},cert={},key={}", path("ca.pem"), path("client.pem"), path("client-key.pem"));
    berth(&["context", "create", "far", "--docker", &format!("host={tcp},{files}")]).success();
    assert_eq!(berth(&["--context", "far", "exec", "-i", "stays", "cat"]).success(), "over tls");
    let archive = path("far.dockercontext");
    berth(&["context", "export", "far", &archive]).success();
    berth(&["context", "import", "again", &archive]).success();
    assert_eq!(berth(&["context", "ls", "-q"]).success(), "default\nagain\nfar");
    berth(&["context", "use", "again"]).success();
    berth(&["ps"]).expect_text("stays");
    berth(&["context", "rm", "again"]).expect_code(1).expect_text("is in use");
    let mut docker = Command::new("docker");
    docker.env("DOCKER_CONFIG", path("docker")).args(["--context", "far", "ps"]);
    berth_tests::cli::finish(docker, b"", "docker knows the context".into()).expect_text("stays");
    // Without a certificate, and without TLS.
    let mut bare = Command::new("docker");
    bare.args(["-H", &tcp, "--tlsverify", "--tlscacert", &path("ca.pem"), "version"])
        .env("DOCKER_CERT_PATH", "/nonexistent");
    assert_ne!(berth_tests::cli::finish(bare, b"", "without a certificate".into()).code, 0);
    let mut plain = Command::new("docker");
    plain.args(["-H", &tcp, "version"]);
    assert_ne!(berth_tests::cli::finish(plain, b"", "without TLS".into()).code, 0);
}

/// Other addresses than this host's own are refused without proof of who clients are.
#[test]
fn tcp_without_tls_stays_on_this_host() {
    let daemon = Command::new(berth_tests::cli::bin_dir().join("berthd"))
        .args(["--root", "/nonexistent/r", "--run-root", "/nonexistent/s", "-H", "tcp://0.0.0.0:0"])
        .output()
        .expect("berthd");
    assert!(!daemon.status.success());
}

/// An exec that was made before the daemon died can be asked for, and started, after.
#[test]
fn execs_are_known_after_a_restart() {
    let (mut daemon, cli) = with_busybox(&[]);
    cli.ok(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]);
    let create = |words: &str| {
        let body = format!(r#"{{"Cmd":{words},"AttachStdout":true}}"#);
        let (status, answer) = daemon.api("POST", "/containers/cc/exec", &body);
        assert_eq!(status, 201, "{answer}");
        answer.split('"').nth(3).expect("an id").to_owned()
    };
    let (runs, waits, ends) =
        (create(r#"["sleep","1000"]"#), create(r#"["true"]"#), create(r#"["sh","-c","exit 6"]"#));
    let start =
        |daemon: &Daemon, id: &str| daemon.api("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#).0;
    assert_eq!((start(&daemon, &runs), start(&daemon, &ends)), (200, 200));
    let inspect = |daemon: &Daemon, id: &str| daemon.api("GET", &format!("/exec/{id}/json"), "").1;
    cli.eventually("it has ended", |_| inspect(&daemon, &ends).contains(r#""ExitCode":6"#));
    daemon.kill();
    daemon.start_again();
    assert!(inspect(&daemon, &runs).contains(r#""Running":true"#), "{}", inspect(&daemon, &runs));
    assert!(inspect(&daemon, &ends).contains(r#""ExitCode":6"#));
    assert_eq!(start(&daemon, &waits), 200);
    cli.eventually("it has ended", |_| inspect(&daemon, &waits).contains(r#""ExitCode":0"#));
}

/// Root of a container is nobody of the host, and yet owns the files of its image and its volumes.
#[test]
fn containers_have_users_of_their_own() {
    let (daemon, cli) = with_busybox(&["--userns-remap", "200000+65536"]);
    let run = |words: &[&str]| cli.ok(&[&["run", "--rm"], words].concat());
    assert_eq!(run(&["busybox", "awk", "{print $1,$2,$3}", "/proc/self/uid_map"]), "0 200000 65536");
    assert_eq!(run(&["busybox", "stat", "-c", "%u:%g", "/bin/busybox", "/etc/hosts"]), "0:0\n0:0");
    run(&["-v", "kept:/v", "busybox", "sh", "-c", "echo of-root >/v/f; chown 1000:1000 /v/f"]);
    // The same volume with the host's users: the ids on the disk are those from inside.
    assert_eq!(
        run(&["--userns", "host", "-v", "kept:/v", "busybox", "stat", "-c", "%u:%g", "/v/f"]),
        "1000:1000"
    );
    assert_eq!(run(&["-v", "kept:/v", "-u", "1000", "busybox", "cat", "/v/f"]), "of-root");
    // A directory of the host is what it is: root's, and closed.
    let closed = daemon.scratch("closed");
    std::fs::write(closed.join("secret"), "x").expect("write");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    std::fs::set_permissions(closed.join("secret"), mode).expect("chmod");
    let bind = format!("{}:/b", closed.display());
    cli.run(&["run", "--rm", "-v", &bind, "busybox", "cat", "/b/secret"]).expect_code(1);

    // The network namespace is the container's own: it may change it if it has the capability.
    run(&["--cap-add", "NET_ADMIN", "busybox", "ip", "addr", "add", "10.9.9.9/32", "dev", "lo"]);
    assert_eq!(
        run(&[
            "--sysctl",
            "net.ipv4.ip_default_ttl=77",
            "busybox",
            "cat",
            "/proc/sys/net/ipv4/ip_default_ttl"
        ]),
        "77"
    );
    cli.ok(&["network", "create", "named"]);
    cli.ok(&["run", "-d", "--name", "web", "--network", "named", "busybox", "sleep", "1000"]);
    run(&["--network", "named", "busybox", "ping", "-c1", "-q", "web"]);
    run(&["--network", "container:web", "busybox", "ping", "-c1", "-q", "web"]);
    let pid = cli.ok(&["inspect", "--format", "{{.State.Pid}}", "web"]);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    assert!(status.contains("Uid:\t200000\t200000\t200000\t200000"), "{status}");
    assert_eq!(cli.ok(&["exec", "web", "id", "-u"]), "0");
    cli.ok(&["exec", "web", "sh", "-c", "echo inside >/made"]);
    cli.ok(&["cp", "web:/made", &closed.join("made").display().to_string()]);
    assert_eq!(cli.ok(&["diff", "web"]), "A /made");
    let info = cli.ok(&["info", "--format", "{{.SecurityOptions}}"]);
    assert!(info.contains("name=userns"), "{info}");

    for (words, message) in [
        (["--privileged", "--init"], "privileged mode is incompatible with user namespaces"),
        (["--network", "host"], "cannot share the host's network namespace"),
        (["--pid", "host"], "cannot share the host PID namespace"),
    ] {
        let args = [&["run", "--rm"], &words[..], &["busybox", "true"]].concat();
        cli.run(&args).expect_code(125).expect_text(message);
    }
    assert_eq!(
        run(&["--userns", "host", "--privileged", "busybox", "cat", "/proc/self/uid_map"])
            .split_whitespace()
            .nth(1),
        Some("0")
    );
}
