//! The machine an experiment ran on.

use serde::{Deserialize, Serialize};

/// Facts that a reader needs to repeat or to doubt a measurement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Name and value, in the order they are shown.
    pub machine: Vec<(String, String)>,
}

impl Facts {
    /// What this machine says of itself; what it does not say is left out.
    #[must_use]
    pub fn gather() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let field = |text: Option<String>, key: &str| {
            let text = text?;
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
        };
        let kernel = read("/proc/sys/kernel/osrelease");
        let processors = std::thread::available_parallelism().ok().map(|count| count.to_string());
        let bytes = |key| {
            let text: f64 = field(read("/proc/meminfo"), key)?.strip_suffix(" kB")?.parse().ok()?;
            Some(crate::experiment::format_bytes(text * 1024.0))
        };
        let swap = bytes("SwapTotal").map(|swap| if swap == "0 B" { "none".to_owned() } else { swap });
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let facts = [
            ("Processor", field(read("/proc/cpuinfo"), "model name")),
            ("Processors", processors),
            ("Frequency governor", governor),
            ("Virtual machine", read("/sys/class/dmi/id/product_name").filter(|name| !name.is_empty())),
            ("Memory", bytes("MemTotal")),
            ("Swap", swap),
            ("Kernel", kernel),
            ("Kernel arguments", read("/proc/cmdline")),
            ("Distribution", field(read("/etc/os-release"), "PRETTY_NAME")),
            ("Control groups", Some(cgroups(&read("/proc/self/mountinfo").unwrap_or_default()))),
            (
                "Load before",
                read("/proc/loadavg").map(|load| load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
            ),
        ];
        let known = |(name, value): (&str, Option<String>)| Some((name.to_owned(), value?));
        Self { machine: facts.into_iter().filter_map(known).collect() }
    }
}

/// Which versions are mounted.
fn cgroups(mountinfo: &str) -> String {
    let kinds: Vec<&str> = mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - ")?.1.split(' ').next())
        .filter(|kind| kind.starts_with("cgroup"))
        .collect();
    match (kinds.contains(&"cgroup"), kinds.contains(&"cgroup2")) {
        (true, true) => "version 1 with version 2 beside it (hybrid)",
        (true, false) => "version 1",
        (false, true) => "version 2",
        (false, false) => "none mounted",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_who_it_is() {
        let facts = Facts::gather();
        let names: Vec<&str> = facts.machine.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"Kernel") && names.contains(&"Processors"), "{names:?}");
    }

    #[test]
    fn versions_of_control_groups() {
        assert_eq!(cgroups("1 0 0:1 / /a rw - cgroup cgroup rw,memory\n"), "version 1");
        assert_eq!(cgroups("1 0 0:1 / /a rw - cgroup2 cgroup2 rw\n"), "version 2");
    }
}
