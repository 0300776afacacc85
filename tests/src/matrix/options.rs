//! Every option of `docker run`, one row each, with a probe that shows it applied: from inside where the kernel enforces
//! it, by `inspect` where it is only noted down.
//!
//! `differs` says what a real dockerd (Debian's, 20.10) does otherwise; such a row is left out against it.

use super::Fixture;

/// What shows that an option is applied.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    /// This shell script, run in the container, prints this.
    Prints(&'static str, &'static str),
    /// Of a container that was created with it, this template of `inspect` gives this.
    Inspects(&'static str, &'static str),
    /// It is refused with this exit code, in these words.
    Refused(i32, &'static str),
}
use Probe::{Inspects, Prints, Refused};

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name without dashes.
    pub option: &'static str,
    /// How it is given.
    pub flags: &'static [&'static str],
    /// What shows it.
    pub probe: Probe,
    /// Why a row is not asked of dockerd; empty: it is.
    pub differs: &'static str,
}

const fn row(option: &'static str, flags: &'static [&'static str], probe: Probe) -> Row {
    Row { option, flags, probe, differs: "" }
}

const fn ours(
    option: &'static str,
    flags: &'static [&'static str],
    probe: Probe,
    differs: &'static str,
) -> Row {
    Row { option, flags, probe, differs }
}

const OLD: &str = "dockerd 20.10 does not know it yet";
const CGROUP: &str = "needs a controller's file that this kernel does not have";

