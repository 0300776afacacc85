//! Programs in the JSON form of the corpus.

use berth_dockerfile_parser::diagnostic::{Phase, Severity};
use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::instruction::{
    CommandLine, Files, Healthcheck, Instruction, Kind, Network, Run,
};
use berth_dockerfile_parser::mount::{self, Mount};
use berth_dockerfile_parser::syntax::{Arguments, Node, Word};
use berth_dockerfile_parser::{Diagnostic, Directive, Program, Stage};
use serde_json::{Map, Value, json};

pub(crate) fn mount(mount: &Mount) -> Value {
    json!({
        "env": mount.env, "from": mount.from, "gid": mount.gid, "id": mount.id, "mode": mount.mode,
        "readonly": mount.readonly, "required": mount.required,
        "sharing": mount.sharing.map_or("", |s| s.name()), "size": mount.size, "source": mount.source,
        "target": mount.target, "type": mount.kind.name(), "uid": mount.uid,
    })
}

pub(crate) fn program(program: &Program) -> Value {
    let syntax = &program.syntax;
    let mut out = Map::new();
    out.insert("ast".into(), syntax.nodes.iter().map(node).collect());
    out.insert("escape".into(), json!(syntax.escape.to_string()));
    out.insert("stages".into(), program.stages.iter().map(stage).collect());
    out.insert("meta_args".into(), program.global_args.iter().map(instruction).collect());
    let warnings: Vec<&Diagnostic> =
        program.diagnostics.iter().filter(|d| d.severity == Severity::Warning).collect();
    let (parse, lint): (Vec<&Diagnostic>, Vec<&Diagnostic>) =
        warnings.into_iter().partition(|d| d.phase == Phase::Parse);
    let url = "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/";
    put(
        &mut out,
        "warnings",
        parse.iter().map(|d| json!({"line": d.lines.end, "short": d.message, "url": url})),
    );
    put(
        &mut out,
        "lint_instructions",
        lint.iter().map(|d| json!({"lines": [d.lines.start, d.lines.end], "msg": d.message, "rule": d.rule})),
    );
    let directive = |d: Directive, key: &str| {
        let first = d.value.split(' ').next().unwrap_or("");
        json!({"cmdline": d.value, "lines": [d.lines.start, d.lines.end], key: first})
    };
    if let Some(found) = syntax.syntax_directive() {
        out.insert("syntax".into(), directive(found, "ref"));
    }
    if let Some(found) = syntax.check_directive() {
        out.insert("check".into(), directive(found, "value"));
    }
    Value::Object(out)
}

fn put(out: &mut Map<String, Value>, key: &str, values: impl Iterator<Item = Value>) {
    let values: Vec<Value> = values.collect();
    if !values.is_empty() {
        out.insert(key.into(), json!(values));
    }
}

fn node(node: &Node) -> Value {
    let mut args: Vec<Value> = Vec::new();
    match &node.args {
        Arguments::Words(words) => args.extend(words.iter().map(|w| json!(w.text))),
        Arguments::Pairs(pairs) => {
            for pair in pairs {
                args.extend([json!(pair.key), json!(pair.value), json!(if pair.legacy { "" } else { "=" })]);
            }
        }
        Arguments::Trigger(inner) => {
            let unknown = !inner.name().chars().all(char::is_alphabetic) || inner.name().len() < 3;
            let mut inner = self::node(inner);
            if unknown {
                // What an unknown instruction says is not kept, but upstream leaves an empty argument behind.
                inner["args"] = json!([""]);
            }
            for key in ["start", "end", "comments"] {
                inner.as_object_mut().unwrap().remove(key);
            }
            inner["start"] = json!(0);
            inner["end"] = json!(0);
            args.push(json!({"sub": inner}));
        }
    }
    let mut out = json!({
        "args": args, "cmd": node.keyword.text, "end": node.lines.end,
        "flags": node.flags.iter().map(|w| w.text.clone()).collect::<Vec<_>>(),
        "original": node.original, "start": node.lines.start,
    });
    if node.json {
        out["attrs"] = json!({"json": true});
    }
    if !node.comments.is_empty() {
        out["comments"] = json!(node.comments);
    }
    if !node.heredocs.is_empty() {
        let docs = node.heredocs.iter().map(
            |d| json!({"chomp": d.chomp, "content": d.body, "expand": d.expand, "fd": d.fd, "name": d.name}),
        );
        out["heredocs"] = docs.collect();
    }
    out
}

fn stage(stage: &Stage) -> Value {
    let mut out = json!({
        "base": stage.base.text, "commands": stage.instructions.iter().map(instruction).collect::<Vec<_>>(),
        "lines": [stage.lines.start, stage.lines.end], "name": stage.name.as_deref().unwrap_or(""),
        "orig_cmd": stage.keyword, "platform": text(stage.platform.as_ref()), "source": stage.original,
    });
    if !stage.comments.is_empty() {
        out["comments"] = json!(stage.comments);
    }
    if let Some(doc) = stage.doc().filter(|doc| !doc.is_empty()) {
        out["doc"] = json!(doc);
    }
    out
}

