//! Errors at the edge: the one place that knows which failure is which status.

use berth_api::ErrorBody;
use berth_engine::{EngineError, Kind};
use http::{Response, StatusCode};

use crate::body::{self, Body};

pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// A request that is answered by an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    plain: bool,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), plain: false }
    }

    /// An error for clients that read no JSON.
    pub(crate) fn plain(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), plain: true }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Unknown path and unknown method alike: docker knows no 405.
    pub(crate) fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    #[cfg(test)]
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED {
            return body::empty(self.status);
        }
        if self.plain {
            return body::text(self.status, self.message + "\n");
        }
        body::json(self.status, &ErrorBody { message: self.message })
    }
}

/// The one mapping of what went wrong to how HTTP says it.
fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::InvalidParameter => StatusCode::BAD_REQUEST,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        Self::new(status_of(error.kind()), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn every_kind_has_its_status() {
        let expected = [
            (Kind::NotFound, 404),
            (Kind::Conflict, 409),
            (Kind::InvalidParameter, 400),
            (Kind::NotModified, 304),
            (Kind::Forbidden, 403),
            (Kind::Unauthorized, 401),
            (Kind::Timeout, 504),
            (Kind::Unavailable, 503),
            (Kind::NotImplemented, 501),
            (Kind::Internal, 500),
        ];
        for (kind, status) in expected {
            assert_eq!(status_of(kind).as_u16(), status, "{kind:?}");
        }
    }

    async fn body(error: ApiError) -> (String, String) {
        let response = error.into_response();
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (kind.unwrap_or_default(), String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn errors_are_json_but_for_old_clients_and_not_modified() {
        let json = body(ApiError::bad_request("say \"what\"")).await;
        assert_eq!(json, ("application/json".into(), "{\"message\":\"say \\\"what\\\"\"}\n".into()));
        let plain = body(ApiError::plain(StatusCode::BAD_REQUEST, "too old")).await;
        assert_eq!(plain, ("text/plain; charset=utf-8".into(), "too old\n".into()));
        let none = body(ApiError::new(StatusCode::NOT_MODIFIED, "it runs")).await;
        assert_eq!(none, (String::new(), String::new()));
    }
}
