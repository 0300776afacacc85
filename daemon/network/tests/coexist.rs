//! Other firewalls on the host: what they drop, and what is done or said about it.

mod support;

use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use berth_network::{EndpointRequest, NetworkSpec};
use support::{HOST, OUTSIDE, Server, ask, eventually, inside, nft, port, request, world};

/// What `ufw enable` leaves in the forward chain of iptables, with its default policy for routed traffic.
const UFW: &str = "*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
:ufw-reject-forward - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -j ufw-user-input
COMMIT
";

/// firewalld's way of forwarding: zones by link, and a rejection at the end.
const FIREWALLD: &str = "table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname \"lo\" accept
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES {
        iifname \"eth0\" goto filter_FWD_public
    }
    chain filter_FWD_public {
        reject with icmpx admin-prohibited
    }
}
";

fn feed(program: &str, arguments: &[&str], text: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program}: {text}");
}

fn ufw() {
    feed("iptables-nft-restore", &[], UFW);
    feed(
        "ip6tables-nft-restore",
        &[],
        &UFW.replace("icmp ", "ipv6-icmp ")
            .replace("icmp-type 8", "icmpv6-type 128")
            .replace("-m ipv6-icmp", "-m icmp6"),
    );
}

fn iptables(arguments: &str) -> String {
    let output = Command::new("iptables-nft").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "iptables {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn ufw_lets_containers_through_and_keeps_its_say_elsewhere() {
    world(|w| {
        ufw();
        let net = w.controller("ufw");
        let bridge = net.network("bridge").unwrap();
        let [a, b] = [0; 2].map(|_| net.new_sandbox().unwrap());
        let other = net.create_network(NetworkSpec::bridge("other")).unwrap();
        let ports = vec![port(80, None, 8080)];
        net.attach(a.as_fd(), &bridge.id, EndpointRequest { ports, ..request("a") }).unwrap();
        let eb = net.attach(b.as_fd(), &other.id, request("b")).unwrap();
        let _server = Server::start(a.as_fd(), 80);
        let _there = Server::start(w.outside.as_fd(), 8000);

        assert!(inside(w.outside.as_fd(), || ask(HOST, 8080)).is_ok(), "a published port answers");
        assert!(inside(a.as_fd(), || ask(OUTSIDE, 8000)).is_ok(), "a container reaches out");
        let ruled = iptables("-S");
        assert!(ruled.contains("-A FORWARD -j BERTH-ufw\n-A FORWARD -j ufw-before-forward"), "{ruled}");
        assert!(ruled.contains(&format!("-A BERTH-ufw -i {} -j ACCEPT", other.bridge)), "{ruled}");
        assert_eq!(net.warnings(), [""; 0]);
        // Nothing more is open than before: a container without published ports, and what ufw itself forbids.
        let _hidden = Server::start(b.as_fd(), 80);
        let route = format!("route add {} via {HOST}", eb.ipv4.unwrap());
        assert!(
            inside(w.outside.as_fd(), || {
                support::ip(&route);
                ask(eb.ipv4.unwrap(), 80)
            })
            .is_err()
        );
        let _host = Server::start(w.host.as_fd(), 9000);
        assert!(inside(w.outside.as_fd(), || ask(HOST, 9000)).is_err(), "the host's own ports are ufw's");

        // ufw's reload writes its rules anew, and another firewall's start flushes them.
        iptables("-F FORWARD");
        eventually("the way is open again", || iptables("-S FORWARD").contains("-j BERTH-ufw"));
        net.detach("b", &other.id, None).unwrap();
        net.remove_network("other").unwrap();
        assert!(!iptables("-S").contains(&other.bridge));
        net.shutdown(true).unwrap();
        assert!(!iptables("-S").contains("BERTH"), "{}", iptables("-S"));
    });
}

#[test]
fn a_firewall_that_comes_later_is_met() {
    world(|w| {
        let net = w.controller("late");
        let bridge = net.network("bridge").unwrap();
        let a = net.new_sandbox().unwrap();
        let ports = vec![port(80, None, 8080)];
        net.attach(a.as_fd(), &bridge.id, EndpointRequest { ports, ..request("a") }).unwrap();
        let _server = Server::start(a.as_fd(), 80);
        assert!(nft("list tables").lines().count() == 1, "no table of iptables is made");
        ufw();
        eventually("the way is open", || iptables("-S FORWARD").contains("-j BERTH-late"));
        assert!(inside(w.outside.as_fd(), || ask(HOST, 8080)).is_ok());
        // What has no rules and drops nothing needs none of ours.
        iptables("-F FORWARD");
        iptables("-P FORWARD ACCEPT");
        eventually("the way is not needed", || !iptables("-S").contains("BERTH"));
        net.shutdown(true).unwrap();
    });
}

#[test]
fn who_has_firewalld_is_told_what_to_do() {
    world(|w| {
        feed("nft", &["-f", "-"], FIREWALLD);
        let net = w.controller("fwd");
        let network = net.create_network(NetworkSpec::bridge("n")).unwrap();
        let told = net.warnings();
        let command = format!("--zone=trusted --add-interface={}", network.bridge);
        assert!(told.len() == 1 && told[0].contains(&command), "{told:?}");
        let a = net.new_sandbox().unwrap();
        net.attach(a.as_fd(), &network.id, request("a")).unwrap();
        let _there = Server::start(w.outside.as_fd(), 8000);
        assert!(inside(a.as_fd(), || ask(OUTSIDE, 8000)).is_err(), "it is as it was said");
        // What firewall-cmd does then.
        nft(&format!("insert rule inet firewalld filter_FORWARD_ZONES iifname {} accept", network.bridge));
        eventually("the warning goes", || net.warnings().is_empty());
        assert!(inside(a.as_fd(), || ask(OUTSIDE, 8000)).is_ok());
        net.shutdown(true).unwrap();
        assert!(nft("list table inet firewalld").contains("filter_FORWARD"), "others' tables stay");
    });
}

#[test]
fn an_administrator_s_own_policy_is_told_too() {
    world(|w| {
        feed(
            "nft",
            &["-f", "-"],
            "table inet mine { chain forward { type filter hook forward priority 0; policy drop; }; }",
        );
        let net = w.controller("own");
        let network = net.create_network(NetworkSpec::bridge("n")).unwrap();
        let told = net.warnings().join("\n");
        let command = format!("nft insert rule inet mine forward iifname \"{}\" accept", network.bridge);
        assert!(told.contains(&command), "{told}");
        net.shutdown(true).unwrap();
    });
}
