//! `linux.resources` → properties of a unit (systemd.resource-control(5), org.freedesktop.systemd1(5)). Pure.
//!
//! systemd writes to the same control files as the plan does, whenever it likes: what it knows a property for, it must
//! know. The plan goes on to write everything, for the rest systemd has no property.

use berth_dbus::Value;
use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::devices;
use crate::plan::pids_max;
use crate::{CgroupError, v2};

/// A property and its value.
pub(crate) type Property = (String, Value);

/// The kernel's default period of a CPU quota.
const DEFAULT_PERIOD_US: u64 = 100_000;
/// systemd counts quotas in hundredths of a processor.
const QUOTA_STEP_US: u64 = 10_000;
/// `infinity`.
const UNLIMITED: u64 = u64::MAX;
/// A weight of 0 is "idle" from here on.
const KNOWS_IDLE: u32 = 252;
/// OOMPolicy of a scope, from here on.
const KNOWS_OOM_POLICY: u32 = 253;

/// True if what to say depends on the version of systemd.
pub(crate) fn depends_on_version(resources: &LinuxResources) -> bool {
    let unified = |key: &str| resources.unified().as_ref().is_some_and(|files| files.contains_key(key));
    resources.cpu().as_ref().is_some_and(|cpu| cpu.idle().is_some())
        || unified("cpu.idle")
        || unified("memory.oom.group")
}

/// What the unit of a container has, limits apart.
pub(crate) fn of_scope(version: u8, container: &str, slice: &str) -> Vec<Property> {
    let io = if version == 2 { "IOAccounting" } else { "BlockIOAccounting" };
    let mut list = vec![
        ("Description".to_owned(), Value::text(format!("container {container}"))),
        ("Slice".to_owned(), Value::text(slice)),
    ];
    // A controller that comes later would not count what was used before.
    let set = ["Delegate", "MemoryAccounting", "CPUAccounting", io, "TasksAccounting"];
    list.extend(set.map(|name| (name.to_owned(), Value::Bool(true))));
    list.push(("DefaultDependencies".to_owned(), Value::Bool(false)));
    list
}

/// What can be said only when the unit is made.
pub(crate) fn at_start(resources: &LinuxResources, systemd: u32) -> Vec<Property> {
    let group = resources.unified().as_ref().and_then(|files| files.get("memory.oom.group"));
    let policy = match group.map(|value| value.trim()) {
        Some("0") => "continue",
        Some("1") => "kill",
        _ => return Vec::new(),
    };
    if systemd < KNOWS_OOM_POLICY {
        return Vec::new();
    }
    vec![("OOMPolicy".to_owned(), Value::text(policy))]
}

/// Limits. `systemd` is its version; it matters only if [`depends_on_version`].
pub(crate) fn of_limits(
    version: u8,
    resources: &LinuxResources,
    systemd: u32,
) -> Result<Vec<Property>, CgroupError> {
    let mut list = Properties(Vec::new());
    if version == 2 {
        list.memory_v2(resources)?;
        list.weight_v2(resources, systemd);
    } else {
        list.0.extend(devices::properties(resources.devices().as_deref().unwrap_or_default()));
        list.limits_v1(resources);
    }
    if let Some(cpu) = resources.cpu() {
        let positive = cpu.quota().and_then(|quota| u64::try_from(quota).ok());
        let stated = cpu.quota().is_some_and(|quota| quota != 0);
        list.quota(positive, stated, cpu.period().unwrap_or(0));
        for (name, text) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                list.set_of_numbers(name, text, "linux.resources.cpu")?;
            }
        }
    }
    if let Some(pids) = resources.pids() {
        list.number("TasksMax", u64::try_from(pids_max(pids.limit())).unwrap_or(UNLIMITED));
    }
    if version == 2 {
        for (file, value) in resources.unified().iter().flatten() {
            list.unified(file, value.trim(), systemd)?;
        }
    }
    list.0.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(list.0)
}

/// The same resources with the quota that systemd makes of it, so that the file says what the unit says.
pub(crate) fn rounded(resources: &LinuxResources) -> LinuxResources {
    let mut resources = resources.clone();
    if let Some(mut cpu) = resources.cpu().clone()
        && let Some(quota) =
            cpu.quota().and_then(|quota| u64::try_from(quota).ok()).filter(|quota| *quota > 0)
    {
        let period = period_of(&cpu);
        let exact = per_second(quota, period);
        let rounded = round_up(exact);
        if rounded != exact {
            cpu.set_quota(i64::try_from(u128::from(rounded) * u128::from(period) / 1_000_000).ok());
            resources.set_cpu(Some(cpu));
        }
    }
    resources
}

