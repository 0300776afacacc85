//! What a group has and uses. The names are those of runc's `events`.

use std::io;

use serde::Serialize;

use super::Resctrl;
use crate::CgroupError;
use crate::dir::Dir;

/// A reading of a group. What the machine does not have is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RdtStats {
    /// The cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    /// The cache, as the default class has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema_root: Option<String>,
    /// The group's share of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    /// The memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<MemoryBandwidthInfo>,
    /// The memory bandwidth, as the default class has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema_root: Option<String>,
    /// The group's share of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    /// All of its shares.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Traffic to memory, by part of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<BandwidthUse>>,
    /// Cache in use, by part of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<CacheUse>>,
}

/// `info/L3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheInfo {
    /// All of the cache, as a mask.
    pub cbm_mask: String,
    /// The smallest share.
    pub min_cbm_bits: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// `info/MB`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryBandwidthInfo {
    /// The steps of a share, in percent.
    pub bandwidth_gran: u64,
    /// 1 if delay grows in proportion.
    pub delay_linear: u64,
    /// The smallest share, in percent.
    pub min_bandwidth: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// Traffic in bytes. A counter that the processor has no room for is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BandwidthUse {
    /// To all memory.
    pub mbm_total_bytes: u64,
    /// To the memory that is near.
    pub mbm_local_bytes: u64,
}

/// Cache in use, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheUse {
    /// `llc_occupancy`.
    pub llc_occupancy: u64,
}

pub(super) fn read(resctrl: &Resctrl, group: &Dir, monitored: &Dir) -> Result<RdtStats, CgroupError> {
    let root = &resctrl.root;
    let all = lines(root)?;
    let own = lines(group)?;
    let mut stats = RdtStats { schemata: own.clone(), ..RdtStats::default() };
    if resctrl.shares("L3")? {
        let cbm_mask = root.read("info/L3/cbm_mask")?.trim().to_owned();
        let [min_cbm_bits, num_closids] = numbers(root, ["info/L3/min_cbm_bits", "info/L3/num_closids"])?;
        stats.l3_cache_info = Some(CacheInfo { cbm_mask, min_cbm_bits, num_closids });
        stats.l3_cache_schema_root = of(&all, "L3");
        stats.l3_cache_schema = of(&own, "L3");
    }
    if resctrl.shares("MB")? {
        let names = ["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"];
        let [bandwidth_gran, delay_linear, min_bandwidth, num_closids] =
            numbers(root, names.map(|name| format!("info/MB/{name}")))?;
        stats.mem_bw_info =
            Some(MemoryBandwidthInfo { bandwidth_gran, delay_linear, min_bandwidth, num_closids });
        stats.mem_bw_schema_root = of(&all, "MB");
        stats.mem_bw_schema = of(&own, "MB");
    }
    if let Some(features) = root.read_optional("info/L3_MON/mon_features")? {
        count(monitored, &features, &mut stats)?;
    }
    Ok(stats)
}

/// The counters of each part of the machine, in the order of their names.
fn count(monitored: &Dir, features: &str, stats: &mut RdtStats) -> Result<(), CgroupError> {
    let has = |name: &str| features.lines().any(|line| line == name);
    let data = monitored.child("mon_data")?;
    let mut parts = data.names()?;
    parts.sort();
    let (mut traffic, mut cache) = (Vec::new(), Vec::new());
    for part in parts {
        let part = data.child(&part)?;
        let counter = |name: &str| if has(name) { counter(&part, name) } else { Ok(0) };
        traffic.push(BandwidthUse {
            mbm_total_bytes: counter("mbm_total_bytes")?,
            mbm_local_bytes: counter("mbm_local_bytes")?,
        });
        cache.push(CacheUse { llc_occupancy: counter("llc_occupancy")? });
    }
    stats.mbm_stats = (has("mbm_total_bytes") || has("mbm_local_bytes")).then_some(traffic);
    stats.cmt_stats = has("llc_occupancy").then_some(cache);
    Ok(())
}

/// A counter, or zero where the kernel says `Unavailable` or `Unassigned`.
fn counter(part: &Dir, name: &str) -> Result<u64, CgroupError> {
    Ok(part.read(name)?.trim().parse().unwrap_or(0))
}

fn lines(dir: &Dir) -> Result<Vec<String>, CgroupError> {
    Ok(dir
        .read("schemata")?
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect())
}

fn of(lines: &[String], resource: &str) -> Option<String> {
    lines.iter().find(|line| line.split(':').next() == Some(resource)).cloned()
}

fn numbers<const N: usize>(root: &Dir, names: [impl AsRef<str>; N]) -> Result<[u64; N], CgroupError> {
    let mut values = [0; N];
    for (value, name) in values.iter_mut().zip(names) {
        let name = name.as_ref();
        *value = root.read(name)?.trim().parse().map_err(|error| {
            CgroupError::io("read", root.path.join(name), io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
    }
    Ok(values)
}
