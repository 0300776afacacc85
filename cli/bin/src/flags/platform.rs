//! `--platform` where the API has platforms as JSON.

use anyhow::{Context as _, Result, bail};
use berth_api::ApiVersion;
use berth_client::Client;

/// `linux/arm64` as the API has it; nothing stays nothing.
pub(crate) fn json(text: &str) -> Result<String> {
    match text {
        "" => Ok(String::new()),
        text => serde_json::to_string(&berth_oci::Platform::parse(text)?).context("a platform is JSON"),
    }
}

/// Several of them, for an engine that knows what they are for since this version: an older one would ignore them.
pub(crate) async fn for_engine(client: &Client, texts: &[String], since: ApiVersion) -> Result<Vec<String>> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let platforms = texts.iter().map(|text| json(text)).collect::<Result<_>>()?;
    let spoken = client.version_spoken().await?;
    if spoken < since {
        bail!("\"--platform\" requires API version {since}, but the engine's is {spoken}");
    }
    Ok(platforms)
}

#[cfg(test)]
mod tests {
    use super::json;

    #[test]
    fn platforms_go_as_json() {
        assert_eq!(json("").unwrap(), "");
        assert_eq!(json("linux/arm64").unwrap(), r#"{"architecture":"arm64","os":"linux"}"#);
        assert!(json("no/such/thing/at/all").is_err());
    }
}
