//! The instructions, typed. Words are as written; expansion is up to the builder, which knows the variables.

use crate::heredoc::Heredoc;
use crate::span::{LineRange, Span};
use crate::syntax::{Pair, Word};

/// One instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Keyword as written.
    pub keyword: String,
    /// The text with continuations joined.
    pub original: String,
    /// Its place.
    pub span: Span,
    /// Its lines.
    pub lines: LineRange,
    /// Comments directly above it.
    pub comments: Vec<String>,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Vec<ArgPair>),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<Pair>),
    /// `EXPOSE`; sorted.
    Expose(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<Pair>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the text of the trigger, heredoc bodies included.
    Onbuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(Word),
    /// `USER`
    User(Word),
    /// `VOLUME`
    Volume(Vec<Word>),
    /// `WORKDIR`
    Workdir(Word),
}

/// `NAME` or `NAME=default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgPair {
    /// The name.
    pub key: String,
    /// The default.
    pub value: Option<String>,
    /// Place of the pair.
    pub span: Span,
}

/// A command in shell form or JSON form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The words: one in shell form.
    pub words: Vec<String>,
    /// Shell form.
    pub shell: bool,
    /// Heredocs.
    pub heredocs: Vec<Heredoc>,
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Raw values of `--mount`; see [`crate::mount::parse`].
    pub mounts: Vec<Word>,
    /// `--network`
    pub network: Network,
    /// `--security=insecure`
    pub insecure: bool,
    /// Raw values of `--device`.
    pub devices: Vec<Word>,
    /// Names of the flags given.
    pub flags_used: Vec<String>,
}

/// `RUN --network`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// What the build says.
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// A file written in the Dockerfile itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name, the heredoc's delimiter.
    pub name: String,
    /// Its contents.
    pub data: String,
    /// Whether variables are expanded in it.
    pub expand: bool,
}

/// Sources and destination of `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Paths, patterns or URLs.
    pub sources: Vec<Word>,
    /// Files from heredocs.
    pub inline: Vec<InlineFile>,
    /// Destination.
    pub dest: Word,
}

/// `COPY`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// What and where to.
    pub files: Files,
    /// `--from`
    pub from: Option<Word>,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`
    pub exclude: Vec<Word>,
}

/// `ADD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// What and where to.
    pub files: Files,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--checksum`
    pub checksum: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--unpack`
    pub unpack: Option<bool>,
    /// `--exclude`
    pub exclude: Vec<Word>,
}

/// `HEALTHCHECK`; times in nanoseconds, 0 where not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// `--interval`
    pub interval: i64,
    /// `--timeout`
    pub timeout: i64,
    /// `--start-period`
    pub start_period: i64,
    /// `--start-interval`
    pub start_interval: i64,
    /// `--retries`
    pub retries: i64,
}