/// The options, but for those of [`ELSEWHERE`].
pub const ROWS: &[Row] = &[
    row("add-host", &["--add-host", "db:10.9.8.7"], Prints("grep -w 10.9.8.7 /etc/hosts", "10.9.8.7\tdb")),
    ours("annotation", &["--annotation", "a=b"], Inspects("{{.HostConfig.Annotations}}", "map[a:b]"), OLD),
    row("attach", &["-a", "stdout"], Prints("echo out; echo err >&2", "out")),
    row("blkio-weight", &["--blkio-weight", "300"], Inspects("{{.HostConfig.BlkioWeight}}", "300")),
    row("blkio-weight", &["--blkio-weight", "5"], Refused(125, "Range of blkio weight is from 10 to 1000")),
    row("cap-add", &["--cap-add", "NET_ADMIN"], Prints(CAP_EFF, "00000000a80435fb")),
    row("cap-add", &["--cap-add", "NOSUCH"], Refused(125, "NOSUCH")),
    row("cap-drop", &["--cap-drop", "CHOWN"], Prints(CAP_EFF, "00000000a80425fa")),
    row("cap-drop", &["--cap-drop", "ALL", "--cap-add", "CHOWN"], Prints(CAP_EFF, "0000000000000001")),
    row("cgroup-parent", &["--cgroup-parent", "/berth-options"], Prints(CGROUP_PATH, "/berth-options/ID")),
    row("cgroupns", &["--cgroupns", "private"], Prints(CGROUP_PATH, "/")),
    row("cgroupns", &["--cgroupns", "bogus"], Refused(125, "cgroup")),
    row(
        "cpu-period",
        &["--cpu-period", "50000", "--cpu-quota", "20000"],
        Prints("cat /sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000"),
    ),
    row(
        "cpu-quota",
        &["--cpu-period", "50000", "--cpu-quota", "20000"],
        Prints("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "20000"),
    ),
    row("cpu-shares", &["-c", "512"], Prints("cat /sys/fs/cgroup/cpu/cpu.shares", "512")),
    row("cpus", &["--cpus", "0.5"], Prints("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000")),
    row("cpus", &["--cpus", "4096"], Refused(125, "CPUs available")),
    row(
        "cpuset-cpus",
        &["--cpuset-cpus", "0"],
        Prints("grep Cpus_allowed_list /proc/self/status", "Cpus_allowed_list:\t0"),
    ),
    row("cpuset-cpus", &["--cpuset-cpus", "4095"], Refused(125, "Requested CPUs are not available")),
    row(
        "cpuset-mems",
        &["--cpuset-mems", "0"],
        Prints("grep Mems_allowed_list /proc/self/status", "Mems_allowed_list:\t0"),
    ),
    row(
        "device",
        &["--device", "/dev/loop-control:/dev/mine:r"],
        Prints("stat -c '%F %t:%T' /dev/mine", "character special file a:ed"),
    ),
    row("device", &["--device", "/dev/nosuch"], Refused(127, "error gathering device information")),
    row(
        "device-cgroup-rule",
        &["--device-cgroup-rule", "c 10:237 r"],
        Prints("mknod /k c 10 237 && : </k && echo read", "read"),
    ),
    row("device-cgroup-rule", &["--device-cgroup-rule", "nonsense"], Refused(125, "invalid device cgroup")),
    row("dns", &["--dns", "10.1.1.1"], Prints("grep nameserver /etc/resolv.conf", "nameserver 10.1.1.1")),
    row("dns-option", &["--dns-option", "ndots:4"], Prints("grep -o ndots:4 /etc/resolv.conf", "ndots:4")),
    row(
        "dns-search",
        &["--dns-search", "example.org"],
        Prints("grep search /etc/resolv.conf", "search example.org"),
    ),
    row(
        "domainname",
        &["-h", "box", "--domainname", "example.org"],
        Prints("cat /proc/sys/kernel/domainname", "example.org"),
    ),
    row("entrypoint", &["--entrypoint", "/bin/sh"], Inspects("{{.Config.Entrypoint}}", "[/bin/sh]")),
    row("disable-content-trust", &["--disable-content-trust"], Prints("echo ran", "ran")),
    row("env", &["-e", "A=1", "-e", "A=2"], Prints("echo $A", "2")),
    row("expose", &["--expose", "81/udp"], Inspects("{{json .Config.ExposedPorts}}", "{\"81/udp\":{}}")),
    row("gpus", &["--gpus", "all"], Refused(125, "could not select device driver")),
    row("group-add", &["--group-add", "4321"], Prints("id -G", "0 4321")),
    row(
        "health-cmd",
        &["--health-cmd", "true"],
        Inspects("{{.Config.Healthcheck.Test}}", "[CMD-SHELL true]"),
    ),
    row(
        "health-interval",
        &["--health-interval", "3s"],
        Inspects("{{json .Config.Healthcheck.Interval}}", "3000000000"),
    ),
    row("health-retries", &["--health-retries", "4"], Inspects("{{.Config.Healthcheck.Retries}}", "4")),
    row(
        "health-start-period",
        &["--health-start-period", "5s"],
        Inspects("{{json .Config.Healthcheck.StartPeriod}}", "5000000000"),
    ),
    ours(
        "health-start-interval",
        &["--health-start-interval", "6s"],
        Inspects("{{json .Config.Healthcheck.StartInterval}}", "6000000000"),
        OLD,
    ),
    row(
        "health-timeout",
        &["--health-timeout", "7s"],
        Inspects("{{json .Config.Healthcheck.Timeout}}", "7000000000"),
    ),
    row("hostname", &["-h", "box"], Prints("hostname", "box")),
    row(
        "init",
        &["--init"],
        Prints("tr '\\0' ' ' </proc/1/cmdline | cut -d' ' -f1,2", "/sbin/docker-init --"),
    ),
    row("ipc", &["--ipc", "none"], Prints("grep -c /dev/shm /proc/mounts || true", "0")),
    row("ipc", &["--ipc", "bogus"], Refused(125, "IPC mode")),
    row("isolation", &["--isolation", "default"], Prints("echo ran", "ran")),
    ours(
        "isolation",
        &["--isolation", "hyperv"],
        Refused(125, "invalid isolation"),
        "says it in other words",
    ),
    ours("kernel-memory", &["--kernel-memory", "64m"], Prints("echo ran", "ran"), "warns of it"),
    row("label", &["-l", "a=b", "-l", "c"], Inspects("{{json .Config.Labels}}", "{\"a\":\"b\",\"c\":\"\"}")),
    row("log-driver", &["--log-driver", "none"], Inspects("{{.HostConfig.LogConfig.Type}}", "none")),
    row("log-driver", &["--log-driver", "bogus"], Refused(125, "bogus")),
    row(
        "log-opt",
        &["--log-opt", "max-size=1m"],
        Inspects("{{.HostConfig.LogConfig.Config}}", "map[max-size:1m]"),
    ),
    row(
        "log-opt",
        &["--log-opt", "bogus=1"],
        Refused(125, "unknown log opt 'bogus' for json-file log driver"),
    ),
    row(
        "mac-address",
        &["--mac-address", "02:42:ac:11:00:99"],
        Prints("cat /sys/class/net/eth0/address", "02:42:ac:11:00:99"),
    ),
    row("memory", &["-m", "32m"], Prints("cat /sys/fs/cgroup/memory/memory.limit_in_bytes", "33554432")),
    row("memory", &["-m", "1m"], Refused(125, "Minimum memory limit allowed is 6MB")),
    row(
        "memory-reservation",
        &["--memory-reservation", "16m"],
        Prints("cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes", "16777216"),
    ),
    row(
        "memory-swap",
        &["-m", "32m", "--memory-swap", "48m"],
        Inspects("{{.HostConfig.MemorySwap}}", "50331648"),
    ),
    row(
        "memory-swap",
        &["--memory-swap", "48m"],
        Refused(125, "You should always set the Memory limit when using Memoryswap limit"),
    ),
    row(
        "memory-swappiness",
        &["--memory-swappiness", "40"],
        Prints("cat /sys/fs/cgroup/memory/memory.swappiness", "40"),
    ),
    row(
        "mount",
        &["--mount", "type=tmpfs,dst=/t,tmpfs-size=1m"],
        Prints("df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2", "1024"),
    ),
    row("network", &["--network", "none"], Prints("ls /sys/class/net", "lo")),
    row("no-healthcheck", &["--no-healthcheck"], Inspects("{{.Config.Healthcheck.Test}}", "[NONE]")),
    row(
        "oom-kill-disable",
        &["-m", "32m", "--oom-kill-disable"],
        Prints("grep oom_kill_disable /sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 1"),
    ),
    row("oom-score-adj", &["--oom-score-adj", "77"], Prints("cat /proc/self/oom_score_adj", "77")),
    row("oom-score-adj", &["--oom-score-adj", "1001"], Refused(125, "oom score adj")),
    row("pid", &["--pid", "host"], Prints("test $$ != 1 && echo host", "host")),
    row("pids-limit", &["--pids-limit", "20"], Prints("cat /sys/fs/cgroup/pids/pids.max", "20")),
    row("platform", &["--platform", "linux/amd64"], Prints("echo ran", "ran")),
    row("privileged", &["--privileged"], Prints("mount -t tmpfs x /home && echo mounted", "mounted")),
    row("pull", &["--pull", "never"], Prints("echo ran", "ran")),
    row("quiet", &["--quiet"], Prints("echo ran", "ran")),
    row("read-only", &["--read-only"], Prints("touch /x 2>/dev/null || echo closed", "closed")),
    row(
        "restart",
        &["--restart", "on-failure:3"],
        Inspects(
            "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}",
            "on-failure 3",
        ),
    ),
    row("runtime", &["--runtime", "runc"], Prints("echo ran", "ran")),
    row("runtime", &["--runtime", "nosuch"], Refused(125, "nosuch")),
    row(
        "security-opt",
        &["--security-opt", "no-new-privileges"],
        Prints("grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
    ),
    row(
        "security-opt",
        &["--security-opt", "seccomp=unconfined"],
        Prints("grep ^Seccomp: /proc/self/status", "Seccomp:\t0"),
    ),
    row(
        "security-opt",
        &["--security-opt", "systempaths=unconfined"],
        Inspects("{{len .HostConfig.MaskedPaths}}", "0"),
    ),
    row("security-opt", &["--security-opt", "bogus"], Refused(125, "bogus")),
    row(
        "shm-size",
        &["--shm-size", "2m"],
        Prints("df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2", "2048"),
    ),
    row("stop-signal", &["--stop-signal", "USR1"], Inspects("{{.Config.StopSignal}}", "USR1")),
    row("stop-timeout", &["--stop-timeout", "3"], Inspects("{{.Config.StopTimeout}}", "3")),
    row(
        // Where it works: tests/vm/cases/size.sh.
        "storage-opt",
        &["--storage-opt", "size=1G"],
        Refused(125, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
    ),
    row(
        "sysctl",
        &["--sysctl", "net.ipv4.ip_default_ttl=77"],
        Prints("cat /proc/sys/net/ipv4/ip_default_ttl", "77"),
    ),
    row(
        "tmpfs",
        &["--tmpfs", "/t:size=1m,mode=700"],
        Prints("stat -c %a /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2", "700\n1024"),
    ),
    row("ulimit", &["--ulimit", "nofile=64:128"], Prints("ulimit -Sn; ulimit -Hn", "64\n128")),
    row("ulimit", &["--ulimit", "bogus=1"], Refused(125, "invalid ulimit type: bogus")),
    row("user", &["-u", "1000"], Prints("id -un", "web")),
    row("userns", &["--userns", "host"], Inspects("{{.HostConfig.UsernsMode}}", "host")),
    row("userns", &["--userns", "bogus"], Refused(125, "USER")),
    row("uts", &["--uts", "host"], Inspects("{{.HostConfig.UTSMode}}", "host")),
    row("volume", &["-v", "/etc:/seen:ro"], Prints("touch /seen/x 2>/dev/null || echo closed", "closed")),
    row("volume-driver", &["--volume-driver", "nosuch", "-v", "v:/v"], Refused(125, "nosuch")),
    row("workdir", &["-w", "/tmp"], Prints("pwd", "/tmp")),
    ours(
        "device-read-bps",
        &["--device-read-bps", "/dev/vda:1mb"],
        Inspects("{{(index .HostConfig.BlkioDeviceReadBps 0).Rate}}", "1048576"),
        CGROUP,
    ),
    ours(
        "device-read-iops",
        &["--device-read-iops", "/dev/vda:100"],
        Inspects("{{(index .HostConfig.BlkioDeviceReadIOps 0).Rate}}", "100"),
        CGROUP,
    ),
    ours(
        "device-write-bps",
        &["--device-write-bps", "/dev/vda:2mb"],
        Inspects("{{(index .HostConfig.BlkioDeviceWriteBps 0).Rate}}", "2097152"),
        CGROUP,
    ),
    ours(
        "device-write-iops",
        &["--device-write-iops", "/dev/vda:200"],
        Inspects("{{(index .HostConfig.BlkioDeviceWriteIOps 0).Rate}}", "200"),
        CGROUP,
    ),
    ours(
        "blkio-weight-device",
        &["--blkio-weight-device", "/dev/vda:200"],
        Inspects("{{(index .HostConfig.BlkioWeightDevice 0).Weight}}", "200"),
        CGROUP,
    ),
    ours(
        "cpu-rt-period",
        &["--cpu-rt-period", "900000"],
        Inspects("{{.HostConfig.CpuRealtimePeriod}}", "900000"),
        CGROUP,
    ),
    ours(
        "cpu-rt-runtime",
        &["--cpu-rt-runtime", "1000"],
        Inspects("{{.HostConfig.CpuRealtimeRuntime}}", "1000"),
        CGROUP,
    ),
];

const CAP_EFF: &str = "grep CapEff /proc/self/status | cut -f2";
const CGROUP_PATH: &str =
    "grep :memory: /proc/self/cgroup | cut -d: -f3 | sed \"s/$(hostname)[0-9a-f]*/ID/\"";

/// Options that other cases show, and options that are the command line's own affair.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("cidfile", "options::files"),
    ("env-file", "options::files"),
    ("label-file", "options::files"),
    ("detach", "run::detached"),
    ("detach-keys", "lifecycle::attach"),
    ("interactive", "run::standard_input"),
    ("tty", "run::terminal"),
    ("sig-proxy", "the client's: what it does with its own signals"),
    ("ip", "network::create_flags"),
    ("ip6", "network::dual_stack"),
    ("link-local-ip", "network::create_flags"),
    ("network-alias", "network::names"),
    ("publish", "network::published_port"),
    ("publish-all", "network::published_port"),
    ("link", "options::links"),
    ("name", "lifecycle::names_and_prefixes"),
    ("rm", "run::foreground_streams_and_exit_codes"),
    ("volumes-from", "run::failures_to_start"),
    ("help", "the client's"),
    ("use-api-socket", "options::api_socket"),
    ("cpu-count", "Windows only"),
    ("cpu-percent", "Windows only"),
    ("io-maxbandwidth", "Windows only"),
    ("io-maxiops", "Windows only"),
];

/// Runs every row.
pub fn all(f: &Fixture) {
    check(f, ROWS.iter());
    // Who names a parent group keeps it.
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        std::fs::remove_dir(hierarchy.path().join("berth-options")).ok();
    }
    std::fs::remove_dir("/sys/fs/cgroup/berth-options").ok();
}

/// Runs the rows that are asked of dockerd, too.
pub fn shared(f: &Fixture) {
    check(f, ROWS.iter().filter(|row| row.differs.is_empty()));
}

fn check<'a>(f: &Fixture, rows: impl Iterator<Item = &'a Row>) {
    let problems: Vec<String> =
        rows.filter_map(|row| probe(f, row).err().map(|why| format!("{:?}: {why}", row.flags))).collect();
    assert!(problems.is_empty(), "{} options are not applied:\n{}", problems.len(), problems.join("\n"));
    assert_eq!(f.cli.ok(&["ps", "-aq"]), "", "a refused or removed container leaves nothing");
}

