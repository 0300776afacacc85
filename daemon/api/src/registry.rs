//! Credentials: `X-Registry-Auth`, `X-Registry-Config`, `POST /auth`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Credentials for one registry. The header carries them as base64url JSON.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub struct AuthConfig {
    /// User.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// `user:password` in base64, as config.json has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// Not used by docker any more.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    /// Registry; may have a scheme.
    #[serde(rename = "serveraddress", skip_serializing_if = "String::is_empty")]
    pub server_address: String,
    /// Token to get access tokens with.
    #[serde(rename = "identitytoken", skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
    /// Token to send to the registry.
    #[serde(rename = "registrytoken", skip_serializing_if = "String::is_empty")]
    pub registry_token: String,
}

impl std::fmt::Debug for AuthConfig {
    /// Shows who and where, never a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

/// `X-Registry-Config`: registry → credentials.
pub type RegistryAuths = BTreeMap<String, AuthConfig>;

wire! {
    /// Answer of `POST /auth`.
    pub struct AuthResponse {
        /// `Login Succeeded`.
        pub status: String,
        /// Token to keep instead of the password.
        pub identity_token: String,
    }
}
