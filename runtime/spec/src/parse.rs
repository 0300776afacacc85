//! The text of config.json → [`oci::Spec`].

use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::oci;
use crate::plan::SpecWarning;
use crate::respell;

/// Parses config.json. A capability that nobody knows is left out with a warning, as runc does: an engine's list may be
/// newer than this runtime.
///
/// # Errors
/// The text is no JSON, or a field has the wrong type.
pub fn parse(text: &[u8]) -> Result<(oci::Spec, Vec<SpecWarning>), serde_json::Error> {
    let problem = match serde_json::from_slice(text) {
        Ok(spec) if !respell::is_suspect(text) => return Ok((spec, Vec::new())),
        Ok(_) => {
            let mut value: Value = serde_json::from_slice(text)?;
            if let Some(resources) = value.pointer_mut("/linux/resources") {
                respell::correct(resources);
            }
            return from_tree(&value).map(|spec| (spec, Vec::new()));
        }
        Err(problem) => problem,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return Err(problem) };
    let mut warnings = Vec::new();
    let respelled = value.pointer_mut("/process").is_some_and(respell_scheduler);
    let sets = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    for (name, set) in sets.into_iter().flatten() {
        let Some(set) = set.as_array_mut() else { continue };
        let mut unknown: Vec<String> = Vec::new();
        set.retain(|capability| match capability.as_str() {
            Some(text) if !is_known(text) => {
                if !unknown.iter().any(|told| told == text) {
                    unknown.push(text.to_owned());
                }
                false
            }
            _ => true,
        });
        if !unknown.is_empty() {
            warnings.push(SpecWarning {
                field: format!("process.capabilities.{name}"),
                message: format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")),
            });
        }
    }
    if warnings.is_empty() && !respelled {
        return Err(problem);
    }
    Ok((from_tree(&value)?, warnings))
}

/// Parses `linux.resources` alone, as `update` gets it.
///
/// # Errors
/// The text is no JSON, or a field has the wrong type.
pub fn parse_resources(text: &[u8]) -> Result<oci::LinuxResources, serde_json::Error> {
    if !respell::is_suspect(text) {
        return serde_json::from_slice(text);
    }
    let mut value: Value = serde_json::from_slice(text)?;
    respell::correct(&mut value);
    from_tree(&value)
}

/// A value of JSON that has been changed, as what it stands for. By way of the text: the parser once more, for another
/// source, would cost each container its pages.
///
/// # Errors
/// A field has the wrong type.
pub fn from_tree<T: DeserializeOwned>(value: &Value) -> Result<T, serde_json::Error> {
    serde_json::from_slice(&serde_json::to_vec(value)?)
}

/// Puts the specification's names of scheduler flags (config.md, "scheduler") where the parser has others. True if there
/// was one.
pub fn respell_scheduler(process: &mut Value) -> bool {
    let mut found = false;
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let known = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = known.into();
        found = true;
    }
    found
}

fn is_known(name: &str) -> bool {
    let short = name.strip_prefix("CAP_").unwrap_or(name);
    oci::Capability::from_str(short).is_ok() || serde_json::from_value::<oci::Capability>(name.into()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{"ociVersion":"1.2.0","root":{"path":"r"},"process":{"user":{"uid":0,"gid":0},"cwd":"/",
        "capabilities":{"bounding":["CAP_KILL","CAP_TELEPORT"],"ambient":["UNKNOWN"]}}}"#;

    #[test]
    fn unknown_capabilities_are_left_out() {
        let (spec, warnings) = parse(SPEC.as_bytes()).unwrap();
        let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
        assert_eq!(sets.ambient().as_ref().unwrap().len(), 0);
        let fields: Vec<&str> = warnings.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(fields, ["process.capabilities.bounding", "process.capabilities.ambient"]);
    }

    #[test]
    fn names_may_be_capitalised_as_in_go() {
        let linux = r#""linux":{"resources":{"hugepageLimits":[{"pagesize":"2MB","limit":5}]}},"process""#;
        let text = SPEC.replace("CAP_TELEPORT", "CAP_CHOWN").replace("UNKNOWN", "CAP_KILL");
        let (spec, _) = parse(text.replace("\"process\"", linux).as_bytes()).unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(resources.hugepage_limits().as_ref().unwrap()[0].page_size(), "2MB");
        let update = parse_resources(br#"{"CPU": {"Cpus": "1"}}"#).unwrap();
        assert_eq!(update.cpu().as_ref().unwrap().cpus().as_deref(), Some("1"));
    }

    #[test]
    fn other_mistakes_stay_mistakes() {
        for text in ["{", "7", &SPEC.replace("\"cwd\":\"/\"", "\"cwd\":7")] {
            parse(text.as_bytes()).unwrap_err();
        }
    }
}
