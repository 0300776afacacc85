//! What the kernel keeps for a process or a namespace: clocks, devices of the network, scheduling, memory policy, names.

use std::process::Command;

use serde_json::json;

use crate::harness::{Case, Said, is_ours};

fn uptime_of_the_host() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn with_time_namespace(case: &mut Case) {
    case.push("/linux/namespaces", json!({ "type": "time" }));
    case.config["linux"]["timeOffsets"] =
        json!({ "monotonic": { "secs": 7_777, "nanosecs": 5 }, "boottime": { "secs": 1_000_000 } });
    case.config["linux"]["maskedPaths"] = json!([]);
}

#[test]
fn the_clocks_of_a_time_namespace_are_set() {
    let mut case = Case::script("cat /proc/uptime; cat /proc/self/timens_offsets; sleep 100");
    with_time_namespace(&mut case);
    case.config["process"]["args"] =
        json!(["/bin/sh", "-c", "cat /proc/uptime; cat /proc/self/timens_offsets"]);
    let check = |out: &str| {
        let inside: f64 = out.split(' ').next().unwrap().parse().unwrap();
        assert!(inside >= 1_000_000.0 && inside - 1_000_000.0 <= uptime_of_the_host() + 1.0, "{out}");
        let offsets: Vec<Vec<&str>> = out.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(offsets, [["monotonic", "7777", "5"], ["boottime", "1000000", "0"]]);
    };
    check(&case.run().ok());
    // In a user namespace the clocks belong to that.
    case.push("/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 1000 }]);
    case.config["linux"]["uidMappings"] = map.clone();
    case.config["linux"]["gidMappings"] = map;
    check(&case.run().ok());
}

#[test]
fn exec_sees_the_containers_clocks() {
    let mut case = Case::new(&["/bin/sleep", "100"]);
    with_time_namespace(&mut case);
    case.call_detached(&["run", "-d"]).ok();
    let out = case.call(&["exec"], &["cat", "/proc/uptime"]).ok();
    assert!(out.split(' ').next().unwrap().parse::<f64>().unwrap() > 1_000_000.0, "{out}");
}

/// Runs the container in a network namespace of the test's own, prepared by a script.
fn run_in_a_network(case: &Case, prepare: &str) -> Said {
    let runtime = case.command(&["run", "--bundle", case.path().to_str().unwrap(), &case.id]);
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "sh",
        "-e",
        "-c",
        &format!("{prepare}; \"$@\" || echo code $?; ip -o link"),
        "sh",
    ]);
    command.arg(runtime.get_program()).args(runtime.get_args()).output().unwrap().into()
}

const VETH: &str = "ip link add one type veth peer name two; ip addr add 10.9.8.7/24 dev one; \
                    ip addr add fd00:9::7/64 dev one nodad; ip link set two up";

#[test]
fn a_network_device_moves_into_the_container() {
    let script = "cat /sys/class/net/inner/operstate; busybox ip addr show inner; echo";
    let mut case = Case::script(script);
    case.config["linux"]["netDevices"] = json!({ "one": { "name": "inner" } });
    let said = run_in_a_network(&case, VETH);
    let (inside, outside) = said.out.split_once("\n\n").unwrap_or_else(|| panic!("{said:?}"));
    assert!(inside.starts_with("up\n"), "{said:?}");
    for address in ["10.9.8.7/24", "fd00:9::7/64"] {
        assert!(inside.contains(address), "{address}: {said:?}");
    }
    assert!(!outside.contains("inner") && !outside.contains(": one"), "{said:?}");
}

#[test]
fn a_device_keeps_its_name_or_gets_one_by_a_pattern() {
    for (name, expected) in [(None, "one@"), (Some("net%d"), "net0@")] {
        if name.is_some() && !is_ours() {
            // runc looks for a device of that very name afterwards.
            continue;
        }
        let mut case = Case::script("busybox ip -o link; exit 0");
        case.config["linux"]["netDevices"] = match name {
            None => json!({ "one": {} }),
            Some(name) => json!({ "one": { "name": name } }),
        };
        let said = run_in_a_network(&case, VETH);
        assert!(said.out.contains(&format!(": {expected}")), "{name:?}: {said:?}");
    }
}

