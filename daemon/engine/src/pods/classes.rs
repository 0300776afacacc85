//! Classes of block I/O and RDT, which annotations ask for.
//!
//! The names are those of goresctrl, which containerd and CRI-O read. Berth has no classes: what asks for one is refused,
//! for a pod that was promised a share of the disk or the cache must not run without it.

use super::model::{ContainerSpec, Pairs, SandboxSpec};
use crate::error::{EngineError, Result};

/// What is shared out, the word in annotations, and how else a container can have it.
const KINDS: [(&str, &str, &str); 2] = [
    ("block I/O", "blockio", "limit io.max with the resource \"unified\" or a plugin of the NRI"),
    ("RDT", "rdt", "assign the resctrl group by a hook of a plugin of the NRI"),
];

/// Refuses a container that asks for a class, by an annotation of its own or of its pod.
pub(super) fn check(spec: &ContainerSpec, sandbox: &SandboxSpec) -> Result<()> {
    for (what, word, instead) in KINDS {
        if let Some(class) = class(word, spec, &sandbox.annotations) {
            return Err(EngineError::invalid(format!(
                "container {:?} asks for the {what} class {class:?}, and there are no classes here: remove the annotation, \
                 and {instead}",
                spec.name
            )));
        }
    }
    Ok(())
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
    fn whoever_asks_for_a_class_is_refused() {
        let annotations = |key: &str| Pairs::from([(key.to_owned(), "gold".to_owned())]);
        let asked = |own: &str, pod: &str| {
            let spec =
                ContainerSpec { name: "c".into(), annotations: annotations(own), ..ContainerSpec::default() };
            check(&spec, &SandboxSpec { annotations: annotations(pod), ..SandboxSpec::default() })
        };
        assert!(asked("x", "rdt.resources.beta.kubernetes.io/container.other").is_ok());
        let error = asked("io.kubernetes.cri.blockio-class", "x").unwrap_err().to_string();
        assert!(error.contains("block I/O class \"gold\""), "{error}");
        for pod in ["rdt.resources.beta.kubernetes.io/container.c", "rdt.resources.beta.kubernetes.io/pod"] {
            assert!(asked("x", pod).unwrap_err().to_string().contains("RDT class"), "{pod}");
        }
    }
}
