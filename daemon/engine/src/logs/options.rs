//! Options of the log drivers. Pure.

use berth_api::container::LogConfig;

use crate::error::{EngineError, Result};

/// How much log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of one file; 0 is no bound.
    pub(crate) max_size: u64,
    /// Files.
    pub(crate) max_file: u32,
}

/// Docker keeps json-file logs without bound, which fills disks; Berth rotates unless told otherwise.
const JSON_FILE: Limits = Limits { max_size: 100 << 20, max_file: 5 };
/// As docker.
const LOCAL: Limits = Limits { max_size: 20 << 20, max_file: 5 };

/// Checks the options and takes the limits from them. `max-size=-1` is no bound.
pub(crate) fn limits(config: &LogConfig) -> Result<Limits> {
    let driver = if config.driver.is_empty() { "json-file" } else { config.driver.as_str() };
    let mut limits = if driver == "local" { LOCAL } else { JSON_FILE };
    for (key, value) in &config.config {
        let invalid = || EngineError::invalid(format!("invalid value for log opt '{key}': {value:?}"));
        match key.as_str() {
            _ if driver == "none" => return Err(unknown(key, driver)),
            "max-size" if value == "-1" => limits.max_size = 0,
            "max-size" => limits.max_size = size(value).filter(|size| *size > 0).ok_or_else(invalid)?,
            "max-file" => {
                limits.max_file = value.parse().ok().filter(|files| *files > 0).ok_or_else(invalid)?
            }
            "mode" if value == "blocking" || value.is_empty() => {}
            "mode" => return Err(not_yet(key)),
            "compress" if ["false", "0"].contains(&value.as_str()) => {}
            // Space only; the log reads the same.
            "compress" if ["true", "1"].contains(&value.as_str()) && driver == "local" => {}
            "compress" | "max-buffer-size" | "labels" | "labels-regex" | "env" | "env-regex" | "tag" => {
                return Err(not_yet(key));
            }
            _ => return Err(unknown(key, driver)),
        }
    }
    Ok(limits)
}

fn unknown(key: &str, driver: &str) -> EngineError {
    EngineError::invalid(format!("unknown log opt '{key}' for {driver} log driver"))
}

fn not_yet(key: &str) -> EngineError {
    EngineError::not_implemented(format!(
        "log opt '{key}' is not supported yet (HostConfig.LogConfig.Config)"
    ))
}

/// `10m`, `1.5g`, `512kb`, `100`.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &lower[digits.len()..] {
        "" | "b" => 1u64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let number: f64 = digits.trim().parse().ok()?;
    (number >= 0.0).then_some((number * scale as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: &str, pairs: &[(&str, &str)]) -> Result<Limits> {
        let config = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        limits(&LogConfig { driver: driver.into(), config })
    }

    #[test]
    fn limits_are_parsed() {
        assert_eq!(parse("json-file", &[]).unwrap(), JSON_FILE);
        assert_eq!(parse("local", &[]).unwrap(), LOCAL);
        let given = parse("json-file", &[("max-size", "1.5k"), ("max-file", "2")]).unwrap();
        assert_eq!(given, Limits { max_size: 1536, max_file: 2 });
        assert_eq!(parse("", &[("max-size", "-1")]).unwrap().max_size, 0);
    }

    #[test]
    fn unknown_and_bad_options_are_refused() {
        let message = |pairs: &[(&str, &str)]| parse("json-file", pairs).unwrap_err().message().to_owned();
        assert_eq!(message(&[("bogus", "1")]), "unknown log opt 'bogus' for json-file log driver");
        assert!(message(&[("max-size", "x")]).starts_with("invalid value for log opt 'max-size'"));
        assert!(message(&[("max-file", "0")]).starts_with("invalid value"));
        assert!(message(&[("tag", "x")]).contains("not supported yet"));
    }
}
