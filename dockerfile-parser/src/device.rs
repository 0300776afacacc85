//! `RUN --device=…`.

use crate::diagnostic::Fault;
use crate::mount::{fields, parse_bool};
use crate::suggest;

/// A device that a step asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// By its name in the Container Device Interface: `vendor.com/class=name`. Without `=name` the first of that kind,
    /// with `=*` all of them.
    pub name: String,
    /// Whether the step cannot do without it.
    pub required: bool,
}

const KEYS: [&str; 2] = ["name", "required"];

/// Parses a value of `--device`: `NAME[,required]`, or `name=NAME,required=BOOL`.
///
/// # Errors
/// On a second name, unknown keys and bad values.
pub fn parse(raw: &str) -> Result<Device, Fault> {
    let mut device = Device::default();
    for field in fields(raw, "devices")? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                let wrong = || Fault::new(format!("invalid value for {key}: {value}"));
                device.required = parse_bool(value).ok_or_else(wrong)?;
            }
            ("name", Some(_)) if !device.name.is_empty() => {
                return Err(Fault::new(format!("device name already set to {}", device.name)));
            }
            ("name", Some(value)) => device.name = value.to_owned(),
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return Err(Fault::new(format!("invalid field '{field}' must be a key=value pair"))),
            (_, Some(_)) => {
                let help = suggest::did_you_mean(&key, &KEYS);
                return Err(Fault::new(format!("unexpected key '{key}' in '{field}'")).with_help(help));
            }
        }
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_the_sign_of_pairs() {
        let device = |name: &str, required| Ok(Device { name: name.to_owned(), required });
        for (raw, want) in [
            ("vendor.com/gpu", device("vendor.com/gpu", false)),
            ("vendor.com/gpu=*,required", device("vendor.com/gpu=*", true)),
            ("name=vendor.com/gpu=0,required=false", device("vendor.com/gpu=0", false)),
            ("required", device("", true)),
            ("a,name=b", Err("device name already set to a".to_owned())),
            ("a,b", Err("invalid field 'b' must be a key=value pair".to_owned())),
            ("a,requird=1", Err("unexpected key 'requird' in 'requird=1'".to_owned())),
            ("a,required=maybe", Err("invalid value for required: maybe".to_owned())),
        ] {
            assert_eq!(parse(raw).map_err(|fault| fault.message), want, "{raw}");
        }
    }
}
