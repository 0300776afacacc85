//! What a shim is told about the log of its container.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use berth_runtime_client::protocol::{Forward, Log, LogFile, LogFormat, SyslogAddress, SyslogFormat, Target};

use super::options::{self, Beside, Plan, Service};
use super::relay::{SYSLOG_ROLE, SyslogTls, Trust};
use crate::containers::Definition;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids;

/// Where syslog listens, as far as one knows.
const SYSLOG_SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
const DEFAULT_TAG: &str = "{{.ID}}";

impl Engine {
    /// Where the container's output is kept and sent. Blocking: a service's name may have to be looked up.
    pub(crate) fn log_of(&self, definition: &Definition) -> Result<Log> {
        let Plan { keep, service, drop_beyond, beside } = options::plan(&definition.host.log_config)?;
        let attributes = attributes(&beside, definition)?;
        let file = keep.map(|limits| {
            let mut attributes = attributes.clone();
            if let Some(template) = &beside.tag {
                attributes.insert("tag".to_owned(), tag(template, definition));
            }
            LogFile {
                format: if definition.host.log_config.driver == "local" {
                    LogFormat::Local
                } else {
                    LogFormat::Json
                },
                path: self.log_path(&definition.id),
                max_size: limits.max_size,
                max_file: limits.max_file,
                compress: limits.compress,
                attributes,
            }
        });
        let tag = tag(beside.tag.as_deref().unwrap_or(DEFAULT_TAG), definition);
        let to = match service {
            None => return Ok(Log { file, forward: None }),
            Some(Service::Journald) => journald(definition, tag, attributes)?,
            Some(Service::Syslog { address, facility, format, trust }) => {
                let address = match address.strip_prefix("tcp+tls://") {
                    Some(service) => self.relay(service, format, trust),
                    None => syslog_address(&address)?,
                };
                let local = matches!(address, SyslogAddress::Unix(_));
                let default = if local { SyslogFormat::Local } else { SyslogFormat::Rfc3164 };
                let hostname = crate::system::hostname();
                Target::Syslog { address, facility, format: format.unwrap_or(default), hostname, tag }
            }
        };
        Ok(Log { file, forward: Some(Forward { to, drop_beyond }) })
    }

    /// The shim speaks no TLS: a process beside it does.
    fn relay(&self, service: &str, format: Option<SyslogFormat>, trust: Trust) -> SyslogAddress {
        let counted = matches!(format, Some(SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro));
        let wanted = SyslogTls { address: with_port(service), counted, trust };
        SyslogAddress::Relay {
            program: self.config.relay_program.clone(),
            arguments: vec![SYSLOG_ROLE.to_owned(), serde_json::json!(wanted).to_string()],
        }
    }
}

fn journald(definition: &Definition, tag: String, attributes: BTreeMap<String, String>) -> Result<Target> {
    if !Path::new(JOURNAL_SOCKET).exists() {
        return Err(EngineError::internal(format!(
            "failed to initialize logging driver: journald is not available on this host ({JOURNAL_SOCKET} is missing)"
        )));
    }
    // Names of the journal's fields are upper-case.
    let mut fields: BTreeMap<String, String> = attributes
        .into_iter()
        .map(|(key, value)| (key.to_ascii_uppercase().replace(['.', '-'], "_"), value))
        .collect();
    let own = [
        ("CONTAINER_ID", ids::short(&definition.id).to_owned()),
        ("CONTAINER_ID_FULL", definition.id.clone()),
        ("CONTAINER_NAME", definition.name.clone()),
        ("CONTAINER_TAG", tag.clone()),
        ("IMAGE_NAME", definition.config.image.clone()),
        ("SYSLOG_IDENTIFIER", tag),
    ];
    fields.extend(own.map(|(key, value)| (key.to_owned(), value)));
    Ok(Target::Journald { socket: JOURNAL_SOCKET.into(), fields })
}

