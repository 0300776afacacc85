//! Options of the log drivers. Pure.
//!
//! Every driver but `none` keeps a file, so that `docker logs` always has something to read: `json-file` and `local` as
//! their purpose, the others (`syslog`, `journald`) as a cache of what they send on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_api::container::LogConfig;
use berth_runtime_client::protocol::SyslogFormat;

use super::relay::Trust;
use crate::error::{EngineError, Result};

/// What a driver's options mean.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// How much log is kept for reading; `None` keeps none.
    pub(crate) keep: Option<Limits>,
    /// Where each line is sent.
    pub(crate) service: Option<Service>,
    /// Lines are dropped when so many bytes wait for the service.
    pub(crate) drop_beyond: Option<u64>,
    /// What is said beside each line.
    pub(crate) beside: Beside,
}

/// How much log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of one file; 0 is no bound.
    pub(crate) max_size: u64,
    /// Files.
    pub(crate) max_file: u32,
    /// Older ones are compressed.
    pub(crate) compress: bool,
}

/// A log service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Service {
    Syslog { address: String, facility: u8, format: Option<SyslogFormat>, trust: Trust },
    Journald,
}

/// What is said beside each line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Template, `{{.Name}}/{{.ID}}`.
    pub(crate) tag: Option<String>,
    /// Names of labels and of variables, and expressions that names match.
    pub(crate) labels: Vec<String>,
    pub(crate) labels_regex: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) env_regex: Option<String>,
}

/// The drivers there are.
pub(crate) const DRIVERS: [&str; 5] = ["journald", "json-file", "local", "none", "syslog"];

/// Docker keeps json-file logs without bound, which fills disks; Berth rotates unless told otherwise.
const JSON_FILE: Limits = Limits { max_size: 100 << 20, max_file: 5, compress: false };
/// As docker; also of caches.
const LOCAL: Limits = Limits { max_size: 20 << 20, max_file: 5, compress: true };
/// What may wait in the mode `non-blocking` where nothing is said.
const BUFFER: u64 = 1 << 20;
/// `daemon`
const FACILITY: u8 = 3;

const SYSLOG_OPTIONS: [&str; 7] = [
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "security", "console", "clock", "local0", "local1", "local2", "local3", "local4", "local5",
    "local6", "local7",
];

/// Checks a driver and its options. `max-size=-1` is no bound.
pub(crate) fn plan(config: &LogConfig) -> Result<Plan> {
    let driver = if config.driver.is_empty() { "json-file" } else { config.driver.as_str() };
    if !DRIVERS.contains(&driver) {
        return Err(EngineError::invalid(format!("logger: no log driver named '{driver}' is registered")));
    }
    let service = match driver {
        "syslog" => Some(syslog(&config.config)?),
        "journald" => Some(Service::Journald),
        _ => None,
    };
    let mut keep = if driver == "json-file" { JSON_FILE } else { LOCAL };
    let mut plan = Plan { keep: None, service, drop_beyond: None, beside: Beside::default() };
    let mut cached = driver != "none";
    for (key, value) in &config.config {
        let invalid = || EngineError::invalid(format!("invalid value for log opt '{key}': {value:?}"));
        let files = driver == "json-file" || driver == "local";
        let own = if files { key.as_str() } else { key.strip_prefix("cache-").unwrap_or(key) };
        let keeps = driver != "none" && (files || key.starts_with("cache-"));
        let says = !["none", "local"].contains(&driver);
        match own {
            "mode" if ["", "blocking"].contains(&value.as_str()) => {}
            "mode" if value == "non-blocking" => {
                plan.drop_beyond.get_or_insert(BUFFER);
            }
            "mode" => {
                return Err(EngineError::invalid(format!(
                    "logger: logging mode not supported: {value}: use blocking or non-blocking"
                )));
            }
            "max-buffer-size" => {
                if config.config.get("mode").is_none_or(|mode| mode != "non-blocking") {
                    return Err(EngineError::invalid(
                        "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
                    ));
                }
                plan.drop_beyond = Some(size(value).ok_or_else(invalid)?);
            }
            "max-size" if keeps && value == "-1" => keep.max_size = 0,
            "max-size" if keeps => {
                keep.max_size = size(value).filter(|size| *size > 0).ok_or_else(invalid)?;
            }
            "max-file" if keeps => {
                keep.max_file = value.parse().ok().filter(|files| *files > 0).ok_or_else(invalid)?;
            }
            "compress" if keeps => keep.compress = boolean(value).ok_or_else(invalid)?,
            "disabled" if keeps && !files => cached = !boolean(value).ok_or_else(invalid)?,
            "tag" if says => plan.beside.tag = Some(value.clone()),
            "labels" if says => plan.beside.labels = list(value),
            "env" if says => plan.beside.env = list(value),
            "labels-regex" if says => plan.beside.labels_regex = Some(expression(value)?),
            "env-regex" if says => plan.beside.env_regex = Some(expression(value)?),
            own if driver == "syslog" && SYSLOG_OPTIONS.contains(&own) => {}
            _ => {
                return Err(EngineError::invalid(format!("unknown log opt '{key}' for {driver} log driver")));
            }
        }
    }
    let asked = config.config.keys().any(|key| key.trim_start_matches("cache-") == "compress");
    if keep.max_file < 2 || keep.max_size == 0 {
        if asked && keep.compress {
            return Err(EngineError::invalid(
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ));
        }
        keep.compress = false;
    }
    plan.keep = cached.then_some(keep);
    Ok(plan)
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn expression(text: &str) -> Result<String> {
    match regex::Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(EngineError::invalid(format!("invalid regular expression of a log opt: {error}"))),
    }
}

