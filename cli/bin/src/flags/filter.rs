//! `--filter key=value`.

use anyhow::{Result, bail};
use berth_api::Filters;

/// The filters of a list or prune request.
pub(crate) fn parse(filters: &[String]) -> Result<Filters> {
    let mut parsed = Filters::new();
    for filter in filters {
        let Some((key, value)) = filter.split_once('=') else {
            bail!("invalid argument {filter:?} for --filter: expected key=value, such as status=exited");
        };
        parsed.add(key.trim().to_lowercase(), value.trim());
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let all = ["status=exited", "label=a=b", "Status=dead"].map(String::from);
        let parsed = parse(&all).expect("valid");
        assert_eq!(
            (parsed.get("status"), parsed.get("label")),
            (&["exited".into(), "dead".into()][..], &["a=b".into()][..])
        );
        assert!(parse(&[]).expect("valid").is_empty());
        assert!(parse(&["status".to_owned()]).is_err());
    }
}
