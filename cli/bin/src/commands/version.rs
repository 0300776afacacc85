//! `berth version`.

use anyhow::Result;
use berth_api::{ApiVersion, system};
use clap::Args;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::list::render_one;
use crate::session::Session;

/// Show the versions of this program and of the engine
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Format: json or a template
    #[arg(short, long)]
    format: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Version) -> Result<Exit> {
    // Asking for a version starts no engine.
    let server = match session.client_if_running().await {
        Ok(client) => client.version().await,
        Err(error) => Err(error),
    };
    let (server, failure) = match server {
        Ok(version) => (Some(version), None),
        Err(error) => (None, Some(error)),
    };
    let all = json!({ "Client": client(), "Server": server.as_ref().map(of_server) });
    match &args.format {
        // A template may ask for the engine, of which there is nothing to say.
        Some(_) if failure.is_some() => {}
        Some(format) => println!("{}", render_one(format, &all)?),
        None => {
            println!("Client: Berth");
            show(&all["Client"]);
            if let Some(server) = &server {
                println!("\nServer: {}", server.platform.name);
                show(&all["Server"]);
            }
        }
    }
    failure.map_or(Ok(Exit::Success), |error| Err(error.into()))
}

/// With the field names of docker's templates.
fn client() -> Value {
    json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "APIVersion": ApiVersion::MAX.to_string(),
        "DefaultAPIVersion": ApiVersion::MAX.to_string(),
        "Os": std::env::consts::OS,
        "Arch": match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
    })
}

fn of_server(version: &system::Version) -> Value {
    json!({
        "Platform": { "Name": version.platform.name },
        "Components": version.components,
        "Version": version.version,
        "APIVersion": version.api_version,
        "MinAPIVersion": version.min_api_version,
        "GitCommit": version.git_commit,
        "GoVersion": version.go_version,
        "Os": version.os,
        "Arch": version.arch,
        "KernelVersion": version.kernel_version,
        "Experimental": version.experimental,
        "BuildTime": version.build_time,
    })
}

fn show(version: &Value) {
    let text = |key: &str| version[key].as_str().unwrap_or_default();
    println!(" Version:           {}", text("Version"));
    match text("MinAPIVersion") {
        "" => println!(" API version:       {}", text("APIVersion")),
        min => println!(" API version:       {} (minimum version {min})", text("APIVersion")),
    }
    for (heading, key) in [("Git commit:", "GitCommit"), ("Built:", "BuildTime")] {
        if !text(key).is_empty() {
            println!(" {heading:<18} {}", text(key));
        }
    }
    println!(" OS/Arch:           {}/{}", text("Os"), text("Arch"));
}
