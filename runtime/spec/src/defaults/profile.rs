//! Docker's default seccomp profile, and profiles written in Docker's JSON.
//!
//! Both carry conditions (capabilities, architectures, kernel version) that are resolved here, so that the runtime
//! sees a plain `linux.seccomp`.

use serde::Deserialize;

use crate::error::SpecError;
use crate::oci;
use oci::{Arch, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

/// The policy, in the notation its head explains.
const RULES: &str = include_str!("seccomp.rules");

/// Docker's default seccomp profile for a container with these capabilities, conditions resolved.
#[must_use]
pub fn docker_seccomp(capabilities: &[oci::Capability], arch: Arch) -> oci::LinuxSeccomp {
    let syscalls = parse(RULES, capabilities, arch)
        .unwrap_or_else(|line| panic!("the embedded policy is well formed, line {line} is not"));
    assemble(LinuxSeccompAction::ScmpActErrno, Some(libc::EPERM as u32), architectures(arch), syscalls)
}

fn assemble(
    default: LinuxSeccompAction,
    errno: Option<u32>,
    architectures: Vec<Arch>,
    syscalls: Vec<oci::LinuxSyscall>,
) -> oci::LinuxSeccomp {
    let mut profile = oci::LinuxSeccomp::default();
    profile.set_default_action(default);
    profile.set_default_errno_ret(errno);
    profile.set_architectures(Some(architectures));
    profile.set_syscalls(Some(syscalls));
    profile
}

/// The native architecture and those that run beside it.
fn architectures(arch: Arch) -> Vec<Arch> {
    match arch {
        Arch::ScmpArchX86_64 => vec![arch, Arch::ScmpArchX86, Arch::ScmpArchX32],
        Arch::ScmpArchAarch64 => vec![arch, Arch::ScmpArchArm],
        other => vec![other],
    }
}

/// Go's name of an architecture, as profiles use it.
fn go_name(arch: Arch) -> &'static str {
    match arch {
        Arch::ScmpArchX86_64 => "amd64",
        Arch::ScmpArchX86 => "x86",
        Arch::ScmpArchAarch64 => "arm64",
        Arch::ScmpArchRiscv64 => "riscv64",
        Arch::ScmpArchS390x => "s390x",
        Arch::ScmpArchPpc64le => "ppc64le",
        _ => "",
    }
}

/// Parses the compact notation; the error is the number of the offending line.
fn parse(text: &str, capabilities: &[oci::Capability], arch: Arch) -> Result<Vec<oci::LinuxSyscall>, usize> {
    let mut rules: Vec<oci::LinuxSyscall> = Vec::new();
    let mut wanted = false;
    for (at, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(names) = line.strip_prefix("    ") {
            if wanted {
                let rule = rules.last_mut().ok_or(at + 1)?;
                let more = names.split(' ').map(str::to_owned);
                rule.set_names(rule.names().iter().cloned().chain(more).collect());
            }
            continue;
        }
        let rule = head(line, capabilities, arch).ok_or(at + 1)?;
        wanted = rule.is_some();
        rules.extend(rule);
    }
    Ok(rules)
}

/// A rule's first line; `Some(None)` if its conditions do not hold.
fn head(line: &str, capabilities: &[oci::Capability], arch: Arch) -> Option<Option<oci::LinuxSyscall>> {
    let mut words = line.split(' ');
    let mut rule = oci::LinuxSyscall::default();
    match words.next()? {
        "allow" => {
            rule.set_action(LinuxSeccompAction::ScmpActAllow);
        }
        "errno" => {
            rule.set_action(LinuxSeccompAction::ScmpActErrno);
            rule.set_errno_ret(Some(words.next()?.parse().ok()?));
        }
        _ => return None,
    }
    rule.set_names(Vec::new());
    let mut holds = true;
    while let Some(word) = words.next() {
        match word {
            "if" | "unless" if words.next()? == "cap" => {
                let capability: oci::Capability = words.next()?.strip_prefix("CAP_")?.parse().ok()?;
                holds &= capabilities.contains(&capability) == (word == "if");
            }
            "on" => holds &= words.next()?.split(',').any(|name| name == go_name(arch)),
            "where" => {
                rule.set_args(Some(vec![condition(&mut words)?]));
            }
            _ => return None,
        }
    }
    Some(holds.then_some(rule))
}

/// `arg0 == 8`, `arg0 & 0x7e020000 == 0`
fn condition<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<LinuxSeccompArg> {
    let index: usize = words.next()?.strip_prefix("arg")?.parse().ok()?;
    let arg = oci::LinuxSeccompArgBuilder::default().index(index);
    let op = match words.next()? {
        "==" => LinuxSeccompOperator::ScmpCmpEq,
        "<" => LinuxSeccompOperator::ScmpCmpLt,
        ">" => LinuxSeccompOperator::ScmpCmpGt,
        "&" => {
            let mask = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
            words.next().filter(|word| *word == "==")?;
            let datum: u64 = words.next()?.parse().ok()?;
            return arg.op(LinuxSeccompOperator::ScmpCmpMaskedEq).value(mask).value_two(datum).build().ok();
        }
        _ => return None,
    };
    arg.op(op).value(words.next()?.parse::<u64>().ok()?).build().ok()
}

