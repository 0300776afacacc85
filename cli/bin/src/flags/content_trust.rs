//! `--disable-content-trust`: docker's name for not asking its own trust service, which is what it does by default.

use clap::Args;

// What is left of docker's content trust.
#[derive(Debug, Args)]
pub(crate) struct ContentTrust {
    /// Do not ask Docker's trust service (Notary), as always: =false is refused
    #[arg(
        long,
        default_value = "true",
        hide_default_value = true,
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        value_name = "BOOL",
        value_parser = skipped
    )]
    disable_content_trust: bool,
}

/// Takes what Go takes for true.
fn skipped(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        _ => Err("content trust (Notary) is not done here".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::skipped;

    #[test]
    fn trust_that_is_not_done_is_not_promised() {
        assert!(skipped("true").is_ok() && skipped("1").is_ok());
        assert!(skipped("false").is_err() && skipped("0").is_err() && skipped("").is_err());
    }
}
