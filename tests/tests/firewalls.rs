//! A real firewalld beside the daemon: its bridges are trusted, also after a reload, and forgotten when they go.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_tests::PATIENCE;
use berth_tests::cli::Frontend;
use berth_tests::daemon::Daemon;
use berth_tests::host::Host;

/// A message bus and a firewalld on a host of its own; both end when dropped.
struct Firewalld {
    dir: tempfile::TempDir,
    bus: Child,
    firewalld: Child,
}

impl Firewalld {
    fn start(host: &Host) -> Self {
        let dir = tempfile::Builder::new().prefix("berth-firewalld").tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let configuration = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/>\
             </policy></busconfig>",
            path("bus")
        );
        std::fs::write(path("bus.conf"), configuration).expect("write the bus's configuration");
        std::fs::create_dir(path("etc")).expect("firewalld's directory");
        let quiet = |command: &mut Command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start a program")
        };
        let bus = quiet(host.command("dbus-daemon").args(["--nofork", "--config-file", &path("bus.conf")]));
        wait_for("the bus", || dir.path().join("bus").exists());
        let firewalld = quiet(
            host.command("firewalld")
                .args(["--nofork", "--nopid", "--system-config", &path("etc"), "--log-file", &path("log")])
                .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", path("bus"))),
        );
        let started = Self { dir, bus, firewalld };
        wait_for("firewalld", || started.try_ask(host, &["--state"]).is_some());
        started
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.dir.path().join("bus").display())
    }

    fn try_ask(&self, host: &Host, arguments: &[&str]) -> Option<String> {
        let mut command = host.command("firewall-cmd");
        let done = command.args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", self.address()).output();
        let done = done.expect("firewall-cmd (package firewalld)");
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    #[track_caller]
    fn ask(&self, host: &Host, arguments: &[&str]) -> String {
        self.try_ask(host, arguments).unwrap_or_else(|| panic!("firewall-cmd {arguments:?} failed"))
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        for child in [&mut self.firewalld, &mut self.bus] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn wait_for(what: &str, test: impl Fn() -> bool) {
    let begin = Instant::now();
    while !test() {
        assert!(begin.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn firewalld_trusts_the_bridges() {
    let (host, outside) = (Host::new(), Host::new());
    host.connect(&outside, "cable", "198.51.100.1/24", "198.51.100.2/24");
    let firewalld = Firewalld::start(&host);
    let daemon = Daemon::on_with_environment(&host, &[("DBUS_SYSTEM_BUS_ADDRESS", &firewalld.address())]);
    let cli = daemon.cli(Frontend::Docker);
    let trusted = || firewalld.ask(&host, &["--zone=trusted", "--list-interfaces"]);
    let made = cli.run(&["network", "create", "one"]).expect_code(0);
    assert!(!made.stderr.contains("firewall"), "nothing is left to do: {}", made.stderr);
    let bridge = format!("br-{}", &cli.ok(&["network", "inspect", "-f", "{{.Id}}", "one"])[..12]);
    assert!(trusted().contains(&bridge), "{}", trusted());
    cli.ok(&["run", "-d", "--name", "server", "--network", "one", "-p", "8080:80", "busybox", "httpd", "-f"]);
    let goes = |when: &str| {
        cli.eventually(&format!("the way out, {when}"), |cli| {
            cli.run(&["exec", "server", "ping", "-c", "1", "-W", "5", "198.51.100.2"]).code == 0
        });
        cli.eventually(&format!("the published port, {when}"), |_| {
            let mut curl = outside.command("curl");
            curl.args(["-s", "-o", "/dev/null", "--max-time", "5", "http://198.51.100.1:8080/"]);
            curl.status().expect("curl").success()
        });
    };
    goes("at first");
    firewalld.ask(&host, &["--reload"]);
    cli.eventually("firewalld trusts the bridge again", |_| trusted().contains(&bridge));
    goes("after its reload");
    // What is not published stays closed.
    let address =
        cli.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "server"]);
    outside.run(&format!("ip route add {address}/32 via 198.51.100.1"));
    let direct =
        outside.command("curl").args(["-s", "--max-time", "1", &format!("http://{address}:80/")]).output();
    assert!(!direct.expect("curl").status.success(), "a container is reached by its own address");
    cli.ok(&["rm", "-f", "server"]);
    cli.ok(&["network", "rm", "one"]);
    assert!(!trusted().contains(&bridge), "{}", trusted());
}