/// A profile in Docker's JSON (`--security-opt seccomp=FILE`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerProfile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<oci::LinuxSeccompFilterFlag>>,
    listener_path: Option<std::path::PathBuf>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<DockerRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerRule {
    /// The old form: one name.
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile in Docker's JSON for a container with these capabilities on a kernel of this version.
///
/// # Errors
/// JSON that is no profile, or one that contradicts itself.
pub fn load_docker_profile(
    json: &str,
    capabilities: &[oci::Capability],
    arch: Arch,
    kernel: (u32, u32),
) -> Result<oci::LinuxSeccomp, SpecError> {
    let profile: DockerProfile = serde_json::from_str(json)
        .map_err(|error| SpecError::new("seccomp profile", format!("decoding failed: {error}")))?;
    if !profile.architectures.is_empty() && profile.arch_map.as_ref().is_some_and(|map| !map.is_empty()) {
        return Err(SpecError::new(
            "seccomp profile",
            "both 'architectures' and 'archMap' are specified, use either 'architectures' or 'archMap'",
        ));
    }
    let mapped = profile.arch_map.iter().flatten().find(|entry| entry.architecture == arch);
    let architectures = match mapped {
        Some(entry) => [vec![arch], entry.sub_architectures.clone().unwrap_or_default()].concat(),
        None => profile.architectures,
    };
    let mut syscalls = Vec::new();
    for rule in profile.syscalls.into_iter().flatten() {
        if !rule.applies(capabilities, arch, kernel) {
            continue;
        }
        let names = match (rule.name.is_empty(), rule.names.unwrap_or_default()) {
            (true, names) => names,
            (false, names) if names.is_empty() => vec![rule.name],
            (false, _) => {
                return Err(SpecError::new(
                    "seccomp profile",
                    "both 'name' and 'names' are specified, use either 'name' or 'names'",
                ));
            }
        };
        let mut call = oci::LinuxSyscall::default();
        call.set_names(names);
        call.set_action(rule.action);
        call.set_errno_ret(rule.errno_ret);
        call.set_args(rule.args);
        syscalls.push(call);
    }
    let mut result = assemble(profile.default_action, profile.default_errno_ret, architectures, syscalls);
    result.set_flags(profile.flags);
    result.set_listener_path(profile.listener_path);
    result.set_listener_metadata(profile.listener_metadata);
    Ok(result)
}

impl DockerRule {
    fn applies(&self, capabilities: &[oci::Capability], arch: Arch, kernel: (u32, u32)) -> bool {
        let has = |name: &String| {
            name.strip_prefix("CAP_")
                .and_then(|name| name.parse::<oci::Capability>().ok())
                .is_some_and(|capability| capabilities.contains(&capability))
        };
        let here = |name: &String| name == go_name(arch);
        let new_enough = |version: &String| {
            let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            kernel >= (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
        };
        let included = self.includes.as_ref().is_none_or(|filter| {
            filter.arches.as_ref().is_none_or(|arches| arches.is_empty() || arches.iter().any(here))
                && filter.caps.iter().flatten().all(has)
                && filter.min_kernel.as_ref().is_none_or(new_enough)
        });
        let excluded = self.excludes.as_ref().is_some_and(|filter| {
            filter.arches.iter().flatten().any(here)
                || filter.caps.iter().flatten().any(has)
                || filter.min_kernel.as_ref().is_some_and(new_enough)
        });
        included && !excluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Capability;

    fn names(profile: &oci::LinuxSeccomp) -> Vec<&String> {
        profile.syscalls().iter().flatten().flat_map(|rule| rule.names()).collect()
    }

    #[test]
    fn capabilities_open_system_calls() {
        let plain = docker_seccomp(&[], Arch::ScmpArchX86_64);
        let admin = docker_seccomp(&[Capability::SysAdmin], Arch::ScmpArchX86_64);
        assert!(!names(&plain).iter().any(|name| *name == "mount"));
        assert!(names(&admin).iter().any(|name| *name == "mount"));
        let clone3 = |profile: &oci::LinuxSeccomp| {
            profile
                .syscalls()
                .iter()
                .flatten()
                .find(|rule| rule.names().contains(&"clone3".into()))
                .map(|r| r.action())
        };
        assert_eq!(clone3(&plain), Some(LinuxSeccompAction::ScmpActErrno));
        assert_eq!(clone3(&admin), Some(LinuxSeccompAction::ScmpActAllow));
    }

    #[test]
    fn every_line_of_the_policy_parses() {
        for arch in [Arch::ScmpArchX86_64, Arch::ScmpArchAarch64] {
            assert!(parse(RULES, &[], arch).is_ok_and(|rules| rules.len() > 10));
        }
        assert_eq!(parse("allow sometimes\n", &[], Arch::ScmpArchX86_64).unwrap_err(), 1);
        assert_eq!(parse("allow\n    read\npermit\n", &[], Arch::ScmpArchX86_64).unwrap_err(), 3);
    }

    #[test]
    fn json_profiles_resolve_their_conditions() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
          "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},
                      {"name":"ptrace","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
                      {"names":["chroot"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_CHROOT"]}},
                      {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["s390x"],"caps":["CAP_SYS_ADMIN"]}}]}"#;
        let load = |caps: &[Capability], kernel| {
            load_docker_profile(json, caps, Arch::ScmpArchX86_64, kernel).unwrap()
        };
        assert_eq!(names(&load(&[], (4, 7))), ["read", "clone"]);
        assert_eq!(
            names(&load(&[Capability::SysAdmin, Capability::SysChroot], (5, 0))),
            ["read", "ptrace", "chroot"]
        );
        assert_eq!(load(&[], (5, 0)).architectures().as_ref().unwrap().len(), 2);
        let twice = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#;
        assert!(load_docker_profile(twice, &[], Arch::ScmpArchX86_64, (5, 0)).is_err());
    }
}
