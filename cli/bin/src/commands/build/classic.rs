//! Flags of `berth build` that docker's classic builder has and BuildKit has not, or has in another way.

use anyhow::Result;
use berth_api::build::BuildOptions;
use clap::Args;

use crate::flags::content_trust::ContentTrust;
use crate::flags::resources;

// Flags of the classic builder.
#[derive(Debug, Args)]
pub(crate) struct Classic {
    /// Resource limit of the steps' processes: name=soft[:hard]
    #[arg(long, value_name = "SPEC")]
    ulimit: Vec<String>,
    /// Compress the context with gzip where it is sent; an engine on this machine reads it in place
    #[arg(long)]
    pub(super) compress: bool,
    /// Make one layer of the new ones, if the engine can
    #[arg(long)]
    squash: bool,
    /// Security options of the steps, if the engine has any
    #[arg(long, value_name = "OPTION", value_delimiter = ',')]
    security_opt: Vec<String>,
    /// Isolation technology: on Linux there is `default` alone
    #[arg(long, value_name = "TECHNOLOGY", default_value = "", hide_default_value = true)]
    isolation: String,
    #[command(flatten)]
    trust: ContentTrust,
}

impl Classic {
    /// Adds what they ask for.
    pub(super) fn apply(&self, options: BuildOptions) -> Result<BuildOptions> {
        Ok(BuildOptions {
            ulimits: self.ulimit.iter().map(|spec| resources::ulimit(spec)).collect::<Result<_>>()?,
            squash: self.squash,
            security_opt: self.security_opt.clone(),
            isolation: self.isolation.clone(),
            ..options
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn options(words: &str) -> Result<BuildOptions> {
        let command = Classic::augment_args(clap::Command::new("build").no_binary_name(true));
        let matches = command.try_get_matches_from(words.split_whitespace())?;
        Classic::from_arg_matches(&matches)?.apply(BuildOptions::default())
    }

    #[test]
    fn they_become_options() {
        let words = "--ulimit nofile=10:20 --squash --security-opt a=b,c --isolation hyperv --compress";
        let options = options(words).unwrap();
        assert_eq!((options.ulimits[0].soft, options.ulimits[0].hard), (10, 20));
        assert_eq!(options.security_opt, ["a=b", "c"]);
        assert!(options.squash && options.isolation == "hyperv");
        assert!(super::tests::options("--ulimit nofile").is_err());
        assert!(super::tests::options("--disable-content-trust=false").is_err());
    }
}
