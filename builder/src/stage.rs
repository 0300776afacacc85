//! A stage while it is built: the image so far, and the variables that its next instruction sees. Pure.

use berth_dockerfile_parser::expand::{Lexer, Variables};
use berth_dockerfile_parser::instruction::{self, ArgPair, CommandLine, Instruction, Kind};
use berth_dockerfile_parser::{expose_ports, go_quote};
use berth_oci::{DiffId, EmptyObject, Healthcheck, History, ImageConfig, Platform, chain_id};
use jiff::Timestamp;

use crate::arguments::Arguments;

/// What Docker puts into images that have none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Marks the history of what this language's reference implementation, and so this one, made.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// A stage in the making.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    /// The image so far.
    pub(crate) config: ImageConfig,
    /// `NAME=value` as instructions see them: the image's environment, and arguments.
    pub(crate) env: Vec<String>,
    /// Arguments in the order of their `ARG`s.
    args: Vec<(String, Option<String>)>,
    /// A `CMD` stood in this stage.
    cmd_given: bool,
    /// The time of everything that is made here: that of the newest input, so that the same inputs make the same
    /// image on any day.
    clock: Timestamp,
    /// Triggers of this stage's base, to run first.
    pub(crate) triggers: Vec<String>,
}

impl StageState {
    /// A stage on nothing.
    pub(crate) fn scratch(platform: &Platform) -> Self {
        let mut config = ImageConfig::new(platform);
        config.runtime_mut().working_dir = "/".into();
        Self::on(config)
    }

    /// A stage on an image, or on another stage's image.
    pub(crate) fn on(mut config: ImageConfig) -> Self {
        let clock = config.created.unwrap_or(Timestamp::UNIX_EPOCH);
        let runtime = config.runtime_mut();
        if !runtime.env.iter().any(|entry| entry.starts_with("PATH=")) {
            runtime.env.push(DEFAULT_PATH.into());
        }
        let triggers = runtime.on_build.take().unwrap_or_default();
        let env = runtime.env.clone();
        Self { config, env, args: Vec::new(), cmd_given: false, clock, triggers }
    }

    /// A stage on this one: it inherits arguments, too.
    pub(crate) fn derive(&self) -> Self {
        let mut next = Self::on(self.config.clone());
        next.env.clone_from(&self.env);
        next.args.clone_from(&self.args);
        next.clock = self.clock;
        next
    }

    pub(crate) fn layers(&self) -> &[DiffId] {
        self.config.diff_ids()
    }

    /// What the cache keys of the next step start from: the file system's content.
    pub(crate) fn filesystem_key(&self) -> String {
        chain_id(self.layers()).map_or_else(|| "scratch".to_owned(), |id| id.as_str().to_owned())
    }

    /// The time that new files get.
    pub(crate) fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Takes the time of an input into account (`SOURCE_DATE_EPOCH` has the last word: see [`Self::fix_clock`]).
    pub(crate) fn advance_clock(&mut self, seconds: i64) {
        if let Ok(time) = Timestamp::from_second(seconds) {
            self.clock = self.clock.max(time);
        }
    }

    /// Goes on from the time at which a layer was made. One that the cache has was made of files with the same contents,
    /// but perhaps of other times: these must not make another image of it.
    pub(crate) fn go_on_from(&mut self, made: Timestamp) {
        self.clock = self.config.created.map_or(made, |before| before.max(made));
    }

    /// Sets the time of everything made from now on.
    pub(crate) fn fix_clock(&mut self, time: Timestamp) {
        self.clock = time;
    }

    /// Adds a step that made a layer.
    pub(crate) fn add_layer(&mut self, layer: DiffId, created_by: String) {
        self.config.rootfs.diff_ids.push(layer);
        self.history(created_by, false);
    }

    fn history(&mut self, created_by: String, empty_layer: bool) {
        self.config.history.push(History {
            created: Some(self.clock),
            created_by: Some(created_by),
            comment: Some(HISTORY_COMMENT.into()),
            empty_layer,
            ..History::default()
        });
        self.config.created = Some(self.clock);
    }

    /// Puts a shell-form text behind the stage's shell.
    pub(crate) fn with_shell(&self, text: String) -> Vec<String> {
        let shell = self.config.config.as_ref().and_then(|c| c.shell.clone()).filter(|s| !s.is_empty());
        let mut args = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
        args.push(text);
        args
    }

