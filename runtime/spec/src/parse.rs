//! The text of config.json → [`oci::Spec`].

use std::str::FromStr;

use serde_json::Value;

use crate::oci;
use crate::plan::SpecWarning;

/// Parses config.json. A capability that nobody knows is left out with a warning, as runc does: an engine's list may be
/// newer than this runtime.
///
/// # Errors
/// The text is no JSON, or a field has the wrong type.
pub fn parse(text: &[u8]) -> Result<(oci::Spec, Vec<SpecWarning>), serde_json::Error> {
    let problem = match serde_json::from_slice(text) {
        Ok(spec) if !has_nameless_pages(&spec) => return Ok((spec, Vec::new())),
        Ok(_) => return respelled(text).map(|spec| (spec, Vec::new())),
        Err(problem) => problem,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return Err(problem) };
    let mut warnings = Vec::new();
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
    if warnings.is_empty() {
        return Err(problem);
    }
    // By way of the text: the whole parser once more, for another source, would cost each container its pages.
    Ok((serde_json::from_slice(&serde_json::to_vec(&value)?)?, warnings))
}

/// A limit of huge pages without a size.
fn has_nameless_pages(spec: &oci::Spec) -> bool {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let limits = resources.and_then(|resources| resources.hugepage_limits().as_ref());
    limits.is_some_and(|limits| limits.iter().any(|limit| limit.page_size().is_empty()))
}

/// Go's JSON does not mind how a name is capitalised, and configurations with `pagesize` are about.
fn respelled(text: &[u8]) -> Result<oci::Spec, serde_json::Error> {
    let mut value: Value = serde_json::from_slice(text)?;
    let limits = value.pointer_mut("/linux/resources/hugepageLimits").and_then(Value::as_array_mut);
    for limit in limits.into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(size) = limit.remove("pagesize") {
            limit.insert("pageSize".to_owned(), size);
        }
    }
    serde_json::from_value(value)
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
    fn the_size_of_pages_may_be_spelled_as_in_go() {
        let linux = r#""linux":{"resources":{"hugepageLimits":[{"pagesize":"2MB","limit":5}]}},"process""#;
        let (spec, _) = parse(
            SPEC.replace("CAP_TELEPORT", "CAP_CHOWN")
                .replace("UNKNOWN", "CAP_KILL")
                .replace("\"process\"", linux)
                .as_bytes(),
        )
        .unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(resources.hugepage_limits().as_ref().unwrap()[0].page_size(), "2MB");
    }

    #[test]
    fn other_mistakes_stay_mistakes() {
        for text in ["{", "7", &SPEC.replace("\"cwd\":\"/\"", "\"cwd\":7")] {
            parse(text.as_bytes()).unwrap_err();
        }
    }
}
