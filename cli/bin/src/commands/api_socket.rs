//! `--use-api-socket`: the engine's socket for a container, as docker's command line gives it, with the logins beside it.

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_api::container::{CreateRequest, Mount};
use berth_api::options::PutArchive;
use berth_api::registry::RegistryAuths;
use berth_client::{Client, Host, Upload};
use serde_json::json;

use crate::credentials;

/// Where docker's clients look for an engine.
const SOCKET: &str = "/var/run/docker.sock";
/// Where the logins lie, as `DOCKER_CONFIG` says there.
const CONFIG: &str = "/run/secrets/docker";

/// Asks for the mount; gives the logins to hand over once the container is there. Who sets `DOCKER_CONFIG` for the container
/// has logins of his own there.
pub(super) fn mount(host: &Host, request: &mut CreateRequest) -> Result<Option<RegistryAuths>> {
    let Host::Unix(socket) = host else {
        bail!("flag --use-api-socket can only be used with unix sockets: endpoint {host} incompatible");
    };
    let mount = Mount {
        kind: "bind".to_owned(),
        source: socket.to_string_lossy().into_owned(),
        target: SOCKET.to_owned(),
        ..Mount::default()
    };
    request.host_config.get_or_insert_default().mounts.get_or_insert_default().push(mount);
    let env = request.config.env.get_or_insert_default();
    if env.iter().any(|one| one.starts_with("DOCKER_CONFIG=")) {
        return Ok(None);
    }
    let logins = credentials::all().context("--use-api-socket")?;
    if logins.is_empty() {
        return Ok(None);
    }
    env.push(format!("DOCKER_CONFIG={CONFIG}"));
    Ok(Some(logins))
}

/// Puts the logins into the container, for root alone to read.
pub(super) async fn hand_over(client: &Client, container: &str, logins: &RegistryAuths) -> Result<()> {
    let failed = || format!("handing the logins to the container {container}");
    let text = config(logins);
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o600);
    header.set_size(text.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    let name = format!("{}/config.json", CONFIG.trim_start_matches('/'));
    archive.append_data(&mut header, name, text.as_bytes()).with_context(failed)?;
    let upload = Upload::from_bytes(archive.into_inner().with_context(failed)?);
    let root = PutArchive { path: "/".to_owned(), no_overwrite_dir_non_dir: false, copy_uid_gid: false };
    client.container_archive_put(container, &root, upload).await.with_context(failed)
}

/// Docker's configuration with these logins and nothing else.
fn config(logins: &RegistryAuths) -> String {
    let entries = logins.iter().map(|(registry, login)| {
        let entry = match login.identity_token.as_str() {
            "" => json!({ "auth": STANDARD.encode(format!("{}:{}", login.username, login.password)) }),
            token => json!({ "identitytoken": token }),
        };
        (registry.clone(), entry)
    });
    json!({ "auths": entries.collect::<serde_json::Map<_, _>>() }).to_string()
}

#[cfg(test)]
mod tests {
    use berth_api::registry::AuthConfig;

    use super::*;

    #[test]
    fn the_socket_is_mounted() {
        let mut request = CreateRequest::default();
        request.config.env = Some(vec!["DOCKER_CONFIG=/own".to_owned()]);
        let none = mount(&Host::Unix("/run/x.sock".into()), &mut request).unwrap();
        assert!(none.is_none(), "the container has a configuration of its own");
        let mounts = request.host_config.unwrap().mounts.unwrap();
        assert_eq!((mounts[0].source.as_str(), mounts[0].target.as_str()), ("/run/x.sock", SOCKET));
        let error = mount(&Host::Tcp("h:1".to_owned()), &mut CreateRequest::default()).unwrap_err();
        assert!(error.to_string().contains("only be used with unix sockets"), "{error}");
    }

    #[test]
    fn logins_are_written_as_docker_reads_them() {
        let login = AuthConfig { username: "u".into(), password: "p".into(), ..AuthConfig::default() };
        let token = AuthConfig { identity_token: "t".into(), ..AuthConfig::default() };
        let logins = [("a.example".to_owned(), login), ("b.example".to_owned(), token)].into();
        let text = r#"{"auths":{"a.example":{"auth":"dTpw"},"b.example":{"identitytoken":"t"}}}"#;
        assert_eq!(config(&logins), text);
    }
}
