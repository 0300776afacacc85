//! Nodes to typed instructions.

use crate::diagnostic::Fault;
use crate::duration;
use crate::flags::{Flags, Takes};
use crate::golang::quote;
use crate::heredoc;
use crate::instruction::{
    Add, ArgPair, CommandLine, Copy, Files, Healthcheck, InlineFile, Kind, Network, Run,
};
use crate::mount;
use crate::suggest;
use crate::syntax::{Arguments, Node, Pair, Word};

/// All keywords.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// `FROM`, which begins a stage.
#[derive(Debug, Clone)]
pub(crate) struct From {
    pub(crate) base: Word,
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<Word>,
}

/// An instruction, or the beginning of a stage.
#[derive(Debug, Clone)]
pub(crate) enum Typed {
    From(From),
    Kind(Kind),
}

/// Makes sense of a node.
pub(crate) fn typed(node: &Node) -> Result<Typed, Fault> {
    let name = node.name();
    Ok(Typed::Kind(match name.as_str() {
        "ADD" => Kind::Add(add(node)?),
        "ARG" => Kind::Arg(arg(node)?),
        "CMD" => {
            no_flags(node)?;
            Kind::Cmd(command_line(node))
        }
        "COPY" => Kind::Copy(copy(node)?),
        "ENTRYPOINT" => {
            no_flags(node)?;
            Kind::Entrypoint(command_line(node))
        }
        "ENV" => Kind::Env(pairs(node, "ENV")?),
        "EXPOSE" => {
            let mut ports = at_least_one(node, "EXPOSE")?;
            no_flags(node)?;
            ports.sort_by(|a, b| a.text.cmp(&b.text));
            Kind::Expose(ports)
        }
        "FROM" => return from(node).map(Typed::From),
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(node)?),
        "LABEL" => Kind::Label(pairs(node, "LABEL")?),
        "MAINTAINER" => Kind::Maintainer(exactly_one(node, "MAINTAINER")?.text),
        "ONBUILD" => Kind::Onbuild(onbuild(node)?),
        "RUN" => Kind::Run(run(node)?),
        "SHELL" => Kind::Shell(shell(node)?),
        // Flags on it are ignored, as upstream.
        "STOPSIGNAL" => match node.words() {
            [signal] => Kind::StopSignal(signal.clone()),
            _ => return Err(Fault::new("STOPSIGNAL requires exactly one argument")),
        },
        "USER" => Kind::User(exactly_one(node, "USER")?),
        "VOLUME" => Kind::Volume(volume(node)?),
        "WORKDIR" => Kind::Workdir(exactly_one(node, "WORKDIR")?),
        _ => {
            let help = suggest::did_you_mean(&name, &KEYWORDS);
            let fault = Fault::new(format!("unknown instruction: {}", node.keyword.text));
            return Err(fault.with_help(help).at(node.keyword.span));
        }
    }))
}

fn no_flags(node: &Node) -> Result<(), Fault> {
    Flags::parse(&node.flags, &[]).map(drop)
}

fn exactly_one(node: &Node, name: &str) -> Result<Word, Fault> {
    let [word] = node.words() else {
        return Err(Fault::new(format!("{name} requires exactly one argument")));
    };
    no_flags(node)?;
    Ok(word.clone())
}

fn at_least_one(node: &Node, name: &str) -> Result<Vec<Word>, Fault> {
    match node.words() {
        [] => Err(Fault::new(format!("{name} requires at least one argument"))),
        words => Ok(words.to_vec()),
    }
}

fn pairs(node: &Node, name: &str) -> Result<Vec<Pair>, Fault> {
    no_flags(node)?;
    let pairs = match &node.args {
        Arguments::Pairs(pairs) => pairs.clone(),
        _ => Vec::new(),
    };
    if pairs.is_empty() {
        return Err(Fault::new(format!("{name} requires at least one argument")));
    }
    if let Some(blank) = pairs.iter().find(|pair| pair.key.is_empty()) {
        return Err(Fault::new(format!("{name} names can not be blank")).at(blank.span));
    }
    Ok(pairs)
}

fn arg(node: &Node) -> Result<Vec<ArgPair>, Fault> {
    // Flags on it are ignored, as upstream.
    at_least_one(node, "ARG")?
        .into_iter()
        .map(|word| {
            let (key, value) = match word.text.split_once('=') {
                Some(("", _)) => return Err(Fault::new("ARG names can not be blank").at(word.span)),
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (word.text.clone(), None),
            };
            Ok(ArgPair { key, value, span: word.span })
        })
        .collect()
}

