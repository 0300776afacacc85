//! The lint rules that look at more than one instruction, or at what variables come to. (Those that look at one alone
//! are found while reading, see [`Program::warnings`].) Pure: what a base image brings is asked of the caller.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::Diagnostic;
use crate::expand::{Expanded, Lexer};
use crate::golang::quote;
use crate::ignore::Matcher;
use crate::instruction::{Files, Instruction, Kind};
use crate::program::{Program, Silenced, Stage};
use crate::span::{LineRange, Span};
use crate::suggest;

/// What a Dockerfile is checked against.
pub struct Environment<'a> {
    /// `--build-arg`
    pub build_args: &'a BTreeMap<String, String>,
    /// Values of the predefined arguments (`TARGETPLATFORM`, …).
    pub predefined: &'a BTreeMap<String, String>,
    /// Patterns of `.dockerignore`.
    pub ignore: &'a [String],
    /// Stages that are built; none means all.
    pub stages: Option<&'a [usize]>,
    /// The variables (`NAME=value`) that an image brings; none if that is not known.
    pub image_env: &'a dyn Fn(&str) -> Option<Vec<String>>,
    /// Whether a text can be the name of an image.
    pub is_image_name: &'a dyn Fn(&str) -> bool,
}

/// Names that are arguments of the builder itself.
const BUILDER_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];
const DEFAULT_PATH: &str = "PATH";
const SECRETS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const NO_SECRETS: [&str; 3] = ["public", "file", "version"];

/// Everything that is not as it should be: [`Program::warnings`], and what these rules find.
#[must_use]
pub fn check(program: &Program, environment: &Environment<'_>) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = program.warnings().cloned().collect();
    for warning in found.iter_mut().filter(|warning| warning.rule == Some("NoEmptyContinuation")) {
        // As the parser says it, it quotes the whole instruction.
        warning.message = "Empty continuation line".to_owned();
    }
    let before = found.len();
    let mut linter = Linter { program, environment, found };
    linter.stage_names();
    linter.casing();
    let globals = linter.globals(environment.build_args);
    linter.default_bases();
    linter.bases(&globals);
    linter.stages(&globals);
    found = linter.found;
    let fresh = found.split_off(before);
    let everywhere = program.silenced();
    let mut seen = BTreeSet::new();
    for warning in fresh {
        let rule = warning.rule.unwrap_or_default();
        let new = seen.insert((warning.lines.start, warning.lines.end, warning.message.clone()));
        if new && !everywhere.covers(rule) {
            found.push(warning);
        }
    }
    found
}

struct Linter<'a> {
    program: &'a Program,
    environment: &'a Environment<'a>,
    found: Vec<Diagnostic>,
}

/// A stage as far as the rules look at it.
#[derive(Clone, Default)]
struct State {
    env: BTreeMap<String, String>,
    /// What variables the base brings is not known.
    unknown: bool,
    args: BTreeSet<String>,
    workdir: bool,
    shell: bool,
}