fn syslog(options: &BTreeMap<String, String>) -> Result<Service> {
    let address = options.get("syslog-address").cloned().unwrap_or_default();
    let (scheme, rest) = address.split_once("://").unwrap_or(("", &address));
    match scheme {
        "" if address.is_empty() => {}
        "unix" | "unixgram" if rest.starts_with('/') => {}
        "udp" | "tcp" | "tcp+tls" if !rest.is_empty() => {}
        _ => {
            return Err(EngineError::invalid(format!(
                "unsupported syslog-address {address:?}: it should be in form proto://address, with one of unix, \
                 unixgram, udp, tcp, tcp+tls"
            )));
        }
    }
    let facility = match options.get("syslog-facility").map(String::as_str) {
        None | Some("") => FACILITY,
        Some(text) => match (text.parse(), FACILITIES.iter().position(|name| *name == text)) {
            (Ok(number @ 0..=23), _) => number,
            (_, Some(number)) => u8::try_from(number).unwrap_or(FACILITY),
            _ => return Err(EngineError::invalid(format!("invalid syslog facility: {text}"))),
        },
    };
    let format = match options.get("syslog-format").map(String::as_str) {
        None | Some("") => None,
        Some("rfc3164") => Some(SyslogFormat::Rfc3164),
        Some("rfc5424") => Some(SyslogFormat::Rfc5424),
        Some("rfc5424micro") => Some(SyslogFormat::Rfc5424Micro),
        Some(_) => return Err(EngineError::invalid("Invalid syslog format")),
    };
    Ok(Service::Syslog { address, facility, format, trust: trust(options)? })
}

/// How a service that is spoken to over TLS is known. Files are looked at here, where somebody hears of it if they are
/// missing.
fn trust(options: &BTreeMap<String, String>) -> Result<Trust> {
    let file = |name: &str| {
        let path = options.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        match &path {
            Some(path) if !path.is_file() => {
                Err(EngineError::invalid(format!("log opt {name}: {} is no file", path.display())))
            }
            _ => Ok(path),
        }
    };
    let (certificate, key) = (file("syslog-tls-cert")?, file("syslog-tls-key")?);
    if certificate.is_some() != key.is_some() {
        return Err(EngineError::invalid("log opts syslog-tls-cert and syslog-tls-key go together"));
    }
    // As docker: that it is there says it, whatever its value.
    let anybody = options.contains_key("syslog-tls-skip-verify");
    Ok(Trust { authority: file("syslog-tls-ca-cert")?, certificate, key, anybody })
}

/// `10m`, `1.5g`, `512kb`, `100`.
pub(crate) fn size(text: &str) -> Option<u64> {
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

    fn parse(driver: &str, pairs: &[(&str, &str)]) -> Result<Plan> {
        let config = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        plan(&LogConfig { driver: driver.into(), config })
    }

    #[test]
    fn limits_are_parsed() {
        let keep = |driver: &str, pairs: &[(&str, &str)]| parse(driver, pairs).unwrap().keep;
        assert_eq!(keep("json-file", &[]), Some(JSON_FILE));
        assert_eq!(keep("local", &[("compress", "true")]), Some(LOCAL));
        assert!(!keep("local", &[("max-file", "1")]).unwrap().compress);
        assert!(keep("json-file", &[("compress", "true")]).unwrap().compress);
        let given = keep("json-file", &[("max-size", "1.5k"), ("max-file", "2")]);
        assert_eq!(given, Some(Limits { max_size: 1536, max_file: 2, compress: false }));
        assert_eq!(keep("", &[("max-size", "-1")]).unwrap().max_size, 0);
        assert_eq!(keep("none", &[]), None);
        assert_eq!(keep("syslog", &[("cache-max-size", "1m")]).unwrap().max_size, 1 << 20);
        assert_eq!(keep("syslog", &[("cache-disabled", "true")]), None);
    }

    #[test]
    fn a_service_is_described() {
        let plan = parse("syslog", &[("syslog-facility", "local3"), ("mode", "non-blocking"), ("tag", "x")])
            .unwrap();
        assert_eq!(
            plan.service,
            Some(Service::Syslog {
                address: String::new(),
                facility: 19,
                format: None,
                trust: Trust::default()
            })
        );
        assert_eq!((plan.drop_beyond, plan.beside.tag.as_deref()), (Some(1 << 20), Some("x")));
        assert_eq!(parse("journald", &[("labels", "a,b")]).unwrap().beside.labels, ["a", "b"]);
    }

    #[test]
    fn unknown_and_bad_options_are_refused() {
        let message = |driver, pairs: &[(&str, &str)]| parse(driver, pairs).unwrap_err().message().to_owned();
        assert_eq!(
            message("json-file", &[("bogus", "1")]),
            "unknown log opt 'bogus' for json-file log driver"
        );
        assert_eq!(message("none", &[("max-size", "1m")]), "unknown log opt 'max-size' for none log driver");
        assert_eq!(message("asdf", &[]), "logger: no log driver named 'asdf' is registered");
        assert!(
            message("json-file", &[("max-size", "x")]).starts_with("invalid value for log opt 'max-size'")
        );
        assert!(message("json-file", &[("max-file", "0")]).starts_with("invalid value"));
        assert!(message("json-file", &[("max-buffer-size", "1m")]).contains("mode=non-blocking"));
        assert!(message("syslog", &[("syslog-address", "ftp://x")]).contains("syslog-address"));
        assert!(message("syslog", &[("syslog-tls-cert", "/dev/null/x")]).contains("/dev/null/x is no file"));
        assert!(message("syslog", &[("syslog-facility", "x")]).contains("facility"));
        assert!(message("json-file", &[("compress", "true"), ("max-file", "1")]).contains("max-file"));
        assert!(message("local", &[("tag", "x")]).contains("unknown log opt"));
    }
}