fn command_line(node: &Node) -> CommandLine {
    let words: Vec<String> = node.words().iter().map(|word| word.text.clone()).collect();
    CommandLine { words, shell: !node.json, heredocs: node.heredocs.clone() }
}

fn files(node: &Node, name: &str) -> Result<Files, Fault> {
    let Some((dest, sources)) = node.words().split_last() else {
        return Err(no_destination(name));
    };
    if heredoc::parse_word(&dest.text).is_some() {
        return Err(Fault::new(format!("{name} cannot accept a heredoc as a destination")).at(dest.span));
    }
    let mut files = Files { sources: Vec::new(), inline: Vec::new(), dest: dest.clone() };
    for source in sources {
        let Some(word) = heredoc::parse_word(&source.text) else {
            files.sources.push(source.clone());
            continue;
        };
        // Of two with the same name the last one's body counts for both.
        let body = node.heredocs.iter().rev().find(|doc| doc.name == word.name).map(|doc| doc.body.as_str());
        let body = body.unwrap_or_default();
        let data = if word.chomp { heredoc::chomp(body) } else { body.to_owned() };
        files.inline.push(InlineFile { name: word.name, data, expand: word.expand });
    }
    Ok(files)
}

fn no_destination(name: &str) -> Fault {
    Fault::new(format!(
        "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
    ))
}

fn add(node: &Node) -> Result<Add, Fault> {
    if node.words().len() < 2 {
        return Err(no_destination("ADD"));
    }
    let known = [
        ("chown", Takes::Text),
        ("chmod", Takes::Text),
        ("link", Takes::Bool),
        ("keep-git-dir", Takes::Bool),
        ("checksum", Takes::Text),
        ("unpack", Takes::Bool),
        ("exclude", Takes::Texts),
    ];
    let flags = Flags::parse(&node.flags, &known)?;
    Ok(Add {
        files: files(node, "ADD")?,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        checksum: flags.text("checksum"),
        link: flags.bool("link").unwrap_or(false),
        keep_git_dir: flags.bool("keep-git-dir"),
        unpack: flags.bool("unpack"),
        exclude: flags.texts("exclude"),
    })
}

fn copy(node: &Node) -> Result<Copy, Fault> {
    if node.words().len() < 2 {
        return Err(no_destination("COPY"));
    }
    let known = [
        ("chown", Takes::Text),
        ("from", Takes::Text),
        ("chmod", Takes::Text),
        ("link", Takes::Bool),
        ("exclude", Takes::Texts),
        ("parents", Takes::Bool),
    ];
    let flags = Flags::parse(&node.flags, &known)?;
    Ok(Copy {
        files: files(node, "COPY")?,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        exclude: flags.texts("exclude"),
    })
}

