//! Any config.json either compiles or is refused with a message; the compiler never panics. What it compiles keeps the
//! promises the runtime builds on. (`tests/fuzz` goes further, and takes longer.)

use std::path::{Component, Path};

use berth_spec::{
    COVERABLE_PROC, CgroupHierarchy, CgroupMounts, CompileContext, ContainerPlan, ExecFilter, InitStep,
    compile, compile_process, oci,
};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// A configuration that has every field.
const FULL: &str = include_str!("full.json");

fn contexts() -> Vec<CompileContext> {
    let hierarchy = |name: &str, data: &str| CgroupHierarchy {
        name: name.into(),
        data: data.into(),
        mountpoint: Path::new("/sys/fs/cgroup").join(name),
    };
    let hierarchies =
        vec![hierarchy("cpu,cpuacct", "cpu,cpuacct"), hierarchy("systemd", "none,name=systemd")];
    let with = |cgroup, rootless| CompileContext {
        bundle: "/bundle".into(),
        rootless,
        cgroup,
        cgroup_path: "/berth/id".into(),
        known_capabilities: Some(0x1ff),
        selinux: true,
    };
    vec![
        with(CgroupMounts::V1 { hierarchies }, false),
        with(CgroupMounts::V2 { mountpoint: "/sys/fs/cgroup".into() }, true),
        with(CgroupMounts::None, false),
    ]
}

/// What holds of every plan of a configuration.
fn check(plan: &ContainerPlan, spec: &oci::Spec) {
    assert_eq!(plan.steps.last(), Some(&InitStep::Exec));
    assert_eq!(plan.steps.iter().filter(|step| **step == InitStep::Exec).count(), 1);
    // Without a process a container can be created, not started (config.md, "Process").
    assert_eq!(plan.process.args.is_empty(), spec.process().is_none());
    assert!(plan.process.seccomp.as_ref().is_none_or(|seccomp| (1..=4096).contains(&seccomp.filter.len())));
    for step in &plan.steps {
        let paths: Vec<&Path> = match step {
            InitStep::Mount(mount) => vec![&mount.destination],
            InitStep::Device(device) => vec![&device.path],
            InitStep::Symlink(link) => vec![&link.path],
            InitStep::MaskPaths(paths) | InitStep::ReadonlyPaths(paths) => {
                paths.iter().map(AsRef::as_ref).collect()
            }
            InitStep::WorkingDirectory(path) | InitStep::CreateWorkingDirectory(path) => vec![path],
            InitStep::Sysctls(sysctls) => {
                assert!(sysctls.iter().all(|sysctl| sysctl.path.is_relative()));
                assert!(
                    sysctls.iter().all(|s| s.path.components().all(|c| matches!(c, Component::Normal(_))))
                );
                Vec::new()
            }
            _ => Vec::new(),
        };
        for path in paths {
            assert!(path.is_absolute(), "{}", path.display());
            assert!(!path.components().any(|part| part == Component::ParentDir), "{}", path.display());
        }
        if let InitStep::Mount(mount) = step
            && mount.destination.starts_with("/proc")
            && mount.destination != Path::new("/proc")
        {
            assert!(COVERABLE_PROC.iter().any(|allowed| mount.destination == Path::new(allowed)));
        }
    }
}

/// Compiles in every context, as a container and as an exec. True if one of them is possible.
fn compiles(text: &[u8]) -> bool {
    let Ok(spec) = serde_json::from_slice::<oci::Spec>(text) else { return false };
    let mut possible = false;
    for context in contexts() {
        match compile(&spec, &context) {
            Ok(plan) => {
                check(&plan, &spec);
                let again = compile(&spec, &context).expect("the same as before");
                assert_eq!(plan.steps, again.steps, "the order does not depend on chance");
                possible = true;
            }
            Err(error) => assert!(!error.field.is_empty() && !error.problem.is_empty()),
        }
    }
    if let Some(process) = spec.process()
        && let Ok((plan, _)) = compile_process(process, &spec, ExecFilter::Profile, None)
    {
        assert_eq!(plan.steps.last(), Some(&InitStep::Exec));
    }
    possible
}

/// JSON pointers of all values of a document.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                pointers(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                pointers(value, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

/// A change of one value of the document.
#[derive(Debug, Clone)]
enum Change {
    Put(Value),
    /// The value that stands elsewhere.
    CopyFrom(Index),
    Remove,
    /// Twice in its list.
    Repeat,
}

