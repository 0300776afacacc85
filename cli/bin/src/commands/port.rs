//! `berth port`.

use anyhow::{Result, bail};
use berth_api::container::PortBinding;
use clap::Args;

use crate::exit::Exit;
use crate::session::Session;

/// Show where the ports of a container are published
#[derive(Debug, Args)]
pub(crate) struct Port {
    /// Container
    container: String,
    /// Only this port
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Port) -> Result<Exit> {
    let inspect = session.client().await?.container_inspect(&args.container, false).await?;
    let ports = inspect.network_settings.ports;
    let Some(port) = args.port else {
        for (port, bindings) in &ports {
            for binding in bindings.iter().flatten() {
                println!("{port} -> {}", address(binding));
            }
        }
        return Ok(Exit::Success);
    };
    let port = if port.contains('/') { port } else { format!("{port}/tcp") };
    match ports.get(&port).and_then(Option::as_ref).filter(|bindings| !bindings.is_empty()) {
        Some(bindings) => bindings.iter().for_each(|binding| println!("{}", address(binding))),
        None => bail!("no public port '{port}' published for {}", args.container),
    }
    Ok(Exit::Success)
}

/// `0.0.0.0:8080`, `[::]:8080`.
fn address(binding: &PortBinding) -> String {
    let ip = &binding.host_ip;
    if ip.contains(':') {
        format!("[{ip}]:{}", binding.host_port)
    } else {
        format!("{ip}:{}", binding.host_port)
    }
}
