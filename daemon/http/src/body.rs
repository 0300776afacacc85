//! Bodies: what comes in as JSON, what goes out whole or piece by piece.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Frame, Incoming};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    culprit,
    error::{ApiError, ApiResult},
    keys,
};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Longest JSON body accepted.
const MAX_JSON: usize = 4 << 20;

pub(crate) const JSON: &str = "application/json";
pub(crate) const TAR: &str = "application/x-tar";

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// A status alone.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// 204.
pub(crate) fn no_content() -> Response<Body> {
    empty(StatusCode::NO_CONTENT)
}

/// Text.
pub(crate) fn text(status: StatusCode, text: String) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", full(text))
}

/// JSON, ended by a newline as Go's encoder does.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut bytes = serde_json::to_vec(value).expect("wire types have text keys and serialise");
    bytes.push(b'\n');
    respond(status, JSON, full(bytes))
}

/// A stream of bytes.
pub(crate) fn stream(
    kind: &'static str,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    respond(StatusCode::OK, kind, StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync())
}

/// A stream of JSON objects with this separator after each.
pub(crate) fn json_stream<T: Serialize>(
    separator: &'static [u8],
    items: impl Stream<Item = T> + Send + 'static,
) -> Response<Body> {
    let encode = move |item: T| {
        let mut bytes = serde_json::to_vec(&item).map_err(io::Error::other)?;
        bytes.extend_from_slice(separator);
        Ok(Bytes::from(bytes))
    };
    stream(JSON, items.map(encode))
}

/// A stream of JSON texts as RFC 7464 has them: each between a record separator and a line feed.
pub(crate) fn json_sequence<T: Serialize>(items: impl Stream<Item = T> + Send + 'static) -> Response<Body> {
    let encode = |item: T| {
        let mut bytes = vec![0x1e];
        serde_json::to_writer(&mut bytes, &item).map_err(io::Error::other)?;
        bytes.push(b'\n');
        Ok(Bytes::from(bytes))
    };
    stream(JSON, items.map(encode))
}

/// Reads a JSON body that must be there.
pub(crate) async fn read_json<T: DeserializeOwned>(headers: &HeaderMap, body: Incoming) -> ApiResult<T> {
    let bytes = collect(body).await?;
    check_content_type(headers, &bytes)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("invalid JSON: EOF"));
    }
    parse(&bytes)
}

/// Reads a JSON body that may be absent.
pub(crate) async fn read_json_or_default<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Incoming,
) -> ApiResult<T> {
    let bytes = collect(body).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    check_content_type(headers, &bytes)?;
    parse(&bytes)
}

/// Reads and forgets the body of a request that has none to speak of, so that the next one begins behind it.
pub(crate) async fn drain(body: Incoming) -> ApiResult<()> {
    collect(body).await.map(drop)
}

/// Reads on behind an answer what a client still sends of a body that nobody wants, up to what Go's server would.
pub(crate) fn forget(body: Incoming) {
    const MOST: usize = 256 << 10;
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let mut body = Limited::new(body, MOST);
        while let Some(Ok(_)) = body.frame().await {}
    });
}

async fn collect(body: Incoming) -> ApiResult<Bytes> {
    match Limited::new(body, MAX_JSON).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(ApiError::bad_request(format!("reading the request body: {error}"))),
    }
}

fn check_content_type(headers: &HeaderMap, bytes: &[u8]) -> ApiResult<()> {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
    let essence = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    match essence {
        Some(essence) if essence.eq_ignore_ascii_case(JSON) => Ok(()),
        None if bytes.is_empty() => Ok(()),
        _ => Err(ApiError::bad_request(format!(
            "unsupported Content-Type header ({}): must be 'application/json'",
            kind.unwrap_or_default()
        ))),
    }
}

/// One JSON value, as Go's decoder would judge it, whatever the case of its fields' names.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let value = parse_as_written(bytes).map_err(|error| {
        let mut fields = serde_json::from_slice(bytes).unwrap_or_default();
        wrong_field::<T>(bytes.len(), &mut fields).unwrap_or(error)
    })?;
    let mut fields: serde_json::Value = parse_as_written(bytes)?;
    match keys::make_known(&mut fields) {
        true => T::deserialize(&fields).map_err(|error| {
            wrong_field::<T>(bytes.len(), &mut fields)
                .unwrap_or_else(|| ApiError::bad_request(format!("invalid JSON: {error}")))
        }),
        false => Ok(value),
    }
}

/// The failure that names the field at fault. Large bodies are not searched.
fn wrong_field<T: DeserializeOwned>(length: usize, fields: &mut serde_json::Value) -> Option<ApiError> {
    const MOST: usize = 64 << 10;
    if length > MOST {
        return None;
    }
    let (field, why) = culprit::find::<T>(fields)?;
    Some(ApiError::bad_request(format!("invalid JSON: {field}: {why}")))
}

fn parse_as_written<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<T>();
    match values.next() {
        None => Err(ApiError::bad_request("invalid JSON: EOF")),
        Some(Err(error)) => Err(ApiError::bad_request(format!("invalid JSON: {}", describe(bytes, &error)))),
        Some(Ok(value)) => match bytes[values.byte_offset()..].iter().all(u8::is_ascii_whitespace) {
            true => Ok(value),
            false => Err(ApiError::bad_request("unexpected content after JSON")),
        },
    }
}

/// Go's words for the commonest mistakes, serde's for the rest.
fn describe(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let first = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(byte) if error.is_syntax() && !b"{[\"-0123456789tfn".contains(&byte) => {
            format!("invalid character '{}' looking for beginning of value", char::from(byte))
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        parse::<berth_api::container::CreateRequest>(bytes).unwrap_err().message().to_owned()
    }

    #[test]
    fn bad_json_is_described_as_dockerd_does() {
        assert_eq!(message(b"x"), "invalid JSON: invalid character 'x' looking for beginning of value");
        assert_eq!(message(b"  "), "invalid JSON: EOF");
        assert_eq!(message(b"{"), "invalid JSON: unexpected EOF");
        assert_eq!(message(b"{} {}"), "unexpected content after JSON");
        assert!(parse::<berth_api::container::CreateRequest>(b"{}\n").is_ok());
        let request: berth_api::container::CreateRequest = parse(br#"{"tTY": true, "image": "i"}"#).unwrap();
        assert!(request.config.tty && request.config.image == "i");
    }

    #[test]
    fn content_type_is_demanded_only_with_a_body() {
        let with = |kind: &str| HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
        assert!(check_content_type(&HeaderMap::new(), b"").is_ok());
        assert!(check_content_type(&HeaderMap::new(), b"{}").is_err());
        assert!(check_content_type(&with("application/json; charset=utf-8"), b"{}").is_ok());
        let error = check_content_type(&with("text/plain"), b"{}").unwrap_err();
        assert_eq!(
            error.message(),
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
    }
}
