//! The command line's grammar: docker's commands, at the top and in their groups.

use std::ffi::OsString;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::inspect::Kind;
use crate::commands::lifecycle::StopOr;
use crate::commands::{
    archive, attach, build, builder, commit, completion, compose, context, cp, create, df, diff, events,
    exec, history, images, import, info, inspect, lab, lifecycle, login, logs, network, port, prune, ps,
    pull, push, rm, rmi, run, search, start, stats, system, tag, top, update, version, volume,
};
use crate::exit::Exit;
use crate::session::{Session, Wanted};

/// Berth, a container engine
#[derive(Debug, Parser)]
#[command(
    name = "berth",
    version,
    propagate_version = false,
    disable_version_flag = true,
    disable_help_subcommand = true
)]
pub(crate) struct App {
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    engine: Wanted,
    #[command(subcommand)]
    command: Command,
}

// The flags of a command are made when it is called. What a struct of flags says of itself in a doc comment is then shown as
// what the command does: where several commands share the struct, it says it in an ordinary one.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    #[command(flatten)]
    Container(Container),
    #[command(flatten)]
    Image(Image),
    Compose(Box<compose::Compose>),
    #[command(subcommand)]
    Lab(lab::LabCommand),
    Ps(ps::Ps),
    Images(images::Images),
    Rmi(rmi::Rmi),
    Inspect(inspect::Inspect),
    Events(events::Events),
    Info(info::Info),
    Version(version::Version),
    Login(login::Login),
    Logout(login::Logout),
    Search(search::Search),
    /// Commands for containers
    #[command(subcommand, name = "container")]
    Containers(ContainerGroup),
    /// Commands for images
    #[command(subcommand, name = "image")]
    ImagesGroup(ImageGroup),
    #[command(subcommand, visible_alias = "buildx")]
    Builder(builder::Builder),
    /// Commands for networks
    #[command(subcommand)]
    Network(NetworkGroup),
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Commands for volumes
    #[command(subcommand)]
    Volume(VolumeGroup),
    /// Commands for the engine
    #[command(subcommand)]
    System(SystemGroup),
    Completion(completion::Completion),
    Man(completion::Man),
}

/// Commands that docker has both at the top and in the group `container`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Container {
    Attach(attach::Attach),
    Commit(commit::Commit),
    Cp(cp::Cp),
    Create(Box<create::Create>),
    Diff(diff::Diff),
    Exec(exec::Exec),
    Export(archive::Export),
    Kill(lifecycle::Kill),
    Logs(logs::Logs),
    /// Freeze containers
    Pause(lifecycle::Names),
    Port(port::Port),
    Rename(lifecycle::Rename),
    /// Stop and start containers
    Restart(lifecycle::Stop),
    Rm(rm::Rm),
    Run(Box<run::Run>),
    Start(start::Start),
    Stats(stats::Stats),
    /// Stop running containers
    Stop(lifecycle::Stop),
    Top(top::Top),
    /// Let frozen containers go on
    Unpause(lifecycle::Names),
    Update(update::Update),
    /// Wait until containers end, and print their exit codes
    Wait(lifecycle::Names),
}

