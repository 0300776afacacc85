//! Identity tokens: OAuth2 refresh tokens, exchanged for access tokens at the registry's token service
//! (distribution, "Docker Registry v2 Bearer token specification", POST variant), which `oci-client` lacks.

use reqwest::header::WWW_AUTHENTICATE;
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use crate::failure::Failure;

#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

/// An access token for one repository.
pub(crate) async fn exchange(
    http: &reqwest::Client,
    host: &str,
    repository: &str,
    push: bool,
    refresh_token: &str,
) -> Result<String, Failure> {
    let sent = |error: reqwest::Error| Failure::of_request(&error);
    let answer = http.get(format!("{host}/v2/")).send().await.map_err(sent)?;
    let challenge = answer.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let parameter = |name| parameter(challenge, name);
    let realm = parameter("realm")
        .ok_or_else(|| Failure::Protocol(format!("{host} does not say where tokens are exchanged")))?;
    let actions = if push { "pull,push" } else { "pull" };
    let body = Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", parameter("service").unwrap_or_default())
        .append_pair("scope", &format!("repository:{repository}:{actions}"))
        .append_pair("client_id", "berth")
        .append_pair("refresh_token", refresh_token)
        .finish();
    let request = http.post(realm).header("Content-Type", "application/x-www-form-urlencoded").body(body);
    let answer = request.send().await.map_err(sent)?;
    let status = answer.status();
    let text = answer.bytes().await.map_err(sent)?;
    if !status.is_success() {
        return Err(Failure::of_status(status.as_u16(), &text, None));
    }
    let granted: Granted = serde_json::from_slice(&text)
        .map_err(|error| Failure::Protocol(format!("{realm}: the answer holds no token: {error}")))?;
    Ok(granted.access_token)
}

/// The value of a parameter of a `Bearer` challenge (RFC 9110, 11.2).
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let mut rest =
        challenge.trim().strip_prefix("Bearer ").or_else(|| challenge.trim().strip_prefix("bearer "))?;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim_matches([',', ' ']).eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge =
            r#"Bearer realm="https://auth.example/token?a=b,c",service=reg, scope="repository:x:pull,push""#;
        assert_eq!(parameter(challenge, "realm"), Some("https://auth.example/token?a=b,c"));
        assert_eq!(parameter(challenge, "service"), Some("reg"));
        assert_eq!(parameter(challenge, "scope"), Some("repository:x:pull,push"));
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(parameter(r#"Basic realm="x""#, "realm"), None);
    }
}
