//! `berth create`, and what `run` shares with it.

use anyhow::{Context, Result, bail};
use berth_api::container::CreateRequest;
use berth_client::Client;
use clap::Args;

use super::{api_socket, pull};
use crate::exit::Exit;
use crate::flags::container::{ContainerFlags, request};
use crate::output::progress::Show;
use crate::session::Session;

/// Create a container without starting it
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Create {
    #[command(flatten)]
    attach: Attached,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    flags: ContainerFlags,
    #[command(flatten)]
    target: ImageAndWords,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

// Which streams are attached: of `create` it is noted down, `run` does it.
#[derive(Debug, Default, Args)]
pub(crate) struct Attached {
    /// Attach to these streams only: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM", value_parser = ["stdin", "stdout", "stderr"], ignore_case = true)]
    attach: Vec<String>,
}

impl Attached {
    /// Whether standard input, output and error are. Input that is kept open is, as docker has it.
    pub(crate) fn streams(&self, interactive: bool) -> [bool; 3] {
        if self.attach.is_empty() {
            return [interactive, true, true];
        }
        let chosen = |name: &str| self.attach.iter().any(|stream| stream.eq_ignore_ascii_case(name));
        [interactive || chosen("stdin"), chosen("stdout"), chosen("stderr")]
    }
}

/// What stands behind the flags: the image, then the program and its arguments, which are not ours to judge.
#[derive(Debug, Args)]
pub(crate) struct ImageAndWords {
    /// Image, then the command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "IMAGE [COMMAND [ARG]…]"
    )]
    words: Vec<String>,
}

impl ImageAndWords {
    /// The request for a container of this image.
    pub(crate) fn request(&self, flags: &ContainerFlags) -> Result<CreateRequest> {
        let (image, words) = self.words.split_first().context("an image is required")?;
        if image.starts_with('-') {
            let tip = similar(image).map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
            bail!("unknown flag: {image}{tip}\nSee 'berth run --help'");
        }
        request(flags, image, words)
    }
}

/// The option that was probably meant.
fn similar(flag: &str) -> Option<String> {
    let name = flag.strip_prefix("--")?.split('=').next()?;
    let command = ContainerFlags::augment_args(clap::Command::new("run"));
    let options = command.get_arguments().filter_map(|option| option.get_long());
    let near = options.map(|option| (strsim::damerau_levenshtein(option, name), option));
    near.filter(|(distance, _)| *distance <= 2).min().map(|(_, option)| format!("--{option}"))
}

pub(crate) async fn run(session: &Session, args: Create) -> Result<Exit> {
    // Before an engine is started for it: a mistake in the command line needs none.
    let mut request = args.target.request(&args.flags)?;
    let client = session.client().await?;
    let interactive = args.flags.interactive;
    let config = &mut request.config;
    [config.attach_stdin, config.attach_stdout, config.attach_stderr] = args.attach.streams(interactive);
    config.stdin_once = interactive && config.attach_stdin;
    let id = create(&client, &args.flags, request, args.quiet).await?;
    println!("{id}");
    Ok(Exit::Success)
}

/// Creates the container; pulls the image if it is missing and may be pulled. Gives the id.
pub(crate) async fn create(
    client: &Client,
    flags: &ContainerFlags,
    mut request: CreateRequest,
    quiet: bool,
) -> Result<String> {
    if let Some(path) = flags.cidfile.as_deref().filter(|path| path.exists()) {
        bail!("--cidfile {}: the file exists; remove it if its container is gone", path.display());
    }
    let logins = if flags.use_api_socket { api_socket::mount(client.host(), &mut request)? } else { None };
    let request = &request;
    let name = flags.name.as_deref().unwrap_or_default();
    let platform = flags.platform.as_deref().unwrap_or_default();
    let image = &request.config.image;
    let show = if quiet { Show::Quiet } else { Show::All };
    if flags.pull == "always" {
        pull::pull(client, image, flags.platform.as_deref(), show).await?;
    }
    let answer = client.container_create(name, platform, request).await;
    let response = match answer {
        Err(error)
            if error.is_not_found()
                && error.to_string().contains("o such image")
                && flags.pull == "missing" =>
        {
            eprintln!("Unable to find image '{image}' locally");
            pull::pull_to_stderr(client, image, flags.platform.as_deref(), quiet).await?;
            client.container_create(name, platform, request).await?
        }
        other => other?,
    };
    for warning in &response.warnings {
        eprintln!("WARNING: {warning}");
    }
    if let Some(logins) = &logins {
        api_socket::hand_over(client, &response.id, logins).await?;
    }
    if let Some(path) = &flags.cidfile {
        std::fs::write(path, &response.id).with_context(|| format!("--cidfile {}", path.display()))?;
    }
    Ok(response.id)
}

#[cfg(test)]
mod tests {
    use super::Attached;

    #[test]
    fn streams() {
        let attached =
            |words: &[&str]| Attached { attach: words.iter().map(|&word| word.to_owned()).collect() };
        assert_eq!(attached(&[]).streams(false), [false, true, true]);
        assert_eq!(attached(&[]).streams(true), [true, true, true]);
        assert_eq!(attached(&["STDERR"]).streams(false), [false, false, true]);
        assert_eq!(attached(&["STDERR"]).streams(true), [true, false, true]);
        assert_eq!(attached(&["stdin", "stdout"]).streams(false), [true, true, false]);
    }
}
