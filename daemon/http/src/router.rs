//! From a request line to an endpoint: version prefix, table, docker's odd cases.

use berth_api::{
    ApiVersion,
    endpoint::{Endpoint, Method, ROUTES},
};
use http::StatusCode;
use percent_encoding::percent_decode_str;

use crate::error::ApiError;

/// Where a request goes.
#[derive(Debug, PartialEq)]
pub(crate) struct Match {
    pub(crate) endpoint: Endpoint,
    /// The version asked for; the newest for a path without one.
    pub(crate) version: ApiVersion,
    /// The path's variables, decoded.
    pub(crate) variables: Vec<String>,
}

/// Why a request goes nowhere.
#[derive(Debug)]
pub(crate) enum Unroutable {
    /// The path has to be asked for in its clean form.
    Redirect(String),
    Refused(ApiError),
}

pub(crate) fn route(method: &http::Method, path: &str) -> Result<Match, Unroutable> {
    if path.contains("//") {
        return Err(Unroutable::Redirect(clean(path)));
    }
    let (version, path) = split_version(path).map_err(Unroutable::Refused)?;
    let not_found = || Unroutable::Refused(ApiError::page_not_found());
    let method = known_method(method).ok_or_else(not_found)?;
    ROUTES
        .iter()
        .filter(|route| route.method == method && route.since <= version)
        .find_map(|route| {
            let variables = route.matches(path)?;
            let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let variables = variables.into_iter().map(decode).collect();
            Some(Match { endpoint: route.endpoint, version, variables })
        })
        .ok_or_else(not_found)
}

fn known_method(method: &http::Method) -> Option<Method> {
    match method.as_str() {
        "GET" => Some(Method::Get),
        "HEAD" => Some(Method::Head),
        "POST" => Some(Method::Post),
        "PUT" => Some(Method::Put),
        "DELETE" => Some(Method::Delete),
        _ => None,
    }
}

/// Takes `/v1.41` off the front. What does not look like a version stays and will not be found.
fn split_version(path: &str) -> Result<(ApiVersion, &str), ApiError> {
    let prefixed = path.strip_prefix("/v").and_then(|rest| {
        let end = rest.find('/')?;
        let (version, rest) = rest.split_at(end);
        let looks_like_one = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        Some((looks_like_one.then(|| version.parse::<ApiVersion>().ok())??, rest))
    });
    let Some((version, rest)) = prefixed else { return Ok((ApiVersion::MAX, path)) };
    if version > ApiVersion::MAX {
        let text = format!(
            "client version {version} is too new. Maximum supported API version is {}",
            ApiVersion::MAX
        );
        return Err(ApiError::bad_request(text));
    }
    if version < ApiVersion::MIN {
        let text = format!(
            "client version {version} is too old. Minimum supported API version is {}, \
             please upgrade your client to a newer version",
            ApiVersion::MIN
        );
        // Clients that old read no JSON errors.
        return Err(ApiError::plain(StatusCode::BAD_REQUEST, text));
    }
    Ok((version, rest))
}

/// The version as this client can read it: docker-compose 1 asks for the newest that the daemon says it has, and takes the
/// answers for those of the one it was made for.
pub(crate) fn readable(version: ApiVersion, user_agent: &str) -> ApiVersion {
    const OF_COMPOSE_1: ApiVersion = ApiVersion::new(1, 38);
    if user_agent.starts_with("docker-compose/1.") { version.min(OF_COMPOSE_1) } else { version }
}

/// The path without doubled slashes.
fn clean(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn refusal(method: Method, path: &str) -> (u16, String, bool) {
        match route(&method, path).unwrap_err() {
            Unroutable::Refused(error) => {
                (error.status().as_u16(), error.message().to_owned(), error.is_plain())
            }
            Unroutable::Redirect(to) => (301, to, false),
        }
    }

    #[test]
    fn versions() {
        let found = route(&Method::GET, "/v1.41/containers/json").unwrap();
        assert_eq!((found.endpoint, found.version), (Endpoint::ContainerList, ApiVersion::new(1, 41)));
        assert_eq!(route(&Method::GET, "/containers/json").unwrap().version, ApiVersion::MAX);
        let too_new = "client version 9.99 is too new. Maximum supported API version is 1.56";
        assert_eq!(refusal(Method::GET, "/v9.99/info"), (400, too_new.to_owned(), false));
        let too_old = "client version 1.10 is too old. Minimum supported API version is 1.24, \
                       please upgrade your client to a newer version";
        assert_eq!(refusal(Method::GET, "/v1.10/info"), (400, too_old.to_owned(), true));
    }

    #[test]
    fn docker_compose_1_is_answered_as_it_reads() {
        let compose = "docker-compose/1.29.2 docker-py/5.0.3 Linux/6.18";
        assert_eq!(readable(ApiVersion::MAX, compose), ApiVersion::new(1, 38));
        assert_eq!(readable(ApiVersion::MIN, compose), ApiVersion::MIN);
        assert_eq!(readable(ApiVersion::MAX, "docker-sdk-python/5.0.3"), ApiVersion::MAX);
    }

    #[test]
    fn names_are_decoded_after_matching() {
        let found = route(&Method::GET, "/v1.50/images/a%2Fb%40sha256:12/json").unwrap();
        assert_eq!(found.variables, ["a/b@sha256:12"]);
        let found = route(&Method::DELETE, "/images/localhost:5000/x/y:1").unwrap();
        assert_eq!(found.variables, ["localhost:5000/x/y:1"]);
    }

    #[test]
    fn nowhere() {
        let page_not_found = (404, "page not found".to_owned(), false);
        assert_eq!(refusal(Method::GET, "/v1.50/nope"), page_not_found);
        assert_eq!(refusal(Method::POST, "/v1.50/_ping"), page_not_found);
        assert_eq!(refusal(Method::GET, "/containers/json/"), page_not_found);
        assert_eq!(refusal(Method::PATCH, "/info"), page_not_found);
        assert_eq!(refusal(Method::GET, "/vx/info"), page_not_found);
        assert_eq!(refusal(Method::GET, "/v1.50/containers//json").0, 301);
        assert_eq!(refusal(Method::GET, "/v1.50/containers//json").1, "/v1.50/containers/json");
    }

    #[test]
    fn endpoints_are_as_old_as_they_are() {
        assert!(route(&Method::POST, "/v1.24/containers/prune").is_err());
        assert!(route(&Method::POST, "/v1.25/containers/prune").is_ok());
    }
}
