//! `berth update`.

use anyhow::Result;
use berth_api::container::{Resources, UpdateRequest};
use clap::Args;

use super::each;
use crate::exit::Exit;
use crate::flags::resources;
use crate::output::units;
use crate::session::Session;

/// Change the limits of containers
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = units::parse_memory)]
    memory: Option<i64>,
    /// Memory and swap together; -1 is unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory_or_unlimited, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Soft memory limit
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory)]
    memory_reservation: Option<i64>,
    /// Number of processors
    #[arg(long, value_parser = units::parse_cpus)]
    cpus: Option<i64>,
    /// Processor shares (relative weight)
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// Scheduler period in microseconds
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Processor time per period in microseconds
    #[arg(long, allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Real-time scheduler period in microseconds
    #[arg(long)]
    cpu_rt_period: Option<i64>,
    /// Real-time processor time per period in microseconds
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// Processors that may be used: 0-3, 0,1
    #[arg(long, default_value = "")]
    cpuset_cpus: String,
    /// Memory nodes that may be used
    #[arg(long, default_value = "")]
    cpuset_mems: String,
    /// Number of processes; -1 is unlimited
    #[arg(long, allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Block I/O weight, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Restart policy: no, always, unless-stopped, on-failure[:times]
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Update) -> Result<Exit> {
    let client = session.client().await?;
    let request = UpdateRequest {
        restart_policy: args.restart.as_deref().map(resources::restart).transpose()?.unwrap_or_default(),
        resources: Resources {
            memory: args.memory.unwrap_or(0),
            memory_swap: args.memory_swap.unwrap_or(0),
            memory_reservation: args.memory_reservation.unwrap_or(0),
            nano_cpus: args.cpus.unwrap_or(0),
            cpu_shares: args.cpu_shares.unwrap_or(0),
            cpu_period: args.cpu_period.unwrap_or(0),
            cpu_quota: args.cpu_quota.unwrap_or(0),
            cpu_realtime_period: args.cpu_rt_period.unwrap_or(0),
            cpu_realtime_runtime: args.cpu_rt_runtime.unwrap_or(0),
            cpuset_cpus: args.cpuset_cpus,
            cpuset_mems: args.cpuset_mems,
            pids_limit: args.pids_limit,
            blkio_weight: args.blkio_weight.unwrap_or(0),
            ..Resources::default()
        },
    };
    each(&args.containers, async |name: &str| {
        let answer = client.container_update(name, &request).await?;
        answer.warnings.iter().flatten().for_each(|warning| eprintln!("WARNING: {warning}"));
        Ok(())
    })
    .await
}
