//! `berth network`: create, ls, rm, connect, disconnect.

use anyhow::Result;
use berth_api::network::{
    ConfigReference, EndpointIpamConfig, EndpointSettings, Ipam, NetworkConnectRequest, NetworkCreateRequest,
    NetworkDisconnectRequest,
};
use clap::Args;
use serde_json::{Value, json};

use super::each;
use super::ps::short;
use crate::exit::Exit;
use crate::flags::network::pools;
use crate::flags::{environment, filter};
use crate::output::list::{Column, Style, render};
use crate::session::Session;

/// Make a network
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Driver
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Subnet in CIDR form
    #[arg(long)]
    subnet: Vec<String>,
    /// Gateway of the subnet
    #[arg(long)]
    gateway: Vec<String>,
    /// Part of the subnet from which addresses are drawn
    #[arg(long)]
    ip_range: Vec<String>,
    /// Address never given out, NAME=ADDRESS
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// Address manager
    #[arg(long, default_value = "default")]
    ipam_driver: String,
    /// Option of the address manager
    #[arg(long, value_name = "KEY=VALUE")]
    ipam_opt: Vec<String>,
    /// No way out
    #[arg(long)]
    internal: bool,
    /// Let containers join later
    #[arg(long)]
    attachable: bool,
    /// The entrance of a cluster, which this engine is not part of
    #[arg(long)]
    ingress: bool,
    /// With IPv4
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ipv4: Option<bool>,
    /// With IPv6
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ipv6: Option<bool>,
    /// Scope: local
    #[arg(long, default_value = "")]
    scope: String,
    /// Only a template for other networks
    #[arg(long)]
    config_only: bool,
    /// The template to make it from
    #[arg(long, value_name = "NETWORK", conflicts_with = "config_only")]
    config_from: Option<String>,
    /// Option of the driver
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Name
    name: String,
}

/// List networks
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Filter: key=value
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
}

/// Remove networks
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// No failure if one is not there
    #[arg(short, long)]
    force: bool,
    /// Networks
    #[arg(required = true)]
    networks: Vec<String>,
}

/// Connect a container to a network
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// IPv4 address
    #[arg(long, default_value = "")]
    ip: String,
    /// IPv6 address
    #[arg(long, default_value = "")]
    ip6: String,
    /// Further name on the network
    #[arg(long)]
    alias: Vec<String>,
    /// Link to another container
    #[arg(long)]
    link: Vec<String>,
    /// Further address of the link, in 169.254.0.0/16 or fe80::/10
    #[arg(long, value_name = "ADDRESS")]
    link_local_ip: Vec<String>,
    /// Option of the driver for this container
    #[arg(long, value_name = "KEY=VALUE")]
    driver_opt: Vec<String>,
    /// The network with the highest priority is the way out
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    gw_priority: i64,
    /// Network
    network: String,
    /// Container
    container: String,
}

/// Disconnect a container from a network
#[derive(Debug, Args)]
pub(crate) struct Disconnect {
    /// Also if the container has gone
    #[arg(short, long)]
    force: bool,
    /// Network
    network: String,
    /// Container
    container: String,
}

const COLUMNS: &[Column] =
    &[("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];
const HEADINGS: &[Column] =
    &[("IPV6", "IPv6"), ("INTERNAL", "Internal"), ("LABELS", "Labels"), ("CREATED AT", "CreatedAt")];

pub(crate) async fn create(session: &Session, args: Create) -> Result<Exit> {
    let auxiliary = environment::pairs("--aux-address", &args.aux_address)?;
    let pools = pools(&args.subnet, &args.ip_range, &args.gateway, &auxiliary)?;
    let ipam_options = environment::pairs("--ipam-opt", &args.ipam_opt)?;
    let request = NetworkCreateRequest {
        name: args.name,
        // Old daemons take a second network of the same name otherwise.
        check_duplicate: true,
        driver: args.driver,
        scope: args.scope,
        enable_ipv4: args.ipv4,
        enable_ipv6: args.ipv6,
        ipam: Some(Ipam {
            driver: args.ipam_driver,
            options: (!ipam_options.is_empty()).then_some(ipam_options),
            config: (!pools.is_empty()).then_some(pools),
        }),
        internal: args.internal,
        attachable: args.attachable,
        ingress: args.ingress,
        config_only: args.config_only,
        config_from: args.config_from.map(|network| ConfigReference { network }),
        options: environment::pairs("--opt", &args.options)?,
        labels: args.label.iter().map(|label| environment::pair(label)).collect(),
    };
    let created = session.client().await?.network_create(&request).await?;
    if !created.warning.is_empty() {
        eprintln!("WARNING: {}", created.warning);
    }
    println!("{}", created.id);
    Ok(Exit::Success)
}

pub(crate) async fn ls(session: &Session, args: Ls) -> Result<Exit> {
    let mut networks = session.client().await?.network_list(&filter::parse(&args.filter)?).await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<Value> = networks
        .iter()
        .map(|network| {
            let labels: Vec<String> = network.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            json!({
                "ID": if args.no_trunc { &network.id } else { short(&network.id) },
                "Name": network.name,
                "Driver": network.driver,
                "Scope": network.scope,
                "IPv4": network.enable_ipv4.to_string(),
                "IPv6": network.enable_ipv6.to_string(),
                "Internal": network.internal.to_string(),
                "Labels": labels.join(","),
                "CreatedAt": network.created.to_string(),
            })
        })
        .collect();
    let style = Style { format: args.format.as_deref(), only: args.quiet.then_some("ID") };
    print!("{}", render(style, COLUMNS, HEADINGS, &rows)?);
    Ok(Exit::Success)
}

pub(crate) async fn rm(session: &Session, args: Rm) -> Result<Exit> {
    let client = session.client().await?;
    each(&args.networks, async |name: &str| match client.network_remove(name).await {
        Err(error) if args.force && error.is_not_found() => Ok(()),
        other => Ok(other?),
    })
    .await
}

pub(crate) async fn connect(session: &Session, args: Connect) -> Result<Exit> {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let addressed = !args.ip.is_empty() || !args.ip6.is_empty() || !args.link_local_ip.is_empty();
    let driver_opts = environment::pairs("--driver-opt", &args.driver_opt)?;
    let request = NetworkConnectRequest {
        container: args.container,
        endpoint_config: Some(EndpointSettings {
            ipam_config: addressed.then_some(EndpointIpamConfig {
                ipv4_address: args.ip,
                ipv6_address: args.ip6,
                link_local_ips: some(args.link_local_ip),
            }),
            links: some(args.link),
            aliases: some(args.alias),
            driver_opts: (!driver_opts.is_empty()).then_some(driver_opts),
            gw_priority: args.gw_priority,
            ..EndpointSettings::default()
        }),
    };
    session.client().await?.network_connect(&args.network, &request).await?;
    Ok(Exit::Success)
}

pub(crate) async fn disconnect(session: &Session, args: Disconnect) -> Result<Exit> {
    let request = NetworkDisconnectRequest { container: args.container, force: args.force };
    session.client().await?.network_disconnect(&args.network, &request).await?;
    Ok(Exit::Success)
}
