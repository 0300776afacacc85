//! Any bytes as config.json: refused or compiled, never a panic. Seeds: `runtime/spec/tests/any_config`.
#![no_main]

use berth_spec::{CgroupMounts, CompileContext, ExecFilter, InitStep, compile, compile_process, oci};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<oci::Spec>(data) else { return };
    for rootless in [false, true] {
        let context = CompileContext {
            bundle: "/bundle".into(),
            rootless,
            cgroup: CgroupMounts::V2 { mountpoint: "/sys/fs/cgroup".into() },
            cgroup_path: "/berth/id".into(),
            known_capabilities: None,
            selinux: true,
        };
        if let Ok(plan) = compile(&spec, &context) {
            assert_eq!(plan.steps.last(), Some(&InitStep::Exec));
        }
    }
    if let Some(process) = spec.process() {
        // Whether it can be an exec too is nobody's concern here.
        drop(compile_process(process, &spec, ExecFilter::Profile, None));
    }
});
