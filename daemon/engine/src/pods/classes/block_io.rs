//! Classes of block I/O: a file in goresctrl's form, and the limits that a class is on this host.
//!
//! ```text
//!   Classes:
//!     slow:
//!     - Weight: 80                        of all devices that are not named below
//!     - Devices: [/dev/sd[a-z], /dev/disk/by-id/*SSD*]
//!       ThrottleReadBps: 50M              numbers are Kubernetes' quantities
//! ```
//!
//! What stands later in a class overrides, device by device, what stands before it. Partitions have no limits of their own
//! and are passed over. The file is read whenever a container asks for a class, so a change holds from then on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use berth_spec::oci;
use nix::sys::stat::{major, minor};
use serde::Deserialize;

use crate::error::{EngineError, Result};

/// Why there is no such class.
type Parsed<T> = std::result::Result<T, String>;

/// Weights that the kernel takes.
const WEIGHTS: std::ops::RangeInclusive<u64> = 10..=1000;

/// A file of classes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct File {
    classes: BTreeMap<String, Vec<Item>>,
}

/// One item of a class.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct Item {
    /// Patterns of device files; none: all devices.
    devices: Option<Vec<String>>,
    weight: Option<Quantity>,
    throttle_read_bps: Option<Quantity>,
    throttle_write_bps: Option<Quantity>,
    #[serde(rename = "ThrottleReadIOPS")]
    throttle_read_iops: Option<Quantity>,
    #[serde(rename = "ThrottleWriteIOPS")]
    throttle_write_iops: Option<Quantity>,
}

/// A number, bare or with a unit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "Written")]
struct Quantity(u64);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for Quantity {
    type Error = String;

    fn try_from(written: Written) -> Parsed<Self> {
        match written {
            Written::Number(number) => Some(number),
            Written::Text(ref text) => quantity(text),
        }
        .map(Self)
        .ok_or_else(|| format!("a quantity is expected, such as 50M or 10k, not {written:?}"))
    }
}

/// Whether a file of classes can be understood.
pub(crate) fn check_file(file: &Path) -> Result<()> {
    let invalid = |why: String| EngineError::invalid(format!("classes of block I/O: {why}"));
    parse(file).map(drop).map_err(invalid)
}

/// The limits of a class.
pub(super) fn limits(file: Option<&Path>, class: &str) -> Parsed<oci::LinuxBlockIo> {
    let Some(file) = file else {
        return Err(
            "there are no classes here: name a file of them with berthd --cri-blockio-classes".to_owned()
        );
    };
    let classes = parse(file)?;
    let Some(items) = classes.get(class) else {
        let known: Vec<&str> = classes.keys().map(String::as_str).collect();
        return Err(format!("{} has no such class (it has: {})", file.display(), known.join(", ")));
    };
    build(items, &block_devices)
}

fn parse(file: &Path) -> Parsed<BTreeMap<String, Vec<Item>>> {
    let named = |why: String| format!("{}: {why}", file.display());
    let text = fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
    classes(&text).map_err(named)
}

fn classes(text: &str) -> Parsed<BTreeMap<String, Vec<Item>>> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    for (class, item) in
        file.classes.iter().flat_map(|(class, items)| items.iter().map(move |item| (class, item)))
    {
        let refused = |why: &str| Err(format!("class {class:?}: {why}"));
        if item.weight.is_some_and(|weight| !WEIGHTS.contains(&weight.0)) {
            return refused("Weight must be from 10 to 1000");
        }
        if item.devices.is_none() && item.throttles().iter().any(Option::is_some) {
            return refused("throttling needs Devices");
        }
    }
    Ok(file.classes)
}

impl Item {
    /// Bytes read and written, operations read and written, each a second.
    fn throttles(&self) -> [Option<u64>; 4] {
        let all = [
            self.throttle_read_bps,
            self.throttle_write_bps,
            self.throttle_read_iops,
            self.throttle_write_iops,
        ];
        all.map(|rate| rate.map(|rate| rate.0))
    }

    fn weight(&self) -> Option<u16> {
        self.weight.and_then(|weight| u16::try_from(weight.0).ok())
    }
}

/// A quantity of Kubernetes as a whole number, rounded up: `50M`, `1.5Gi`, `10k`, `2e3`.
fn quantity(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let text = text.trim();
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1.0));
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let value = (digits.parse::<f64>().ok()? * factor).ceil();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (value.is_finite() && value < 9e18).then_some(value as u64)
}

/// Numbers of a device.
type Device = (u64, u64);

