//! Compares this crate with what BuildKit made of some ten thousand inputs, if that corpus is at hand: in the
//! directory that `BERTH_CORPUS` names, or in a `shared/corpus` beside the workspace or above it.

mod shape;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::giturl::GitRef;
use berth_dockerfile_parser::lint::{self, Environment};
use berth_dockerfile_parser::{chmod, glob, ignore, mount};
use serde_json::{Value, json};

/// The archive of the corpus, if there is one. That a directory was named which has none is a mistake.
fn archive() -> Option<std::fs::File> {
    const NAME: &str = "parser.tar.gz";
    if let Some(named) = std::env::var_os("BERTH_CORPUS") {
        let path = PathBuf::from(named).join(NAME);
        let file = std::fs::File::open(&path);
        return Some(file.unwrap_or_else(|error| panic!("BERTH_CORPUS: {}: {error}", path.display())));
    }
    let around = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    around.map(|dir| dir.join("shared/corpus").join(NAME)).find_map(|path| std::fs::File::open(path).ok())
}

/// All cases of one part of the corpus, or nothing if there is no corpus.
fn cases(part: &str) -> Vec<(Value, Value)> {
    let Some(file) = archive() else {
        // Past the capture of the test's output: that nothing was compared must be seen.
        let text = format!("{part}: NO CORPUS, nothing compared (BERTH_CORPUS names it)\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return Vec::new();
    };
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut text = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with(format!("{part}.jsonl")) {
            entry.read_to_string(&mut text).unwrap();
        }
    }
    assert!(!text.is_empty(), "the corpus has no {part}");
    let pair = |line: &str| {
        let mut case: Value = serde_json::from_str(line).unwrap();
        (case["in"].take(), case["out"].take())
    };
    text.lines().map(pair).collect()
}

/// Runs `check` over all cases; it returns what differs. At most `allowed` may, all of them upstream's bugs.
fn compare(part: &str, allowed: usize, check: impl Fn(&Value, &Value) -> Result<(), String>) {
    let cases = cases(part);
    let show: usize = std::env::var("BERTH_CORPUS_SHOW").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let mut failed = 0;
    for (number, (input, output)) in cases.iter().enumerate() {
        if let Err(why) = check(input, output) {
            failed += 1;
            if failed <= show {
                let input: String = input.to_string().chars().take(400).collect();
                println!("[{part} #{number}] {input}\n    {why}");
            }
        }
    }
    println!("{part}: {}/{} cases equal", cases.len() - failed, cases.len());
    assert!(failed <= allowed, "{part}: {failed} cases differ, {allowed} may");
}

