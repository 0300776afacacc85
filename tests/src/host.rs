//! A network namespace that stands for a host: daemons in it meet nobody else's links, rules and settings.

use std::os::fd::AsFd as _;
use std::process::{Child, Command, Output, Stdio};

/// A host of one's own; it is empty when it is dropped, or the test fails.
#[derive(Debug)]
pub struct Host {
    /// Keeps the namespace alive.
    holder: Child,
}

impl Host {
    /// A namespace with nothing but loopback.
    ///
    /// # Panics
    /// If it cannot be made (these tests need root).
    #[must_use]
    pub fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "--kill-child", "sh", "-c", "ip link set lo up && echo up && exec sleep 86400"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (package util-linux)");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
            .expect("the holder speaks");
        assert_eq!(line, "up\n");
        Self { holder }
    }

    /// A program that runs on this host; its arguments follow.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        inside(self.holder.id(), program)
    }

    /// Runs a command line on this host and gives its standard output.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        shown(line, self.try_run(line))
    }

    /// Runs a command line on this host.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn try_run(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        let program = words.next().expect("a program");
        self.command(program).args(words).output().expect("run a program")
    }

    /// The process whose namespace it is.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Connects this host to another by a cable whose ends are called `name` and have these addresses.
    ///
    /// # Panics
    /// If `ip` fails (package iproute2).
    pub fn connect(&self, other: &Self, name: &str, here: &str, there: &str) {
        self.run(&format!("ip link add {name} type veth peer name {name} netns {}", other.pid()));
        for (host, address) in [(self, here), (other, there)] {
            host.run(&format!("ip link set {name} up"));
            let nodad = if address.contains(':') { " nodad" } else { "" };
            host.run(&format!("ip address add {address} dev {name}{nodad}"));
        }
    }

    /// The names of its links.
    ///
    /// # Panics
    /// If `ip` fails.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let name = |line: &str| line.split(": ").nth(1).map(|n| n.split('@').next().unwrap_or(n).to_owned());
        self.run("ip -o link").lines().filter_map(name).collect()
    }

    /// What daemons of ours have left on it: links and nftables tables.
    ///
    /// # Panics
    /// If `ip` or `nft` fails.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let ours = |link: &String| ["br-", "bth", "veth"].iter().any(|prefix| link.starts_with(prefix));
        let mut left: Vec<String> = self.links().into_iter().filter(ours).collect();
        let tables = self.run("nft list tables");
        left.extend(tables.lines().filter(|line| line.contains("berth")).map(str::to_owned));
        left
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// A program in the network namespace of a process.
#[must_use]
pub fn inside(pid: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", program]);
    command
}

/// Runs `work` on a thread in the network namespace of a process.
///
/// # Panics
/// If the process is gone, or `work` panics.
pub fn within<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    let netns = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("a namespace");
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            nix::sched::setns(netns.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        });
        worker.join().expect("the work inside a namespace")
    })
}

#[track_caller]
fn shown(line: &str, output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}`: {text}{told}");
    text
}

impl Drop for Host {
    fn drop(&mut self) {
        let left = if std::thread::panicking() { Vec::new() } else { self.leftovers() };
        self.holder.kill().ok();
        self.holder.wait().ok();
        assert!(left.is_empty(), "left behind on the host: {left:?}");
    }
}
