//! What went wrong on the wire, before anybody says what it means for the user.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use berth_oci::Reference;
use oci_client::errors::{OciDistributionError, OciEnvelope, OciErrorCode};

use crate::error::RegistryError;

/// A failed request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server answered with an error.
    Status { status: u16, code: String, message: String, retry_after: Option<Duration> },
    /// No answer, or a broken one.
    Transport { url: String, reason: String, transient: bool },
    /// The answer makes no sense.
    Protocol(String),
    /// There is nothing to ask with.
    Setup(String),
}

impl Failure {
    /// Reads the registry's error document, where the answer has one (distribution spec, "Error codes").
    pub(crate) fn of_status(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let first =
            serde_json::from_slice::<OciEnvelope>(body).ok().and_then(|e| e.errors.into_iter().next());
        let (code, message) = match first {
            Some(error) => (code_text(&error.code), error.message),
            None => (String::new(), String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned()),
        };
        Self::Status { status, code, message, retry_after }
    }

    pub(crate) fn of_request(error: &reqwest::Error) -> Self {
        if let Some(status) = error.status() {
            return Self::of_status(status.as_u16(), b"", None);
        }
        let url = error.url().map(ToString::to_string).unwrap_or_default();
        let host = error.url().and_then(|url| url.host_str()).unwrap_or_default();
        let port = error.url().and_then(|url| url.port_or_known_default()).unwrap_or_default();
        let mut causes = Vec::new();
        let mut kind = None;
        let mut cause = error.source();
        while let Some(this) = cause {
            kind = kind.or_else(|| this.downcast_ref::<io::Error>().map(io::Error::kind));
            causes.push(this.to_string());
            cause = this.source();
        }
        let all = causes.join(": ");
        // The words are Go's, because that is what users search for.
        let reason = match kind {
            Some(io::ErrorKind::ConnectionRefused) => {
                format!("dial tcp {host}:{port}: connect: connection refused")
            }
            _ if all.contains("dns error") || all.contains("failed to lookup") => {
                format!("dial tcp: lookup {host}: no such host")
            }
            _ if error.is_timeout() && error.is_connect() => format!("dial tcp {host}:{port}: i/o timeout"),
            _ if error.is_timeout() => "context deadline exceeded while awaiting an answer".to_owned(),
            _ if all.contains("InvalidContentType") => format!(
                "http: server gave HTTP response to HTTPS client (to allow that, list {host}:{port} as insecure registry)"
            ),
            _ => causes.pop().unwrap_or_else(|| error.to_string()),
        };
        Self::Transport { url, reason, transient: !error.is_connect() && !error.is_builder() }
    }

    /// Whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Transport { transient, .. } => *transient,
            Self::Protocol(_) | Self::Setup(_) => false,
        }
    }

    /// How long the server asks us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What it means for somebody who pulls.
    pub(crate) fn while_pulling(self, reference: &Reference, anonymous: bool) -> RegistryError {
        match &self {
            Self::Status { code, .. } if code == "NAME_UNKNOWN" => {
                RegistryError::RepositoryUnknown(reference.familiar_name())
            }
            Self::Status { status: 404, .. } => RegistryError::ManifestUnknown(reference.familiar()),
            Self::Status { status: 401, .. } if anonymous => {
                RegistryError::PullDenied(reference.familiar_name())
            }
            Self::Status { status: 403, .. } => RegistryError::PullDenied(reference.familiar_name()),
            _ => self.in_general(),
        }
    }

    /// What it means for somebody who pushes.
    pub(crate) fn while_pushing(self, reference: &Reference, anonymous: bool) -> RegistryError {
        match &self {
            Self::Status { status: 401, .. } if anonymous => {
                RegistryError::PushDenied(reference.familiar_name())
            }
            Self::Status { status: 403, .. } => RegistryError::PushDenied(reference.familiar_name()),
            _ => self.in_general(),
        }
    }

    /// What it means regardless of the operation.
    pub(crate) fn in_general(self) -> RegistryError {
        match self {
            Self::Setup(reason) => RegistryError::Setup(reason),
            Self::Status { status: 401, message, .. } => RegistryError::Unauthorized(if message.is_empty() {
                "authentication required".to_owned()
            } else {
                message
            }),
            Self::Status { status: 429, message, .. } => RegistryError::TooManyRequests(message),
            Self::Status { status, code, message, .. } => {
                let code = code.to_ascii_lowercase().replace('_', " ");
                let parts = [code, message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
                RegistryError::Registry(format!(
                    "received unexpected HTTP status {status}: {}",
                    parts.join(": ")
                ))
            }
            Self::Transport { url, reason, .. } => RegistryError::Unreachable { url, reason },
            Self::Protocol(reason) => RegistryError::Registry(reason),
        }
    }
}

