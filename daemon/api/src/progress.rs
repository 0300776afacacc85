//! Progress of pull, push, build, load and import: JSON objects separated by `\r\n`.

use serde::{Deserialize, Serialize};

/// One message of a progress stream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressMessage {
    /// Text to show as it is (build).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What is going on, `Downloading`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// How far it is.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The same, drawn by the daemon for clients that do not draw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// What it is about, a short layer id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The text of a failure; ends the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The failure in full; always beside `error`.
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// Something for programs, `{"ID": "sha256:…"}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// How far something is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<i64>,
    /// Of how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
    /// Unix seconds of the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// Whether to draw a bar without numbers.
    #[serde(rename = "hidecounts", skip_serializing_if = "Option::is_none")]
    pub hide_counts: Option<bool>,
    /// Unit; bytes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<String>,
}

/// A failure in a progress stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// Exit code of a failed build step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// For the user.
    pub message: String,
}

impl ProgressMessage {
    /// Text of a build.
    #[must_use]
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: Some(text.into()), ..Self::default() }
    }

    /// A line of status.
    #[must_use]
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: Some(text.into()), ..Self::default() }
    }

    /// A line of status about one layer. Docker sends an empty `progressDetail` along.
    #[must_use]
    pub fn layer(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            status: Some(text.into()),
            progress_detail: Some(ProgressDetail::default()),
            ..Self::default()
        }
    }

    /// How far one layer is.
    #[must_use]
    pub fn progress(id: impl Into<String>, text: impl Into<String>, current: i64, total: i64) -> Self {
        let detail =
            ProgressDetail { current: Some(current), total: Some(total), ..ProgressDetail::default() };
        Self { progress_detail: Some(detail), ..Self::layer(id, text) }
    }

    /// Something for programs.
    #[must_use]
    pub fn aux(value: serde_json::Value) -> Self {
        Self { aux: Some(value), ..Self::default() }
    }

    /// The failure that ends the stream; `code` is a failed build step's exit code.
    #[must_use]
    pub fn failure(message: impl Into<String>, code: Option<i64>) -> Self {
        let message = message.into();
        Self {
            error: Some(message.clone()),
            error_detail: Some(ErrorDetail { code, message }),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_look_like_dockers() {
        let text = |message| serde_json::to_string(&message).unwrap();
        assert_eq!(text(ProgressMessage::stream("Step 1/2\n")), r#"{"stream":"Step 1/2\n"}"#);
        assert_eq!(
            text(ProgressMessage::layer("0123456789ab", "Pulling fs layer")),
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"0123456789ab"}"#
        );
        assert_eq!(
            text(ProgressMessage::failure("boom", Some(7))),
            r#"{"error":"boom","errorDetail":{"code":7,"message":"boom"}}"#
        );
    }
}