fn period_of(cpu: &LinuxCpu) -> u64 {
    cpu.period().filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD_US)
}

fn per_second(quota: u64, period: u64) -> u64 {
    u64::try_from(u128::from(quota) * 1_000_000 / u128::from(period)).unwrap_or(UNLIMITED)
}

fn round_up(per_second: u64) -> u64 {
    per_second.checked_next_multiple_of(QUOTA_STEP_US).unwrap_or(UNLIMITED)
}

struct Properties(Vec<Property>);

impl Properties {
    fn number(&mut self, name: &str, value: u64) {
        self.0.push((name.to_owned(), Value::Uint64(value)));
    }

    /// `-1` and the like are "infinity".
    fn limit(&mut self, name: &str, value: i64) {
        self.number(name, u64::try_from(value).unwrap_or(UNLIMITED));
    }

    fn memory_v2(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
            self.limit("MemoryMax", limit);
        }
        if let Some(low) = memory.reservation().filter(|low| *low != 0) {
            self.limit("MemoryLow", low);
        }
        if let Some(swap) = v2::swap(memory)? {
            self.limit("MemorySwapMax", swap);
        }
        Ok(())
    }

    fn weight_v2(&mut self, resources: &LinuxResources, systemd: u32) {
        let Some(cpu) = resources.cpu() else { return };
        if cpu.idle() == Some(1) && systemd >= KNOWS_IDLE {
            self.number("CPUWeight", 0);
        } else if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1)) {
            self.number("CPUWeight", v2::weight(shares));
        }
    }

    fn limits_v1(&mut self, resources: &LinuxResources) {
        let limit = resources.memory().as_ref().and_then(|memory| memory.limit());
        if let Some(limit) = limit.filter(|limit| *limit != 0) {
            self.limit("MemoryLimit", limit);
        }
        let shares = resources.cpu().as_ref().and_then(|cpu| cpu.shares());
        if let Some(shares) = shares.filter(|shares| *shares != 0) {
            self.number("CPUShares", shares);
        }
        let weight = resources.block_io().as_ref().and_then(|io| io.weight());
        if let Some(weight) = weight.filter(|weight| *weight != 0) {
            self.number("BlockIOWeight", weight.into());
        }
    }

    /// `quota` in µs for each period of `period` µs; without a quota it is unlimited. 0 is the default period.
    fn quota(&mut self, quota: Option<u64>, stated: bool, period: u64) {
        if period != 0 {
            self.number("CPUQuotaPeriodUSec", period);
        }
        let quota = quota.filter(|quota| *quota > 0);
        let period = if period == 0 { DEFAULT_PERIOD_US } else { period };
        match quota {
            Some(quota) => self.number("CPUQuotaPerSecUSec", round_up(per_second(quota, period))),
            None if stated || period != DEFAULT_PERIOD_US => self.number("CPUQuotaPerSecUSec", UNLIMITED),
            None => {}
        }
    }

    fn set_of_numbers(&mut self, name: &str, text: &str, field: &str) -> Result<(), CgroupError> {
        let invalid = || CgroupError::invalid(field, format!("{text:?} is no list such as 0-2,4"));
        let bits = bits(text).ok_or_else(invalid)?;
        self.0.push((name.to_owned(), Value::Array("y".into(), bits.into_iter().map(Value::Byte).collect())));
        Ok(())
    }

    /// A control file by name, where systemd has a property for it.
    fn unified(&mut self, file: &str, value: &str, systemd: u32) -> Result<(), CgroupError> {
        let field = format!("linux.resources.unified.{file}");
        let number = |text: &str| match text {
            "max" => Ok(UNLIMITED),
            _ => text
                .parse::<u64>()
                .map_err(|_| CgroupError::invalid(&field, format!("{text:?} is no number"))),
        };
        match file {
            "cpu.idle" if value == "1" && systemd >= KNOWS_IDLE => self.replace("CPUWeight", 0),
            // An idle group has no weight.
            "cpu.weight" if self.0.contains(&("CPUWeight".to_owned(), Value::Uint64(0))) => {}
            "cpu.weight" => self.replace("CPUWeight", number(value)?),
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let quota = words.next().unwrap_or_default();
                let quota = if quota == "max" { None } else { Some(number(quota)?) };
                let period = words.next().map_or(Ok(DEFAULT_PERIOD_US), number)?;
                self.quota(quota, true, period);
            }
            "cpuset.cpus" => self.set_of_numbers("AllowedCPUs", value, &field)?,
            "cpuset.mems" => self.set_of_numbers("AllowedMemoryNodes", value, &field)?,
            "memory.high" => self.replace("MemoryHigh", number(value)?),
            "memory.low" => self.replace("MemoryLow", number(value)?),
            "memory.min" => self.replace("MemoryMin", number(value)?),
            "memory.max" => self.replace("MemoryMax", number(value)?),
            "memory.swap.max" => self.replace("MemorySwapMax", number(value)?),
            // systemd refuses 0.
            "pids.max" => self.replace("TasksMax", number(value)?.max(1)),
            _ => {}
        }
        Ok(())
    }

    /// Files by name win over the typed fields.
    fn replace(&mut self, name: &str, value: u64) {
        self.0.retain(|(known, _)| known != name);
        self.number(name, value);
    }
}

