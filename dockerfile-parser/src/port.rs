//! `EXPOSE` words: `80`, `80/udp`, `8000-8010/tcp`, and `ip:host:container`, of which only the last part counts.

/// An exposed port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Number.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// A word that names no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PortError(String);

/// The ports that one expanded word of `EXPOSE` names.
///
/// # Errors
/// On anything but ports and ranges of them.
pub fn expose_ports(word: &str) -> Result<Vec<Port>, PortError> {
    let fail = |what: String| PortError(format!("invalid port: {}: {what}", crate::golang::quote(word)));
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(fail(format!("invalid proto: {protocol}")));
    }
    let container = ports.rsplit(':').next().unwrap_or(ports);
    if container.is_empty() {
        return Err(fail("no port specified".into()));
    }
    let bad = |_| fail(format!("invalid containerPort: {container}"));
    let (start, end) = container.split_once('-').unwrap_or((container, container));
    let number = |text: &str| if text.starts_with('+') { "".parse() } else { text.parse::<u16>() };
    let (start, end) = (number(start).map_err(bad)?, number(end).map_err(bad)?);
    if end < start {
        return Err(fail(format!("invalid containerPort: {container}")));
    }
    Ok((start..=end).map(|number| Port { number, protocol: protocol.clone() }).collect())
}

#[cfg(test)]
mod tests {
    use super::expose_ports;

    fn show(word: &str) -> String {
        match expose_ports(word) {
            Ok(ports) => ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn ports() {
        assert_eq!(show("80"), "80/tcp");
        assert_eq!(show("7000-7002/UDP"), "7000/udp 7001/udp 7002/udp");
        assert_eq!(show("127.0.0.1:80:8080"), "8080/tcp");
        assert_eq!(show("80/foo"), "invalid port: \"80/foo\": invalid proto: foo");
        assert_eq!(show("x"), "invalid port: \"x\": invalid containerPort: x");
        assert!(expose_ports("70000").is_err() && expose_ports("9-8").is_err());
    }
}
