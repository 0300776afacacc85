//! `/_ping`: who answers, and which version is spoken.

use berth_api::ApiVersion;
use http::HeaderMap;

/// The newest version that this client speaks: the last in which a container's addresses stand beside its networks as
/// well, where templates of `inspect` look for them.
const SPOKEN: ApiVersion = ApiVersion::new(1, 51);

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// Newest version it serves; `None` from a daemon that does not tell.
    pub api_version: Option<ApiVersion>,
    /// `1` classic builder, `2` BuildKit.
    pub builder_version: String,
    /// `linux`.
    pub os_type: String,
    /// Whether experimental features are on.
    pub experimental: bool,
    /// `inactive` or a swarm's state.
    pub swarm: String,
    /// Product and version.
    pub server: String,
}

impl Ping {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let get = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Self {
            api_version: get("api-version").parse().ok(),
            builder_version: get("builder-version").to_owned(),
            os_type: get("ostype").to_owned(),
            experimental: get("docker-experimental") == "true",
            swarm: get("swarm").to_owned(),
            server: get("server").to_owned(),
        }
    }

    /// The version to speak: the newest both know. Daemons that tell none speak 1.24, as docker's client assumes.
    pub(crate) fn negotiated(&self) -> ApiVersion {
        self.api_version.unwrap_or(ApiVersion::MIN).min(SPOKEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_side_decides() {
        let ping = |version: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("api-version", version.parse().unwrap());
            Ping::from_headers(&headers)
        };
        assert_eq!(ping("1.41").negotiated(), ApiVersion::new(1, 41));
        assert_eq!(ping("1.99").negotiated(), SPOKEN);
        assert_eq!(Ping::from_headers(&HeaderMap::new()).negotiated(), ApiVersion::MIN);
    }
}
