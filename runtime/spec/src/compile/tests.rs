//! The order of steps as a golden text, and what is refused.

use super::*;
use crate::defaults::{NamespaceMode, Seccomp, docker_spec};
use crate::step::{InitStep, MountSource, MountStep};

fn context() -> CompileContext {
    CompileContext {
        bundle: "/run/bundle".into(),
        rootless: false,
        cgroup: CgroupMounts::V2 { mountpoint: "/sys/fs/cgroup".into() },
        cgroup_path: "/berth/abc".into(),
        known_capabilities: None,
        selinux: false,
    }
}

/// One line per step.
fn lines(steps: &[InitStep]) -> Vec<String> {
    let mount = |m: &MountStep| {
        let what = match &m.source {
            MountSource::Bind { source, recursive } => {
                format!("{}bind {}", if *recursive { "r" } else { "" }, source)
            }
            MountSource::Filesystem { fstype, copy_up, .. } => {
                format!("{fstype}{}", if *copy_up { " copyup" } else { "" })
            }
            MountSource::Cgroup2 { .. } => "cgroup2".into(),
            MountSource::Remount { .. } => "remount".into(),
            MountSource::Existing => "existing".into(),
        };
        format!(
            "Mount {what} on {} set {:#x} clear {:#x}",
            m.destination.display(),
            m.attributes.set,
            m.attributes.clear
        )
    };
    steps
        .iter()
        .map(|step| match step {
            InitStep::Mount(m) => mount(m),
            InitStep::Device(d) => format!("Device {} {}:{}", d.path.display(), d.major, d.minor),
            InitStep::Symlink(s) => format!("Symlink {} -> {}", s.path.display(), s.target.display()),
            InitStep::MaskPaths(paths) => format!("MaskPaths {}", paths.len()),
            InitStep::ReadonlyPaths(paths) => format!("ReadonlyPaths {}", paths.len()),
            InitStep::Sysctls(s) => {
                format!("Sysctls {}", s.iter().map(|s| s.key.as_str()).collect::<Vec<_>>().join(" "))
            }
            InitStep::Capabilities(c) => format!("Capabilities {:#x}", c.effective.0),
            InitStep::BoundingCapabilities(c) => format!("BoundingCapabilities {:#x}", c.0),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn the_order_of_a_docker_container() {
    let spec = docker_spec()
        .args(["true"])
        .hostname(Some("abc".into()))
        .network(NamespaceMode::Path("/proc/self/fd/9".into()));
    let plan = compile(&spec.build(), &context()).unwrap();
    assert_eq!(plan.warnings, []);
    insta::assert_snapshot!(lines(&plan.steps).join("\n"), @r#"
    OomScoreAdj(0)
    NewKeyring
    RootPropagation(Propagation { flag: 524288, recursive: true })
    MountRoot
    Mount proc on /proc set 0xe clear 0x0
    Mount tmpfs on /dev set 0x22 clear 0x70
    Mount devpts on /dev/pts set 0xa clear 0x0
    Mount sysfs on /sys set 0xf clear 0x0
    Mount cgroup2 on /sys/fs/cgroup set 0xf clear 0x0
    Mount mqueue on /dev/mqueue set 0xe clear 0x0
    Mount tmpfs on /dev/shm set 0xe clear 0x0
    Device /dev/null 1:3
    Device /dev/zero 1:5
    Device /dev/full 1:7
    Device /dev/random 1:8
    Device /dev/urandom 1:9
    Device /dev/tty 5:0
    Symlink /dev/ptmx -> pts/ptmx
    Symlink /dev/fd -> /proc/self/fd
    Symlink /dev/stdin -> /proc/self/fd/0
    Symlink /dev/stdout -> /proc/self/fd/1
    Symlink /dev/stderr -> /proc/self/fd/2
    Symlink /dev/core -> /proc/kcore
    PivotRoot { mount_namespace: true }
    Hostname("abc")
    Sysctls net.ipv4.ip_unprivileged_port_start net.ipv4.ping_group_range
    ReadonlyPaths 5
    MaskPaths 12
    Seccomp
    BoundingCapabilities 0xa80425fb
    User(UserPlan { uid: 0, gid: 0, additional_gids: [], umask: 18 })
    WorkingDirectory("/")
    Capabilities 0xa80425fb
    ResolveExecutable
    WaitForStart
    Exec
    "#);
}

#[test]
fn the_order_of_an_odd_container() {
    let json = r#"{
      "ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": true}, "domainname": "example",
      "process": {"terminal": true, "consoleSize": {"height": 24, "width": 80}, "user": {"uid": 7, "gid": 8, "umask": 63},
        "args": ["sh"], "cwd": "/a/../srv", "noNewPrivileges": true, "oomScoreAdj": 5,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 7}},
      "mounts": [
        {"destination": "/dev", "type": "tmpfs", "options": ["ro", "nosuid"]},
        {"destination": "data/", "type": "bind", "source": "vol", "options": ["rbind", "rro", "rslave"]},
        {"destination": "/etc", "type": "tmpfs", "options": ["ro", "tmpcopyup", "mode=755"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}],
      "hooks": {"createRuntime": [{"path": "/bin/a"}], "createContainer": [{"path": "/bin/b"}], "startContainer": [{"path": "/bin/c", "timeout": 3}]},
      "linux": {"namespaces": [{"type": "mount"}, {"type": "user"}, {"type": "uts"}, {"type": "network"}, {"type": "pid", "path": "/proc/9/ns/pid"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}], "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "rootfsPropagation": "shared", "personality": {"domain": "LINUX32"}, "cgroupsPath": "/x",
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}"#;
    let spec: oci::Spec = serde_json::from_str(json).unwrap();
    let hierarchy = |name: &str, data: &str| CgroupHierarchy {
        name: name.into(),
        data: data.into(),
        mountpoint: format!("/sys/fs/cgroup/{name}").into(),
    };
    let hierarchies =
        vec![hierarchy("cpu,cpuacct", "cpu,cpuacct"), hierarchy("systemd", "none,name=systemd")];
    let ctx = CompileContext { cgroup: CgroupMounts::V1 { hierarchies }, ..context() };
    let plan = compile(&spec, &ctx).unwrap();
    assert_eq!(plan.warnings.len(), 1, "the relative destination");
    insta::assert_snapshot!(format!("{:?}\n{}", plan.parent, lines(&plan.steps).join("\n")), @r#"
    [IdMaps, OomScoreAdj(5), Rlimits([Rlimit { resource: 7, kind: RlimitNofile, soft: 10, hard: 20 }])]
    NewKeyring
    LoopbackUp
    RootPropagation(Propagation { flag: 1048576, recursive: false })
    MountRoot
    Mount tmpfs on /dev set 0x2 clear 0x0
    Mount rbind /run/bundle/vol on /data set 0x0 clear 0x0
    Mount tmpfs copyup on /etc set 0x1 clear 0x0
    Mount tmpfs on /sys/fs/cgroup set 0x0 clear 0x0
    Mount bind /sys/fs/cgroup/cpu,cpuacct/berth/abc on /sys/fs/cgroup/cpu,cpuacct set 0x1 clear 0x0
    Symlink /sys/fs/cgroup/cpu -> cpu,cpuacct
    Symlink /sys/fs/cgroup/cpuacct -> cpu,cpuacct
    Mount bind /sys/fs/cgroup/systemd/berth/abc on /sys/fs/cgroup/systemd set 0x1 clear 0x0
    Device /dev/null 1:3
    Device /dev/zero 1:5
    Device /dev/full 1:7
    Device /dev/random 1:8
    Device /dev/urandom 1:9
    Device /dev/tty 5:0
    Device /dev/fuse 10:229
    Symlink /dev/ptmx -> pts/ptmx
    Symlink /dev/fd -> /proc/self/fd
    Symlink /dev/stdin -> /proc/self/fd/0
    Symlink /dev/stdout -> /proc/self/fd/1
    Symlink /dev/stderr -> /proc/self/fd/2
    Symlink /dev/core -> /proc/kcore
    CreateRuntimeHooks
    CreateContainerHooks
    PivotRoot { mount_namespace: true }
    CreateWorkingDirectory("/srv")
    Console(TerminalPlan { size: Some((24, 80)) })
    RemountReadonly("/dev")
    RemountReadonly("/sys/fs/cgroup")
    RootMountPropagation(Propagation { flag: 1048576, recursive: false })
    ReadonlyRoot
    Domainname("example")
    Personality(8)
    Scheduler(SchedulerPlan { policy: 3, flags: 0, nice: 5, priority: 0, runtime: 0, deadline: 0, period: 0 })
    IoPriority(IoPriority { class: 3, level: 7 })
    NoNewPrivileges
    User(UserPlan { uid: 7, gid: 8, additional_gids: [], umask: 63 })
    WorkingDirectory("/srv")
    ResolveExecutable
    Seccomp
    WaitForStart
    StartContainerHooks
    Exec
    "#);
    assert_eq!(plan.namespaces.joins(NamespaceKind::Pid).unwrap(), &PathBuf::from("/proc/9/ns/pid"));
}

#[test]
fn an_exec_runs_the_tail_of_the_same_order() {
    let spec = docker_spec().args(["true"]).build();
    let (plan, _) =
        compile_process(spec.process().as_ref().unwrap(), &spec, ExecFilter::Profile, None).unwrap();
    let names: Vec<_> =
        lines(&plan.steps).iter().map(|l| l.split(['(', ' ']).next().unwrap().to_owned()).collect();
    assert_eq!(
        names,
        [
            "OomScoreAdj",
            "NewKeyring",
            "Seccomp",
            "BoundingCapabilities",
            "User",
            "WorkingDirectory",
            "Capabilities",
            "ResolveExecutable",
            "Exec"
        ]
    );
}

#[test]
fn a_privileged_container_is_not_restricted() {
    let spec = docker_spec().args(["true"]).privileged(true).readonly_root(true).build();
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none() && linux.masked_paths().is_none() && linux.readonly_paths().is_none());
    let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    assert!(rules.len() == 1 && rules[0].allow());
    let sys =
        spec.mounts().iter().flatten().find(|m| m.destination() == std::path::Path::new("/sys")).unwrap();
    assert!(!sys.options().as_ref().unwrap().contains(&"ro".to_owned()));
    assert!(compile(&spec, &context()).is_ok());
}

#[test]
fn a_user_mount_replaces_a_default_one_and_dev_takes_all_below() {
    let mut dev = oci::Mount::default();
    dev.set_destination("/dev".into()).set_typ(Some("bind".into())).set_source(Some("/dev".into()));
    dev.set_options(Some(vec!["rbind".into()]));
    let spec = docker_spec().args(["true"]).mounts(vec![dev]).build();
    let paths: Vec<_> =
        spec.mounts().iter().flatten().map(|m| m.destination().display().to_string()).collect();
    assert_eq!(paths, ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]);
    let plan = compile(&spec, &context()).unwrap();
    assert!(!plan.steps.iter().any(|step| matches!(step, InitStep::Device(_) | InitStep::Symlink(_))));
}

/// Applies a change to a valid configuration and gives the field that is refused.
/// A path that begins with the root's own is one inside the root, for what is bound and for where.
#[test]
fn paths_in_the_root_are_the_containers() {
    let mounts = r#"[
        {"destination": "/b/rootfs/final", "type": "bind", "source": "rootfs/a/../mnt", "options": ["rbind"]},
        {"destination": "/b/rootfs2", "type": "bind", "source": "/b/rootfs", "options": ["bind"]},
        {"destination": "/c", "type": "bind", "source": "/b/rootfs/../vol", "options": ["bind"]}]"#;
    let spec = |root: &str| -> oci::Spec {
        let mut value = serde_json::json!({
            "ociVersion": "1.2.0", "root": { "path": root },
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "cwd": "/" },
            "linux": { "namespaces": [{ "type": "mount" }] } });
        value["mounts"] = serde_json::from_str(mounts).unwrap();
        serde_json::from_value(value).unwrap()
    };
    let binds = |root: &str| {
        let context = CompileContext { bundle: "/b".into(), ..context() };
        let steps = lines(&compile(&spec(root), &context).unwrap().steps);
        steps.into_iter().filter(|line| line.contains("bind ")).collect::<Vec<_>>()
    };
    insta::assert_snapshot!(binds("rootfs").join("\n"), @r"
    Mount rbind /mnt of the container on /final set 0x0 clear 0x0
    Mount bind / of the container on /b/rootfs2 set 0x0 clear 0x0
    Mount bind /b/rootfs/../vol on /c set 0x0 clear 0x0
    ");
    assert!(binds("/").iter().all(|line| !line.contains("of the container")));
}

fn refused(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let spec = docker_spec().args(["true"]).seccomp(Seccomp::Unconfined).build();
    let mut json = serde_json::to_value(&spec).unwrap();
    change(&mut json);
    let spec: oci::Spec = serde_json::from_value(json).unwrap();
    compile(&spec, &context()).map(|_| "nothing".to_owned()).unwrap_or_else(|error| error.field)
}

#[test]
fn refusals_name_the_field() {
    use serde_json::json;
    assert_eq!(refused(|_| ()), "nothing");
    assert_eq!(refused(|s| s["ociVersion"] = json!("2.0.0")), "ociVersion");
    assert_eq!(refused(|s| s["process"]["args"] = json!([])), "process.args");
    assert_eq!(refused(|s| s["process"]["args"] = json!(["a", "b\0"])), "process.args[1]");
    assert_eq!(refused(|s| s["process"]["cwd"] = json!("tmp")), "process.cwd");
    assert_eq!(refused(|s| s["process"]["oomScoreAdj"] = json!(1001)), "process.oomScoreAdj");
    assert_eq!(
        refused(|s| s["mounts"][0]["destination"] = json!("/proc/self/../sys")),
        "mounts[0].destination"
    );
    assert_eq!(refused(|s| s["mounts"][0]["type"] = json!("tmpfs")), "mounts[0].type");
    assert_eq!(refused(|s| s["mounts"][3]["options"] = json!(["tmpcopyup"])), "mounts[3].options");
    assert_eq!(refused(|s| s["linux"]["namespaces"][1]["type"] = json!("mount")), "linux.namespaces[1]");
    assert_eq!(refused(|s| s["linux"]["namespaces"][1]["path"] = json!("net")), "linux.namespaces[1].path");
    assert_eq!(
        refused(|s| s["linux"]["uidMappings"] = json!([{"containerID":0,"hostID":0,"size":1}])),
        "linux.uidMappings"
    );
    assert_eq!(
        refused(|s| s["linux"]["sysctl"] = json!({"vm.swappiness": "1"})),
        "linux.sysctl.vm.swappiness"
    );
    assert_eq!(refused(|s| s["linux"]["maskedPaths"] = json!(["etc"])), "linux.maskedPaths[0]");
    assert_eq!(refused(|s| s["linux"]["rootfsPropagation"] = json!("loud")), "linux.rootfsPropagation");
    assert_eq!(
        refused(|s| s["linux"]["devices"] = json!([{"path":"/dev/x","type":"a"}])),
        "linux.devices[0].type"
    );
    assert_eq!(
        refused(|s| s["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}})),
        "linux.timeOffsets"
    );
    assert_eq!(refused(|s| s["linux"]["netDevices"] = json!({"a/b": {}})), "linux.netDevices.a/b");
    let policy = |mode: &str, nodes: &str| {
        refused(|s| s["linux"]["memoryPolicy"] = json!({"mode": mode, "nodes": nodes}))
    };
    assert_eq!(policy("MPOL_DEFAULT", "0"), "linux.memoryPolicy.nodes");
    assert_eq!(policy("MPOL_BIND", ""), "linux.memoryPolicy.nodes");
    assert_eq!(policy("MPOL_PREFERRED", ""), "nothing");
    assert_eq!(refused(|s| s["linux"]["mountLabel"] = json!("system_u:object_r:x_t:s0")), "linux.mountLabel");
    assert_eq!(refused(|s| s["linux"]["mountLabel"] = json!("")), "nothing");
    let rdt = |value: serde_json::Value| refused(|s| s["linux"]["intelRdt"] = value);
    for class in ["..", "a/b", "info", "mon_groups", "/x"] {
        assert_eq!(rdt(json!({ "closID": class })), "linux.intelRdt.closID", "{class}");
    }
    assert_eq!(rdt(json!({ "memBwSchema": "L3:0=f" })), "linux.intelRdt.memBwSchema");
    assert_eq!(rdt(json!({ "memBwSchema": "MB:0=20\nL3:0=f" })), "linux.intelRdt.memBwSchema");
    assert_eq!(rdt(json!({ "schemata": ["L3:0=f", "MB:0=1\n"] })), "linux.intelRdt.schemata[1]");
    assert_eq!(rdt(json!({ "closID": "/", "l3CacheSchema": "L3:0=f" })), "nothing");
    assert_eq!(refused(|s| s["hooks"] = json!({"poststop": [{"path": "x"}]})), "hooks.poststop[0].path");
    let no_uts = |s: &mut serde_json::Value| {
        s["hostname"] = json!("a");
        s["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "network"}]);
    };
    assert_eq!(refused(no_uts), "hostname");
    assert_eq!(refused(|s| s["linux"]["namespaces"] = json!([{"type": "network"}])), "linux.maskedPaths");
}

#[test]
fn without_root_a_user_namespace_is_needed() {
    let ctx = CompileContext { rootless: true, ..context() };
    let error = compile(&docker_spec().args(["true"]).build(), &ctx).unwrap_err();
    assert!(error.to_string().contains("rootless container requires user namespaces"), "{error}");
}

#[test]
fn device_rules_end_with_the_runtime_s_own() {
    let plan = compile(&docker_spec().args(["true"]).build(), &context()).unwrap();
    let rules = plan.cgroup.resources.devices().as_ref().unwrap();
    assert_eq!(rules.len(), 8 + 11);
    assert_eq!(rules[8].to_string(), "c *:* m");
}

#[test]
fn a_writable_cgroup_namespace_belongs_to_the_process() {
    let owner = |user: u32, own_namespace: bool, mapped: bool, option: &str| {
        let mut namespaces = vec![serde_json::json!({"type": "mount"})];
        let mut linux = serde_json::json!({});
        if own_namespace {
            namespaces.push(serde_json::json!({"type": "cgroup"}));
        }
        if mapped {
            namespaces.push(serde_json::json!({"type": "user"}));
            let map = serde_json::json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
            linux = serde_json::json!({"uidMappings": map, "gidMappings": map});
        }
        linux["namespaces"] = namespaces.into();
        let spec = serde_json::json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": user, "gid": 0}, "args": ["true"], "cwd": "/"},
            "mounts": [{"destination": "/sys/fs/cgroup/", "type": "cgroup", "source": "cgroup", "options": [option]}],
            "linux": linux,
        });
        let spec = serde_json::from_value(spec).unwrap();
        compile(&spec, &context()).unwrap().cgroup.owner
    };
    assert_eq!(owner(0, true, true, "nosuid"), Some(100_000));
    assert_eq!(owner(7, true, true, "rw"), Some(100_007));
    assert_eq!(owner(7, true, false, "rw"), Some(7));
    assert_eq!(owner(0, true, false, "rw"), None, "it owns all already");
    assert_eq!(owner(0, true, true, "ro"), None);
    assert_eq!(owner(0, false, true, "rw"), None, "it would see the groups of others");
    assert_eq!(owner(5000, true, true, "rw"), None, "this user is nobody outside");
}

/// As a mount option of every new file system, but for those that the policy labels file by file.
#[test]
fn the_mount_label() {
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    let mut value = serde_json::to_value(docker_spec().args(["true"]).build()).unwrap();
    value["linux"]["mountLabel"] = serde_json::json!(label);
    let ctx = CompileContext { selinux: true, ..context() };
    let plan = compile(&crate::from_tree(&value).unwrap(), &ctx).unwrap();
    let labelled = plan.steps.iter().filter_map(|step| match step {
        InitStep::Mount(mount) => match &mount.source {
            MountSource::Filesystem { fstype, options, .. } => {
                let found = options.iter().find(|option| option.key == "context");
                Some((fstype.as_str(), found.map(|option| option.value.as_deref().unwrap())))
            }
            _ => None,
        },
        _ => None,
    });
    let label = Some(label);
    let expected = [
        ("proc", None),
        ("tmpfs", label),
        ("devpts", label),
        ("sysfs", None),
        ("mqueue", None),
        ("tmpfs", label),
    ];
    assert_eq!(labelled.collect::<Vec<_>>(), expected);
}

#[test]
fn rdt_lines_are_written_in_the_order_of_the_specification() {
    use serde_json::json;

    let lines = |rdt: serde_json::Value| {
        let mut spec = serde_json::to_value(docker_spec().args(["true"]).build()).unwrap();
        spec["linux"]["intelRdt"] = rdt;
        let plan = compile(&serde_json::from_value(spec).unwrap(), &context()).unwrap().rdt.unwrap();
        (plan.clos.clone(), plan.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let all = json!({
        "closID": "gold", "schemata": ["L2:0=f"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=7f0\nMB:0=70"
    });
    let written = ["L3:0=7f0", "MB:0=20", "L2:0=f"].map(str::to_owned).to_vec();
    assert_eq!(lines(all), (Some("gold".to_owned()), written));
    let without = ["L3:0=7f0", "MB:0=70"].map(str::to_owned).to_vec();
    assert_eq!(lines(json!({ "closID": "", "l3CacheSchema": "L3:0=7f0\nMB:0=70" })), (None, without));
    assert_eq!(lines(json!({})), (None, Vec::new()));
}