fn probe(f: &Fixture, row: &Row) -> Result<(), String> {
    let differs = |found: &str, wanted: &str| Err(format!("{found:?}, not {wanted:?}"));
    match row.probe {
        Prints(script, wanted) => {
            let command = [&["run", "--rm"], row.flags, &["busybox", "sh", "-c", script]].concat();
            let run = f.cli.run(&command);
            let found = run.stdout.trim_end();
            if run.code == 0 && found == wanted {
                Ok(())
            } else {
                differs(&format!("{found} {}", run.stderr), wanted)
            }
        }
        Inspects(template, wanted) => {
            let command = [&["create", "--name", "probe"], row.flags, &["busybox", "true"]].concat();
            let made = f.cli.run(&command);
            if made.code != 0 {
                return Err(made.stderr);
            }
            let found = f.cli.ok(&["inspect", "--format", template, "probe"]);
            f.cli.ok(&["rm", "-f", "probe"]);
            if found == wanted { Ok(()) } else { differs(&found, wanted) }
        }
        Refused(code, words) => {
            let command = [&["run", "--rm"], row.flags, &["busybox", "true"]].concat();
            let run = f.cli.run(&command);
            let said = run.stderr.to_lowercase().contains(&words.to_lowercase());
            if run.code == code && said {
                Ok(())
            } else {
                differs(&format!("{} {}", run.code, run.stderr), words)
            }
        }
    }
}

