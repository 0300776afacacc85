//! Credentials for registries, asked of the client when they are needed.

use std::sync::Arc;

use berth_api::registry::AuthConfig;
use berth_builder::BoxFuture;
use berth_engine::Logins;

use crate::protocol::filesync::CredentialsRequest;
use crate::protocol::filesync::auth_client::AuthClient;
use crate::session::Session;

/// A session's credentials.
pub(crate) struct SessionLogins(pub(crate) Arc<Session>);

impl Logins for SessionLogins {
    fn login<'a>(&'a self, domain: &'a str) -> BoxFuture<'a, AuthConfig> {
        Box::pin(async move {
            if !self.0.offers("/moby.filesync.v1.Auth/Credentials") {
                return AuthConfig::default();
            }
            let host = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
            let mut client = AuthClient::with_origin(self.0.channel.clone(), Session::origin());
            let answer = match client.credentials(CredentialsRequest { host: host.to_owned() }).await {
                Ok(answer) => answer.into_inner(),
                Err(error) => {
                    tracing::debug!(host, %error, "a client's credentials");
                    return AuthConfig::default();
                }
            };
            // A secret without a name is a token.
            match answer.username.is_empty() {
                true => AuthConfig { identity_token: answer.secret, ..AuthConfig::default() },
                false => {
                    AuthConfig { username: answer.username, password: answer.secret, ..AuthConfig::default() }
                }
            }
        })
    }
}