#[test]
fn a_device_that_cannot_move_stays_where_it_is() {
    for (host, inside, text) in [("none", "x", "no such network device"), ("one", "lo", "already")] {
        let mut case = Case::new(&["/bin/true"]);
        case.config["linux"]["netDevices"] = json!({ host: { "name": inside } });
        let said = run_in_a_network(&case, VETH);
        assert!(said.out.contains("code 1"), "{said:?}");
        // runc has moved it by then, and it is lost.
        assert!(!is_ours() || said.out.contains("one@two") && said.err.contains(text), "{said:?}");
    }
}

#[test]
fn scheduling_policies() {
    // proc_pid_stat(5): 19 is the nice value, 41 the policy.
    let mut case = Case::script("busybox awk '{ print $19, $41 }' /proc/self/stat; busybox ionice -p $$");
    case.config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
    case.config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 5 });
    assert_eq!(case.run().ok(), "7 3\nbest-effort: prio 5\n");
    case.config["process"]["scheduler"] = json!({ "policy": "SCHED_IDLE" });
    case.config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
    let idle = case.run().ok();
    assert!(idle.contains(" 5\nidle"), "policy 5 is SCHED_IDLE: {idle}");
    case.config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "priority": 3 });
    case.run().fails_with("can only be specified for SchedFIFO or SchedRR policy");
}

#[test]
fn exec_runs_on_the_processors_it_is_given() {
    let mut case = Case::new(&["/bin/sleep", "100"]);
    case.config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
    case.call_detached(&["run", "-d"]).ok();
    let allowed = ["grep", "Cpus_allowed_list", "/proc/self/status"];
    assert_eq!(case.call(&["exec"], &allowed).ok(), "Cpus_allowed_list:\t0\n");
    let debug = case.command(&["--debug", "exec", &case.id, "true"]).output().unwrap();
    assert!(String::from_utf8_lossy(&debug.stderr).contains("affinity: 0x1"), "{debug:?}");
}

#[test]
fn the_memory_policy_holds() {
    let mut case = Case::script("grep -c interleave:0 /proc/self/numa_maps");
    case.config["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" });
    let lines: u32 = case.run().ok().trim().parse().unwrap();
    assert!(lines > 0);
    for mode in ["MPOL_DEFAULT", "MPOL_LOCAL"] {
        case.config["linux"]["memoryPolicy"] = json!({ "mode": mode });
        assert_eq!(case.run().out, "0\n", "{mode}");
    }
    case.config["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0-4095,x" });
    case.run().fails_with("nodes");
}

#[test]
fn personality_and_names() {
    let mut case = Case::script("busybox uname -m; cat /proc/sys/kernel/domainname; hostname");
    case.config["linux"]["personality"] = json!({ "domain": "LINUX32" });
    case.config["domainname"] = json!("example.org");
    let out = case.run().ok();
    let machine = if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" };
    assert_eq!(out, format!("{machine}\nexample.org\ncontract\n"));
}

/// What this machine does not have is named, and not passed over.
#[test]
fn missing_features_of_the_kernel_are_named() {
    if !std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        let mut case = Case::new(&["/bin/true"]);
        case.config["linux"]["intelRdt"] = json!({ "closID": "guaranteed", "l3CacheSchema": "L3:0=f" });
        let said = case.run();
        assert_ne!(said.code, 0, "{said:?}");
        assert!(
            !is_ours() || said.err.contains("linux.intelRdt: no file system resctrl is mounted"),
            "{said:?}"
        );
    }
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        let mut case = Case::new(&["/bin/true"]);
        case.config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
        case.run().refuses(1, "linux.mountLabel: is set, but the kernel does not label with SELinux");
        case.config["linux"]["mountLabel"] = json!("");
        case.run().ok();
    }
    if !std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        let mut case = Case::new(&["/bin/true"]);
        case.config["process"]["apparmorProfile"] = json!("no-such-profile");
        let said = case.run();
        assert_ne!(said.code, 0, "{said:?}");
        assert!(!is_ours() || said.err.contains("does this kernel have AppArmor?"), "{said:?}");
    }
}