impl Linter<'_> {
    fn warn(
        &mut self,
        rule: &'static str,
        message: String,
        span: Span,
        lines: LineRange,
        comments: &[String],
    ) {
        if !Silenced::in_comments(comments).covers(rule) {
            self.found.push(Diagnostic::lint(rule, message, span, lines));
        }
    }

    fn on_stage(&mut self, rule: &'static str, message: String, stage: &Stage) {
        self.warn(rule, message, stage.span, stage.lines, &stage.comments);
    }

    fn on(&mut self, rule: &'static str, message: String, instruction: &Instruction) {
        self.warn(rule, message, instruction.span, instruction.lines, &instruction.comments);
    }

    fn stage_names(&mut self) {
        let mut seen = BTreeSet::new();
        let program = self.program;
        for stage in &program.stages {
            let Some(name) = &stage.name else { continue };
            if matches!(name.as_str(), "context" | "scratch") {
                let message =
                    format!("Stage name should not use the same name as reserved stage {}", quote(name));
                self.on_stage("ReservedStageName", message, stage);
            }
            if !seen.insert(name) {
                let message = format!("Duplicate stage name {}, stage names should be unique", quote(name));
                self.on_stage("DuplicateStageName", message, stage);
            }
        }
    }

    fn casing(&mut self) {
        let program = self.program;
        let (mut lower, mut upper) = (0, 0);
        let mut count = |word: &str| {
            if word == word.to_lowercase() {
                lower += 1;
            } else if word == word.to_uppercase() {
                upper += 1;
            }
        };
        for stage in &program.stages {
            count(&stage.keyword);
            stage.instructions.iter().for_each(|instruction| count(&instruction.keyword));
        }
        let wrong = |word: &str| {
            let (right, name) = match lower > upper {
                true => (word.to_lowercase(), "lowercase"),
                false => (word.to_uppercase(), "uppercase"),
            };
            (right != word)
                .then(|| format!("Command '{word}' should match the case of the command majority ({name})"))
        };
        const RULE: &str = "ConsistentInstructionCasing";
        for stage in &program.stages {
            if let Some(message) = wrong(&stage.keyword) {
                self.warn(RULE, message, stage.span, stage.lines, &[]);
            }
            for instruction in &stage.instructions {
                if let Some(message) = wrong(&instruction.keyword) {
                    self.warn(RULE, message, instruction.span, instruction.lines, &[]);
                }
            }
        }
    }

    /// Values of the global arguments.
    fn globals(&self, given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let lexer = Lexer::new(self.program.syntax.escape);
        let mut all = self.environment.predefined.clone();
        for (name, value) in given {
            if let Some(predefined) = all.get_mut(name) {
                value.clone_into(predefined);
            }
        }
        for instruction in &self.program.global_args {
            let Kind::Arg(pairs) = &instruction.kind else { continue };
            for pair in pairs {
                let value = match (given.get(&pair.key), &pair.value) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => lexer.word(default, &all).ok(),
                    (None, None) => None,
                };
                if let Some(value) = value {
                    all.insert(pair.key.clone(), value);
                }
            }
        }
        all
    }

    fn default_bases(&mut self) {
        let program = self.program;
        let lexer = Lexer::new(program.syntax.escape);
        let defaults = self.globals(&BTreeMap::new());
        for stage in &program.stages {
            let Ok(name) = lexer.word(&stage.base.text, &defaults) else { return };
            if !(self.environment.is_image_name)(&name) {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base.text
                );
                // Before anything else is known of the stage: its comments do not count.
                self.warn("InvalidDefaultArgInFrom", message, stage.span, stage.lines, &[]);
            }
        }
    }

    fn bases(&mut self, globals: &BTreeMap<String, String>) {
        let program = self.program;
        let lexer = Lexer::new(program.syntax.escape);
        for stage in &program.stages {
            if let Ok(base) = lexer.expand(&stage.base.text, globals) {
                self.undeclared(&base, globals, stage);
            }
            let Some(word) = &stage.platform else { continue };
            let Ok(platform) = lexer.expand(&word.text, globals) else { continue };
            self.undeclared(&platform, globals, stage);
            let only_target = platform.matched.len() == 1
                && platform.unmatched.is_empty()
                && platform.matched.contains("TARGETPLATFORM")
                && globals.get("TARGETPLATFORM") == Some(&platform.text);
            if only_target {
                let message = format!(
                    "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                    word.text
                );
                self.on_stage("RedundantTargetPlatform", message, stage);
            }
            let constant = platform.matched.is_empty() && platform.unmatched.is_empty();
            if constant && !names_platform(stage.name.as_deref().unwrap_or(""), &platform.text) {
                let message =
                    format!("FROM --platform flag should not use constant value {}", quote(&platform.text));
                self.on_stage("FromPlatformFlagConstDisallowed", message, stage);
            }
        }
    }

    fn undeclared(&mut self, used: &Expanded, globals: &BTreeMap<String, String>, stage: &Stage) {
        let declared = self.program.global_args.iter().filter_map(|instruction| match &instruction.kind {
            Kind::Arg(pairs) => Some(pairs.iter().map(|pair| pair.key.as_str())),
            _ => None,
        });
        let mut known: BTreeSet<&str> = declared.flatten().collect();
        known.extend(globals.keys().map(String::as_str));
        for name in used.unmatched.iter().filter(|name| !known.contains(name.as_str())) {
            let options: Vec<&str> = known.iter().copied().collect();
            let hint = suggest::did_you_mean_exactly(name, &options);
            let hint = hint.map(|option| format!(" (did you mean {option}?)")).unwrap_or_default();
            let message = format!("FROM argument '{name}' is not declared{hint}");
            self.on_stage("UndefinedArgInFrom", message, stage);
        }
    }

    fn stages(&mut self, globals: &BTreeMap<String, String>) {
        let program = self.program;
        let lexer = Lexer::new(program.syntax.escape);
        let mut done: Vec<State> = Vec::new();
        for (i, stage) in program.stages.iter().enumerate() {
            let base = lexer.word(&stage.base.text, globals).unwrap_or_default();
            let earlier = program.stages[..i].iter().rposition(|s| s.name.as_deref() == Some(base.as_str()));
            let mut state = match earlier {
                // What was said about the working directory and the like was said of that stage.
                Some(earlier) => State { workdir: done[earlier].workdir, ..done[earlier].clone() },
                None if base == "scratch" => State::default(),
                None => match (self.environment.image_env)(&base) {
                    None => State { unknown: true, ..State::default() },
                    Some(env) => {
                        let pair =
                            |entry: &String| entry.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
                        State { env: env.iter().filter_map(pair).collect(), ..State::default() }
                    }
                },
            };
            state.env.entry(DEFAULT_PATH.to_owned()).or_default();
            if self.environment.stages.is_none_or(|stages| stages.contains(&i)) {
                self.stage(stage, &mut state, globals);
            }
            done.push(state);
        }
    }

    fn stage(&mut self, stage: &Stage, state: &mut State, globals: &BTreeMap<String, String>) {
        let mut once: BTreeMap<&'static str, &Instruction> = BTreeMap::new();
        for instruction in &stage.instructions {
            self.variables(instruction, state);
            let name = match &instruction.kind {
                Kind::Cmd(_) => "CMD",
                Kind::Entrypoint(_) => "ENTRYPOINT",
                Kind::Healthcheck(_) => "HEALTHCHECK",
                _ => "",
            };
            if !name.is_empty()
                && let Some(earlier) = once.insert(name, instruction)
            {
                let message = format!(
                    "Multiple {} instructions should not be used in the same stage because only the last one \
                     will be used",
                    instruction.keyword
                );
                let (span, lines) = (earlier.span, earlier.lines);
                self.warn("MultipleInstructionsDisallowed", message, span, lines, &instruction.comments);
            }
            self.instruction(instruction, state, globals);
        }
    }

    fn instruction(
        &mut self,
        instruction: &Instruction,
        state: &mut State,
        globals: &BTreeMap<String, String>,
    ) {
        let lexer = Lexer::new(self.program.syntax.escape);
        match &instruction.kind {
            Kind::Cmd(command) | Kind::Entrypoint(command) if command.shell && !state.shell => {
                let message = format!(
                    "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                    instruction.keyword
                );
                self.on("JSONArgsRecommended", message, instruction);
            }
            Kind::Env(pairs) | Kind::Label(pairs) => {
                let is_env = matches!(instruction.kind, Kind::Env(_));
                let before = state.env.clone();
                for pair in pairs {
                    if pair.legacy {
                        let name = &instruction.keyword;
                        let message = format!(
                            "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format"
                        );
                        self.on("LegacyKeyValueFormat", message, instruction);
                    }
                    let expand = |word: &str| lexer.word(word, &before).unwrap_or_default();
                    if is_env {
                        let key = expand(&pair.key);
                        self.secret("ENV", &key, instruction);
                        state.env.insert(key, expand(&pair.value));
                    }
                }
            }
            Kind::Arg(pairs) => {
                for pair in pairs {
                    self.secret("ARG", &pair.key, instruction);
                    let given = self.environment.build_args.get(&pair.key).cloned();
                    let value = given.or_else(|| match &pair.value {
                        Some(default) => {
                            self.undefined(&lexer, default, instruction, state);
                            lexer.word(default, &state.env).ok()
                        }
                        None => globals.get(&pair.key).cloned(),
                    });
                    if let Some(value) = value {
                        state.env.insert(pair.key.clone(), value);
                    }
                    state.args.insert(pair.key.clone());
                }
            }
            Kind::Workdir(word) => {
                let path = lexer.word(&word.text, &state.env).unwrap_or_default();
                if !state.workdir && !path.starts_with('/') {
                    let message = format!(
                        "Relative workdir {} can have unexpected results if the base image changes",
                        quote(&path)
                    );
                    self.on("WorkdirRelativePath", message, instruction);
                }
                state.workdir = true;
            }
            Kind::Shell(_) => state.shell = true,
            Kind::Expose(words) => {
                for word in words {
                    for port in lexer.words(&word.text, &state.env).unwrap_or_default() {
                        self.port(&port, instruction);
                    }
                }
            }
            Kind::Copy(copy) if copy.from.is_none() => {
                self.ignored("Copy", &copy.files, &lexer, state, instruction);
            }
            Kind::Add(add) => self.ignored("Add", &add.files, &lexer, state, instruction),
            _ => {}
        }
    }

    fn secret(&mut self, what: &str, key: &str, instruction: &Instruction) {
        let lower = key.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if has(&SECRETS) && !has(&NO_SECRETS) {
            let key = quote(key);
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({what} {key})");
            self.on("SecretsUsedInArgOrEnv", message, instruction);
        }
    }

    fn port(&mut self, port: &str, instruction: &Instruction) {
        let (ports, protocol) = port.split_once('/').unwrap_or((port, ""));
        if protocol != protocol.to_lowercase() {
            let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.on("ExposeProtoCasing", message, instruction);
        }
        if ports.contains(':') {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            );
            self.on("ExposeInvalidFormat", message, instruction);
        }
    }

    fn ignored(
        &mut self,
        what: &str,
        files: &Files,
        lexer: &Lexer,
        state: &State,
        instruction: &Instruction,
    ) {
        let Ok(matcher) = Matcher::new(self.environment.ignore) else { return };
        // What is taken back in cannot be told without the files.
        if matcher.is_empty() || matcher.has_exceptions() {
            return;
        }
        let everything = |pattern: &String| matches!(pattern.as_str(), "*" | "**" | "**/*");
        for word in &files.sources {
            let source = crate::golang::clean(&lexer.word(&word.text, &state.env).unwrap_or_default());
            let is_root = matches!(source.as_str(), "." | "/");
            if is_root && !self.environment.ignore.iter().any(everything) {
                continue;
            }
            if matcher.matches(&source).unwrap_or(false) {
                let message =
                    format!("Attempting to {what} file {} that is excluded by .dockerignore", quote(&source));
                self.on("CopyIgnoredFile", message, instruction);
            }
        }
    }

    /// Variables that are used without being there.
    fn variables(&mut self, instruction: &Instruction, state: &State) {
        let lexer = Lexer::new(self.program.syntax.escape);
        let body = Lexer { skip_quotes: true, ..Lexer::default() };
        let mut words: Vec<&str> = Vec::new();
        let files = |files: &'_ Files| -> Vec<String> {
            files.sources.iter().chain([&files.dest]).map(|word| word.text.clone()).collect()
        };
        let owned: Vec<String>;
        match &instruction.kind {
            Kind::Env(pairs) | Kind::Label(pairs) => {
                words.extend(pairs.iter().flat_map(|pair| [pair.key.as_str(), pair.value.as_str()]));
            }
            Kind::Copy(copy) => {
                owned = files(&copy.files);
                words.extend(owned.iter().map(String::as_str));
                words.extend([&copy.chown, &copy.chmod].into_iter().flatten().map(|word| word.text.as_str()));
                self.bodies(&body, &copy.files, instruction, state);
            }
            Kind::Add(add) => {
                owned = files(&add.files);
                words.extend(owned.iter().map(String::as_str));
                let flags = [&add.chown, &add.chmod, &add.checksum];
                words.extend(flags.into_iter().flatten().map(|word| word.text.as_str()));
                self.bodies(&body, &add.files, instruction, state);
            }
            Kind::StopSignal(word) | Kind::User(word) | Kind::Workdir(word) => words.push(&word.text),
            Kind::Volume(list) => words.extend(list.iter().map(|word| word.text.as_str())),
            _ => {}
        }
        for word in words {
            self.undefined(&lexer, word, instruction, state);
        }
    }

    fn bodies(&mut self, lexer: &Lexer, files: &Files, instruction: &Instruction, state: &State) {
        for file in files.inline.iter().filter(|file| file.expand) {
            self.undefined(lexer, &file.data, instruction, state);
        }
    }

    fn undefined(&mut self, lexer: &Lexer, word: &str, instruction: &Instruction, state: &State) {
        if state.unknown {
            return;
        }
        let Ok(used) = lexer.expand(word, &state.env) else { return };
        for name in &used.unmatched {
            if state.args.contains(name) || BUILDER_ARGS.contains(&name.as_str()) {
                continue;
            }
            let options: Vec<&str> = state.env.keys().map(String::as_str).collect();
            let hint = suggest::did_you_mean_exactly(name, &options);
            let hint = hint.map(|option| format!(" (did you mean ${option}?)")).unwrap_or_default();
            let message = format!("Usage of undefined variable '${name}'{hint}");
            self.on("UndefinedVar", message, instruction);
        }
    }
}

/// Whether a stage's name tells its platform, or the text is no platform at all.
fn names_platform(stage: &str, platform: &str) -> bool {
    const SYSTEMS: [&str; 6] = ["linux", "windows", "darwin", "freebsd", "wasi", "js"];
    let mut parts = platform.split('/');
    let (first, second) = (parts.next().unwrap_or("").to_lowercase(), parts.next());
    let machine = |name: &str| match name {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "i386" => "386".to_owned(),
        name => name.to_owned(),
    };
    let (system, machine) = match second {
        Some(second) => (first, machine(&second.to_lowercase())),
        None if SYSTEMS.contains(&first.as_str()) => (first, "amd64".to_owned()),
        None => ("linux".to_owned(), machine(&first)),
    };
    system.is_empty() || machine.is_empty() || stage.contains(&system) || stage.contains(&machine)
}
