//! A client's deadline, which comes as the header `grpc-timeout`.
//!
//! tonic ends a call at its deadline as "cancelled", and that can reach a client before its own clock tells it the truth. The
//! kubelet takes the one for a failure and the other for what it is, so the deadline is kept here, a moment earlier.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Keeps the deadlines of all calls to a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines;

/// A service whose deadlines are kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept<S>(S);

impl<S> Layer<S> for Deadlines {
    type Service = Kept<S>;

    fn layer(&self, service: S) -> Self::Service {
        Kept(service)
    }
}

impl<S> Service<Request<Body>> for Kept<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Send,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let header = request.headers().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let Some(limit) = header.and_then(duration) else { return Box::pin(self.0.call(request)) };
        // The clock runs from now on, not from when the call is first looked at.
        let call = tokio::time::timeout(limit, self.0.call(request));
        Box::pin(async move {
            call.await.unwrap_or_else(|_| {
                Ok(Status::deadline_exceeded("the client's deadline has passed").into_http())
            })
        })
    }
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that never answers.
    #[derive(Debug, Clone)]
    struct Never;

    impl Service<Request<Body>> for Never {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Pending<Result<Response<Body>, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test]
    async fn a_deadline_that_passes_is_called_one() {
        let request = Request::builder().header("grpc-timeout", "5m").body(Body::empty()).unwrap();
        let answer = Deadlines.layer(Never).call(request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(duration("1S"), Some(Duration::from_secs(1)));
        assert_eq!(duration("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "5", "5x", "-5S", "123456789S", "5µ"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
