//! What went wrong on the wire, before anybody says what it means for the user.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use berth_oci::Reference;
use jiff::Timestamp;
use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use crate::error::RegistryError;

/// Answers to failed requests are read up to here.
const MAX_ERROR: usize = 64 << 10;

/// A failed request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server answered with an error.
    Status { status: u16, code: String, message: String, retry_after: Option<Duration> },
    /// No answer, or a broken one.
    Transport { url: String, reason: String, transient: bool },
    /// The answer makes no sense.
    Protocol(String),
}

/// The error document of a registry (distribution spec, "Error Codes").
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    errors: Vec<Problem>,
    /// Token services have their own form.
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Failure {
    /// Reads the registry's error document, where the answer has one.
    pub(crate) fn of_status(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let (code, message) = match serde_json::from_slice::<Envelope>(body) {
            Ok(Envelope { mut errors, details }) => match errors.is_empty() {
                false => {
                    let first = errors.swap_remove(0);
                    (first.code, first.message)
                }
                true => (String::new(), details),
            },
            Err(_) => {
                (String::new(), String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned())
            }
        };
        Self::Status { status, code, message, retry_after }
    }

    /// The server gives authorizations and does not honour them.
    pub(crate) fn refused_for_ever() -> Self {
        let message = "the registry refuses the authorization that its own token service gave".to_owned();
        Self::Status { status: 401, code: "UNAUTHORIZED".to_owned(), message, retry_after: None }
    }

    pub(crate) fn of_request(error: &reqwest::Error) -> Self {
        if let Some(status) = error.status() {
            return Self::of_status(status.as_u16(), b"", None);
        }
        // Without a connection it is about the server, not about what was to be asked.
        let place = |url: &reqwest::Url| match error.is_connect() {
            true => url.join("/v2/").map_or_else(|_| url.to_string(), |root| root.to_string()),
            false => url.to_string(),
        };
        let url = error.url().map(place).unwrap_or_default();
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
            _ if all.contains("UnknownIssuer") => format!(
                "the certificate of {host}:{port} is of an unknown authority (are CA certificates installed, such as the \
                 package ca-certificates? That of a registry's own authority goes into the registry's directory, as ca.crt)"
            ),
            // Where a server checks certificates after the handshake (TLS 1.3), its alert may come later than the end.
            _ if all.contains("connection was not ready") => format!(
                "{host}:{port} ended the connection before it was asked anything (does it want a client's certificate?)"
            ),
            _ => causes.pop().unwrap_or_else(|| error.to_string()),
        };
        let hopeless = error.is_connect() || error.is_builder() || error.is_redirect();
        Self::Transport { url, reason, transient: !hopeless }
    }

    /// Whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Transport { transient, .. } => *transient,
            Self::Protocol(_) => false,
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
            Self::Status { status: 401, message, .. } => RegistryError::Unauthorized(if message.is_empty() {
                "authentication required".to_owned()
            } else {
                message
            }),
            Self::Status { status: 429, message, .. } => RegistryError::TooManyRequests(message),
            // The words are Go's; other servers have others.
            Self::Status { status: 400, message, .. }
                if message.contains("HTTP request to an HTTPS server") =>
            {
                RegistryError::Registry(format!(
                    "{} (put the certificate of its authority into the registry's directory, as ca.crt)",
                    message.trim_end()
                ))
            }
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

/// What a refusing answer says.
pub(crate) async fn refusal(response: Response) -> Failure {
    let status = response.status().as_u16();
    let wait = retry_after(response.headers());
    let body = crate::session::limited(response, MAX_ERROR).await.unwrap_or_default();
    Failure::of_status(status, &body, wait)
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(date.duration_since(Timestamp::now())).ok().or(Some(Duration::ZERO))
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
    fn waits_are_seconds_or_a_date() {
        let wait = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(wait("Fri, 21 Oct 2095 07:28:00 GMT").unwrap() > Duration::from_secs(1 << 20));
        assert_eq!(wait("soon"), None);
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
