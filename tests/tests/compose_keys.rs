//! Every key of a service in the Compose specification that an engine can honour reaches the container.

use std::fmt::Write as _;

use berth_tests::cli::Frontend;
use berth_tests::daemon::Daemon;
use berth_tests::project::Project;

/// Key, value, template of inspect, what it must say.
const KEYS: &[(&str, &str, &str, &str)] = &[
    ("annotations", "{a: b}", "{{json .HostConfig.Annotations}}", r#"{"a":"b"}"#),
    ("blkio_config", "{weight: 300}", "{{.HostConfig.BlkioWeight}}", "300"),
    ("cap_add", "[NET_ADMIN]", "{{.HostConfig.CapAdd}}", "[CAP_NET_ADMIN]"),
    ("cap_drop", "[MKNOD]", "{{.HostConfig.CapDrop}}", "[CAP_MKNOD]"),
    ("cgroup", "host", "{{.HostConfig.CgroupnsMode}}", "host"),
    ("cgroup_parent", "/keys", "{{.HostConfig.CgroupParent}}", "/keys"),
    ("command", "[echo, 'a b']", "{{json .Config.Cmd}}", r#"["echo","a b"]"#),
    ("container_name", "named", "{{.Name}}", "/named"),
    ("cpu_period", "50000", "{{.HostConfig.CpuPeriod}}", "50000"),
    ("cpu_quota", "20000", "{{.HostConfig.CpuQuota}}", "20000"),
    ("cpu_shares", "512", "{{.HostConfig.CpuShares}}", "512"),
    ("cpus", "0.5", "{{.HostConfig.NanoCpus}}", "500000000"),
    ("cpuset", "'0'", "{{.HostConfig.CpusetCpus}}", "0"),
    (
        "deploy",
        "{resources: {limits: {cpus: '0.25', memory: 50M, pids: 50}, reservations: {memory: 20M}}, restart_policy: {condition: on-failure, max_attempts: 3}}",
        "{{with .HostConfig}}{{.NanoCpus}} {{.Memory}} {{.PidsLimit}} {{.MemoryReservation}} {{.RestartPolicy.Name}} {{.RestartPolicy.MaximumRetryCount}}{{end}}",
        "250000000 52428800 50 20971520 on-failure 3",
    ),
    ("device_cgroup_rules", "['c 1:3 mr']", "{{.HostConfig.DeviceCgroupRules}}", "[c 1:3 mr]"),
    (
        "devices",
        "['/dev/null:/dev/other:r']",
        "{{json .HostConfig.Devices}}",
        r#"[{"PathOnHost":"/dev/null","PathInContainer":"/dev/other","CgroupPermissions":"r"}]"#,
    ),
    ("dns", "[9.9.9.9]", "{{.HostConfig.Dns}}", "[9.9.9.9]"),
    ("dns_opt", "['ndots:2']", "{{.HostConfig.DnsOptions}}", "[ndots:2]"),
    ("dns_search", "[x.org]", "{{.HostConfig.DnsSearch}}", "[x.org]"),
    ("domainname", "example.org", "{{.Config.Domainname}}", "example.org"),
    ("entrypoint", "[sleep]", "{{.Config.Entrypoint}}", "[sleep]"),
    (
        "env_file",
        "[{path: keys.env}, {path: none.env, required: false}]",
        "{{index .Config.Env 0}}",
        "FROM=file",
    ),
    ("environment", "{A: '1'}", "{{index .Config.Env 0}}", "A=1"),
    ("expose", "['3000']", "{{json .Config.ExposedPorts}}", r#"{"3000/tcp":{}}"#),
    ("extra_hosts", "['a=1.2.3.4']", "{{.HostConfig.ExtraHosts}}", "[a:1.2.3.4]"),
    (
        "gpus",
        "[{driver: cdi, device_ids: [vendor.com/gpu=0]}]",
        "{{range .HostConfig.DeviceRequests}}{{.Driver}} {{.DeviceIDs}} {{.Capabilities}}{{end}}",
        "cdi [vendor.com/gpu=0] [[gpu]]",
    ),
    ("group_add", "['2000']", "{{.HostConfig.GroupAdd}}", "[2000]"),
    (
        "healthcheck",
        "{test: [CMD, 'true'], interval: 3s, timeout: 2s, retries: 4, start_period: 5s, start_interval: 1s}",
        "{{with .Config.Healthcheck}}{{.Test}} {{.Interval}} {{.Timeout}} {{.Retries}} {{.StartPeriod}} {{.StartInterval}}{{end}}",
        "[CMD true] 3s 2s 4 5s 1s",
    ),
    ("hostname", "h1", "{{.Config.Hostname}}", "h1"),
    ("init", "true", "{{.HostConfig.Init}}", "true"),
    ("ipc", "shareable", "{{.HostConfig.IpcMode}}", "shareable"),
    ("label_file", "keys.labels", "{{index .Config.Labels \"from.file\"}}", "yes"),
    ("labels", "[a.b=c]", "{{index .Config.Labels \"a.b\"}}", "c"),
    (
        "logging",
        "{driver: json-file, options: {max-size: 1m}}",
        "{{json .HostConfig.LogConfig}}",
        r#"{"Type":"json-file","Config":{"max-size":"1m"}}"#,
    ),
    (
        "mac_address",
        "02:42:ac:11:00:07",
        "{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}",
        "02:42:ac:11:00:07",
    ),
    ("mem_limit", "64m", "{{.HostConfig.Memory}}", "67108864"),
    ("mem_reservation", "32m", "{{.HostConfig.MemoryReservation}}", "33554432"),
    ("mem_swappiness", "10", "{{.HostConfig.MemorySwappiness}}", "10"),
    ("memswap_limit", "128m\n    mem_limit: 64m", "{{.HostConfig.MemorySwap}}", "134217728"),
    ("network_mode", "none", "{{.HostConfig.NetworkMode}}", "none"),
    (
        "networks",
        "{own: {aliases: [www], ipv4_address: 10.197.1.9, ipv6_address: 'fd97::9', link_local_ips: [169.254.3.3], mac_address: '02:42:ac:11:00:08', driver_opts: {x: y}, gw_priority: 7, interface_name: lan0}}",
        "{{range .NetworkSettings.Networks}}{{.Aliases}} {{.IPAMConfig.IPv4Address}} {{.IPAMConfig.IPv6Address}} {{.IPAMConfig.LinkLocalIPs}} {{.MacAddress}} {{.DriverOpts}} {{.GwPriority}}{{end}}",
        "[keys-networks-1 networks www] 10.197.1.9 fd97::9 [169.254.3.3] 02:42:ac:11:00:08 map[com.docker.network.endpoint.ifname:lan0 x:y] 7",
    ),
    ("oom_kill_disable", "true\n    mem_limit: 64m", "{{.HostConfig.OomKillDisable}}", "true"),
    ("oom_score_adj", "100", "{{.HostConfig.OomScoreAdj}}", "100"),
    ("pid", "host", "{{.HostConfig.PidMode}}", "host"),
    ("pids_limit", "77", "{{.HostConfig.PidsLimit}}", "77"),
    ("platform", "linux/amd64", "{{.Platform}}", "linux"),
    (
        "ports",
        "['127.0.0.1:18097:81/udp', {target: 82, published: '18096'}]",
        "{{json .HostConfig.PortBindings}}",
        r#"{"81/udp":[{"HostIp":"127.0.0.1","HostPort":"18097"}],"82/tcp":[{"HostIp":"","HostPort":"18096"}]}"#,
    ),
    ("privileged", "true", "{{.HostConfig.Privileged}}", "true"),
    ("read_only", "true", "{{.HostConfig.ReadonlyRootfs}}", "true"),
    (
        "restart",
        "on-failure:4",
        "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}",
        "on-failure 4",
    ),
    (
        "secrets",
        "[bound]",
        "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}",
        "bind /run/secrets/bound false",
    ),
    (
        "configs",
        "[{source: bound, target: /etc/bound}]",
        "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}",
        "bind /etc/bound false",
    ),
    ("security_opt", "['no-new-privileges:true']", "{{.HostConfig.SecurityOpt}}", "[no-new-privileges:true]"),
    ("shm_size", "16m", "{{.HostConfig.ShmSize}}", "16777216"),
    ("stdin_open", "true", "{{.Config.OpenStdin}}", "true"),
    ("stop_grace_period", "3s", "{{.Config.StopTimeout}}", "3"),
    ("stop_signal", "SIGINT", "{{.Config.StopSignal}}", "SIGINT"),
    (
        "sysctls",
        "{net.ipv4.ip_default_ttl: 77}",
        "{{json .HostConfig.Sysctls}}",
        r#"{"net.ipv4.ip_default_ttl":"77"}"#,
    ),
    ("tmpfs", "['/run:size=1m']", "{{json .HostConfig.Tmpfs}}", r#"{"/run":"size=1m"}"#),
    ("tty", "true", "{{.Config.Tty}}", "true"),
    (
        "ulimits",
        "{nofile: {soft: 1000, hard: 2000}, nproc: 500}",
        "{{range .HostConfig.Ulimits}}{{.Name}} {{.Soft}} {{.Hard}};{{end}}",
        "nofile 1000 2000;nproc 500 500;",
    ),
    ("user", "'1000:1000'", "{{.Config.User}}", "1000:1000"),
    ("userns_mode", "host", "{{.HostConfig.UsernsMode}}", "host"),
    ("uts", "host", "{{.HostConfig.UTSMode}}", "host"),
    (
        "volumes",
        "[{type: bind, source: ./keys.env, target: /b, read_only: true, bind: {propagation: rslave}}, {type: volume, source: kept, target: /v, volume: {nocopy: true}}]",
        "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}} {{.Propagation}};{{end}}",
        "bind /b false rslave;volume /v true ;",
    ),
    ("working_dir", "/tmp", "{{.Config.WorkingDir}}", "/tmp"),
    // Those that name other services.
    (
        "depends_on",
        "{command: {condition: service_started}}",
        "{{index .Config.Labels \"com.docker.compose.depends_on\"}}",
        "command:service_started:false",
    ),
    (
        "links",
        "['command:friend']",
        "{{range .NetworkSettings.Networks}}{{.Links}}{{end}}",
        "[keys-command-1:friend keys-command-1:command-1 keys-command-1:keys-command-1]",
    ),
    (
        "external_links",
        "['named:ext']",
        "{{range .NetworkSettings.Networks}}{{.Links}}{{end}}",
        "[named:ext]",
    ),
    (
        "volumes_from",
        "['volumes:ro']",
        "{{range .Mounts}}{{.Destination}} {{.RW}};{{end}}",
        "/b false;/v false;",
    ),
];

#[test]
fn every_key_reaches_the_container() {
    let daemon = Daemon::with_busybox();
    let (cli, docker) = (daemon.cli(Frontend::Berth), daemon.cli(Frontend::Docker));
    let directory = daemon.scratch("keys");
    for (name, text) in [("keys.env", "FROM=file\n"), ("keys.labels", "from.file=yes\n"), ("bound", "text")] {
        std::fs::write(directory.join(name), text).expect("write a file");
    }
    let mut file = "name: keys\nservices:\n".to_owned();
    for (key, value, ..) in KEYS {
        let name = key.replace('_', "-");
        let command = if *key == "command" { "" } else { "    command: sleep 100\n" };
        writeln!(file, "  {name}:\n    image: busybox\n{command}    {key}: {value}").expect("a text");
    }
    file += "networks: {own: {enable_ipv6: true, ipam: {config: [{subnet: 10.197.1.0/24}, {subnet: 'fd97::/64'}]}}}\n\
             volumes: {kept: {}}\nsecrets: {bound: {file: ./bound}}\nconfigs: {bound: {file: ./bound}}\n";
    let project = Project::new(&cli, &directory, &file);
    project.ok(&["create"]);
    let mut wrong = Vec::new();
    for (key, _, template, expected) in KEYS {
        let name = if *key == "container_name" {
            "named".to_owned()
        } else {
            format!("keys-{}-1", key.replace('_', "-"))
        };
        let found = docker.run(&["inspect", "-f", template, &name]);
        let found = if found.code == 0 { found.stdout.trim().to_owned() } else { found.stderr };
        if found != *expected {
            wrong.push(format!("{key}: {found:?} instead of {expected:?}"));
        }
    }
    project.ok(&["down", "-v", "-t", "1"]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
