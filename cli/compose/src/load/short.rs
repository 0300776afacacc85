//! Short forms: ports and volumes in one line.

use std::net::IpAddr;

use crate::model::{BindOptions, Mount, Port, VolumeOptions};

/// A volume in one line, `source:target:options`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ShortVolume {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) no_copy: bool,
    pub(crate) propagation: Option<String>,
    pub(crate) selinux: Option<String>,
}

impl ShortVolume {
    /// Whether the source is a path of the host, not a volume's name.
    pub(crate) fn is_bind(&self) -> bool {
        let mut chars = self.source.chars();
        match chars.next() {
            Some('.' | '/' | '~') => true,
            Some('\\') => self.source.starts_with(r"\\"),
            Some(first) => first.is_alphabetic() && chars.next() == Some(':'),
            None => false,
        }
    }
}

/// Reads a volume's short form.
pub(crate) fn volume(text: &str) -> Result<ShortVolume, String> {
    let mut volume = ShortVolume::default();
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    if text.len() <= 2 {
        text.clone_into(&mut volume.target);
        return Ok(volume);
    }
    let sections = sections(text);
    let invalid = |why: &str| Err(format!("invalid spec: {text}: {why}"));
    if sections.iter().any(|section| section.is_empty()) {
        return invalid("empty section between colons");
    }
    let options = match sections.as_slice() {
        [target] => {
            volume.target.clone_from(target);
            return Ok(volume);
        }
        [source, target] => {
            (volume.source, volume.target) = (source.clone(), target.clone());
            return Ok(volume);
        }
        [source, target, options] => {
            (volume.source, volume.target) = (source.clone(), target.clone());
            options
        }
        _ => return invalid("too many colons"),
    };
    for option in options.split(',') {
        match option {
            "ro" => volume.read_only = true,
            "rw" => volume.read_only = false,
            "nocopy" => volume.no_copy = true,
            "z" | "Z" => volume.selinux = Some(option.to_owned()),
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                volume.propagation = Some(option.to_owned());
            }
            // Options of other platforms (`cached`, `delegated`) say nothing here.
            _ => {}
        }
    }
    Ok(volume)
}

/// Splits at colons that are not a drive letter's and not within `${…}`.
fn sections(text: &str) -> Vec<String> {
    let mut sections = Vec::new();
    let mut section = String::new();
    let mut depth = 0_usize;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '$' if chars.peek() == Some(&'{') => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ':' if depth == 0 => {
                let drive = section.chars().count() == 1 && section.starts_with(char::is_alphabetic);
                if !drive {
                    sections.push(std::mem::take(&mut section));
                    continue;
                }
            }
            _ => {}
        }
        section.push(char);
    }
    sections.push(section);
    sections
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShortPort {
    pub(crate) host_ip: String,
    pub(crate) published: String,
    pub(crate) target: u16,
    pub(crate) protocol: String,
}

/// Reads `[[ip:]host:]container[/protocol]`, where ports may be ranges. In the order docker compose has them.
pub(crate) fn ports(text: &str) -> Result<Vec<ShortPort>, String> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) if !protocol.is_empty() => (rest, protocol.to_lowercase()),
        Some((rest, _)) => (rest, "tcp".to_owned()),
        None => (text, "tcp".to_owned()),
    };
    if rest.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let (rest, container) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let published = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?),
    };
    if let Some((host_first, host_last)) = published
        && last - first != host_last - host_first
        && first != last
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    let mut ports: Vec<ShortPort> = (first..=last)
        .map(|target| ShortPort {
            host_ip: ip.to_owned(),
            published: match published {
                None => String::new(),
                Some((host_first, host_last)) if first == last && host_first != host_last => {
                    format!("{host_first}-{host_last}")
                }
                Some((host_first, _)) => (host_first + (target - first)).to_string(),
            },
            target,
            protocol: protocol.clone(),
        })
        .collect();
    ports.sort_by_key(|port| format!("{}/{}", port.target, port.protocol));
    Ok(ports)
}

/// A port's short form in the model's words.
pub(crate) fn published(text: &str) -> Result<Vec<Port>, String> {
    let ports = ports(text)?.into_iter().map(|port| Port {
        mode: "ingress".to_owned(),
        host_ip: port.host_ip,
        target: u32::from(port.target),
        published: port.published,
        protocol: port.protocol,
        ..Port::default()
    });
    Ok(ports.collect())
}

/// A volume's short form in the model's words; a relative source is seen from the current directory.
pub(crate) fn mount(text: &str) -> Result<Mount, String> {
    let short = volume(text)?;
    let is_bind = short.is_bind();
    let absolute = |path: &str| {
        let here =
            std::env::current_dir().map_err(|error| format!("cannot tell the current directory: {error}"))?;
        Ok::<_, String>(super::paths::absolute(path, &here, std::env::var("HOME").ok().as_deref()))
    };
    Ok(Mount {
        r#type: if is_bind { "bind" } else { "volume" }.to_owned(),
        source: if is_bind { absolute(&short.source)? } else { short.source },
        target: super::paths::clean(&short.target),
        read_only: short.read_only,
        bind: is_bind.then(|| BindOptions {
            selinux: short.selinux.unwrap_or_default(),
            propagation: short.propagation.unwrap_or_default(),
            create_host_path: true,
            recursive: String::new(),
        }),
        volume: (!is_bind).then(|| VolumeOptions { nocopy: short.no_copy, ..VolumeOptions::default() }),
        ..Mount::default()
    })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let read = |text: &str| volume(text).map(|v| (v.is_bind(), v.source, v.target, v.read_only));
        let ok = |bind, source: &str, target: &str, ro| Ok((bind, source.to_owned(), target.to_owned(), ro));
        assert_eq!(read("/data"), ok(false, "", "/data", false));
        assert_eq!(read("vol:/data:ro"), ok(false, "vol", "/data", true));
        // One letter is a drive, as docker compose has it.
        assert_eq!(read("v:/data"), ok(false, "", "v:/data", false));
        assert_eq!(read("./a:/data"), ok(true, "./a", "/data", false));
        assert_eq!(read(r"C:\a:/data:rw,z"), ok(true, r"C:\a", "/data", false));
        assert_eq!(read("${A:-b}:/c"), ok(false, "${A:-b}", "/c", false));
        assert!(read("aa::b").is_err() && read("aa:bb:cc:dd").is_err() && read("").is_err());
    }

    #[test]
    fn published_ports() {
        let read = |text: &str| {
            ports(text).map(|ports| {
                let each = ports
                    .iter()
                    .map(|p| format!("{}|{}|{}/{}", p.host_ip, p.published, p.target, p.protocol));
                each.collect::<Vec<_>>().join(" ")
            })
        };
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(read("80"), ok("||80/tcp"));
        assert_eq!(read("8080:80/udp"), ok("|8080|80/udp"));
        assert_eq!(read("127.0.0.1:8080:80"), ok("127.0.0.1|8080|80/tcp"));
        assert_eq!(read("[::1]:8080:80"), ok("::1|8080|80/tcp"));
        assert_eq!(read("127.0.0.1::80"), ok("127.0.0.1||80/tcp"));
        assert_eq!(read("8000-8001:80-81"), ok("|8000|80/tcp |8001|81/tcp"));
        assert_eq!(read("8000-8010:80"), ok("|8000-8010|80/tcp"));
        assert!(read("8000-8010:80-81").is_err() && read("x:1:2").is_err() && read("1:").is_err());
        assert!(read("80/quic").is_err() && read("99999").is_err());
    }
}
