//! Credentials for registries, asked of the client when they are needed.

use std::sync::Arc;

use berth_api::registry::{AuthConfig, RegistryAuths};
use berth_builder::BoxFuture;
use berth_engine::Logins;

use crate::protocol::filesync::CredentialsRequest;
use crate::protocol::filesync::auth_client::AuthClient;
use crate::serve::Shared;
use crate::session::Session;

/// A session's credentials.
pub(crate) struct SessionLogins(pub(crate) Arc<Session>);

impl Logins for SessionLogins {
    fn login<'a>(&'a self, domain: &'a str) -> BoxFuture<'a, AuthConfig> {
        Box::pin(async move {
            // dockerode offers it without saying so; who does not have it answers that.
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

/// The credentials of a build over `POST /build`: those that came with it, and those of the session it names.
pub(crate) struct GivenLogins {
    pub(crate) given: RegistryAuths,
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: String,
}

impl Logins for GivenLogins {
    fn login<'a>(&'a self, domain: &'a str) -> BoxFuture<'a, AuthConfig> {
        Box::pin(async move {
            let given = self.given.login(domain).await;
            if self.session.is_empty() || given != AuthConfig::default() {
                return given;
            }
            match self.shared.sessions.get(&self.session).await {
                Ok(session) => SessionLogins(session).login(domain).await,
                Err(error) => {
                    tracing::debug!(%error, "the session of a build");
                    given
                }
            }
        })
    }
}
