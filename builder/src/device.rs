//! `RUN --device`: devices of this machine, by their names in the Container Device Interface.

use berth_dockerfile_parser::device::{self, Device};
use berth_dockerfile_parser::instruction::Run;
use oci_spec::runtime as oci;

use crate::fault::Fault;
use crate::step::StageRun;

/// Knows this machine's devices; implemented by whoever reads what their vendors say of them.
pub trait Devices: Send + Sync {
    /// Names of all devices (`vendor.com/class=name`), sorted.
    fn names(&self) -> Vec<String>;
    /// Does to a container's configuration what the named devices need.
    fn inject(&self, names: &[String], spec: &mut oci::Spec) -> Result<(), DeviceError>;
}

/// A device cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DeviceError {
    /// What went wrong, ready for the user.
    pub message: String,
}

impl StageRun<'_> {
    /// Names of the devices that a step asks for and may have.
    pub(crate) fn devices(&self, run: &Run) -> Result<Vec<String>, Fault> {
        if run.devices.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.solver.shared.devices.names();
        let mut found = Vec::new();
        for word in &run.devices {
            let said = |what: &str| Fault::said(format!("RUN --device={}: {what}", word.text));
            let wanted = device::parse(&word.text).map_err(|fault| {
                let help = fault.help.map(|help| format!(" ({help})")).unwrap_or_default();
                said(&format!("{}{help}", fault.message))
            })?;
            for name in select(&wanted, &known).map_err(|what| said(&what))? {
                if !self.solver.request.allow.has_device(&name) {
                    return Err(said(&format!(
                        "the device is not allowed (build with --allow device={name})"
                    )));
                }
                if !found.contains(&name) {
                    found.push(name);
                }
            }
        }
        Ok(found)
    }
}

/// The devices that are meant. One that is not there and not required is none.
fn select(wanted: &Device, known: &[String]) -> Result<Vec<String>, String> {
    let (kind, name) = wanted.name.split_once('=').unwrap_or((&wanted.name, ""));
    let of_kind = known.iter().filter(|device| device.split_once('=').is_some_and(|(k, _)| k == kind));
    let found: Vec<String> = match name {
        "" => of_kind.take(1).cloned().collect(),
        "*" => of_kind.cloned().collect(),
        _ => known.iter().filter(|device| **device == wanted.name).cloned().collect(),
    };
    if !found.is_empty() || !wanted.required {
        return Ok(found);
    }
    Err(match known {
        [] => "no such device: this machine describes none (in /etc/cdi or /var/run/cdi)".to_owned(),
        _ => format!("no such device; there are {}", known.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_a_kind_or_all_of_a_kind() {
        let known: Vec<String> = ["a.com/gpu=0", "a.com/gpu=1", "b.com/nic=x"].map(String::from).into();
        let pick = |name: &str, required| select(&Device { name: name.to_owned(), required }, &known);
        assert_eq!(pick("a.com/gpu=1", true).unwrap(), ["a.com/gpu=1"]);
        assert_eq!(pick("a.com/gpu", true).unwrap(), ["a.com/gpu=0"]);
        assert_eq!(pick("a.com/gpu=*", true).unwrap(), ["a.com/gpu=0", "a.com/gpu=1"]);
        assert!(pick("a.com/gp", false).unwrap().is_empty());
        assert!(pick("a.com/gpu=2", true).unwrap_err().contains("b.com/nic=x"));
    }
}