/// Commands that docker has both at the top and in the group `image`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Image {
    Build(Box<build::Build>),
    History(history::History),
    Import(import::Import),
    Load(archive::Load),
    Pull(pull::Pull),
    Push(push::Push),
    Save(archive::Save),
    Tag(tag::Tag),
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum ContainerGroup {
    #[command(flatten)]
    Common(Container),
    #[command(visible_aliases = ["ps", "list"])]
    Ls(ps::Ps),
    /// Show all about containers
    Inspect(inspect::What),
    /// Remove stopped containers
    Prune(prune::Prune),
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum ImageGroup {
    #[command(flatten)]
    Common(Image),
    #[command(visible_alias = "list")]
    Ls(images::Images),
    Rm(rmi::Rmi),
    /// Show all about images
    Inspect(inspect::What),
    /// Remove images that nobody uses
    Prune(prune::PruneMore),
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum NetworkGroup {
    Create(network::Create),
    #[command(visible_alias = "list")]
    Ls(network::Ls),
    #[command(visible_alias = "remove")]
    Rm(network::Rm),
    /// Show all about networks
    Inspect(inspect::OfNetwork),
    Connect(network::Connect),
    Disconnect(network::Disconnect),
    /// Remove networks that nobody uses
    Prune(prune::Prune),
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum VolumeGroup {
    Create(volume::Create),
    #[command(visible_alias = "list")]
    Ls(volume::Ls),
    #[command(visible_alias = "remove")]
    Rm(volume::Rm),
    /// Show all about volumes
    Inspect(inspect::What),
    /// Remove volumes that nobody uses
    Prune(prune::PruneMore),
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum SystemGroup {
    Check(system::Check),
    Df(df::Df),
    // As docker hides it: it is typed by programs (`ssh HOST berth system dial-stdio`).
    #[command(hide = true)]
    DialStdio(system::DialStdio),
    Events(events::Events),
    Info(info::Info),
    Prune(prune::System),
    Shutdown(system::Shutdown),
}

/// `berth help run` is `berth run --help`.
fn with_help(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_some_and(|word| word == "help") {
        words.remove(1);
        words.push("--help".into());
    }
    words
}

impl App {
    /// Reads the command line. Only the flags of the command that is called are made, unless something is to be said about
    /// the others: help, or what was not understood.
    ///
    /// # Errors
    /// What clap says, help and version included.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let words = || with_help(std::env::args_os().collect());
        Self::try_parse_from(words())
            .or_else(|_| Self::from_arg_matches(&Self::whole().try_get_matches_from(words())?))
    }

    /// The grammar with the flags of every command.
    fn whole() -> clap::Command {
        let mut whole = Self::command();
        whole.build();
        whole
    }

    /// Does what was asked for.
    pub(crate) async fn run(self) -> Result<Exit> {
        let session = &Session::new(&self.engine)?;
        match self.command {
            Command::Container(command) => container(session, command).await,
            Command::Image(command) => image(session, command).await,
            Command::Compose(args) => compose::run(session, *args).await,
            Command::Lab(command) => lab::run(session, command).await,
            Command::Ps(args) => ps::run(session, args).await,
            Command::Images(args) => images::run(session, args).await,
            Command::Rmi(args) => rmi::run(session, args).await,
            Command::Inspect(args) => inspect::run(session, args).await,
            Command::Events(args) => events::run(session, args).await,
            Command::Info(args) => info::run(session, args).await,
            Command::Version(args) => version::run(session, args).await,
            Command::Login(args) => login::run(session, args).await,
            Command::Logout(args) => login::logout(args),
            Command::Search(args) => search::run(session, args).await,
            Command::Containers(command) => match command {
                ContainerGroup::Common(command) => container(session, command).await,
                ContainerGroup::Ls(args) => ps::run(session, args).await,
                ContainerGroup::Inspect(what) => inspect::of(session, Some(Kind::Container), what).await,
                ContainerGroup::Prune(args) => prune::containers(session, args).await,
            },
            Command::Builder(command) => builder::run(session, command).await,
            Command::ImagesGroup(command) => match command {
                ImageGroup::Common(command) => image(session, command).await,
                ImageGroup::Ls(args) => images::run(session, args).await,
                ImageGroup::Rm(args) => rmi::run(session, args).await,
                ImageGroup::Inspect(what) => inspect::of(session, Some(Kind::Image), what).await,
                ImageGroup::Prune(args) => prune::images(session, args).await,
            },
            Command::Completion(args) => Ok(completion::completion(&args, Self::whole())),
            Command::Man(args) => completion::man(&args, Self::whole()),
            Command::Context(command) => context::run(session, command).await,
            Command::Network(command) => networks(session, command).await,
            Command::Volume(command) => match command {
                VolumeGroup::Create(args) => volume::create(session, args).await,
                VolumeGroup::Ls(args) => volume::ls(session, args).await,
                VolumeGroup::Rm(args) => volume::rm(session, args).await,
                VolumeGroup::Inspect(what) => inspect::of(session, Some(Kind::Volume), what).await,
                VolumeGroup::Prune(args) => prune::volumes(session, args).await,
            },
            Command::System(command) => match command {
                SystemGroup::Check(args) => system::check(session, args).await,
                SystemGroup::Df(args) => df::run(session, args).await,
                SystemGroup::DialStdio(_) => system::dial_stdio(session).await,
                SystemGroup::Events(args) => events::run(session, args).await,
                SystemGroup::Info(args) => info::run(session, args).await,
                SystemGroup::Prune(args) => prune::system(session, args).await,
                SystemGroup::Shutdown(args) => system::shutdown(session, args).await,
            },
        }
    }
}

async fn container(session: &Session, command: Container) -> Result<Exit> {
    match command {
        Container::Attach(args) => attach::run(session, args).await,
        Container::Commit(args) => commit::run(session, args).await,
        Container::Cp(args) => cp::run(session, args).await,
        Container::Create(args) => create::run(session, *args).await,
        Container::Diff(args) => diff::run(session, args).await,
        Container::Exec(args) => exec::run(session, args).await,
        Container::Export(args) => archive::export(session, args).await,
        Container::Kill(args) => lifecycle::kill(session, args).await,
        Container::Logs(args) => logs::run(session, args).await,
        Container::Pause(args) => lifecycle::pause(session, args).await,
        Container::Port(args) => port::run(session, args).await,
        Container::Rename(args) => lifecycle::rename(session, args).await,
        Container::Restart(args) => lifecycle::stop(session, args, StopOr::Restart).await,
        Container::Rm(args) => rm::run(session, args).await,
        Container::Run(args) => run::run(session, *args).await,
        Container::Start(args) => start::run(session, args).await,
        Container::Stats(args) => stats::run(session, args).await,
        Container::Stop(args) => lifecycle::stop(session, args, StopOr::Stop).await,
        Container::Top(args) => top::run(session, args).await,
        Container::Unpause(args) => lifecycle::unpause(session, args).await,
        Container::Update(args) => update::run(session, args).await,
        Container::Wait(args) => lifecycle::wait(session, args).await,
    }
}

async fn image(session: &Session, command: Image) -> Result<Exit> {
    match command {
        Image::Build(args) => build::run(session, *args).await,
        Image::History(args) => history::run(session, args).await,
        Image::Import(args) => import::run(session, args).await,
        Image::Load(args) => archive::load(session, args).await,
        Image::Pull(args) => pull::run(session, args).await,
        Image::Push(args) => push::run(session, args).await,
        Image::Save(args) => archive::save(session, args).await,
        Image::Tag(args) => tag::run(session, args).await,
    }
}

async fn networks(session: &Session, command: NetworkGroup) -> Result<Exit> {
    match command {
        NetworkGroup::Create(args) => network::create(session, args).await,
        NetworkGroup::Ls(args) => network::ls(session, args).await,
        NetworkGroup::Rm(args) => network::rm(session, args).await,
        NetworkGroup::Inspect(args) => inspect::of(session, Some(Kind::Network), args.what).await,
        NetworkGroup::Connect(args) => network::connect(session, args).await,
        NetworkGroup::Disconnect(args) => network::disconnect(session, args).await,
        NetworkGroup::Prune(args) => prune::networks(session, args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_holds_together() {
        App::command().debug_assert();
    }

    #[test]
    fn what_stands_behind_an_image_is_not_ours() {
        for words in [
            "berth -H unix:///x run --rm -h box -v a:b -it busybox ls -la --help",
            "berth exec -it c sh -c true -v",
            "berth container ls -aq --filter status=exited",
            "berth build -t a --rm=false --build-arg X=1 .",
            "berth create --name n busybox cat",
            "berth stop -t -1 c",
            "berth top c -o pid",
            "berth -D -l debug -c far --config /d --tls ps",
            "berth create -a STDIN -a stdout --kernel-memory 64m --use-api-socket busybox",
            "berth cp -q a c:/b",
            "berth pull -a busybox",
            "berth history -H=false --platform linux/arm64 busybox",
            "berth save --platform linux/arm64,linux/amd64 busybox",
            "berth load --platform linux/arm64",
            "berth rmi --platform linux/arm64 --platform linux/amd64 busybox",
            "berth update --cpu-rt-period 1000000 --cpu-rt-runtime 1000 c",
            "berth build --ulimit nofile=1:2 --compress --squash --security-opt a --isolation default .",
            "berth push --disable-content-trust=true busybox",
        ] {
            assert!(App::try_parse_from(words.split(' ')).is_ok(), "{words}");
        }
        for words in [
            "berth nosuch",
            "berth create -a nosuch busybox",
            "berth -l loud ps",
            "berth pull --disable-content-trust=false busybox",
        ] {
            assert!(App::try_parse_from(words.split(' ')).is_err(), "{words}");
        }
        for word in ["-v", "-V", "--version"] {
            let error = App::try_parse_from(["berth", word]).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayVersion, "{word}");
        }
    }

    #[test]
    fn help_is_a_word_as_well() {
        let help = |words: &[&str]| with_help(words.iter().map(OsString::from).collect());
        assert_eq!(help(&["berth", "help", "container", "run"]), ["berth", "container", "run", "--help"]);
        assert_eq!(help(&["berth", "run", "help"]), ["berth", "run", "help"]);
    }
}
