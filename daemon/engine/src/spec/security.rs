//! `SecurityOpt`: seccomp, no-new-privileges, AppArmor and what else is said there.

use std::path::Path;

use berth_spec::defaults::{Seccomp, load_docker_profile};
use berth_spec::oci;
use berth_spec::seccomp::native_arch;

use crate::error::{EngineError, Result};

/// What the options ask for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: SeccompChoice,
    pub(crate) apparmor: Option<String>,
    pub(crate) writable_cgroups: Option<bool>,
}

/// The profile, not yet resolved against capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SeccompChoice {
    Default,
    Unconfined,
    /// Docker's JSON.
    Profile(String),
}

/// Parses the options; `systempaths` was taken out before.
pub(crate) fn parse(options: &[String]) -> Result<Security> {
    let mut security = Security {
        no_new_privileges: false,
        seccomp: SeccompChoice::Default,
        apparmor: None,
        writable_cgroups: None,
    };
    for option in options {
        let invalid = || EngineError::invalid(format!("invalid --security-opt: {option:?}"));
        let boolean = |text: &str| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(invalid()),
        };
        let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some((key, value)) => (key, value),
            None if option == "no-new-privileges" => ("no-new-privileges", "true"),
            None => return Err(invalid()),
        };
        match (key, value) {
            ("no-new-privileges", value) => security.no_new_privileges = boolean(value)?,
            ("seccomp", "unconfined") => security.seccomp = SeccompChoice::Unconfined,
            ("seccomp", "builtin") => security.seccomp = SeccompChoice::Default,
            ("seccomp", json) => security.seccomp = SeccompChoice::Profile(json.to_owned()),
            ("apparmor", "unconfined") => security.apparmor = None,
            ("apparmor", profile) if Path::new("/sys/kernel/security/apparmor").exists() => {
                security.apparmor = Some(profile.to_owned());
            }
            ("apparmor", profile) => {
                return Err(EngineError::invalid(format!(
                    "AppArmor profile {profile:?} cannot be applied: the kernel has no AppArmor"
                )));
            }
            // Without SELinux labels have no effect, as in docker.
            ("label", _) if !Path::new("/sys/fs/selinux/enforce").exists() => {}
            ("label", "disable") => {}
            ("label", _) => {
                return Err(EngineError::not_implemented(
                    "SELinux labels are not supported yet (SecurityOpt label)",
                ));
            }
            ("writable-cgroups", value) => security.writable_cgroups = Some(boolean(value)?),
            _ => return Err(invalid()),
        }
    }
    Ok(security)
}

/// The profile for these capabilities.
pub(crate) fn seccomp(
    choice: &SeccompChoice,
    capabilities: &[oci::Capability],
    kernel: (u32, u32),
) -> Result<Seccomp> {
    Ok(match choice {
        SeccompChoice::Default => Seccomp::Default,
        SeccompChoice::Unconfined => Seccomp::Unconfined,
        SeccompChoice::Profile(json) => {
            let profile = load_docker_profile(json, capabilities, native_arch(), kernel)
                .map_err(|error| EngineError::invalid(error.to_string()))?;
            Seccomp::Profile(Box::new(profile))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Result<Security> {
        parse(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_spelling() {
        assert!(options(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(options(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        assert!(!options(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        assert_eq!(options(&["seccomp=unconfined"]).unwrap().seccomp, SeccompChoice::Unconfined);
        assert_eq!(options(&["seccomp:{}"]).unwrap().seccomp, SeccompChoice::Profile("{}".into()));
        assert!(options(&["bogus"]).is_err());
        assert!(options(&["bogus=1"]).is_err());
        assert!(options(&["no-new-privileges=maybe"]).is_err());
    }

    #[test]
    fn a_broken_profile_is_refused() {
        assert!(seccomp(&SeccompChoice::Profile("{".into()), &[], (6, 1)).is_err());
    }
}