fn code_text(code: &OciErrorCode) -> String {
    serde_json::to_value(code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

impl From<OciDistributionError> for Failure {
    fn from(error: OciDistributionError) -> Self {
        match error {
            OciDistributionError::RequestError(error) => Self::of_request(&error),
            OciDistributionError::RegistryError { envelope, .. } => {
                let first = envelope.errors.into_iter().next();
                let (code, message) = first.map(|e| (code_text(&e.code), e.message)).unwrap_or_default();
                let status = match code.as_str() {
                    "UNAUTHORIZED" => 401,
                    "DENIED" => 403,
                    "TOOMANYREQUESTS" => 429,
                    _ => 404,
                };
                Self::Status { status, code, message, retry_after: None }
            }
            OciDistributionError::ServerError { code, message, .. } => {
                Self::of_status(code, message.as_bytes(), None)
            }
            OciDistributionError::UnauthorizedError { .. } => Self::of_status(401, b"", None),
            OciDistributionError::AuthenticationFailure(reason) => {
                #[derive(serde::Deserialize)]
                struct Details {
                    details: String,
                }
                match serde_json::from_str::<Details>(&reason) {
                    Ok(answer) => Self::of_status(401, answer.details.as_bytes(), None),
                    Err(_) => Self::of_status(401, reason.as_bytes(), None),
                }
            }
            OciDistributionError::IoError(error) => {
                Self::Transport { url: String::new(), reason: error.to_string(), transient: true }
            }
            other => Self::Protocol(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, body: &str) -> Failure {
        Failure::of_status(status, body.as_bytes(), None)
    }

    #[test]
    fn docker_s_words() {
        let busybox = Reference::parse("busybox:nope").unwrap();
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        assert_eq!(
            status(404, unknown).while_pulling(&busybox, true).to_string(),
            "manifest for busybox:nope not found: manifest unknown: manifest unknown"
        );
        assert_eq!(
            status(401, "").while_pulling(&busybox, true).to_string(),
            "pull access denied for busybox, repository does not exist or may require 'docker login': denied: \
             requested access to the resource is denied"
        );
        let name =
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
        assert!(
            status(404, name)
                .while_pulling(&busybox, true)
                .to_string()
                .starts_with("repository busybox not found")
        );
        let limit = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        assert_eq!(
            status(429, limit).while_pulling(&busybox, true).to_string(),
            "toomanyrequests: slow down"
        );
        assert!(
            status(403, "")
                .while_pushing(&busybox, false)
                .to_string()
                .starts_with("denied: requested access")
        );
        assert_eq!(
            status(401, "").while_pulling(&busybox, false).to_string(),
            "unauthorized: authentication required"
        );
    }

    #[test]
    fn only_passing_failures_are_worth_a_retry() {
        for code in [429, 500, 502, 503, 504] {
            assert!(status(code, "").is_transient(), "{code}");
        }
        for code in [400, 401, 403, 404, 501] {
            assert!(!status(code, "").is_transient(), "{code}");
        }
    }
}