fn from(node: &Node) -> Result<From, Fault> {
    let (base, name) = match node.words() {
        [base] => (base, None),
        [base, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => {
            let lower = name.text.to_lowercase();
            let good = lower.starts_with(|c: char| c.is_ascii_lowercase())
                && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
            if !good {
                let what = format!(
                    "invalid name for build stage: {}, name can't start with a number or contain symbols",
                    quote(&name.text)
                );
                return Err(Fault::new(what).at(name.span));
            }
            (base, Some(lower))
        }
        _ => return Err(Fault::new("FROM requires either one or three arguments")),
    };
    let flags = Flags::parse(&node.flags, &[("platform", Takes::Text)])?;
    Ok(From { base: base.clone(), name, platform: flags.text("platform") })
}

fn healthcheck(node: &Node) -> Result<Healthcheck, Fault> {
    let words = at_least_one(node, "HEALTHCHECK")?;
    let kind = words[0].text.to_uppercase();
    let rest: Vec<String> = words[1..].iter().map(|word| word.text.clone()).collect();
    if kind == "NONE" {
        if !rest.is_empty() {
            return Err(Fault::new("HEALTHCHECK NONE takes no arguments"));
        }
        return Ok(Healthcheck { test: vec![kind], ..Healthcheck::default() });
    }
    let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::parse(&node.flags, &names.map(|name| (name, Takes::Text)))?;
    if kind != "CMD" {
        let what = format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind));
        return Err(Fault::new(what).at(words[0].span));
    }
    if rest.is_empty() {
        return Err(Fault::new("Missing command after HEALTHCHECK CMD"));
    }
    let test_kind = if node.json { "CMD" } else { "CMD-SHELL" };
    let mut test = vec![test_kind.to_owned()];
    test.extend(rest);
    Ok(Healthcheck {
        test,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<i64, Fault> {
    const SHORTEST: i64 = 1_000_000;
    let Some(word) = flags.text(name).filter(|word| !word.text.is_empty()) else { return Ok(0) };
    match duration::parse(&word.text) {
        Ok(0) => Ok(0),
        Ok(nanos) if nanos < SHORTEST => {
            Err(Fault::new(format!("Interval {} cannot be less than 1ms", quote(name))).at(word.span))
        }
        Ok(nanos) => Ok(nanos),
        Err(message) => Err(Fault::new(message).at(word.span)),
    }
}

fn retries(flags: &Flags) -> Result<i64, Fault> {
    let Some(word) = flags.text("retries").filter(|word| !word.text.is_empty()) else { return Ok(0) };
    match word.text.parse::<i32>() {
        Ok(retries) if retries < 0 => {
            Err(Fault::new(format!("--retries cannot be negative ({retries})")).at(word.span))
        }
        Ok(retries) => Ok(i64::from(retries)),
        Err(_) => {
            let what = format!("strconv.ParseInt: parsing {}: invalid syntax", quote(&word.text));
            Err(Fault::new(what).at(word.span))
        }
    }
}

fn onbuild(node: &Node) -> Result<String, Fault> {
    let Arguments::Trigger(trigger) = &node.args else {
        return Err(Fault::new("ONBUILD requires at least one argument"));
    };
    no_flags(node)?;
    match trigger.name().as_str() {
        "ONBUILD" => return Err(Fault::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        name @ ("MAINTAINER" | "FROM") => {
            return Err(Fault::new(format!("{name} isn't allowed as an ONBUILD trigger")));
        }
        _ => {}
    }
    let blanks = ['\t', '\n', '\x0c', '\r', ' '];
    let after = node.original.trim_start_matches(blanks);
    let mut text = after.get("ONBUILD".len()..).unwrap_or("").trim_start_matches(blanks).to_owned();
    for doc in &node.heredocs {
        text.push('\n');
        text.push_str(&doc.body);
        text.push_str(&doc.name);
    }
    Ok(text)
}

fn run(node: &Node) -> Result<Run, Fault> {
    let known = [
        ("mount", Takes::Texts),
        ("network", Takes::Text),
        ("security", Takes::Text),
        ("device", Takes::Texts),
    ];
    let flags = Flags::parse(&node.flags, &known)?;
    let mounts = flags.texts("mount");
    for word in &mounts {
        mount::check(&word.text).map_err(|fault| fault.at(word.span))?;
    }
    let network = match flags.text("network") {
        None => Network::Default,
        Some(word) => match word.text.as_str() {
            "default" => Network::Default,
            "none" => Network::None,
            "host" => Network::Host,
            other => return Err(Fault::new(format!("invalid network mode {}", quote(other))).at(word.span)),
        },
    };
    let insecure = match flags.text("security") {
        None => false,
        Some(word) => match word.text.as_str() {
            "sandbox" => false,
            "insecure" => true,
            other => return Err(Fault::new(format!("security {} is not valid", quote(other))).at(word.span)),
        },
    };
    Ok(Run {
        command: command_line(node),
        mounts,
        network,
        insecure,
        devices: flags.texts("device"),
        flags_used: flags.names(),
    })
}

fn shell(node: &Node) -> Result<Vec<String>, Fault> {
    no_flags(node)?;
    let words = at_least_one(node, "SHELL")?;
    if !node.json {
        return Err(Fault::new("SHELL requires the arguments to be in JSON form"));
    }
    Ok(words.into_iter().map(|word| word.text).collect())
}

fn volume(node: &Node) -> Result<Vec<Word>, Fault> {
    let words = at_least_one(node, "VOLUME")?;
    no_flags(node)?;
    words
        .into_iter()
        .map(|word| {
            let text = word.text.trim().to_owned();
            if text.is_empty() {
                return Err(Fault::new("VOLUME specified can not be an empty string").at(word.span));
            }
            Ok(Word { text, span: word.span })
        })
        .collect()
}
