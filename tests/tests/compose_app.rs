//! An application as people run them: a database and a cache that take a while, a migration, a web service in front that
//! is scaled up and down while clients use it; at the end nothing is left.
//!
//! ```text
//!  clients ─▶ published port ─▶ web ×1 → ×5 → ×2 ─┬─▶ db: counts in a volume, healthy after a while
//!                                                 └─▶ cache: has a secret, healthy after a while
//!  start: db, cache ─(healthy)─▶ migrate ─(completed)─▶ web
//! ```
//!
//! All of it is busybox's httpd with CGI scripts, so that no image has to be made for it; examples/compose is the same
//! with PostgreSQL and Redis.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use berth_tests::PATIENCE;
use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;
use berth_tests::host::{Host, within};
use berth_tests::project::Project;

const FILE: &str = r#"
x-httpd: &httpd
  image: busybox
  stop_signal: SIGKILL
x-check: &check {interval: 1s, retries: 120}
services:
  db:
    <<: *httpd
    command: sh -c 'sleep 1; mkdir -p /data; touch /data/ready; exec httpd -f -h /app/db'
    volumes: ['./app:/app:ro', 'data:/data']
    healthcheck: {<<: *check, test: wget -q -O /dev/null http://127.0.0.1/cgi-bin/ready}
    networks: [back]
  cache:
    <<: *httpd
    command: sh -c 'sleep 1; exec httpd -f -h /app/cache'
    volumes: ['./app:/app:ro']
    secrets: [word]
    healthcheck: {<<: *check, test: wget -q -O /dev/null http://127.0.0.1/cgi-bin/word}
    networks: [back]
  migrate:
    image: busybox
    # It asks once: whoever starts it too early fails. It runs again with every up.
    command: wget -q -O - http://db/cgi-bin/begin
    depends_on: {db: {condition: service_healthy}}
    networks: [back]
  web:
    <<: *httpd
    command: sh -c 'wget -q -O /dev/null http://db/cgi-bin/begun && wget -q -O /dev/null http://cache/cgi-bin/word && exec httpd -f -h /app/web'
    volumes: ['./app:/app:ro']
    ports: ['127.0.0.1:8000-8009:80']
    healthcheck: {<<: *check, test: wget -q -O /dev/null http://127.0.0.1/}
    depends_on:
      db: {condition: service_healthy}
      cache: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    networks: [front, back]
networks: {front: {}, back: {internal: true}}
volumes: {data: {}}
secrets: {word: {environment: WORD}}
"#;

/// Scripts: place and what they do after the header.
const SCRIPTS: [(&str, &str); 6] = [
    ("db/cgi-bin/ready", "test -e /data/ready && echo ready"),
    ("db/cgi-bin/begin", "test -e /data/count || echo 0 >/data/count; echo begun"),
    ("db/cgi-bin/begun", "cat /data/count"),
    (
        "db/cgi-bin/next",
        "until mkdir /data/lock 2>/dev/null; do sleep 0.01; done; \
         n=$(cat /data/count); n=$((n + 1)); echo $n >/data/count; rmdir /data/lock; echo $n",
    ),
    ("cache/cgi-bin/word", "cat /run/secrets/word"),
    (
        "web/cgi-bin/page",
        "echo $(wget -q -O - http://cache/cgi-bin/word) $(wget -q -O - http://db/cgi-bin/next) of $(hostname)",
    ),
];

fn write_scripts(app: &Path) {
    for (place, script) in SCRIPTS {
        let path = app.join(place);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        // A script that fails has said nothing yet: the server then answers 502.
        let text = format!(
            "#!/bin/sh\nsaid=$({script}) || exit 1\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' \"$said\"\n"
        );
        std::fs::write(&path, text).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a script");
    }
    std::fs::write(app.join("web/index.html"), "up\n").expect("a page");
}

/// The page of the web service at a port of the host.
fn page(port: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /cgi-bin/page HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    body.filter(|_| answer.starts_with("HTTP/1.1 200")).ok_or_else(|| std::io::Error::other(answer))
}

/// The port of the host that leads to a container of the web service.
fn port(project: &Project<'_>, index: usize) -> String {
    let place = project.ok(&["port", "--index", &index.to_string(), "web", "80"]);
    place.trim().rsplit(':').next().expect("a port").to_owned()
}

fn ids(project: &Project<'_>) -> Vec<String> {
    let mut ids: Vec<String> = project.ok(&["ps", "-q", "web"]).lines().map(str::to_owned).collect();
    ids.sort();
    ids
}

#[test]
fn a_shop_is_used_while_it_grows_and_shrinks() {
    let host = Host::new();
    let daemon = Daemon::on(&host);
    let cli = daemon.cli(Frontend::Berth).with_env("WORD", "open-sesame");
    let directory = daemon.scratch("shop");
    write_scripts(&directory.join("app"));
    let project = Project::new(&cli, &directory, FILE);
    project.ok(&["up", "-d", "--wait"]);
    let first = ids(&project);
    let entry = port(&project, 1);
    let (answers, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..4).map(|_| scope.spawn(|| within(host.pid(), || use_it(&entry, &answers, &over)))).collect();
        // Whatever fails here must not leave the clients asking for ever.
        let _end = End(&over);
        let more = |count: usize| {
            let begin = answers.load(Ordering::SeqCst);
            cli.eventually("the clients are served", |_| answers.load(Ordering::SeqCst) >= begin + count);
        };
        more(20);
        project.ok(&["up", "-d", "--wait", "--scale", "web=5"]);
        let five = ids(&project);
        assert!(five.len() == 5 && first.iter().all(|id| five.contains(id)), "{first:?} became {five:?}");
        for index in 1..=5 {
            let port = port(&project, index);
            let said = within(host.pid(), || page(&port)).expect("each of the five answers");
            assert!(said.starts_with("open-sesame "), "{said}");
            answers.fetch_add(1, Ordering::SeqCst);
        }
        let found = project.ok(&["exec", "-T", "cache", "nslookup", "-type=a", "web"]);
        assert_eq!(found.matches("Address").count(), 6, "the name server and five: {found}");
        more(20);
        project.ok(&["up", "-d", "--wait", "--scale", "web=2"]);
        assert_eq!(ids(&project).len(), 2);
        more(20);
        over.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().expect("a client");
        }
    });
    let counted = project.ok(&["exec", "-T", "db", "cat", "/data/count"]);
    assert_eq!(counted.trim(), answers.load(Ordering::SeqCst).to_string(), "every page was counted once");
    stays_and_goes(&host, &cli, &project);
}

