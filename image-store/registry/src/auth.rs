//! Who we are to one server (distribution, "Token authentication"; RFC 9110, 11).
//!
//! ```text
//!  request ──▶ 2xx
//!     └─ 401 + WWW-Authenticate ── Basic ──▶ name and password
//!                               └─ Bearer ─▶ token service: GET with name and password, or POST with a refresh token
//!                                            (OAuth2); the token is kept until shortly before it ends
//!     the same request again ──▶ 2xx, or a refusal: there is no third attempt
//! ```

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_auth::ChallengeRef;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::failure::{Failure, refusal};
use crate::types::Credentials;

/// What a token service that does not say means (distribution, "Token Response Fields").
const DEFAULT_LIFE: u64 = 60;
/// No token is kept longer, whatever its maker says: a time that no clock can tell is no time.
const LONGEST_LIFE: u64 = 24 * 60 * 60;
/// Users of one daemon are few; beyond this the oldest tokens are not worth their keep.
const MAX_TOKENS: usize = 256;

/// What goes into `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authorization {
    Basic(String, String),
    Bearer(String),
}

impl Authorization {
    pub(crate) fn apply(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self {
            Self::Basic(username, password) => request.basic_auth(username, Some(password)),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// What an authorization is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Purpose {
    /// The server's base address.
    pub(crate) base: String,
    /// `repository:path:actions`, several where blobs come from other repositories.
    pub(crate) scopes: Vec<String>,
    pub(crate) credentials: Credentials,
}

/// Authorizations of earlier operations.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<Purpose, (Authorization, Instant)>>);

impl Tokens {
    pub(crate) fn get(&self, purpose: &Purpose) -> Option<Authorization> {
        if let Credentials::Bearer(token) = &purpose.credentials {
            return Some(Authorization::Bearer(token.clone()));
        }
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(purpose).filter(|(_, ends)| *ends > Instant::now()).map(|(token, _)| token.clone())
    }

    fn keep(&self, purpose: &Purpose, authorization: &Authorization, life: Duration) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, (_, ends)| *ends > Instant::now());
        }
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
        tokens.insert(purpose.clone(), (authorization.clone(), Instant::now() + life));
    }

    /// Answers a 401. `None` if there is nothing to answer it with.
    pub(crate) async fn answer(
        &self,
        http: &reqwest::Client,
        purpose: &Purpose,
        headers: &HeaderMap,
    ) -> Result<Option<Authorization>, Failure> {
        let texts: Vec<&str> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let challenges: Vec<ChallengeRef<'_>> =
            texts.iter().filter_map(|text| http_auth::parse_challenges(text).ok()).flatten().collect();
        let by_scheme = |scheme: &str| challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case(scheme));
        if let Some(challenge) = by_scheme("Bearer") {
            let (authorization, life) = token(http, purpose, challenge).await?;
            self.keep(purpose, &authorization, life);
            return Ok(Some(authorization));
        }
        match (&purpose.credentials, by_scheme("Basic")) {
            (Credentials::Basic { username, password }, Some(_)) => {
                let authorization = Authorization::Basic(username.clone(), password.clone());
                self.keep(purpose, &authorization, Duration::from_secs(3600));
                Ok(Some(authorization))
            }
            _ => Ok(None),
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

async fn token(
    http: &reqwest::Client,
    purpose: &Purpose,
    challenge: &ChallengeRef<'_>,
) -> Result<(Authorization, Duration), Failure> {
    let parameter = |name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    let base = &purpose.base;
    let realm = parameter("realm")
        .ok_or_else(|| Failure::Protocol(format!("{base} does not say where tokens are given")))?;
    let mut realm = Url::parse(&realm)
        .map_err(|error| Failure::Protocol(format!("{base} names {realm:?} for tokens: {error}")))?;
    if base.starts_with("https://") && realm.scheme() != "https" {
        return Err(Failure::Protocol(format!("{base} wants credentials sent in the clear to {realm}")));
    }
    let service = parameter("service");
    let scopes: Vec<String> = match purpose.scopes.is_empty() {
        true => parameter("scope").into_iter().collect(),
        false => purpose.scopes.clone(),
    };
    let request = match &purpose.credentials {
        Credentials::IdentityToken(refresh) => {
            let body = Serializer::new(String::new())
                .append_pair("grant_type", "refresh_token")
                .append_pair("service", service.as_deref().unwrap_or_default())
                .append_pair("scope", &scopes.join(" "))
                .append_pair("client_id", "berth")
                .append_pair("refresh_token", refresh)
                .finish();
            http.post(realm.clone()).header("Content-Type", "application/x-www-form-urlencoded").body(body)
        }
        other => {
            let mut query = realm.query_pairs_mut();
            if let Some(service) = &service {
                query.append_pair("service", service);
            }
            for scope in &scopes {
                query.append_pair("scope", scope);
            }
            if let Credentials::Basic { username, .. } = other {
                query.append_pair("account", username);
            }
            drop(query);
            let request = http.get(realm.clone());
            match other {
                Credentials::Basic { username, password } => request.basic_auth(username, Some(password)),
                _ => request,
            }
        }
    };
    let answer = request.send().await.map_err(|error| Failure::of_request(&error))?;
    if !answer.status().is_success() {
        return Err(refusal(answer).await);
    }
    let text = crate::session::limited(answer, 1 << 20).await?;
    let granted: Granted = serde_json::from_slice(&text)
        .map_err(|error| Failure::Protocol(format!("{realm}: the answer holds no token: {error}")))?;
    let token = granted
        .token
        .or(granted.access_token)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Failure::Protocol(format!("{realm}: the answer holds no token")))?;
    // Not to the last moment: the request has to get there, and clocks differ.
    let life = granted.expires_in.unwrap_or(DEFAULT_LIFE).clamp(DEFAULT_LIFE, LONGEST_LIFE);
    Ok((Authorization::Bearer(token), Duration::from_secs(life - life / 5)))
}
