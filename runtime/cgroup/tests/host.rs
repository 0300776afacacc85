//! A cgroup on this host, whatever its version, with a real process in it.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

use berth_cgroup::{Cgroup, FreezerState, Layout, detect};
use berth_spec::oci::LinuxResources;
use nix::unistd::Pid;

fn path(name: &str) -> PathBuf {
    format!("/berth-test-{name}-{}", std::process::id()).into()
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// Kills the sleeper and removes the cgroup, also when a test fails.
struct Scene {
    group: Option<Cgroup>,
    child: Child,
}

impl Scene {
    fn new(layout: &Layout, name: &str, limits: &str) -> Self {
        let group = Cgroup::create(layout, &path(name), &resources(limits)).unwrap();
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        group.add(Pid::from_raw(child.id() as i32)).unwrap();
        Self { group: Some(group), child }
    }

    fn group(&self) -> &Cgroup {
        self.group.as_ref().unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            group.thaw().ok();
            self.child.kill().ok();
            self.child.wait().ok();
            if let Err(errors) = group.remove() {
                eprintln!("left behind: {errors:?}");
            }
        }
    }
}

#[test]
fn limits_freezer_statistics_kill_and_removal() {
    let layout = detect().unwrap();
    let mut scene = Scene::new(
        &layout,
        "life",
        r#"{"memory":{"limit":67108864,"swap":67108864},"pids":{"limit":7},"cpu":{"shares":512,"quota":50000,"period":100000},
            "devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]}"#,
    );
    let group = scene.group();
    let stats = group.stats().unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit, stats.pids.current), (Some(67_108_864), Some(7), 1));
    assert_eq!(group.pids().unwrap(), [scene.child.id() as i32]);
    assert_eq!(group.oom_kills().unwrap(), 0);
    group.freeze().unwrap();
    assert_eq!(group.freezer_state().unwrap(), FreezerState::Frozen);
    group.thaw().unwrap();
    assert_eq!(group.freezer_state().unwrap(), FreezerState::Thawed);
    // Both limits move together, up and down, although each bounds the other.
    for bytes in [134_217_728u64, 33_554_432] {
        let change = format!(
            r#"{{"memory":{{"limit":{bytes},"swap":{bytes}}},"cpu":{{"quota":20000,"period":{}}}}}"#,
            bytes / 1024
        );
        group.set(&resources(&change)).unwrap();
        assert_eq!(group.stats().unwrap().memory.limit, Some(bytes));
    }
    let watch = group.oom_watch().unwrap().expect("a memory controller");
    watch.drain().unwrap();
    group.kill_all().unwrap();
    let directories = group.paths();
    scene.child.wait().unwrap();
    scene.group.take().unwrap().remove().unwrap();
    assert!(directories.values().all(|path| !path.exists()), "{directories:?}");
}

#[test]
fn a_refused_limit_leaves_no_directory() {
    let layout = detect().unwrap();
    let error =
        Cgroup::create(&layout, &path("refused"), &resources(r#"{"cpu":{"cpus":"4095"}}"#)).unwrap_err();
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
    assert!(Cgroup::open(&layout, &path("refused")).unwrap_err().is_not_found());
}

/// The child joins by itself: this is the path every container of a version 1 host takes.
#[test]
fn a_process_joins_by_itself() {
    const INSIDE: &str = "BERTH_TEST_JOIN";
    let layout = detect().unwrap();
    if let Some(target) = std::env::var_os(INSIDE) {
        let group = Cgroup::open(&layout, target.as_ref()).unwrap();
        let start = Instant::now();
        group.join_self().unwrap();
        println!("joined in {:?}", start.elapsed());
        let own = std::fs::read_to_string("/proc/thread-self/cgroup").unwrap();
        assert!(own.contains(target.to_str().unwrap()), "{own}");
        return;
    }
    let path = path("join");
    let group = Cgroup::create(&layout, &path, &resources("{}")).unwrap();
    let status = Command::new("/proc/self/exe")
        .args(["--exact", "a_process_joins_by_itself", "--nocapture"])
        .env(INSIDE, &path)
        .status()
        .unwrap();
    group.remove().unwrap();
    assert!(status.success());
}
