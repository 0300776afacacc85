//! `update`: other limits for a running container.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, bail};
use berth_cgroup::resctrl::{Group, Resctrl};
use berth_spec::{RdtPlan, oci};
use clap::Args;

use crate::log::Log;
use crate::resources::{self, Patch, bytes};
use crate::state::{Container, Status, Store};

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// File with linux.resources as JSON; - is standard input. The other flags are ignored then
    #[arg(short, long)]
    resources: Option<PathBuf>,
    /// Share of block I/O, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Period of the CPU quota in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// CPU time in each period, in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long)]
    cpu_burst: Option<u64>,
    /// Share of CPU time
    #[arg(long)]
    cpu_share: Option<u64>,
    /// Period of realtime scheduling in microseconds
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Realtime CPU time in each period, in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// CPUs that may be used
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes that may be used
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// 1: run only when nobody else wants the CPU
    #[arg(long)]
    cpu_idle: Option<i64>,
    /// Memory limit in bytes, or with k, m, g
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Soft memory limit
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// Limit of memory and swap together; -1 is none
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Share of the L3 cache, as in L3:0=7f0;1=1f
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Share of the memory bandwidth, as in MB:0=20;1=70
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// Limit of processes; -1 is none
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Update {
    pub(crate) fn run(&self, store: &Store, log: &Log) -> anyhow::Result<u8> {
        let mut container = store.load(&self.id)?;
        if matches!(container.status(), Status::Stopped | Status::Creating) {
            bail!("container not running: {} is {}", self.id, container.status().name());
        }
        let shares = self.shares(&container)?;
        let wanted = self.wanted()?;
        if shares.is_none() && wanted == oci::LinuxResources::default() {
            bail!("no limit was given (see `berth-runtime update --help`)");
        }
        let before = match container.record.limits.take() {
            Some(limits) => limits,
            None => {
                container.spec()?.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default()
            }
        };
        let change = resources::change(&before, &wanted)?;
        if let Some(warning) = change.warning {
            log.explain(warning);
        }
        container.live_cgroup()?.set(&change.apply)?;
        if let Some((group, shares)) = shares {
            group.set(&shares)?;
        }
        container.record.limits = Some(change.remember);
        container.save()?;
        Ok(0)
    }

    fn wanted(&self) -> anyhow::Result<oci::LinuxResources> {
        if let Some(path) = &self.resources {
            return read(path);
        }
        let mut patch = Patch::default();
        patch.set("blockIO", "weight", self.blkio_weight);
        patch.set("cpu", "period", self.cpu_period);
        patch.set("cpu", "quota", self.cpu_quota);
        patch.set("cpu", "burst", self.cpu_burst);
        patch.set("cpu", "shares", self.cpu_share);
        patch.set("cpu", "realtimePeriod", self.cpu_rt_period);
        patch.set("cpu", "realtimeRuntime", self.cpu_rt_runtime);
        patch.set("cpu", "cpus", self.cpuset_cpus.clone());
        patch.set("cpu", "mems", self.cpuset_mems.clone());
        patch.set("cpu", "idle", self.cpu_idle);
        patch.set("memory", "limit", self.memory);
        patch.set("memory", "reservation", self.memory_reservation);
        patch.set("memory", "swap", self.memory_swap);
        patch.set("pids", "limit", self.pids_limit);
        patch.build()
    }

    /// What is to be shared out of caches and memory bandwidth, and the container's group.
    fn shares(&self, container: &Container) -> anyhow::Result<Option<(Group, RdtPlan)>> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (cache, bandwidth) = (given(&self.l3_cache_schema), given(&self.mem_bw_schema));
        if cache.is_none() && bandwidth.is_none() {
            return Ok(None);
        }
        let resctrl = Resctrl::find()?;
        if cache.is_some() && !resctrl.shares("L3")? {
            bail!("Intel RDT/CAT: l3 cache schema is not enabled");
        }
        if bandwidth.is_some() && !resctrl.shares("MB")? {
            bail!("Intel RDT/MBA: memory bandwidth schema is not enabled");
        }
        let group = container.rdt()?.context(
            "updating a non-existent Intel RDT configuration is not supported (the container was made without linux.intelRdt)",
        )?;
        Ok(Some((group, RdtPlan { cache: cache.into_iter().collect(), bandwidth, ..RdtPlan::default() })))
    }
}

fn read(path: &PathBuf) -> anyhow::Result<oci::LinuxResources> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    }
    berth_spec::parse_resources(text.as_bytes())
        .with_context(|| format!("{} is no linux.resources", path.display()))
}