/// Ends the clients when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A client that asks until it is over; not one answer may fail.
fn use_it(port: &str, answers: &AtomicUsize, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        let said = page(port).unwrap_or_else(|error| panic!("port {port}: {error}"));
        let number = said.strip_prefix("open-sesame ").and_then(|rest| rest.split_once(" of "));
        assert!(number.is_some_and(|(number, _)| number.parse::<u64>().is_ok()), "{said}");
        answers.fetch_add(1, Ordering::SeqCst);
    }
}

/// What the database has survives a `down`; after `down -v` there is nothing.
fn stays_and_goes(host: &Host, cli: &Cli, project: &Project<'_>) {
    project.ok(&["down"]);
    assert_eq!(cli.ok(&["volume", "ls", "-q"]), "shop_data");
    assert_eq!((cli.ok(&["ps", "-aq"]), custom_networks(cli)), (String::new(), String::new()));
    project.ok(&["down", "-v"]);
    assert_eq!(cli.ok(&["volume", "ls", "-q"]), "");
    cli.eventually("no link is left", |_| {
        !host.links().iter().any(|link| link.starts_with("br-") || link.starts_with("veth"))
    });
}

fn custom_networks(cli: &Cli) -> String {
    cli.ok(&["network", "ls", "-q", "--filter", "type=custom"])
}