/// `0-2,4` as a bit mask, lowest byte first.
fn bits(text: &str) -> Option<Vec<u8>> {
    // The kernel has at most 8192 processors (CONFIG_NR_CPUS); systemd's limit is the same.
    const MOST: usize = 8192;
    let mut mask = Vec::new();
    for range in text.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        for number in first..=last {
            if mask.len() <= number / 8 {
                mask.resize(number / 8 + 1, 0);
            }
            mask[number / 8] |= 1 << (number % 8);
        }
    }
    (!mask.is_empty()).then_some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limits(version: u8, resources: serde_json::Value) -> Vec<(String, Value)> {
        of_limits(version, &serde_json::from_value(resources).unwrap(), 252).unwrap()
    }

    fn numbers(list: &[Property]) -> Vec<(&str, u64)> {
        let number = |value: &Value| if let Value::Uint64(number) = value { Some(*number) } else { None };
        list.iter().filter_map(|(name, value)| Some((name.as_str(), number(value)?))).collect()
    }

    #[test]
    fn typed_limits_of_version_2() {
        let list = limits(
            2,
            json!({
                "memory": {"limit": 100, "swap": 150, "reservation": -1},
                "cpu": {"shares": 1024, "quota": 5001, "period": 10000, "cpus": "0-2,9", "mems": "0"},
                "pids": {"limit": 0}
            }),
        );
        let expected = [
            ("CPUQuotaPerSecUSec", 510_000),
            ("CPUQuotaPeriodUSec", 10_000),
            ("CPUWeight", 100),
            ("MemoryLow", UNLIMITED),
            ("MemoryMax", 100),
            ("MemorySwapMax", 50),
            ("TasksMax", 1),
        ];
        assert_eq!(numbers(&list), expected);
        let cpus = Value::Array("y".into(), vec![Value::Byte(7), Value::Byte(2)]);
        assert!(list.contains(&("AllowedCPUs".into(), cpus)));
    }

    #[test]
    fn files_by_name_win() {
        let list = limits(
            2,
            json!({
                "memory": {"limit": 100},
                "unified": {"memory.max": "max", "pids.max": "7", "cpu.max": "max 50000", "cpu.idle": "1",
                            "cpu.weight": "42", "hugetlb.2MB.max": "0"}
            }),
        );
        let expected = [
            ("CPUQuotaPerSecUSec", UNLIMITED),
            ("CPUQuotaPeriodUSec", 50_000),
            ("CPUWeight", 0),
            ("MemoryMax", UNLIMITED),
            ("TasksMax", 7),
        ];
        assert_eq!(numbers(&list), expected);
    }

    #[test]
    fn version_1_has_names_of_its_own() {
        let list = limits(
            1,
            json!({
                "memory": {"limit": 100, "swap": 150},
                "cpu": {"shares": 512, "quota": -1},
                "blockIO": {"weight": 300}
            }),
        );
        let expected = [
            ("BlockIOWeight", 300),
            ("CPUQuotaPerSecUSec", UNLIMITED),
            ("CPUShares", 512),
            ("MemoryLimit", 100),
        ];
        assert_eq!(numbers(&list), expected);
    }

    #[test]
    fn the_file_says_what_the_unit_says() {
        let quota = |quota: i64, period: u64| {
            let resources = json!({"cpu": {"quota": quota, "period": period}});
            let resources = rounded(&serde_json::from_value(resources).unwrap());
            resources.cpu().as_ref().unwrap().quota()
        };
        assert_eq!(quota(4000, 10_000), Some(4000));
        assert_eq!(quota(5001, 10_000), Some(5100));
        assert_eq!(quota(-1, 10_000), Some(-1));
        assert_eq!(quota(12_345, 0), Some(13_000));
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(bits("1, 3-5,"), Some(vec![0b11_1010]));
        assert_eq!(bits("5-8"), Some(vec![0b1110_0000, 1]));
        for wrong in ["", ",", "a", "3-1", "1-", "99999999999", "0-8192"] {
            assert_eq!(bits(wrong), None, "{wrong:?}");
        }
    }
}