fn syslog_address(text: &str) -> Result<SyslogAddress> {
    let failed = |why: String| EngineError::internal(format!("failed to initialize logging driver: {why}"));
    let Some((scheme, rest)) = text.split_once("://") else {
        let found = SYSLOG_SOCKETS.iter().map(PathBuf::from).find(|path| path.exists());
        return found.map(SyslogAddress::Unix).ok_or_else(|| {
            failed(
                "Unix syslog delivery error: no syslog listens on /dev/log (log opt syslog-address)"
                    .to_owned(),
            )
        });
    };
    if scheme.starts_with("unix") {
        return Ok(SyslogAddress::Unix(rest.into()));
    }
    let with_port = with_port(rest);
    let mut found = with_port.to_socket_addrs().map_err(|error| failed(format!("{with_port}: {error}")))?;
    let address = found.next().ok_or_else(|| failed(format!("{with_port} has no address")))?;
    Ok(if scheme == "tcp" { SyslogAddress::Tcp(address) } else { SyslogAddress::Udp(address) })
}

fn with_port(address: &str) -> String {
    match address.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
        true => address.to_owned(),
        false => format!("{address}:514"),
    }
}

/// Fills a tag's template in.
fn tag(template: &str, definition: &Definition) -> String {
    let (path, args) = definition.command();
    let command: Vec<String> = std::iter::once(path).chain(args).collect();
    let image = definition.image_id.trim_start_matches("sha256:");
    let values = [
        ("ID", ids::short(&definition.id).to_owned()),
        ("FullID", definition.id.clone()),
        ("Name", definition.name.clone()),
        ("ImageID", ids::short(image).to_owned()),
        ("ImageFullID", definition.image_id.clone()),
        ("ImageName", definition.config.image.clone()),
        ("DaemonName", "docker".to_owned()),
        ("Command", command.join(" ")),
    ];
    let mut text = template.to_owned();
    for (name, value) in values {
        for pattern in [format!("{{{{.{name}}}}}"), format!("{{{{ .{name} }}}}")] {
            text = text.replace(&pattern, &value);
        }
    }
    text
}

/// The labels and variables that are said beside each line.
fn attributes(beside: &Beside, definition: &Definition) -> Result<BTreeMap<String, String>> {
    let expression = |text: &Option<String>| {
        let compile = |text: &String| regex::Regex::new(text);
        text.as_ref().map(compile).transpose().map_err(|error| EngineError::invalid(error.to_string()))
    };
    let (labels, env) = (expression(&beside.labels_regex)?, expression(&beside.env_regex)?);
    let wanted = |names: &[String], expression: &Option<regex::Regex>, name: &str| {
        names.iter().any(|wanted| wanted == name)
            || expression.as_ref().is_some_and(|expression| expression.is_match(name))
    };
    let mut attributes = BTreeMap::new();
    for (name, value) in &definition.config.labels {
        if wanted(&beside.labels, &labels, name) {
            attributes.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in definition.config.env.iter().flatten().filter_map(|entry| entry.split_once('=')) {
        if wanted(&beside.env, &env, name) {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Definition {
        Definition {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            config: serde_json::from_str(
                r#"{"Image":"i:1","Cmd":["a","b"],"Labels":{"l":"1","m":"2"},"Env":["E=3"]}"#,
            )
            .unwrap(),
            ..Definition::default()
        }
    }

    #[test]
    fn tags_are_filled_in() {
        let filled = tag("{{.ImageName}}/{{ .Name }}/{{.ID}} {{.Command}}", &definition());
        assert_eq!(filled, "i:1/web/0123456789ab a b");
    }

    #[test]
    fn only_what_is_asked_for_is_said() {
        let beside = Beside { labels: vec!["l".into()], env_regex: Some("^E".into()), ..Beside::default() };
        let said = attributes(&beside, &definition()).unwrap();
        assert_eq!(
            said.into_iter().collect::<Vec<_>>(),
            [("E".into(), "3".into()), ("l".into(), "1".into())]
        );
    }

    #[test]
    fn addresses_have_syslogs_port() {
        assert_eq!(
            syslog_address("udp://127.0.0.1").unwrap(),
            SyslogAddress::Udp("127.0.0.1:514".parse().unwrap())
        );
        assert_eq!(
            syslog_address("tcp://127.0.0.1:1000").unwrap(),
            SyslogAddress::Tcp("127.0.0.1:1000".parse().unwrap())
        );
        assert_eq!(syslog_address("unixgram:///x").unwrap(), SyslogAddress::Unix("/x".into()));
    }
}