/// No option of `docker run --help` and `docker create --help` is forgotten.
pub fn every_option_is_here(f: &Fixture) {
    let help = ["run", "create"].map(|command| f.cli.ok(&[command, "--help"])).join("\n");
    let named = |line: &str| {
        let line = line.trim_start();
        let option = line.strip_prefix("--").or_else(|| line.get(4..)?.strip_prefix("--"));
        option.map(|option| option.split([' ', '=']).next().unwrap_or_default().to_owned())
    };
    let known = |option: &str| {
        ROWS.iter().any(|row| row.option == option) || ELSEWHERE.iter().any(|(name, _)| *name == option)
    };
    let forgotten: Vec<String> = help
        .lines()
        .filter(|line| line.starts_with("  "))
        .filter_map(named)
        .filter(|option| !known(option))
        .collect();
    assert!(forgotten.is_empty(), "no row for {forgotten:?}");
}

/// Options that read or write files of the client's.
pub fn files(f: &Fixture) {
    let path = |name: &str| f.scratch.join(name).display().to_string();
    std::fs::write(path("env"), "# comment\nA=1\nB=two words\n").expect("write the file");
    std::fs::write(path("labels"), "one=1\ntwo=2\n").expect("write the file");
    let run = ["run", "--rm", "--env-file", &path("env"), "busybox", "sh", "-c", "echo $A $B"];
    assert_eq!(f.cli.ok(&run), "1 two words");
    let (labels, cid) = (path("labels"), path("cid"));
    let id = f.cli.ok(&["create", "--name", "filed", "--label-file", &labels, "--cidfile", &cid, "busybox"]);
    assert_eq!(std::fs::read_to_string(&cid).expect("the id's file"), id);
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{len .Config.Labels}}", "filed"]), "2");
    f.cli.run(&["create", "--cidfile", &cid, "busybox"]).expect_code(1).expect_text("cid");
}

