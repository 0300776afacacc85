//! `berth compose`: projects of several containers.

mod attached;
mod bake;
mod build;
mod config;
mod images;
mod lifecycle;
mod list;
mod logs;
mod missing;
mod progress;
mod project;
mod run;
mod up;
mod version;
mod watch;

use anyhow::Result;
use clap::{Args, FromArgMatches, Subcommand};

use self::project::ProjectArgs;
use crate::exit::Exit;
use crate::session::Session;

/// Define and run applications of several containers
#[derive(Debug, Args)]
pub(crate) struct Compose {
    #[command(flatten)]
    project: ProjectArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    Attach(run::Attach),
    Build(images::Build),
    Commit(run::Commit),
    #[command(visible_alias = "convert")]
    Config(config::Config),
    Cp(run::Cp),
    Create(up::Create),
    Down(lifecycle::Down),
    Events(logs::Events),
    Exec(run::Exec),
    Export(run::Export),
    Images(list::Images),
    Kill(lifecycle::Kill),
    Logs(logs::Logs),
    Ls(list::Ls),
    /// Freeze containers
    Pause(lifecycle::Services),
    Port(list::Port),
    Ps(list::Ps),
    Pull(images::Pull),
    Push(images::Push),
    Restart(lifecycle::Restart),
    Rm(lifecycle::Rm),
    Run(Box<run::Run>),
    Scale(up::Scale),
    Start(lifecycle::Start),
    Stats(list::Stats),
    /// Stop containers
    Stop(lifecycle::Stop),
    Top(list::Top),
    /// Let frozen containers go on
    Unpause(lifecycle::Services),
    Up(Box<up::Up>),
    Version(version::Version),
    Volumes(list::Volumes),
    Wait(lifecycle::Wait),
    Watch(watch::Watch),
    #[command(hide = true)]
    Alpha(missing::Missing),
    #[command(hide = true)]
    Bridge(missing::Missing),
    #[command(hide = true)]
    Publish(missing::Missing),
}

pub(crate) async fn run(session: &Session, args: Compose) -> Result<Exit> {
    let project = &args.project;
    match args.command {
        Command::Attach(args) => run::run_attach(session, project, args).await,
        Command::Build(args) => images::run_build(session, project, args).await,
        Command::Commit(args) => run::run_commit(session, project, args).await,
        Command::Config(args) => config::run(session, project, args).await,
        Command::Cp(args) => run::run_cp(session, project, args).await,
        Command::Create(args) => up::create(session, project, args).await,
        Command::Down(args) => lifecycle::down(session, project, args).await,
        Command::Events(args) => logs::run_events(session, project, args).await,
        Command::Exec(args) => run::run_exec(session, project, args).await,
        Command::Export(args) => run::run_export(session, project, args).await,
        Command::Images(args) => list::run_images(session, project, args).await,
        Command::Kill(args) => lifecycle::kill(session, project, args).await,
        Command::Logs(args) => logs::run(session, project, args).await,
        Command::Ls(args) => list::run_ls(session, args).await,
        Command::Pause(args) => lifecycle::pause(session, project, args).await,
        Command::Port(args) => list::run_port(session, project, args).await,
        Command::Ps(args) => list::run_ps(session, project, args).await,
        Command::Pull(args) => images::run_pull(session, project, args).await,
        Command::Push(args) => images::run_push(session, project, args).await,
        Command::Restart(args) => lifecycle::restart(session, project, args).await,
        Command::Rm(args) => lifecycle::rm(session, project, args).await,
        Command::Run(args) => run::run(session, project, *args).await,
        Command::Scale(args) => up::run_scale(session, project, args).await,
        Command::Start(args) => lifecycle::start(session, project, args).await,
        Command::Stats(args) => list::run_stats(session, project, args).await,
        Command::Stop(args) => lifecycle::stop(session, project, args).await,
        Command::Top(args) => list::run_top(session, project, args).await,
        Command::Unpause(args) => lifecycle::unpause(session, project, args).await,
        Command::Up(args) => up::run(session, project, *args).await,
        Command::Version(args) => version::run(&args),
        Command::Volumes(args) => list::run_volumes(session, project, args).await,
        Command::Wait(args) => lifecycle::wait(session, project, args).await,
        Command::Watch(args) => watch::run(session, project, args).await,
        Command::Alpha(_) => missing::alpha(),
        Command::Bridge(_) => missing::bridge(),
        Command::Publish(_) => missing::publish(),
    }
}

/// The arguments of another command, from its words.
fn words<T: Args + FromArgMatches>(name: &'static str, words: Vec<String>) -> Result<T> {
    let command = T::augment_args(clap::Command::new(name).no_binary_name(true).disable_help_flag(true));
    Ok(T::from_arg_matches(&command.try_get_matches_from(words)?)?)
}