fn values() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![
        any::<i64>().prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        prop::sample::select(vec![-1, 0, 1, 0o777, 4095, 65535, 1 << 32]).prop_map(|n: i64| json!(n)),
    ];
    let words = prop::sample::select(vec![
        "",
        "/",
        ".",
        "..",
        "/..",
        "/../../etc",
        "a\0b",
        "/a\0b",
        "/proc",
        "/proc/self/attr",
        "/proc/meminfo",
        "/dev",
        "/sys",
        "rbind",
        "bind",
        "ro",
        "rro",
        "remount",
        "=",
        "a=",
        "=b",
        "\"a,b",
        "rrshared",
        "0-",
        "-",
        "5-1",
        "0-99999999",
        "-5",
        "1.0",
        "1.0.0-x+y",
        "CAP_",
        "all",
        "\u{0}",
        "ä",
        "net..x",
        "net./",
        "/net",
        "kernel.sem",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_LOG",
        "SCMP_CMP_NE",
        "cgroup",
        "proc",
        "user",
        "mount",
        "a",
        "p",
        "unbindable",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        numbers,
        words.prop_map(|word| json!(word)),
        ".{0,40}".prop_map(|text| json!(text)),
        Just(json!("x".repeat(5000))),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::hash_map("[a-z.]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn changes() -> impl Strategy<Value = Vec<(Index, Change)>> {
    let change = prop_oneof![
        4 => values().prop_map(Change::Put),
        3 => any::<Index>().prop_map(Change::CopyFrom),
        3 => Just(Change::Remove),
        1 => Just(Change::Repeat),
    ];
    prop::collection::vec((any::<Index>(), change), 0..12)
}

fn apply(document: &mut Value, at: &Index, change: Change) {
    let mut all = Vec::new();
    pointers(document, "", &mut all);
    let pointer = at.get(&all).clone();
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    let name = name.replace("~1", "/").replace("~0", "~");
    let value = match change {
        Change::Put(value) => Some(value),
        Change::CopyFrom(other) => document.pointer(other.get(&all).as_str()).cloned(),
        Change::Remove => None,
        Change::Repeat => {
            let value = document.pointer(&pointer).cloned();
            if let (Some(Value::Array(list)), Some(value)) = (document.pointer_mut(parent), value) {
                list.push(value);
            }
            return;
        }
    };
    match (document.pointer_mut(parent), value) {
        (Some(Value::Object(map)), Some(value)) => drop(map.insert(name, value)),
        (Some(Value::Object(map)), None) => drop(map.remove(&name)),
        (Some(Value::Array(list)), value) => {
            if let Ok(index) = name.parse::<usize>() {
                match value {
                    Some(value) => list[index] = value,
                    None => drop(list.remove(index)),
                }
            }
        }
        _ => {}
    }
}

/// The full one in parts: all of it contradicts itself on purpose.
fn plain() -> Value {
    let mut document: Value = serde_json::from_str(FULL).unwrap();
    document["process"]["scheduler"] = json!({ "policy": "SCHED_OTHER", "nice": 1 });
    document["process"].as_object_mut().unwrap().remove("ioPriority");
    for index in [6, 5] {
        document["mounts"].as_array_mut().unwrap().remove(index);
    }
    document["linux"]["namespaces"][1] = json!({ "type": "network" });
    document
}

#[test]
fn a_container_without_a_process_compiles() {
    let mut document = plain();
    document.as_object_mut().unwrap().remove("process");
    assert!(compiles(document.to_string().as_bytes()));
}

#[test]
fn the_documents_to_change_are_good() {
    assert!(serde_json::from_str::<oci::Spec>(FULL).is_ok());
    let plain = plain().to_string();
    let spec: oci::Spec = serde_json::from_str(&plain).unwrap();
    let errors: Vec<String> =
        contexts().iter().filter_map(|c| compile(&spec, c).err()).map(|e| e.to_string()).collect();
    assert!(compiles(plain.as_bytes()), "{errors:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_config_compiles_or_is_refused(changes in changes(), full in any::<bool>()) {
        let mut document = if full { serde_json::from_str(FULL).unwrap() } else { plain() };
        for (at, change) in changes {
            apply(&mut document, &at, change);
        }
        compiles(document.to_string().as_bytes());
    }

    #[test]
    fn any_text_is_refused_or_compiles(text in ".{0,200}") {
        compiles(text.as_bytes());
    }
}
