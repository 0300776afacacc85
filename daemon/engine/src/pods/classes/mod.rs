//! Classes of block I/O and RDT, which annotations ask for.
//!
//! The names are those of goresctrl, which containerd and CRI-O read. A class of block I/O is what a file of the host says
//! ([`block_io`]), and becomes limits of the container. A class of RDT is a group of resctrl, which the runtime joins.
//! What asks for a class that is not there is refused, for a pod that was promised a share of the disk or the cache must
//! not run without it.

mod block_io;

use std::path::Path;

use berth_spec::oci;

use super::model::{ContainerSpec, Pairs, SandboxSpec};
use crate::error::{EngineError, Result};

pub(crate) use block_io::check_file;

/// Where the kernel has the groups of RDT.
const RESCTRL: &str = "/sys/fs/resctrl";

/// Puts a container into the classes that annotations of its own or of its pod name.
pub(super) fn apply(
    built: &mut oci::Spec,
    spec: &ContainerSpec,
    sandbox: &SandboxSpec,
    file: Option<&Path>,
) -> Result<()> {
    let refused = |what: &str, class: &str, why: String| {
        EngineError::invalid(format!("container {:?} asks for the {what} class {class:?}: {why}", spec.name))
    };
    let Some(linux) = built.linux_mut() else { return Ok(()) };
    if let Some(class) = class("blockio", spec, &sandbox.annotations) {
        let limits = block_io::limits(file, class).map_err(|why| refused("block I/O", class, why))?;
        linux.resources_mut().get_or_insert_default().set_block_io(Some(limits));
    }
    if let Some(class) = class("rdt", spec, &sandbox.annotations) {
        check_rdt(Path::new(RESCTRL), class).map_err(|why| refused("RDT", class, why))?;
        let mut rdt = oci::LinuxIntelRdt::default();
        rdt.set_clos_id(Some(class.clone()));
        linux.set_intel_rdt(Some(rdt));
    }
    Ok(())
}

/// Whether there is a group of this name.
fn check_rdt(groups: &Path, class: &str) -> std::result::Result<(), String> {
    let root = groups.display();
    if class == "." || class == ".." || class.contains('/') {
        return Err("that is no name of a group".to_owned());
    }
    if !groups.join("schemata").exists() {
        return Err(format!(
            "no groups are mounted at {root}: mount -t resctrl resctrl {root} (the processor must have RDT or its like)"
        ));
    }
    match groups.join(class).join("schemata").exists() {
        true => Ok(()),
        false => Err(format!("there is no group {root}/{class}: make it (mkdir) and write its schemata")),
    }
}

fn class<'a>(word: &str, spec: &'a ContainerSpec, pod: &'a Pairs) -> Option<&'a String> {
    let of_pod = |whose: &str| pod.get(&format!("{word}.resources.beta.kubernetes.io/{whose}"));
    let own = spec.annotations.get(&format!("io.kubernetes.cri.{word}-class"));
    own.or_else(|| of_pod(&format!("container.{}", spec.name)))
        .or_else(|| of_pod("pod"))
        .filter(|class| !class.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_a_class_that_is_not_there_is_refused() {
        let annotations = |key: &str| Pairs::from([(key.to_owned(), "gold".to_owned())]);
        let asked = |own: &str, pod: &str| {
            let spec =
                ContainerSpec { name: "c".into(), annotations: annotations(own), ..ContainerSpec::default() };
            let sandbox = SandboxSpec { annotations: annotations(pod), ..SandboxSpec::default() };
            apply(&mut oci::Spec::default(), &spec, &sandbox, None)
        };
        assert!(asked("x", "rdt.resources.beta.kubernetes.io/container.other").is_ok());
        let error = asked("io.kubernetes.cri.blockio-class", "x").unwrap_err().to_string();
        assert!(
            error.contains("block I/O class \"gold\"") && error.contains("--cri-blockio-classes"),
            "{error}"
        );
        for pod in ["rdt.resources.beta.kubernetes.io/container.c", "rdt.resources.beta.kubernetes.io/pod"] {
            assert!(asked("x", pod).unwrap_err().to_string().contains("RDT class"), "{pod}");
        }
    }

    #[test]
    fn groups_of_rdt_are_looked_for() {
        let groups = tempfile::tempdir().unwrap();
        let check = |class: &str| check_rdt(groups.path(), class);
        assert!(check("gold").unwrap_err().contains("mount -t resctrl"));
        std::fs::write(groups.path().join("schemata"), "").unwrap();
        assert!(check("gold").unwrap_err().contains("mkdir"));
        std::fs::create_dir(groups.path().join("gold")).unwrap();
        std::fs::write(groups.path().join("gold/schemata"), "").unwrap();
        check("gold").unwrap();
        assert!(check("../gold").is_err());
    }
}
