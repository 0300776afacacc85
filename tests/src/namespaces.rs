//! A network and a mount namespace for programs of others: what they leave in them goes with them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Loopback is up; `/run`, `/var/tmp` and `/dev/shm` are empty; where `/sys/fs/cgroup` is a tmpfs (version 1), it is a
/// read-only one of our own, because podman makes directories for hierarchies that are not mounted.
const SET_UP: &str = r#"set -e
ip link set lo up
if [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ]; then
    mkdir "$0/cgroup"
    mount -t tmpfs cgroup "$0/cgroup"
    for hierarchy in /sys/fs/cgroup/*; do
        mountpoint -q "$hierarchy" || continue
        mkdir "$0/cgroup/${hierarchy##*/}"
        mount --bind "$hierarchy" "$0/cgroup/${hierarchy##*/}"
    done
    mount -o remount,ro "$0/cgroup"
    mount --move "$0/cgroup" /sys/fs/cgroup
fi
for place in /run /var/tmp /dev/shm; do mount -t tmpfs tmpfs "$place"; done
echo ready
exec sleep infinity
"#;

/// The namespaces, which last as long as this.
#[derive(Debug)]
pub struct Namespaces {
    holder: Child,
}

impl Namespaces {
    /// Makes them; `scratch` is an existing directory.
    ///
    /// # Panics
    /// If they cannot be made.
    #[must_use]
    pub fn new(scratch: &Path) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", SET_UP])
            .arg(scratch)
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare (package util-linux)");
        let mut line = String::new();
        let said = holder.stdout.take().expect("piped");
        BufReader::new(said).read_line(&mut line).expect("read from the holder of the namespaces");
        assert_eq!(line, "ready\n", "the namespaces were not set up");
        Self { holder }
    }

    /// A command inside them.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", program]);
        command.env("PATH", path());
        command
    }
}

/// Daemons lie where not every user's PATH leads.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
