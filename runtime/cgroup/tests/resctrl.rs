//! Groups of resctrl on directories that look like it. What only the kernel does, a new group's files and its refusals,
//! is not in here.

use std::fs;
use std::path::Path;

use berth_cgroup::resctrl::{Place, Resctrl};
use berth_spec::RdtPlan;
use berth_sys::Pid;
use tempfile::TempDir;

/// A machine with two caches and the class `gold`.
fn machine() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("info/L3/cbm_mask", "fffff\n"),
        ("info/L3/min_cbm_bits", "1\n"),
        ("info/L3/num_closids", "4\n"),
        ("info/MB/bandwidth_gran", "10\n"),
        ("info/MB/delay_linear", "1\n"),
        ("info/MB/min_bandwidth", "10\n"),
        ("info/MB/num_closids", "4\n"),
        ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\n"),
        ("info/last_cmd_status", "ok\n"),
        ("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"),
        ("tasks", ""),
    ];
    files.into_iter().for_each(|(name, text)| write(dir.path(), name, text));
    group(dir.path(), "gold", "    MB:0= 20;1=100\n    L3:0=007f0;1=0001f\n");
    dir
}

fn group(root: &Path, name: &str, schemata: &str) {
    write(root, &format!("{name}/schemata"), schemata);
    write(root, &format!("{name}/tasks"), "");
    fs::create_dir(root.join(name).join("mon_groups")).unwrap();
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn read(root: &TempDir, name: &str) -> String {
    fs::read_to_string(root.path().join(name)).unwrap()
}

fn plan(clos: Option<&str>, cache: &str, bandwidth: Option<&str>) -> RdtPlan {
    RdtPlan {
        clos: clos.map(str::to_owned),
        cache: cache.lines().map(str::to_owned).collect(),
        bandwidth: bandwidth.map(str::to_owned),
        ..RdtPlan::default()
    }
}

fn join(root: &TempDir, plan: &RdtPlan) -> Result<berth_cgroup::resctrl::Group, String> {
    Resctrl::at(root.path()).unwrap().join("c1", plan).map_err(|error| error.to_string())
}

#[test]
fn a_class_that_is_there_is_joined_and_stays() {
    let root = machine();
    let joined = join(&root, &plan(Some("gold"), "", None)).unwrap();
    joined.add(Pid::from_raw(4242)).unwrap();
    assert_eq!(read(&root, "gold/tasks"), "4242");
    assert!(
        read(&root, "gold/schemata").starts_with("    MB:0= 20"),
        "nothing was asked for, nothing is written"
    );
    joined.remove().unwrap();
    assert!(root.path().join("gold/tasks").exists());
    assert!(!root.path().join("c1").exists());
}

#[test]
fn a_class_with_other_shares_is_refused_and_untouched() {
    let root = machine();
    let before = read(&root, "gold/schemata");
    let error = join(&root, &plan(Some("gold"), "L3:0=f", None)).unwrap_err();
    assert!(error.contains("\"L3:0=f\" is asked for") && error.contains("L3:0=007f0;1=0001f"), "{error}");
    let error = join(&root, &plan(Some("gold"), "", Some("MB:1=50"))).unwrap_err();
    assert!(error.contains("MB:1=50"), "{error}");
    assert_eq!(read(&root, "gold/schemata"), before);
    // The same in other words; the bandwidth is rounded up by the kernel.
    join(&root, &plan(Some("gold"), "L3:0=7F0;1=1f", Some("MB:0=15"))).unwrap();
    assert!(read(&root, "gold/schemata").starts_with("L3:0=7F0;1=1f\nMB:0=15\n"));
}

#[test]
fn a_class_that_nobody_made_must_say_what_it_gets() {
    let root = machine();
    let error = join(&root, &plan(Some("silver"), "", None)).unwrap_err();
    assert!(error.contains("linux.intelRdt.closID: there is no class"), "{error}");
    assert!(!root.path().join("silver").exists());
}

#[test]
fn the_default_class_is_the_root() {
    let root = machine();
    let joined = join(&root, &plan(Some("/"), "", None)).unwrap();
    joined.add(Pid::from_raw(7)).unwrap();
    assert_eq!(read(&root, "tasks"), "7");
    joined.remove().unwrap();
    assert!(root.path().join("tasks").exists());
}

#[test]
fn what_a_failure_has_made_is_taken_away() {
    let root = machine();
    for clos in [None, Some("silver")] {
        // A directory has no schemata of its own, as resctrl would give it.
        let error = join(&root, &plan(clos, "L3:0=f", None)).unwrap_err();
        assert!(error.contains("schemata"), "{error}");
        assert!(!root.path().join(clos.unwrap_or("c1")).exists());
    }
    fs::remove_dir(root.path().join("gold/mon_groups")).unwrap();
    let monitored = RdtPlan { monitoring: true, ..plan(Some("gold"), "", None) };
    let error = join(&root, &monitored).unwrap_err();
    assert!(error.contains("enableMonitoring"), "{error}");
}

#[test]
fn only_what_was_made_for_the_container_goes_with_it() {
    let root = machine();
    let own = plan(None, "", None);
    let made = join(&root, &own).unwrap();
    assert_eq!(
        made.place(),
        &Place { mount: root.path().to_owned(), class: Some("c1".into()), made: true, monitor: None }
    );
    let kept = made.place().clone();
    drop(made);
    Resctrl::open(&kept).unwrap().unwrap().remove().unwrap();
    assert!(Resctrl::open(&kept).unwrap().is_none());
    // One of its name that was there before.
    group(root.path(), "c1", "");
    let found = join(&root, &own).unwrap();
    assert!(!found.place().made);
    found.remove().unwrap();
    assert!(root.path().join("c1/tasks").exists());
}

#[test]
fn a_monitoring_group_is_the_containers_own() {
    let root = machine();
    let monitored = RdtPlan { monitoring: true, ..plan(Some("gold"), "", None) };
    let made = join(&root, &monitored).unwrap();
    assert!(root.path().join("gold/mon_groups/c1").is_dir());
    made.remove().unwrap();
    assert!(!root.path().join("gold/mon_groups/c1").exists());
}

#[test]
fn what_the_machine_cannot_share_out_is_named() {
    let root = machine();
    fs::remove_dir_all(root.path().join("info/MB")).unwrap();
    let error = join(&root, &plan(None, "", Some("MB:0=20"))).unwrap_err();
    assert!(error.starts_with("linux.intelRdt.memBwSchema: this machine cannot share out MB"), "{error}");
    assert!(!root.path().join("c1").exists());
}

#[test]
fn links_lead_nowhere() {
    let root = machine();
    std::os::unix::fs::symlink("gold", root.path().join("alias")).unwrap();
    join(&root, &plan(Some("alias"), "", None)).unwrap_err();
    assert_eq!(read(&root, "gold/tasks"), "");
}

#[test]
fn counters_have_the_names_of_runc() {
    let root = machine();
    for (part, bytes) in [("mon_L3_01", "Unavailable\n"), ("mon_L3_00", "4096\n")] {
        write(root.path(), &format!("gold/mon_data/{part}/llc_occupancy"), "512\n");
        write(root.path(), &format!("gold/mon_data/{part}/mbm_total_bytes"), bytes);
    }
    let stats = join(&root, &plan(Some("gold"), "", None)).unwrap().stats().unwrap();
    assert_eq!(
        serde_json::to_value(stats).unwrap(),
        serde_json::json!({
            "l3_cache_info": { "cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 4 },
            "l3_cache_schema_root": "L3:0=fffff;1=fffff",
            "l3_cache_schema": "L3:0=007f0;1=0001f",
            "mem_bw_info": { "bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 4 },
            "mem_bw_schema_root": "MB:0=100;1=100",
            "mem_bw_schema": "MB:0= 20;1=100",
            "schemata": ["MB:0= 20;1=100", "L3:0=007f0;1=0001f"],
            "mbm_stats": [
                { "mbm_total_bytes": 4096, "mbm_local_bytes": 0 }, { "mbm_total_bytes": 0, "mbm_local_bytes": 0 }
            ],
            "cmt_stats": [{ "llc_occupancy": 512 }, { "llc_occupancy": 512 }]
        })
    );
}
