//! `--filter key=value`, as the API's JSON.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// The `filters` parameter of a list or prune request; `None` without filters.
pub(crate) fn parse(filters: &[String]) -> Result<Option<String>> {
    let mut map: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for filter in filters {
        let Some((key, value)) = filter.split_once('=') else {
            bail!("invalid argument {filter:?} for --filter: expected key=value, such as status=exited");
        };
        map.entry(key.trim().to_lowercase()).or_default().push(value.trim());
    }
    if map.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::to_string(&map)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let all = ["status=exited", "label=a=b", "Status=dead"].map(String::from);
        let parsed = parse(&all).expect("valid");
        assert_eq!(parsed.as_deref(), Some(r#"{"label":["a=b"],"status":["exited","dead"]}"#));
        assert_eq!(parse(&[]).expect("valid"), None);
        assert!(parse(&["status".to_owned()]).is_err());
    }
}
