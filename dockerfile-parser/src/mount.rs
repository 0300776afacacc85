//! `RUN --mount=…`.

use crate::diagnostic::Fault;
use crate::golang::quote;
use crate::suggest;

/// What kind of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountType {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret of the build.
    Secret,
    /// The user's ssh agent.
    Ssh,
}

impl MountType {
    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    Shared,
    /// Each step its own copy.
    Private,
    /// One after the other.
    Locked,
}

impl Sharing {
    /// As written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }
}

/// A parsed mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `type`
    pub kind: MountType,
    /// `from`; empty means the context.
    pub from: String,
    /// `source`
    pub source: String,
    /// `target`
    pub target: String,
    /// `ro`
    pub readonly: bool,
    /// `size`, in bytes; 0 without one.
    pub size: i64,
    /// `id`
    pub id: String,
    /// `sharing`
    pub sharing: Option<Sharing>,
    /// `required`
    pub required: bool,
    /// `env`
    pub env: Option<String>,
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Checks what can be checked before variables are known: the list itself, and that `from` has none.
///
/// # Errors
/// If either is wrong.
pub fn check(raw: &str) -> Result<(), Fault> {
    for field in fields(raw, "mounts")? {
        let Some((key, value)) = field.split_once('=') else { continue };
        let key = key.to_lowercase();
        if key == "from" && value.find('$').is_some_and(|at| at + 1 != value.len()) {
            let what = format!("'{key}' doesn't support variable expansion, define alias stage instead");
            return Err(Fault::new(what));
        }
    }
    Ok(())
}

/// Parses a mount, expanding each value with `expand`.
///
/// # Errors
/// On unknown keys, bad values and keys that do not fit the type.
pub fn parse(raw: &str, expand: impl Fn(&str) -> Result<String, String>) -> Result<Mount, Fault> {
    let mut mount = Mount {
        kind: MountType::Bind,
        from: String::new(),
        source: String::new(),
        target: String::new(),
        readonly: false,
        size: 0,
        id: String::new(),
        sharing: None,
        required: false,
        env: None,
        mode: None,
        uid: None,
        gid: None,
    };
    let mut readonly_given = false;
    for field in fields(raw, "mounts")? {
        match field.split_once('=') {
            Some((key, value)) => {
                let value = expand(value).map_err(Fault::new)?;
                mount.pair(&key.to_lowercase(), &value, &field, &mut readonly_given)?;
            }
            None => mount.lone(&field, &mut readonly_given)?,
        }
    }
    mount.check()?;
    if !readonly_given {
        mount.readonly = !matches!(mount.kind, MountType::Cache | MountType::Tmpfs);
    }
    Ok(mount)
}

impl Mount {
    fn takes_required(&self) -> Result<(), Fault> {
        match self.kind {
            MountType::Secret | MountType::Ssh => Ok(()),
            kind => Err(Fault::new(format!("unexpected key 'required' for mount type '{}'", kind.name()))),
        }
    }