fn instruction(instruction: &Instruction) -> Value {
    let mut out = match &instruction.kind {
        Kind::Add(add) => {
            let mut out = json!({
                "type": "ADD", "checksum": text(add.checksum.as_ref()), "chmod": text(add.chmod.as_ref()),
                "chown": text(add.chown.as_ref()), "exclude": texts(&add.exclude), "keep_git_dir": add.keep_git_dir,
                "link": add.link, "unpack": add.unpack,
            });
            files(&add.files, &mut out);
            out
        }
        Kind::Copy(copy) => {
            let mut out = json!({
                "type": "COPY", "chmod": text(copy.chmod.as_ref()), "chown": text(copy.chown.as_ref()),
                "exclude": texts(&copy.exclude), "from": text(copy.from.as_ref()), "link": copy.link,
                "parents": copy.parents,
            });
            files(&copy.files, &mut out);
            out
        }
        Kind::Arg(pairs) => {
            let args = pairs.iter().map(|pair| {
                let mut arg = json!({"key": pair.key, "value": pair.value});
                let prefix = format!("{} ", pair.key);
                let doc = instruction.comments.iter().find_map(|c| c.strip_prefix(&prefix));
                if let Some(doc) = doc.filter(|doc| !doc.is_empty()) {
                    arg["doc"] = json!(doc);
                }
                arg
            });
            json!({"type": "ARG", "args": args.collect::<Vec<_>>()})
        }
        Kind::Cmd(command) => command_line("CMD", command),
        Kind::Entrypoint(command) => command_line("ENTRYPOINT", command),
        Kind::Run(run) => run_json(run),
        Kind::Env(pairs) => json!({"type": "ENV", "env": pairs_json(pairs)}),
        Kind::Label(pairs) => json!({"type": "LABEL", "labels": pairs_json(pairs)}),
        Kind::Expose(ports) => json!({"type": "EXPOSE", "ports": texts(ports)}),
        Kind::Healthcheck(health) => json!({"type": "HEALTHCHECK", "health": health_json(health)}),
        Kind::Maintainer(name) => json!({"type": "MAINTAINER", "maintainer": name}),
        Kind::Onbuild(text) => json!({"type": "ONBUILD", "expression": text}),
        Kind::Shell(words) => json!({"type": "SHELL", "shell": words}),
        Kind::StopSignal(signal) => json!({"type": "STOPSIGNAL", "signal": signal.text}),
        Kind::User(user) => json!({"type": "USER", "user": user.text}),
        Kind::Volume(volumes) => json!({"type": "VOLUME", "volumes": texts(volumes)}),
        Kind::Workdir(path) => json!({"type": "WORKDIR", "path": path.text}),
    };
    out["lines"] = json!([instruction.lines.start, instruction.lines.end]);
    out["name"] = json!(instruction.keyword);
    out["source"] = json!(instruction.original);
    if !instruction.comments.is_empty() {
        out["comments"] = json!(instruction.comments);
    }
    out
}

fn run_json(run: &Run) -> Value {
    let mut out = command_line("RUN", &run.command);
    out["flags_used"] = json!(run.flags_used);
    out["network"] = json!(match run.network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    });
    out["security"] = json!(if run.insecure { "insecure" } else { "sandbox" });
    if !run.devices.is_empty() {
        let device = |word: &Word| {
            let name = word.text.split(',').next().unwrap_or("");
            json!({"name": name, "required": word.text.contains(",required")})
        };
        out["devices"] = run.devices.iter().map(device).collect();
    }
    let nothing: [String; 0] = [];
    let expand = |word: &str| Lexer::default().word(word, &nothing[..]).map_err(|e| e.to_string());
    let parsed: Result<Vec<Value>, _> =
        run.mounts.iter().map(|raw| mount::parse(&raw.text, expand).map(|m| mount(&m))).collect();
    match parsed {
        Ok(mounts) if mounts.is_empty() => {}
        Ok(mounts) => out["mounts_expanded_empty_env"] = json!(mounts),
        Err(fault) => {
            let help = fault.help.map(|help| format!(" ({help})")).unwrap_or_default();
            out["mount_error_on_expand"] = json!(format!("{}{help}", fault.message));
        }
    }
    out
}

fn command_line(kind: &str, command: &CommandLine) -> Value {
    let mut out = json!({"type": kind, "cmdline": command.words, "prepend_shell": command.shell});
    if !command.heredocs.is_empty() {
        let files =
            command.heredocs.iter().map(|d| json!({"chomp": d.chomp, "data": d.body, "name": d.name}));
        out["files"] = files.collect();
    }
    out
}

fn pairs_json(pairs: &[berth_dockerfile_parser::syntax::Pair]) -> Value {
    pairs.iter().map(|pair| json!({"key": pair.key, "value": pair.value, "no_delim": pair.legacy})).collect()
}

fn files(files: &Files, out: &mut Value) {
    out["sources"] = json!(texts(&files.sources));
    out["dest"] = json!(files.dest.text);
    if !files.inline.is_empty() {
        let inline = files.inline.iter().map(|f| json!({"data": f.data, "expand": f.expand, "path": f.name}));
        out["inline"] = inline.collect();
    }
}

fn health_json(health: &Healthcheck) -> Value {
    let mut out = json!({"Test": health.test});
    for (key, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
        ("Retries", health.retries),
    ] {
        if value != 0 {
            out[key] = json!(value);
        }
    }
    out
}

fn text(word: Option<&Word>) -> &str {
    word.map_or("", |word| &word.text)
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.text.as_str()).collect()
}
