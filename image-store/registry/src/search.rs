//! Search: Docker Hub's way (`/v1/search`), and for registries that have none the list of their repositories
//! (distribution spec, "Listing Repositories" of the Docker registry).

use reqwest::header::LINK;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::error::RegistryError;
use crate::failure::Failure;
use crate::session::{Server, Session, limited};
use crate::transport::Transport;
use crate::types::Credentials;

/// Where names without a registry are looked for.
const HUB: &str = "docker.io";
const HUB_SEARCH: &str = "https://index.docker.io/v1/search";
/// An answer is at most so long.
const MAX_ANSWER: usize = 4 << 20;
/// Pages of repositories (of a thousand each) that are looked through.
const MAX_PAGES: usize = 50;

/// A repository that was found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// How many users like it.
    #[serde(default)]
    pub star_count: i64,
    /// Whether Docker keeps it.
    #[serde(default)]
    pub is_official: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Vec<String>,
}

/// The registry and the words of a term.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((registry, words)) if registry.contains(['.', ':']) || registry == "localhost" => {
            (registry, words)
        }
        _ => (HUB, term),
    }
}

pub(crate) async fn search(
    transport: &Transport,
    term: &str,
    limit: usize,
    credentials: &Credentials,
) -> Result<Vec<Found>, RegistryError> {
    let (registry, words) = split(term);
    let words = words.strip_prefix("library/").unwrap_or(words);
    let session = Session::of_registry(transport, registry, credentials)?;
    let server = session.origin().map_err(Failure::in_general)?;
    let root = server.host.base.trim_end_matches("/v2");
    let at = if registry == HUB { HUB_SEARCH.to_owned() } else { format!("{root}/v1/search") };
    let bad = |error: url::ParseError| RegistryError::BadAddress(format!("{at}: {error}"));
    let limit_text = limit.to_string();
    let url = Url::parse_with_params(&at, [("q", words), ("n", &limit_text)]).map_err(bad)?;
    match get::<Answer>(&session, server, url).await {
        Ok((answer, _)) => Ok(answer.results.into_iter().take(limit).collect()),
        Err(Failure::Status { status: 404 | 405 | 501, .. }) if registry != HUB => {
            listed(&session, server, registry, words, limit).await
        }
        Err(failure) => Err(failure.in_general()),
    }
}

/// Repositories of which the name has the words in it.
async fn listed(
    session: &Session<'_>,
    server: &Server,
    registry: &str,
    words: &str,
    limit: usize,
) -> Result<Vec<Found>, RegistryError> {
    let mut found = Vec::new();
    let mut next = Url::parse(&format!("{}/_catalog?n=1000", server.host.base)).ok();
    for _ in 0..MAX_PAGES {
        let Some(url) = next.filter(|_| found.len() < limit) else { break };
        let (catalog, after) = match get::<Catalog>(session, server, url).await {
            Err(Failure::Status { status: 401 | 403 | 404 | 405, .. }) => {
                return Err(RegistryError::NoSearch(registry.to_owned()));
            }
            other => other.map_err(Failure::in_general)?,
        };
        let names = catalog.repositories.into_iter().filter(|name| name.contains(words));
        found.extend(names.map(|name| Found {
            name: format!("{registry}/{name}"),
            description: String::new(),
            star_count: 0,
            is_official: false,
        }));
        next = after;
    }
    found.truncate(limit);
    Ok(found)
}

/// An answer, and where it goes on.
async fn get<T: serde::de::DeserializeOwned>(
    session: &Session<'_>,
    server: &Server,
    url: Url,
) -> Result<(T, Option<Url>), Failure> {
    let response = session.once(server, || server.request(Method::GET, url.clone())).await?;
    if response.status() != StatusCode::OK {
        return Err(Failure::Protocol(format!("{url} answers with {}", response.status())));
    }
    // RFC 8288: `</v2/_catalog?last=x&n=1000>; rel="next"`; only on the same server.
    let next = response.headers().get(LINK).and_then(|link| {
        let path = link.to_str().ok()?.strip_prefix('<')?.split('>').next()?;
        url.join(path).ok().filter(|next| next.origin() == url.origin())
    });
    let bytes = limited(response, MAX_ANSWER).await?;
    let answer = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::Protocol(format!("the answer of {url} makes no sense: {error}")))?;
    Ok((answer, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        assert_eq!(split("busybox"), (HUB, "busybox"));
        assert_eq!(split("team/app"), (HUB, "team/app"));
        assert_eq!(split("localhost/app"), ("localhost", "app"));
        assert_eq!(split("r.example:5000/team/app"), ("r.example:5000", "team/app"));
    }
}