    pub(crate) fn working_dir(&self) -> &str {
        let dir = self.config.config.as_ref().map_or("", |c| c.working_dir.as_str());
        if dir.is_empty() { "/" } else { dir }
    }

    pub(crate) fn user(&self) -> &str {
        self.config.config.as_ref().map_or("", |c| c.user.as_str())
    }

    /// `path`, relative to the working directory.
    pub(crate) fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.working_dir().trim_end_matches('/'))
        }
    }

    /// `|2 A=1 B=2 ` in front of a `RUN`'s history; empty without arguments.
    pub(crate) fn argument_prefix(&self) -> String {
        let mut shown: Vec<(String, String)> = Vec::new();
        for (name, value) in &self.args {
            let current = self.env.get_value(name).or(value.as_deref()).unwrap_or("").to_owned();
            match shown.iter_mut().find(|(n, _)| n == name) {
                Some((_, old)) => *old = current,
                None => shown.push((name.clone(), current)),
            }
        }
        if shown.is_empty() {
            return String::new();
        }
        let list: Vec<String> = shown.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("|{} {} ", list.len(), list.join(" "))
    }

    /// Sets what `WORKDIR` sets; the directory itself is made by the solver. Returns the new directory.
    pub(crate) fn set_working_dir(&mut self, path: &str) -> String {
        let path = match path {
            "" => self.working_dir().to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => {
                let joined = format!("{}/{path}", self.working_dir());
                format!("/{}", crate::rootdir::clamp(joined.as_ref()).display())
            }
        };
        self.config.runtime_mut().working_dir.clone_from(&path);
        path
    }

    pub(crate) fn add_empty(&mut self, created_by: String) {
        self.history(created_by, true);
    }

    /// Does an instruction that only changes the config. False if it is none of those.
    pub(crate) fn metadata(
        &mut self,
        instruction: &Instruction,
        lexer: &Lexer,
        arguments: &Arguments,
    ) -> Result<bool, String> {
        let env = self.env.clone();
        let expand = |word: &str| lexer.word(word, &env[..]).map_err(|e| e.to_string());
        let created_by = match &instruction.kind {
            Kind::Env(pairs) => {
                let mut text = "ENV".to_owned();
                for pair in pairs {
                    let (key, value) = (expand(&pair.key)?, expand(&pair.value)?);
                    text.push_str(&format!(" {key}={value}"));
                    set(&mut self.config.runtime_mut().env, &key, &value);
                    set(&mut self.env, &key, &value);
                }
                text
            }
            Kind::Label(pairs) => {
                let mut text = "LABEL".to_owned();
                for pair in pairs {
                    let (key, value) = (expand(&pair.key)?, expand(&pair.value)?);
                    text.push_str(&format!(" {key}={value}"));
                    self.label(key, value);
                }
                text
            }
            Kind::Arg(pairs) => self.arg(pairs, lexer, arguments)?,
            Kind::User(word) => {
                let user = expand(&word.text)?;
                self.config.runtime_mut().user.clone_from(&user);
                format!("USER {user}")
            }
            Kind::Expose(words) => self.expose(words.iter().map(|w| w.text.as_str()), lexer)?,
            Kind::Volume(words) => {
                let names: Result<Vec<String>, String> = words.iter().map(|w| expand(&w.text)).collect();
                let names = names?;
                if names.iter().any(String::is_empty) {
                    return Err("VOLUME specified can not be an empty string".into());
                }
                let volumes = self.config.runtime_mut().volumes.get_or_insert_default();
                volumes.extend(names.iter().map(|name| (name.clone(), EmptyObject {})));
                volumes.sort_keys();
                format!("VOLUME [{}]", names.join(" "))
            }
            Kind::StopSignal(word) => {
                let signal = expand(&word.text)?;
                check_signal(&signal)?;
                self.config.runtime_mut().stop_signal = Some(signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            Kind::Shell(words) => {
                self.config.runtime_mut().shell = Some(words.clone());
                format!("SHELL [{}]", words.join(" "))
            }
            Kind::Cmd(command) => self.cmd(command),
            Kind::Entrypoint(command) => self.entrypoint(command),
            Kind::Healthcheck(health) => self.healthcheck(health),
            Kind::Maintainer(name) => {
                self.config.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            Kind::Onbuild(text) => {
                // It leaves no history.
                self.config.runtime_mut().on_build.get_or_insert_default().push(text.clone());
                return Ok(true);
            }
            Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_) => return Ok(false),
        };
        self.history(created_by, true);
        Ok(true)
    }

    fn command_args(&self, command: &CommandLine) -> Vec<String> {
        if command.shell { self.with_shell(command.words.join(" ")) } else { command.words.clone() }
    }

    fn cmd(&mut self, command: &CommandLine) -> String {
        let args = self.command_args(command);
        let text = format!("CMD {}", quoted_list(&args));
        self.cmd_given = true;
        let runtime = self.config.runtime_mut();
        // As in Go's JSON, an empty list is none.
        runtime.cmd = Some(args).filter(|args| !args.is_empty());
        runtime.args_escaped = true;
        text
    }

    /// Clears a `CMD` that did not stand in this stage before it.
    fn entrypoint(&mut self, command: &CommandLine) -> String {
        let args = self.command_args(command);
        let text = format!("ENTRYPOINT {}", quoted_list(&args));
        let keep_cmd = self.cmd_given;
        let runtime = self.config.runtime_mut();
        runtime.entrypoint = Some(args).filter(|args| !args.is_empty());
        if !keep_cmd {
            runtime.cmd = None;
        }
        text
    }

    fn healthcheck(&mut self, health: &instruction::Healthcheck) -> String {
        self.config.runtime_mut().healthcheck = Some(Healthcheck {
            test: Some(health.test.clone()),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        });
        format!(
            "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            health.test.join(" "),
            go_duration(health.interval),
            go_duration(health.timeout),
            go_duration(health.start_period),
            go_duration(health.start_interval),
            health.retries
        )
    }

    pub(crate) fn label(&mut self, key: String, value: String) {
        let labels = self.config.runtime_mut().labels.get_or_insert_default();
        labels.insert(key, value);
        labels.sort_keys();
    }

    fn expose<'a>(&mut self, words: impl Iterator<Item = &'a str>, lexer: &Lexer) -> Result<String, String> {
        let mut ports = Vec::new();
        for word in words {
            for expanded in lexer.words(word, &self.env[..]).map_err(|e| e.to_string())? {
                ports.extend(expose_ports(&expanded).map_err(|e| e.to_string())?);
            }
        }
        let names: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let exposed = self.config.runtime_mut().exposed_ports.get_or_insert_default();
        exposed.extend(names.iter().map(|name| (name.clone(), EmptyObject {})));
        exposed.sort_keys();
        Ok(format!("EXPOSE [{}]", names.join(" ")))
    }

    /// Arguments are evaluated from left to right; what was given from outside beats the default.
    fn arg(&mut self, pairs: &[ArgPair], lexer: &Lexer, arguments: &Arguments) -> Result<String, String> {
        let mut shown = Vec::new();
        for pair in pairs {
            let value = match (arguments.given.get(&pair.key), &pair.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(lexer.word(default, &self.env[..]).map_err(|e| e.to_string())?),
                (None, None) => arguments.globals.get(&pair.key).cloned(),
            };
            if let Some(value) = &value {
                set(&mut self.env, &pair.key, value);
            }
            shown.push(match &value {
                Some(value) => format!("{}={value}", pair.key),
                None => pair.key.clone(),
            });
            self.args.push((pair.key.clone(), value));
        }
        Ok(format!("ARG {}", shown.join(" ")))
    }
}

