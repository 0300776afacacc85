//! `docker search`.

use berth_api::Filters;
use berth_api::image::SearchResult;
use berth_api::registry::AuthConfig;
use berth_registry::Found;

use super::credentials;
use crate::containers::filters::boolean;
use crate::engine::Engine;
use crate::error::{EngineError, Kind, Result};

/// Results when nobody says how many, and the most that one may ask for.
const USUAL: i64 = 25;
const MOST: i64 = 100;

impl Engine {
    /// Searches Docker Hub, or the registry that the term begins with.
    ///
    /// # Errors
    /// A bad limit, a filter that is unknown or has no sense, what the registry says.
    pub async fn search_images(
        &self,
        term: &str,
        limit: i64,
        filters: &Filters,
        auth: &AuthConfig,
    ) -> Result<Vec<SearchResult>> {
        let limit = if limit == 0 { USUAL } else { limit };
        if !(1..=MOST).contains(&limit) {
            return Err(EngineError::invalid(format!("limit {limit} is outside the range of [1, {MOST}]")));
        }
        let wanted = Wanted::new(filters)?;
        let limit = usize::try_from(limit).unwrap_or_default();
        let found = self.registry.search(term, limit, &credentials(auth)).await;
        // Docker knows no "unavailable" here.
        let found = found.map_err(EngineError::from).map_err(|error| match error.kind() {
            Kind::Unavailable => EngineError::internal(error.message().to_owned()),
            _ => error,
        })?;
        let result = |found: Found| SearchResult {
            star_count: found.star_count,
            is_official: found.is_official,
            name: found.name,
            is_automated: false,
            description: found.description,
        };
        Ok(found.into_iter().filter(|found| wanted.has(found)).map(result).collect())
    }
}

/// The filters.
struct Wanted {
    official: Option<bool>,
    automated: Option<bool>,
    stars: i64,
}

impl Wanted {
    fn new(filters: &Filters) -> Result<Self> {
        if let Some(key) = filters.unknown_key(&["is-automated", "is-official", "stars"]) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        let stars = filters.get("stars").iter().map(|text| {
            text.parse::<i64>().map_err(|_| EngineError::invalid(format!("invalid filter 'stars={text}'")))
        });
        let stars = stars.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
        Ok(Self {
            official: boolean(filters, "is-official")?,
            automated: boolean(filters, "is-automated")?,
            stars,
        })
    }

    fn has(&self, found: &Found) -> bool {
        // Hub has ended automated builds: nothing is one.
        self.official.is_none_or(|official| official == found.is_official)
            && self.automated != Some(true)
            && found.star_count >= self.stars
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let found = |stars, official| Found {
            name: "a".into(),
            description: String::new(),
            star_count: stars,
            is_official: official,
        };
        let wanted = |json: &str| Wanted::new(&Filters::parse(json).unwrap());
        let has = |json: &str, stars, official| wanted(json).unwrap().has(&found(stars, official));
        assert!(has("{}", 0, false));
        assert!(has(r#"{"stars":["3"]}"#, 3, false) && !has(r#"{"stars":["3"]}"#, 2, true));
        assert!(has(r#"{"is-official":["true"]}"#, 0, true) && !has(r#"{"is-official":["true"]}"#, 0, false));
        assert!(
            has(r#"{"is-automated":["false"]}"#, 0, true) && !has(r#"{"is-automated":["true"]}"#, 0, true)
        );
        assert!(wanted(r#"{"stars":["x"]}"#).is_err() && wanted(r#"{"bogus":["1"]}"#).is_err());
    }
}
