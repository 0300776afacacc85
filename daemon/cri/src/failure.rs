//! Failures at the edge: the one place that knows which of the engine's is which code of gRPC.

use berth_engine::{EngineError, Kind};
use tonic::{Code, Status};

/// What the client is told.
pub(crate) fn status(error: EngineError) -> Status {
    Status::new(code(error.kind()), error.message())
}

/// What the client did not say.
pub(crate) fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("{field} is missing"))
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::Conflict | Kind::NotModified => Code::FailedPrecondition,
        Kind::InvalidParameter => Code::InvalidArgument,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::Unauthorized => Code::Unauthenticated,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::Unavailable => Code::Unavailable,
        Kind::NotImplemented => Code::Unimplemented,
        Kind::Internal => Code::Internal,
    }
}
