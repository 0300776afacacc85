//! `linux.intelRdt` (config-linux.md, "IntelRdt").

use crate::error::SpecError;
use crate::oci;
use crate::plan::RdtPlan;

use super::paths;

/// The default class: the root of the file system.
const DEFAULT: &str = "/";
/// Directories beside the groups; no group can have their names.
const RESERVED: [&str; 5] = [".", "..", "info", "mon_data", "mon_groups"];

pub(super) fn plan(linux: &oci::Linux) -> Result<Option<RdtPlan>, SpecError> {
    let Some(rdt) = linux.intel_rdt() else { return Ok(None) };
    let clos = rdt.clos_id().clone().filter(|name| !name.is_empty());
    if let Some(name) = &clos {
        let field = "linux.intelRdt.closID";
        paths::no_nul(field, name.as_ref())?;
        if RESERVED.contains(&name.as_str()) || (name != DEFAULT && name.contains(['/', '\n'])) {
            return Err(SpecError::new(field, format!("{name:?} cannot name a class of service"))
                .hint("use one file name, or \"/\" for the default class"));
        }
    }
    let bandwidth = line("linux.intelRdt.memBwSchema", rdt.mem_bw_schema().as_deref())?;
    if let Some(line) = bandwidth.filter(|line| !line.starts_with("MB:")) {
        return Err(SpecError::new(
            "linux.intelRdt.memBwSchema",
            format!("{line:?} does not start with \"MB:\""),
        ));
    }
    let mut schemata = Vec::new();
    for (at, text) in rdt.schemata().iter().flatten().enumerate() {
        schemata.extend(line(&format!("linux.intelRdt.schemata[{at}]"), Some(text))?.map(str::to_owned));
    }
    Ok(Some(RdtPlan {
        clos,
        cache: rdt.l3_cache_schema().as_deref().map_or_else(Vec::new, |text| cache_lines(text, bandwidth)),
        bandwidth: bandwidth.map(str::to_owned),
        schemata,
        monitoring: rdt.enable_monitoring().unwrap_or(false),
    }))
}

/// One line, or none if it is empty: the kernel takes a newline for the start of another one.
fn line<'a>(field: &str, text: Option<&'a str>) -> Result<Option<&'a str>, SpecError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.contains(['\n', '\0']) {
        return Err(
            SpecError::new(field, format!("{text:?} is not one line")).hint("use linux.intelRdt.schemata")
        );
    }
    Ok(Some(text))
}

/// Older versions of the specification let it have several lines, of which those for the bandwidth yield to the field
/// that is for it.
fn cache_lines(text: &str, bandwidth: Option<&str>) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.filter(|line| bandwidth.is_none() || !line.starts_with("MB:")).map(str::to_owned).collect()
}
