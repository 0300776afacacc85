//! Addresses of daemons: `unix:///run/berth/berth.sock`, `tcp://127.0.0.1:2375`.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{Error, Trust};

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// `host:port`, spoken to over TLS.
    Tls(String, Box<Trust>),
}

impl Host {
    /// The same over TLS; a unix socket needs none.
    #[must_use]
    pub fn over_tls(self, trust: Trust) -> Self {
        match self {
            Self::Tcp(address) => Self::Tls(address, Box::new(trust)),
            other => other,
        }
    }
}

impl FromStr for Host {
    type Err = Error;

    /// Parses an address; a bare absolute path is a unix socket.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidHost { host: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(invalid("the path of a unix socket must be absolute")),
            };
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let address = ["tcp://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let address = address.ok_or_else(|| invalid("it must begin with unix:// or tcp://"))?;
        let address = address.trim_end_matches('/');
        match address.rsplit_once(':') {
            _ if address.is_empty() || address.contains('/') => Err(invalid("host:port is expected")),
            Some((_, port)) if port.parse::<u16>().is_ok() => Ok(Self::Tcp(address.to_owned())),
            _ => Ok(Self::Tcp(format!("{address}:2375"))),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) | Self::Tls(address, _) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text: &str| text.parse::<Host>().map(|host| host.to_string()).ok();
        assert_eq!(parse("unix:///run/x.sock").as_deref(), Some("unix:///run/x.sock"));
        assert_eq!(parse("/run/x.sock").as_deref(), Some("unix:///run/x.sock"));
        assert_eq!(parse("tcp://127.0.0.1:99").as_deref(), Some("tcp://127.0.0.1:99"));
        assert_eq!(parse("tcp://box").as_deref(), Some("tcp://box:2375"));
        assert_eq!(parse("http://box:1/").as_deref(), Some("tcp://box:1"));
        assert_eq!(parse("unix://relative"), None);
        assert_eq!(parse("ssh://box"), None);
        assert_eq!(parse("tcp://"), None);
    }
}
