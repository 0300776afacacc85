use berth_api::container::UpdateRequest;

use crate::harness::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn options_are_applied() {
    let lab = Lab::new().await;
    for (script, options, expected) in [
        ("id -u; id -g; id -G; echo $HOME", r#"{"User":"app"}"#, "1000\n1000\n1000 2000\n/home/app\n"),
        ("id -G", r#"{"User":"77:88","HostConfig":{"GroupAdd":["extra","5"]}}"#, "88 5 2000\n"),
        ("hostname; cat /etc/hostname", r#"{"Hostname":"box"}"#, "box\nbox\n"),
        ("pwd", r#"{"WorkingDir":"/tmp/new/dir"}"#, "/tmp/new/dir\n"),
        ("ulimit -n", r#"{"HostConfig":{"Ulimits":[{"Name":"nofile","Soft":99,"Hard":100}]}}"#, "99\n"),
        (
            "touch /x 2>/dev/null || echo read-only",
            r#"{"HostConfig":{"ReadonlyRootfs":true}}"#,
            "read-only\n",
        ),
        (
            "grep CapEff /proc/self/status",
            r#"{"HostConfig":{"CapDrop":["ALL"],"CapAdd":["CHOWN"]}}"#,
            "CapEff:\t0000000000000001\n",
        ),
        (
            "grep NoNewPrivs /proc/self/status",
            r#"{"HostConfig":{"SecurityOpt":["no-new-privileges"]}}"#,
            "NoNewPrivs:\t1\n",
        ),
        ("grep '^Seccomp:' /proc/self/status", "{}", "Seccomp:\t2\n"),
        (
            "grep '^Seccomp:' /proc/self/status",
            r#"{"HostConfig":{"SecurityOpt":["seccomp=unconfined"]}}"#,
            "Seccomp:\t0\n",
        ),
        ("cat /proc/self/oom_score_adj", r#"{"HostConfig":{"OomScoreAdj":123}}"#, "123\n"),
        (
            "cat /proc/sys/net/ipv4/ip_forward",
            r#"{"HostConfig":{"Sysctls":{"net.ipv4.ip_forward":"0"}}}"#,
            "0\n",
        ),
        ("grep -c /dev/shm.*size=1024k /proc/mounts", r#"{"HostConfig":{"ShmSize":1048576}}"#, "1\n"),
        (
            "grep -c bar /etc/hosts; grep nameserver /etc/resolv.conf",
            r#"{"HostConfig":{"ExtraHosts":["bar:1.2.3.4"],"Dns":["9.9.9.9"]}}"#,
            "1\nnameserver 9.9.9.9\n",
        ),
        ("cat /proc/1/comm; true", "{}", "sh\n"),
        (
            "stat -c %F /dev/thing",
            r#"{"HostConfig":{"Devices":[{"PathOnHost":"/dev/zero","PathInContainer":"/dev/thing","CgroupPermissions":"rwm"}]}}"#,
            "character special file\n",
        ),
        ("cat /proc/timer_list | wc -c", "{}", "0\n"),
    ] {
        let (code, output) = lab.run(script, options).await;
        assert_eq!((code, output.as_str()), (0, expected), "{script} {options}");
    }
    lab.finish().await;
}

/// The value of a limit in the cgroup of a container, whichever version the host has.
fn limit(pid: i64, v1: (&str, &str), v2: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |controller: &str| {
        let line =
            text.lines().find(|line| line.split(':').nth(1).unwrap().split(',').any(|one| one == controller));
        line.map(|line| line.rsplit(':').next().unwrap().to_owned())
    };
    let file = match path(v1.0) {
        Some(path) => format!("/sys/fs/cgroup/{}{path}/{}", v1.0, v1.1),
        None => format!("/sys/fs/cgroup{}/{v2}", path("").unwrap()),
    };
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_and_update() {
    let lab = Lab::new().await;
    let options =
        r#"{"Cmd":["sleep","1000"],"HostConfig":{"Memory":67108864,"PidsLimit":50,"NanoCpus":500000000}}"#;
    lab.start("cc", options).await;
    let pid = lab.inspect("cc").await.state.pid;
    let memory = || limit(pid, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory(), "67108864");
    assert_eq!(limit(pid, ("pids", "pids.max"), "pids.max"), "50");
    let quota = limit(pid, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(quota.starts_with("50000"), "{quota}");
    let update: UpdateRequest = serde_json::from_str(
        r#"{"Memory":33554432,"MemorySwap":67108864,"RestartPolicy":{"Name":"always"}}"#,
    )
    .unwrap();
    lab.engine.update_container("cc", update).await.unwrap();
    assert_eq!(memory(), "33554432");
    let inspect = lab.inspect("cc").await;
    assert_eq!(inspect.host_config.resources.memory, 33_554_432);
    assert_eq!(inspect.host_config.restart_policy.name, "always");
    let tiny = UpdateRequest {
        resources: serde_json::from_str(r#"{"Memory":1000}"#).unwrap(),
        ..UpdateRequest::default()
    };
    let error = lab.engine.update_container("cc", tiny).await.unwrap_err();
    assert_eq!(error.message(), "Minimum memory limit allowed is 6MB");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_not_there_kills() {
    let lab = Lab::new().await;
    let options = r#"{"Cmd":["sh","-c","dd if=/dev/zero of=/dev/null bs=200M count=1"],
                      "HostConfig":{"Memory":16777216,"MemorySwap":16777216}}"#;
    lab.start("cc", options).await;
    assert_eq!(lab.wait("cc").await, 137);
    assert!(lab.inspect("cc").await.state.oom_killed);
    lab.finish().await;
}