fn build(items: &[Item], find: &dyn Fn(&[String]) -> Parsed<Vec<Device>>) -> Parsed<oci::LinuxBlockIo> {
    let mut all = None;
    let mut weights: BTreeMap<Device, u16> = BTreeMap::new();
    let mut rates: [BTreeMap<Device, u64>; 4] = Default::default();
    for item in items {
        let Some(patterns) = &item.devices else {
            all = item.weight().or(all);
            continue;
        };
        for device in find(patterns)? {
            weights.extend(item.weight().map(|weight| (device, weight)));
            for (rates, rate) in rates.iter_mut().zip(item.throttles()) {
                rates.extend(rate.map(|rate| (device, rate)));
            }
        }
    }
    let throttles = rates.map(|rates| throttle(&rates));
    let [read_bps, write_bps, read_iops, write_iops] = throttles;
    let weights =
        weights.iter().map(|(device, weight)| weight_of(*device, *weight)).collect::<Parsed<Vec<_>>>()?;
    let mut limits = oci::LinuxBlockIo::default();
    limits.set_weight(all).set_weight_device((!weights.is_empty()).then_some(weights));
    limits.set_throttle_read_bps_device(read_bps?).set_throttle_write_bps_device(write_bps?);
    limits.set_throttle_read_iops_device(read_iops?).set_throttle_write_iops_device(write_iops?);
    Ok(limits)
}

fn weight_of((major, minor): Device, weight: u16) -> Parsed<oci::LinuxWeightDevice> {
    let numbers = (i64::try_from(major).unwrap_or(0), i64::try_from(minor).unwrap_or(0));
    let built =
        oci::LinuxWeightDeviceBuilder::default().major(numbers.0).minor(numbers.1).weight(weight).build();
    built.map_err(|error| error.to_string())
}

fn throttle(rates: &BTreeMap<Device, u64>) -> Parsed<Option<Vec<oci::LinuxThrottleDevice>>> {
    let one = |((major, minor), rate): (&Device, &u64)| {
        let numbers = (i64::try_from(*major).unwrap_or(0), i64::try_from(*minor).unwrap_or(0));
        let built =
            oci::LinuxThrottleDeviceBuilder::default().major(numbers.0).minor(numbers.1).rate(*rate).build();
        built.map_err(|error| error.to_string())
    };
    let list = rates.iter().map(one).collect::<Parsed<Vec<_>>>()?;
    Ok((!list.is_empty()).then_some(list))
}

/// The whole block devices that patterns of paths mean; a pattern that nothing fits is a device that is not plugged in.
fn block_devices(patterns: &[String]) -> Parsed<Vec<Device>> {
    let mut found = Vec::new();
    for pattern in patterns {
        let paths = glob::glob(pattern).map_err(|error| format!("the pattern {pattern:?}: {error}"))?;
        found.extend(paths.filter_map(|path| block_device(path.ok()?)));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn block_device(path: PathBuf) -> Option<Device> {
    // Links are followed.
    let metadata = fs::metadata(path).ok().filter(|metadata| metadata.file_type().is_block_device())?;
    let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
    let partition = Path::new("/sys/dev/block").join(format!("{major}:{minor}")).join("partition");
    (!partition.exists()).then_some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, number) in [
            ("80", 80),
            ("50M", 50_000_000),
            ("10k", 10_000),
            ("1.5Gi", 1_610_612_736),
            ("2e3", 2000),
            ("1500m", 2),
        ] {
            assert_eq!(quantity(text), Some(number), "{text}");
        }
        for text in ["", "M", "5X", "nan", "inf", "50 apples"] {
            assert_eq!(quantity(text), None, "{text}");
        }
    }

    #[test]
    fn later_items_override_earlier_ones_device_by_device() {
        let text = "Classes:\n  slow:\n  - Weight: 80\n  - Devices: [a, b]\n    ThrottleReadBps: 50M\n    Weight: 50\n  \
                    - Devices: [b]\n    ThrottleReadBps: 1M\n    ThrottleWriteIOPS: 5k\n  plain:\n  - Weight: 400\n";
        let all = classes(text).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["plain", "slow"]);
        let find =
            |patterns: &[String]| Ok(patterns.iter().map(|name| (8, u64::from(name == "b"))).collect());
        let limits = build(&all["slow"], &find).unwrap();
        assert_eq!(limits.weight(), Some(80));
        let rate = |list: &Option<Vec<oci::LinuxThrottleDevice>>| -> Vec<(i64, u64)> {
            list.iter().flatten().map(|device| (device.minor(), device.rate())).collect()
        };
        assert_eq!(rate(limits.throttle_read_bps_device()), [(0, 50_000_000), (1, 1_000_000)]);
        assert_eq!(rate(limits.throttle_write_iops_device()), [(1, 5000)]);
        assert!(limits.throttle_write_bps_device().is_none());
        assert_eq!(limits.weight_device().as_ref().unwrap().len(), 2);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, words) in [
            ("Classes:\n  a:\n  - Weight: 5\n", "class \"a\": Weight must be from 10 to 1000"),
            ("Classes:\n  a:\n  - ThrottleReadBps: 5M\n", "needs Devices"),
            ("Classes:\n  a:\n  - Devices: [/dev/x]\n    ThrottleReadBps: fast\n", "a quantity is expected"),
            ("Classes:\n  a:\n  - Wieght: 50\n", "Wieght"),
            ("Klasses: {}\n", "Klasses"),
        ] {
            let error = classes(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(classes("Classes: {}").unwrap().is_empty());
    }
}
