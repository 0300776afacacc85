//! `berth info`.

use anyhow::Result;
use berth_api::system::SystemInfo;
use clap::Args;

use crate::exit::Exit;
use crate::output::list::render_one;
use crate::output::units;
use crate::session::Session;

/// Show what the engine is and has
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Format: json or a template
    #[arg(short, long)]
    format: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Info) -> Result<Exit> {
    let info = session.client().await?.info().await?;
    match &args.format {
        Some(format) => {
            println!("{}", render_one(format, &serde_json::to_value(&info)?)?);
            return Ok(Exit::Success);
        }
        None => show(session, &info),
    }
    info.warnings.iter().flatten().for_each(|warning| eprintln!("{warning}"));
    Ok(Exit::Success)
}

fn show(session: &Session, info: &SystemInfo) {
    println!("Client:\n Version: {}", env!("CARGO_PKG_VERSION"));
    println!(" Context: {}\n Debug Mode: {}\n\nServer:", session.context(), session.debug());
    println!(" Containers: {}", info.containers);
    println!("  Running: {}", info.containers_running);
    println!("  Paused: {}", info.containers_paused);
    println!("  Stopped: {}", info.containers_stopped);
    println!(" Images: {}", info.images);
    println!(" Server Version: {}", info.server_version);
    println!(" Storage Driver: {}", info.driver);
    for [key, value] in &info.driver_status {
        println!("  {key}: {value}");
    }
    println!(" Logging Driver: {}", info.logging_driver);
    println!(" Cgroup Driver: {}", info.cgroup_driver);
    println!(" Cgroup Version: {}", info.cgroup_version);
    println!(" Plugins:");
    println!("  Volume: {}", info.plugins.volume.join(" "));
    println!("  Network: {}", info.plugins.network.join(" "));
    println!("  Log: {}", info.plugins.log.join(" "));
    println!(" Runtimes: {}", info.runtimes.keys().cloned().collect::<Vec<_>>().join(" "));
    println!(" Default Runtime: {}", info.default_runtime);
    println!(" Security Options:");
    for option in &info.security_options {
        println!("  {}", option.strip_prefix("name=").unwrap_or(option));
    }
    println!(" Kernel Version: {}", info.kernel_version);
    println!(" Operating System: {}", info.operating_system);
    println!(" OSType: {}", info.os_type);
    println!(" Architecture: {}", info.architecture);
    println!(" CPUs: {}", info.n_cpu);
    println!(" Total Memory: {}", units::memory(info.mem_total.unsigned_abs()));
    println!(" Name: {}", info.name);
    println!(" ID: {}", info.id);
    println!(" Docker Root Dir: {}", info.docker_root_dir);
    println!(" Live Restore Enabled: {}", info.live_restore_enabled);
}