trait EnvList {
    fn get_value(&self, name: &str) -> Option<&str>;
}

impl EnvList for Vec<String> {
    fn get_value(&self, name: &str) -> Option<&str> {
        Variables::get(self.as_slice(), name)
    }
}

/// Replaces a variable in its place, or appends it.
fn set(env: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    match env.iter_mut().find(|e| e.split('=').next() == Some(key)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// Go's `%q` of a list.
fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

fn check_signal(signal: &str) -> Result<(), String> {
    let known = match signal.parse::<i32>() {
        Ok(number) => (1..=64).contains(&number),
        Err(_) => {
            let name = signal.to_uppercase();
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            let realtime = name.starts_with("RTMIN") || name.starts_with("RTMAX");
            realtime || format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
        }
    };
    if known { Ok(()) } else { Err(format!("Invalid signal: {signal}")) }
}

/// Go's way to write a duration, as far as health checks need it.
fn go_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000_000_000 {
        let (value, unit) = match nanos {
            0..1_000 => return format!("{nanos}ns"),
            1_000..1_000_000 => (fraction(nanos, 1_000), "µs"),
            _ => (fraction(nanos, 1_000_000), "ms"),
        };
        return format!("{value}{unit}");
    }
    let (minutes, seconds) = (nanos / 60_000_000_000, fraction(nanos % 60_000_000_000, 1_000_000_000));
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn fraction(value: i64, unit: i64) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn build(text: &str, given: &[(&str, &str)]) -> Value {
        let program = berth_dockerfile_parser::read(text);
        assert!(program.first_error().is_none(), "{:?}", program.first_error());
        let given = given.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let platform = Platform::new("linux", "amd64", None);
        let arguments = Arguments::new(given, &platform, None, &program.global_args, '\\').unwrap();
        let mut state = StageState::scratch(&platform);
        for instruction in &program.stages[0].instructions {
            assert!(state.metadata(instruction, &Lexer::default(), &arguments).unwrap());
        }
        serde_json::from_slice(&state.config.to_bytes()).unwrap()
    }

    fn history(config: &Value) -> Vec<&str> {
        config["history"].as_array().unwrap().iter().map(|h| h["created_by"].as_str().unwrap()).collect()
    }

    #[test]
    fn history_reads_as_dockers() {
        let config = build(
            "FROM scratch\nENV A=1 B=$A\nLABEL x=\"y z\"\nCMD echo \"hi\"\nENTRYPOINT [\"/x\"]\nEXPOSE 80 1-2/udp\nVOLUME /a /b\nHEALTHCHECK --interval=90s --timeout=1500ms CMD true\nSTOPSIGNAL SIGKILL\nSHELL [\"a\",\"b\"]\n",
            &[],
        );
        assert_eq!(
            history(&config),
            [
                "ENV A=1 B=",
                "LABEL x=y z",
                "CMD [\"/bin/sh\" \"-c\" \"echo \\\"hi\\\"\"]",
                "ENTRYPOINT [\"/x\"]",
                "EXPOSE [1/udp 2/udp 80/tcp]",
                "VOLUME [/a /b]",
                "HEALTHCHECK {Test:[CMD-SHELL true] Interval:1m30s Timeout:1.5s StartPeriod:0s StartInterval:0s Retries:0}",
                "STOPSIGNAL SIGKILL",
                "SHELL [a b]",
            ]
        );
        assert_eq!(config["config"]["Cmd"][2], "echo \"hi\"", "a CMD before ENTRYPOINT stays");
    }

    #[test]
    fn arguments() {
        let text =
            "ARG G=g\nARG H\nFROM scratch\nARG G\nARG A=1 B=$A\nARG TARGETARCH\nENV E=$G$B$TARGETARCH\n";
        assert_eq!(history(&build(text, &[])).last(), Some(&"ENV E=g1amd64"));
        assert_eq!(history(&build(text, &[("A", ""), ("G", "x")])).last(), Some(&"ENV E=xamd64"));
    }

    #[test]
    fn entrypoint_clears_an_inherited_cmd() {
        let mut base = StageState::scratch(&Platform::new("linux", "amd64", None));
        base.config.runtime_mut().cmd = Some(vec!["sh".into()]);
        let mut stage = base.derive();
        let program = berth_dockerfile_parser::read("FROM x\nENTRYPOINT []\n");
        stage.metadata(&program.stages[0].instructions[0], &Lexer::default(), &Arguments::default()).unwrap();
        let runtime = stage.config.config.unwrap();
        assert_eq!((runtime.cmd, runtime.entrypoint), (None, None));
    }

    #[test]
    fn working_directories() {
        let mut state = StageState::scratch(&Platform::new("linux", "amd64", None));
        assert_eq!(state.set_working_dir("a"), "/a");
        assert_eq!(state.set_working_dir("../b/./c"), "/b/c");
        assert_eq!(state.set_working_dir("//x//"), "//x//", "an absolute path stays as written");
        assert_eq!(state.set_working_dir(""), "//x//");
        assert_eq!(state.absolute("f"), "//x/f");
        assert_eq!(state.config.config.as_ref().unwrap().env, [DEFAULT_PATH]);
    }

    #[test]
    fn durations() {
        for (nanos, want) in
            [(0, "0s"), (1_500_000, "1.5ms"), (3_600_000_000_000, "1h0m0s"), (30_000_000_000, "30s")]
        {
            assert_eq!(go_duration(nanos), want);
        }
        assert_eq!(json!(go_duration(7)), json!("7ns"));
    }
}
