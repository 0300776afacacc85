//! Values of arguments that come from outside of the stages. Pure.

use std::collections::BTreeMap;

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::instruction::{Instruction, Kind};
use berth_oci::Platform;

/// These reach `RUN` without an `ARG`, and neither the history nor the cache key.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Values of arguments from outside of the stages.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// `--build-arg`
    pub(crate) given: BTreeMap<String, String>,
    /// Global `ARG`s and the predefined ones.
    pub(crate) globals: BTreeMap<String, String>,
    /// The predefined ones alone.
    pub(crate) predefined: BTreeMap<String, String>,
}

impl Arguments {
    /// Evaluates the `ARG`s before the first `FROM`, on top of the predefined ones.
    pub(crate) fn new(
        given: BTreeMap<String, String>,
        target: &Platform,
        target_stage: Option<&str>,
        global: &[Instruction],
        escape: char,
    ) -> Result<Self, String> {
        let mut globals: BTreeMap<String, String> = BTreeMap::new();
        for (prefix, platform) in [("TARGET", target), ("BUILD", &Platform::host())] {
            let variant = platform.variant.clone().unwrap_or_default();
            let full = match variant.as_str() {
                "" => format!("{}/{}", platform.os, platform.architecture),
                v => format!("{}/{}/{v}", platform.os, platform.architecture),
            };
            let version = platform.os_version.clone().unwrap_or_default();
            for (name, value) in [
                ("PLATFORM", full),
                ("OS", platform.os.clone()),
                ("OSVERSION", version),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", variant),
            ] {
                globals.insert(format!("{prefix}{name}"), value);
            }
        }
        globals.insert("TARGETSTAGE".into(), target_stage.unwrap_or("default").to_owned());
        for (name, value) in &given {
            if let Some(predefined) = globals.get_mut(name) {
                value.clone_into(predefined);
            }
        }
        let predefined = globals.clone();
        let lexer = Lexer::new(escape);
        for instruction in global {
            let Kind::Arg(pairs) = &instruction.kind else { continue };
            for pair in pairs {
                let value = match (given.get(&pair.key), &pair.value) {
                    (Some(given), _) => given.clone(),
                    (None, Some(default)) => lexer.word(default, &globals).map_err(|e| e.to_string())?,
                    (None, None) => continue,
                };
                globals.insert(pair.key.clone(), value);
            }
        }
        Ok(Self { given, globals, predefined })
    }

    /// The proxy variables that were given, in both cases.
    pub(crate) fn proxies(&self) -> Vec<String> {
        let mut out = Vec::new();
        for name in PROXIES {
            let lower = name.to_lowercase();
            if let Some(value) = self.given.get(name).or_else(|| self.given.get(&lower)) {
                out.extend([format!("{name}={value}"), format!("{lower}={value}")]);
            }
        }
        out
    }
}