fn same(what: &str, want: &Value, got: &Value) -> Result<(), String> {
    if want == got { Ok(()) } else { Err(format!("{what}: want {want}\n     got {got}")) }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn variables(env: &Value) -> BTreeMap<String, String> {
    let split = |entry: String| entry.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    strings(env).into_iter().filter_map(split).collect()
}

#[test]
fn shlex() {
    compare("shlex", 40, |input, want| {
        let lexer = Lexer {
            escape: input["escape"].as_str().and_then(|e| e.chars().next()).unwrap_or('\\'),
            raw_quotes: input["raw_quotes"] == true,
            raw_escapes: input["raw_escapes"] == true,
            skip_quotes: input["skip_process_quotes"] == true,
            skip_unset: input["skip_unset_env"] == true,
        };
        match lexer.expand(input["word"].as_str().unwrap(), &variables(&input["env"])) {
            Ok(got) if want["error"].is_null() => {
                same("result", &want["result"], &json!(got.text))?;
                // Upstream forgets what stands before a `${a:-b}` when it splits into words.
                let nested = input["word"].as_str().unwrap().contains("${");
                if !nested {
                    same("words", &want["words"], &json!(got.words))?;
                }
                same("matched", &want["matched"], &json!(got.matched))?;
                same("unmatched", &want["unmatched"], &json!(got.unmatched))
            }
            Ok(got) => Err(format!("error: want {}, got {got:?}", want["error"])),
            Err(error) => same("error", &want["error"], &json!(error.to_string())),
        }
    });
}

#[test]
fn ignore_files() {
    compare("ignore", 0, |input, want| {
        let patterns = match input["ignorefile"].as_str() {
            Some(file) => ignore::read(file),
            None => strings(&input["patterns"]),
        };
        if !want["patterns"].is_null() && input["ignorefile"].is_string() {
            same("patterns", &want["patterns"], &json!(patterns))?;
        }
        let matcher = match ignore::Matcher::new(&patterns) {
            Ok(matcher) => matcher,
            Err(error) if want["error"].is_null() => return Err(format!("got error {error}")),
            Err(_) => return Ok(()),
        };
        let mut failed = false;
        let mut got = serde_json::Map::new();
        for path in strings(&input["paths"]) {
            match matcher.matches(&path) {
                Ok(matched) => {
                    got.insert(path, json!(matched));
                }
                Err(_) => failed = true,
            }
        }
        if failed == want["error"].is_null() {
            return Err(format!("error: want {}, got {failed}", want["error"]));
        }
        if failed {
            return Ok(());
        }
        for (path, matched) in want["matched"].as_object().into_iter().flatten() {
            same(path, matched, &got[path])?;
        }
        same("exclusions", &want["exclusions"], &json!(matcher.has_exceptions()))
    });
}

#[test]
fn chmod_modes() {
    compare("chmod", 0, |input, want| {
        let perm = u32::from_str_radix(input["perm"].as_str().unwrap(), 8).unwrap();
        match chmod::Mode::parse(input["mode"].as_str().unwrap()) {
            Ok(mode) => {
                let got = mode.apply(perm, input["dir"] == true);
                same("perm", &want["perm"], &json!(format!("{got:04o}")))
            }
            Err(_) if want["error"].is_string() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    });
}

#[test]
fn globs() {
    compare("gomatch", 0, |input, want| {
        match glob::matches(input["pattern"].as_str().unwrap(), input["name"].as_str().unwrap()) {
            Ok(got) => same("match", &want["match"], &json!(got)),
            Err(_) if want["error"].is_string() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    });
}

#[test]
fn git_references() {
    compare("giturl", 0, |input, want| match GitRef::parse(input["ref"].as_str().unwrap()) {
        Ok(None) => same("is a repository", &want["is_git"], &json!(false)),
        Err(error) => same("error", &want["error"], &json!(error.to_string())),
        Ok(Some(git)) => {
            let got = json!({
                "Remote": git.remote, "ShortName": git.short_name, "Ref": git.reference,
                "Checksum": git.checksum, "SubDir": git.subdir,
                "IndistinguishableFromLocal": git.looks_local, "UnencryptedTCP": git.unencrypted,
                "KeepGitDir": git.keep_git_dir, "Submodules": git.submodules, "MTime": git.mtime,
                "FetchByCommit": git.fetch_by_commit,
            });
            same("reference", &want["ref"], &got)
        }
    });
}

#[test]
fn lint_rules() {
    let predefined: BTreeMap<String, String> = [
        ("TARGETPLATFORM", "linux/amd64"),
        ("TARGETOS", "linux"),
        ("TARGETARCH", "amd64"),
        ("BUILDPLATFORM", "linux/amd64"),
        ("BUILDOS", "linux"),
        ("BUILDARCH", "amd64"),
        ("TARGETVARIANT", ""),
        ("BUILDVARIANT", ""),
        ("TARGETOSVERSION", ""),
        ("BUILDOSVERSION", ""),
        ("TARGETSTAGE", "default"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    compare("llb", 0, |input, want| {
        // A conversion that fails stops in the middle of its warnings.
        if want["error"].is_object() || !input["target"].is_null() || !input["platform"].is_null() {
            return Ok(());
        }
        let program = berth_dockerfile_parser::read(input["dockerfile"].as_str().unwrap());
        let given = input["build_args"].as_object().into_iter().flatten();
        let given = given.map(|(k, v)| (k.clone(), v.as_str().unwrap_or("").to_owned())).collect();
        let image_env = |name: &str| {
            let config = input["images"].get(name).or_else(|| input["images"].get("*"));
            Some(config.map_or_else(Vec::new, |config| strings(&config["config"]["Env"])))
        };
        let is_image_name = |name: &str| {
            let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:@".contains(c);
            let path = name.rsplit_once(':').map_or(name, |(path, _)| path);
            !name.is_empty()
                && path.chars().all(part)
                && !name.starts_with(['-', '/', ':', '.'])
                && !name.ends_with(['-', '/', ':', '.'])
        };
        let environment = Environment {
            build_args: &given,
            predefined: &predefined,
            ignore: &[],
            stages: None,
            image_env: &image_env,
            is_image_name: &is_image_name,
        };
        let plain = |message: &str| message.split(" (did you mean").next().unwrap().to_owned();
        let got: Vec<String> = lint::check(&program, &environment)
            .iter()
            .map(|w| {
                format!("{} {}-{} {}", w.rule.unwrap_or(""), w.lines.start, w.lines.end, plain(&w.message))
            })
            .collect();
        let wanted: Vec<String> = want["lint"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|w| {
                let text = plain(w["msg"].as_str().unwrap());
                format!("{} {}-{} {text}", w["rule"].as_str().unwrap(), w["lines"][0], w["lines"][1])
            })
            .collect();
        // Stages that are not built are checked only if all are.
        let last = program.stages.len().saturating_sub(1);
        let unreached = |line: &str| {
            let number = line.split([' ', '-']).nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            program.stages.get(last).is_some_and(|stage| number < stage.lines.start)
        };
        let missing: Vec<&String> = wanted.iter().filter(|line| !got.contains(line)).collect();
        let extra: Vec<&String> =
            got.iter().filter(|line| !wanted.contains(line) && !unreached(line)).collect();
        if missing.is_empty() && extra.is_empty() {
            Ok(())
        } else {
            Err(format!("missing {missing:?}, too many {extra:?}"))
        }
    });
}

#[test]
fn mounts() {
    compare("mount", 0, |input, want| {
        let env = variables(&input["env"]);
        // Through the flag's own quote rules first.
        let source = format!("FROM x\nRUN --mount={} true\n", input["mount"].as_str().unwrap());
        let program = berth_dockerfile_parser::syntax::parse(&source);
        let raw = program.nodes[1].flags[0].text.strip_prefix("--mount=").unwrap();
        let expand = |word: &str| Lexer::default().word(word, &env).map_err(|e| e.to_string());
        match mount::check(raw).and_then(|()| mount::parse(raw, expand)) {
            Ok(got) => same("mount", want, &shape::mount(&got)),
            Err(fault) => {
                let wanted = want["error"].as_str().unwrap_or("no error");
                let wanted = wanted.split(" (did you mean").next().unwrap_or(wanted);
                same("error", &json!(wanted), &json!(fault.message))
            }
        }
    });
}

#[test]
fn dockerfiles() {
    compare("parse", 0, |input, want| {
        let program = berth_dockerfile_parser::read(input["dockerfile"].as_str().unwrap());
        let error = program.first_error();
        match (error, want["error"].is_null()) {
            (Some(error), true) => return Err(format!("got error {error}")),
            (None, false) => return Err(format!("error: want {}", want["error"])),
            (Some(error), false) => {
                let lines = json!([[error.lines.start, error.lines.end]]);
                same("error lines", &want["error"]["locations"], &lines)?;
                let wanted = want["error"]["message"].as_str().unwrap();
                let wanted = wanted.split(" (did you mean").next().unwrap_or(wanted);
                return same("error message", &json!(wanted), &json!(error.full_message()));
            }
            (None, true) => {}
        }
        let got = shape::program(&program);
        for field in
            ["ast", "stages", "meta_args", "escape", "warnings", "syntax", "check", "lint_instructions"]
        {
            same(field, &want[field], &got[field])?;
        }
        Ok(())
    });
}
