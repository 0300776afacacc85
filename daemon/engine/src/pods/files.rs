//! The files of a pod that its containers share: resolv.conf, hostname, hosts.

use std::fs;
use std::path::Path;

use super::model::{PodDns, SandboxSpec};
use super::namespaces::Pins;
use crate::engine::Engine;
use crate::error::{IoContext as _, Result};

impl Engine {
    /// Writes the files. Blocking.
    pub(super) fn write_pod_files(&self, spec: &SandboxSpec, pins: &Pins) -> Result<()> {
        let write = |name: &str, text: &str| {
            let path = pins.dir.join(name);
            fs::write(&path, text).during("write", path)
        };
        write("hostname", &format!("{}\n", self.pod_hostname(spec)))?;
        match spec.dns.as_ref().filter(|dns| **dns != PodDns::default()) {
            Some(dns) => write("resolv.conf", &resolv_conf(dns))?,
            None => write("resolv.conf", &host_file("/etc/resolv.conf"))?,
        }
        write("hosts", &host_file("/etc/hosts"))
    }
}

/// A file of the host; that it has none is no failure.
fn host_file(path: &str) -> String {
    fs::read_to_string(Path::new(path)).unwrap_or_default()
}

fn resolv_conf(dns: &PodDns) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_as_asked_for() {
        let own = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let dns = PodDns {
            servers: own(&["10.0.0.1", "::1"]),
            searches: own(&["a", "b"]),
            options: own(&["ndots:5"]),
        };
        assert_eq!(resolv_conf(&dns), "search a b\nnameserver 10.0.0.1\nnameserver ::1\noptions ndots:5\n");
        assert_eq!(resolv_conf(&PodDns::default()), "");
    }
}