/// `--init` reaps what is left to it, hands signals on, and passes the exit code through.
pub fn init(f: &Fixture) {
    let orphan =
        "(sleep 0.1 & echo $! >/pid); while [ -e /proc/$(cat /pid) ]; do sleep 0.05; done; echo gone";
    assert_eq!(f.cli.ok(&["run", "--rm", "--init", "busybox", "sh", "-c", orphan]), "gone");
    f.cli.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "exit 9"]).expect_code(9);
    f.cli.run(&["run", "--rm", "--init", "busybox", "nosuch"]).expect_code(127);
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    f.cli.ok(&["run", "-d", "--init", "--name", "held", "busybox", "sh", "-c", script]);
    f.cli.eventually("the trap is set", |cli| cli.ok(&["logs", "held"]) == "ready");
    f.cli.ok(&["stop", "held"]);
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.State.ExitCode}}", "held"]), "5");
    f.cli
        .run_on_terminal(
            &["run", "--rm", "--init", "-it", "busybox", "sh", "-c", "read x; echo got-$x"],
            b"y\n",
        )
        .expect_code(0)
        .expect_text("got-y");
}

/// `--link`: hosts lines, variables, names; the other container must run.
pub fn links(f: &Fixture) {
    f.cli.ok(&["run", "-d", "--name", "db", "-e", "MODE=x", "--expose", "6379", "busybox", "sleep", "100"]);
    let ip = f.cli.ok(&["inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "db"]);
    f.cli.ok(&["run", "-d", "--name", "web", "--link", "db:base", "busybox", "sleep", "100"]);
    let hosts = f.cli.ok(&["exec", "web", "grep", "base", "/etc/hosts"]);
    assert!(hosts.starts_with(&format!("{ip}\tbase ")) && hosts.ends_with(" db"), "{hosts}");
    let env = f.cli.ok(&["run", "--rm", "--link", "db", "busybox", "env"]);
    for line in [
        format!("DB_PORT=tcp://{ip}:6379"),
        "DB_ENV_MODE=x".to_owned(),
        "DB_PORT_6379_TCP_PORT=6379".to_owned(),
    ] {
        assert!(env.lines().any(|one| one == line), "{line} is not in\n{env}");
    }
    assert_eq!(f.cli.ok(&["inspect", "--format", "{{.HostConfig.Links}}", "web"]), "[/db:/web/base]");
    f.cli.ok(&["exec", "web", "ping", "-c1", "-q", "base"]);
    // The line follows the address.
    f.cli.ok(&["run", "-d", "--name", "holder", "busybox", "sleep", "100"]);
    f.cli.ok(&["restart", "-t", "0", "db"]);
    let ip = f.cli.ok(&["inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "db"]);
    assert!(f.cli.ok(&["exec", "web", "grep", "base", "/etc/hosts"]).starts_with(&format!("{ip}\t")));
    f.cli
        .run(&["run", "--rm", "--link", "nosuch:x", "busybox", "true"])
        .expect_code(125)
        .expect_text("nosuch");
    // Also where links mean nothing.
    f.cli
        .run(&["run", "--rm", "--network", "none", "--link", "nosuch:x", "busybox", "true"])
        .expect_code(125)
        .expect_text("could not get container for nosuch");
    f.cli.ok(&["run", "--rm", "--network", "none", "--link", "db:x", "busybox", "true"]);
    f.cli.ok(&["stop", "-t", "0", "db"]);
    f.cli
        .run(&["run", "--rm", "--link", "db", "busybox", "true"])
        .expect_code(125)
        .expect_text("non running");
    // On a network with names a link is a name of its own.
    f.cli.ok(&["network", "create", "named"]);
    f.cli.ok(&["run", "-d", "--name", "far", "--network", "named", "busybox", "sleep", "100"]);
    f.cli.ok(&[
        "run",
        "--rm",
        "--network",
        "named",
        "--link",
        "far:near",
        "busybox",
        "ping",
        "-c1",
        "-q",
        "near",
    ]);
    f.cli.run(&["run", "--rm", "--network", "named", "busybox", "ping", "-c1", "-q", "near"]).expect_code(1);
    // Also of one that joins later, for as long as it stays.
    f.cli.ok(&["run", "-d", "--name", "late", "busybox", "sleep", "100"]);
    f.cli.ok(&["network", "connect", "--link", "far:close", "named", "late"]);
    f.cli.ok(&["exec", "late", "ping", "-c1", "-q", "close"]);
}

/// Namespaces of another container: its processes, its shared memory, its network.
pub fn shared_namespaces(f: &Fixture) {
    f.cli.ok(&[
        "run",
        "-d",
        "--name",
        "donor",
        "--ipc",
        "shareable",
        "busybox",
        "sh",
        "-c",
        "echo hi >/dev/shm/f; exec sleep 1234",
    ]);
    f.cli.eventually("the file is there", |cli| {
        cli.run(&["exec", "donor", "test", "-s", "/dev/shm/f"]).code == 0
    });
    let shm = "cat /dev/shm/f; echo back >/dev/shm/g";
    assert_eq!(f.cli.ok(&["run", "--rm", "--ipc", "container:donor", "busybox", "sh", "-c", shm]), "hi");
    assert_eq!(f.cli.ok(&["exec", "donor", "cat", "/dev/shm/g"]), "back");
    let ps = f.cli.ok(&["run", "--rm", "--pid", "container:donor", "busybox", "ps"]);
    assert!(ps.contains("sleep 1234"), "{ps}");
    let own = f.cli.ok(&["exec", "donor", "cat", "/sys/class/net/eth0/address"]);
    let network =
        ["run", "--rm", "--network", "container:donor", "busybox", "cat", "/sys/class/net/eth0/address"];
    assert_eq!(f.cli.ok(&network), own);
    f.cli.ok(&["run", "-d", "--name", "private", "busybox", "sleep", "100"]);
    f.cli
        .run(&["run", "--rm", "--ipc", "container:private", "busybox", "true"])
        .expect_code(125)
        .expect_text("non-shareable IPC");
    f.cli.ok(&["rm", "-f", "donor"]);
    f.cli.run(&["run", "--rm", "--pid", "container:donor", "busybox", "true"]).expect_code(125);
}

/// `--use-api-socket`: the engine and the logins of the client are at hand in the container.
pub fn api_socket(f: &Fixture) {
    let config = f.scratch.join("config");
    std::fs::create_dir(&config).expect("a directory");
    let auths = r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#;
    std::fs::write(config.join("config.json"), auths).expect("write the configuration");
    let config = config.to_str().expect("utf-8");
    let script = "test -S /var/run/docker.sock && cat $DOCKER_CONFIG/config.json";
    let run = ["--config", config, "run", "--rm", "--use-api-socket", "busybox", "sh", "-c", script];
    let seen: String = f.cli.ok(&run).split_whitespace().collect();
    assert_eq!(seen, auths);
    let own = ["--config", config, "run", "--rm", "--use-api-socket", "-e", "DOCKER_CONFIG=/own", "busybox"];
    // Who has a configuration of his own gets no logins.
    f.cli.ok(&[&own[..], &["test", "!", "-e", "/run/secrets/docker"]].concat());
}

/// A limit on processes can be lifted again.
pub fn update_lifts_limits(f: &Fixture) {
    f.cli.ok(&["run", "-d", "--name", "lifted", "--pids-limit", "20", "busybox", "sleep", "100"]);
    f.cli.ok(&["update", "--pids-limit", "-1", "lifted"]);
    let max = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
    assert_eq!(f.cli.ok(&["exec", "lifted", "sh", "-c", max]), "max");
}