    /// A key without value.
    fn lone(&mut self, field: &str, readonly_given: &mut bool) -> Result<(), Fault> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => {
                self.readonly = true;
                *readonly_given = true;
            }
            "readwrite" | "rw" => {
                self.readonly = false;
                *readonly_given = true;
            }
            "required" => {
                self.takes_required()?;
                self.required = true;
            }
            _ => return Err(Fault::new(format!("invalid field '{field}' must be a key=value pair"))),
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, value: &str, field: &str, readonly_given: &mut bool) -> Result<(), Fault> {
        let bool = |value: &str| {
            parse_bool(value).ok_or_else(|| Fault::new(format!("invalid value for {key}: {value}")))
        };
        let number = |value: &str| {
            let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
            value
                .parse::<u32>()
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| Fault::new(format!("invalid value {value} for {key}")))
        };
        match key {
            "type" => self.kind = mount_type(value)?,
            "from" => self.from = value.to_owned(),
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "readonly" | "ro" => {
                self.readonly = bool(value)?;
                *readonly_given = true;
            }
            "readwrite" | "rw" => {
                self.readonly = !bool(value)?;
                *readonly_given = true;
            }
            "required" => {
                self.takes_required()?;
                self.required = bool(value)?;
            }
            "size" if self.kind == MountType::Tmpfs => {
                let size = bytes(value);
                self.size = size.ok_or_else(|| Fault::new(format!("invalid value for {key}: {value}")))?;
            }
            "size" => {
                return Err(Fault::new(format!(
                    "unexpected key 'size' for mount type '{}'",
                    self.kind.name()
                )));
            }
            "id" => self.id = value.to_owned(),
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => {
                let octal = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                let mode = u32::from_str_radix(value, 8).ok().filter(|_| octal);
                self.mode = Some(mode.ok_or_else(|| Fault::new(format!("invalid value {value} for mode")))?);
            }
            "uid" => self.uid = Some(number(value)?),
            "gid" => self.gid = Some(number(value)?),
            "env" => self.env = Some(value.to_owned()),
            _ => {
                let help = suggest::did_you_mean(key, &KEYS);
                return Err(Fault::new(format!("unexpected key '{key}' in '{field}'")).with_help(help));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Fault> {
        let name = self.kind.name();
        let owned = matches!(self.kind, MountType::Secret | MountType::Ssh | MountType::Cache);
        for (key, given) in
            [("mode", self.mode.is_some()), ("uid", self.uid.is_some()), ("gid", self.gid.is_some())]
        {
            if given && !owned {
                return Err(Fault::new(format!("{key} not allowed for {} type mounts", quote(name))));
            }
        }
        if self.kind == MountType::Secret {
            let what = if !self.from.is_empty() {
                "secret mount should not have a from"
            } else if self.sharing.is_some() {
                "secret mount should not define sharing"
            } else if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                "invalid secret mount. one of source, target required"
            } else if !self.source.is_empty() && !self.id.is_empty() {
                "both source and id can't be set"
            } else {
                ""
            };
            if !what.is_empty() {
                return Err(Fault::new(what));
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return Err(Fault::new(format!("invalid cache sharing set for {name} mount")));
        }
        Ok(())
    }
}

fn mount_type(value: &str) -> Result<MountType, Fault> {
    let all = [MountType::Bind, MountType::Cache, MountType::Tmpfs, MountType::Secret, MountType::Ssh];
    all.into_iter().find(|kind| kind.name() == value.to_lowercase()).ok_or_else(|| {
        let help = suggest::did_you_mean(value, &all.map(MountType::name));
        Fault::new(format!("unsupported mount type {}", quote(value))).with_help(help)
    })
}

fn sharing(value: &str) -> Result<Sharing, Fault> {
    let all = [Sharing::Shared, Sharing::Private, Sharing::Locked];
    all.into_iter().find(|mode| mode.name() == value.to_lowercase()).ok_or_else(|| {
        let help = suggest::did_you_mean(value, &all.map(Sharing::name));
        Fault::new(format!("unsupported sharing value {}", quote(value))).with_help(help)
    })
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `1.5g`, `64 MiB`: powers of 1024, as go-units' `RAMInBytes`.
pub fn bytes(text: &str) -> Option<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, suffix) = text.split_at(end + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let value: f64 = number.parse().ok().filter(|v| *v >= 0.0)?;
    let suffix = suffix.to_lowercase();
    let scale = match suffix.as_bytes() {
        b"" | b"b" => 1.0,
        [unit @ (b'k' | b'm' | b'g' | b't' | b'p')] => power(*unit),
        [unit @ (b'k' | b'm' | b'g' | b't' | b'p'), b'b'] => power(*unit),
        [unit @ (b'k' | b'm' | b'g' | b't' | b'p'), b'i', b'b'] => power(*unit),
        _ => return None,
    };
    // Saturates beyond what a file system could hold.
    #[allow(clippy::cast_possible_truncation)]
    Some((value * scale) as i64)
}

fn power(unit: u8) -> f64 {
    let exponent = b"kmgtp".iter().position(|u| *u == unit).unwrap_or(0) + 1;
    1024_f64.powi(i32::try_from(exponent).unwrap_or(1))
}

/// The fields of one CSV line. `of` names them in errors.
pub(crate) fn fields(raw: &str, of: &str) -> Result<Vec<String>, Fault> {
    let bad = |what: &str| Fault::new(format!("failed to parse csv {of}: {what}"));
    if raw.is_empty() {
        return Err(bad("EOF"));
    }
    let mut out = Vec::new();
    let mut rest = raw;
    loop {
        let Some(mut quoted) = rest.strip_prefix('"') else {
            let (field, next) = match rest.split_once(',') {
                Some((field, next)) => (field, Some(next)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(bad("bare \" in non-quoted field"));
            }
            out.push(field.to_owned());
            match next {
                Some(next) => rest = next,
                None => return Ok(out),
            }
            continue;
        };
        let mut field = String::new();
        loop {
            let end = quoted.find('"').ok_or_else(|| bad("extraneous or missing \" in quoted-field"))?;
            field.push_str(&quoted[..end]);
            quoted = &quoted[end + 1..];
            match quoted.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    quoted = more;
                }
                None => break,
            }
        }
        out.push(field);
        match quoted.strip_prefix(',') {
            Some(next) => rest = next,
            None if quoted.is_empty() => return Ok(out),
            None => return Err(bad("extraneous or missing \" in quoted-field")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(raw: &str) -> Result<Mount, String> {
        parse(raw, |v| Ok(v.to_owned())).map_err(|f| f.message)
    }

    #[test]
    fn defaults_follow_the_type() {
        assert!(plain("target=/a").unwrap().readonly);
        assert!(!plain("type=cache,target=/a").unwrap().readonly);
        assert_eq!(plain("type=tmpfs,target=/a,size=1m").unwrap().size, 1 << 20);
        assert_eq!(plain("\"target=/a,b\"").unwrap().target, "/a,b");
    }

    #[test]
    fn faults() {
        assert_eq!(plain("type=bind,z").unwrap_err(), "invalid field 'z' must be a key=value pair");
        assert_eq!(plain("size=1,type=tmpfs").unwrap_err(), "unexpected key 'size' for mount type 'bind'");
        assert_eq!(
            plain("type=secret,uid=1").unwrap_err(),
            "invalid secret mount. one of source, target required"
        );
        assert_eq!(check("from=$x").unwrap_err().message.split(' ').next(), Some("'from'"));
    }

    #[test]
    fn sizes() {
        for (text, want) in
            [("1", Some(1)), ("1k", Some(1024)), ("1.5 GiB", Some(1_610_612_736)), ("x", None)]
        {
            assert_eq!(bytes(text), want, "{text}");
        }
    }
}
