//! OCI runtime configuration: defaults, validation and the compilation to an ordered container plan.
//!
//! The crate is pure: it reads no file, makes no system call and knows no process. Its input is a parsed
//! `config.json` and a [`CompileContext`] (what the host looks like); its output is a [`ContainerPlan`] in which
//! every string has been validated and every decision taken. `berth-core` executes that plan.
//!
//! Absent on purpose: I/O, `unsafe`, the order of anything that is not in [`ContainerPlan::steps`].

pub mod accounts;
pub mod compile;
pub mod defaults;
mod error;
pub mod mount_options;
mod parse;
pub mod plan;
pub mod process;
mod respell;
pub mod seccomp;
pub mod step;

/// The newest version of the runtime specification this crate implements.
pub const VERSION: &str = "1.3.0";

pub use compile::{
    COVERABLE_PROC, CgroupHierarchy, CgroupMounts, CompileContext, ExecFilter, compile, compile_process,
};
pub use error::SpecError;
pub use oci_spec::runtime as oci;
pub use parse::{from_tree, parse, parse_resources, respell_scheduler};
pub use plan::{
    CgroupRequest, ContainerPlan, HookPlan, HookPlans, IdMap, IdMaps, JoinNamespace, NamespaceKind,
    NamespacePlan, NetDevicePlan, ParentStep, RdtPlan, RootPlan, SpecWarning, TimeOffset,
};
pub use process::{
    CapabilityPlan, CapabilitySet, CpuAffinity, IoPriority, ProcessPlan, Rlimit, SchedulerPlan, TerminalPlan,
    UserPlan,
};
pub use seccomp::{Instruction, SeccompProgram, SystemCall, Verdict};
pub use step::{
    BindSource, DeviceKind, DeviceMethod, DeviceStep, FsOption, IdmapSource, IdmapStep, InitStep,
    MemoryPolicyStep, MountAttributes, MountSource, MountStep, Propagation, SuperblockFlags, SymlinkStep,
    SysctlStep,
};
