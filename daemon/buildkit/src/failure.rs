//! What went wrong, for the client: a status, with the place in the Dockerfile as its detail.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_builder::{BuildError, Excerpt};
use berth_engine::{EngineError, Kind};
use bytes::Bytes;
use prost::Message;
use prost_types::Any;
use serde_json::json;
use tonic::{Code, Status};

use crate::progress::MAX_SOURCE;
use crate::protocol::frontend::RpcStatus;
use crate::protocol::pb;

/// BuildKit's name for a place in a source file. It travels as JSON.
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";

/// A failed build; `source` is its Dockerfile, if it is known.
pub(crate) fn of_build(error: &BuildError, source: Option<&pb::SourceInfo>) -> Status {
    let code = match error {
        BuildError::Cancelled => Code::Cancelled,
        // Clients print other codes before the text.
        _ => Code::Unknown,
    };
    let place = error.excerpt().zip(source);
    let message = match error {
        BuildError::Run { command, code, oom_killed, .. } => {
            let killed =
                if *oom_killed { " (killed: out of memory; raise the build's memory limit)" } else { "" };
            format!("process \"{command}\" did not complete successfully: exit code: {code}{killed}")
        }
        // The client shows the place by itself.
        BuildError::Dockerfile { message, .. } | BuildError::Step { message, .. } if place.is_some() => {
            message.clone()
        }
        BuildError::Dockerfile { message, .. } if error.excerpt().is_none() => {
            format!("dockerfile parse error: {message}")
        }
        other => other.to_string(),
    };
    let Some((excerpt, source)) = place else { return Status::new(code, message) };
    with_details(code, message, vec![Any { type_url: SOURCE.to_owned(), value: place_of(excerpt, source) }])
}

pub(crate) fn of_engine(error: &EngineError) -> Status {
    let code = match error.kind() {
        Kind::NotImplemented => Code::Unimplemented,
        _ => Code::Unknown,
    };
    Status::new(code, error.message())
}

/// What the client has made of a failure, which it gets back.
pub(crate) fn returned(error: RpcStatus) -> Status {
    with_details(Code::from_i32(error.code), error.message, error.details)
}

/// What a step's failure says: the error, and what one can do, without the place between them.
pub(crate) fn parts(message: &str) -> (&str, Option<&str>) {
    let (error, rest) = message.split_once('\n').unwrap_or((message, ""));
    let last = rest.trim_end().rsplit('\n').next().unwrap_or_default();
    (error, Some(last).filter(|last| last.starts_with("Its file system")))
}

fn with_details(code: Code, message: String, details: Vec<Any>) -> Status {
    let whole = RpcStatus { code: code as i32, message: message.clone(), details };
    Status::with_details(code, message, Bytes::from(whole.encode_to_vec()))
}

fn place_of(excerpt: &Excerpt, source: &pb::SourceInfo) -> Vec<u8> {
    let marked = excerpt.text.lines().filter(|line| line.contains(">>>")).count();
    let position = |line: usize| json!({ "line": line });
    let range = json!({
        "start": position(excerpt.line),
        "end": position(excerpt.line + marked.saturating_sub(1)),
    });
    // It travels in a header, which has bounds of its own.
    let shown = if source.data.len() <= MAX_SOURCE { &source.data[..] } else { &[] };
    let info = json!({
        "filename": source.filename,
        "data": STANDARD.encode(shown),
        "language": source.language,
    });
    json!({ "info": info, "ranges": [range] }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_not_told_twice() {
        let message = "it failed\nDockerfile:1\n----\n 1 | >>> RUN x\n----\nIts file system is kept: run ab";
        assert_eq!(parts(message), ("it failed", Some("Its file system is kept: run ab")));
        assert_eq!(parts("it failed\nDockerfile:1\n----\n"), ("it failed", None));
    }

    #[test]
    fn a_failed_command_tells_its_place() {
        let excerpt = Excerpt {
            file: "Dockerfile".into(),
            line: 2,
            text: "  1 |     FROM x\n  2 | >>> RUN a\\\n  3 | >>> b\n".into(),
        };
        let error = BuildError::Run {
            command: "/bin/sh -c a b".into(),
            code: 3,
            oom_killed: false,
            image: None,
            excerpt: Some(excerpt),
        };
        let source = pb::SourceInfo {
            filename: "Dockerfile".into(),
            data: "FROM x\n".into(),
            language: String::new(),
        };
        let status = of_build(&error, Some(&source));
        assert_eq!(
            status.message(),
            "process \"/bin/sh -c a b\" did not complete successfully: exit code: 3"
        );
        let whole = RpcStatus::decode(status.details()).unwrap();
        let place: serde_json::Value = serde_json::from_slice(&whole.details[0].value).unwrap();
        assert_eq!(place["ranges"][0]["start"]["line"], 2);
        assert_eq!(place["ranges"][0]["end"]["line"], 3);
        assert_eq!(place["info"]["data"], STANDARD.encode("FROM x\n"));
    }
}
