//! Compares image configs and histories with those that BuildKit makes of some three thousand Dockerfiles, without
//! running them, if that corpus is at hand: in the directory that `BERTH_CORPUS` names, or in a `shared/corpus`
//! beside the workspace or above it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::instruction::{Instruction, Kind};
use berth_dockerfile_parser::program;
use berth_oci::{DiffId, Digest, ImageConfig, Platform};
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::fault::Fault;
use crate::files::plan;
use crate::graph::{Base, Graph};
use crate::run::{command, created_by};
use crate::stage::StageState;

/// The base of all images in the corpus.
const BASE: &str = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
    "history":[{"created_by":"base"}],
    "config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]}}"#;

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

fn cases() -> Vec<Value> {
    let Some(file) = archive() else {
        // Past the capture of the test's output: that nothing was compared must be seen.
        let text = b"conversion: NO CORPUS, nothing compared (BERTH_CORPUS names it)\n";
        std::io::stderr().write_all(text).unwrap();
        return Vec::new();
    };
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut text = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("llb.jsonl") {
            entry.read_to_string(&mut text).unwrap();
        }
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The image's config as a build would leave it, layers apart.
fn convert(input: &Value) -> Result<Value, String> {
    let source = input["dockerfile"].as_str().unwrap();
    let program = berth_dockerfile_parser::read(source);
    if let Some(error) = program.first_error() {
        return Err(error.full_message());
    }
    let text = |key: &str| input[key].as_str().filter(|text| !text.is_empty());
    let target_platform = match text("platform") {
        Some(platform) => Platform::parse(platform).map_err(|e| e.to_string())?,
        None => Platform::new("linux", "amd64", None),
    };
    let given: BTreeMap<String, String> = input["build_args"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.as_str().unwrap_or("").to_owned()))
        .collect();
    let escape = program.syntax.escape;
    let name = text("target").or_else(|| program.stages.last()?.name.as_deref());
    let arguments = Arguments::new(given, &target_platform, name, &program.global_args, escape)?;
    let graph = Graph::new(&program, text("target"), &arguments.globals).map_err(|e| e.message)?;
    let lexer = Lexer::new(escape);
    let mut done: BTreeMap<usize, StageState> = BTreeMap::new();
    for index in &graph.order {
        let mut state = match &graph.nodes[*index].base {
            Base::Scratch => StageState::scratch(&target_platform),
            Base::Stage(earlier) => done[earlier].derive(),
            Base::Image(name) => {
                berth_oci::Reference::parse(name).map_err(|e| e.to_string())?;
                let mut config = ImageConfig::parse(BASE.as_bytes()).unwrap();
                config.os.clone_from(&target_platform.os);
                config.architecture.clone_from(&target_platform.architecture);
                config.variant.clone_from(&target_platform.variant);
                StageState::on(config)
            }
        };
        for text in std::mem::take(&mut state.triggers) {
            let trigger = program::trigger(&text).map_err(|e| e.full_message())?;
            step(&mut state, &trigger, &lexer, &arguments)?;
        }
        for instruction in &program.stages[*index].instructions {
            step(&mut state, instruction, &lexer, &arguments)?;
        }
        done.insert(*index, state);
    }
    Ok(serde_json::from_slice(&done[&graph.target].config.to_bytes()).unwrap())
}

fn step(
    state: &mut StageState,
    instruction: &Instruction,
    lexer: &Lexer,
    arguments: &Arguments,
) -> Result<(), String> {
    if state.metadata(instruction, lexer, arguments)? {
        return Ok(());
    }
    let said = |fault: Fault| match fault {
        Fault::Said(message) => message,
        Fault::Build(error) => error.to_string(),
    };
    let text = match &instruction.kind {
        Kind::Copy(c) => {
            let plan = plan(lexer, state, "COPY", &c.files, c.chown.as_ref(), c.chmod.as_ref(), &c.exclude);
            let created_by = plan.map_err(said)?.created_by;
            if c.parents { created_by.replacen("COPY", "COPY --parents", 1) } else { created_by }
        }
        Kind::Add(a) => {
            let plan = plan(lexer, state, "ADD", &a.files, a.chown.as_ref(), a.chmod.as_ref(), &a.exclude);
            plan.map_err(said)?.created_by
        }
        Kind::Run(run) => created_by(state, &command(state, run)),
        Kind::Workdir(path) => {
            let path = lexer.word(&path.text, &state.env[..]).map_err(|e| e.to_string())?;
            let dir = state.set_working_dir(&path);
            if dir == "/" {
                state.add_empty(format!("WORKDIR {dir}"));
                return Ok(());
            }
            format!("WORKDIR {dir}")
        }
        _ => return Ok(()),
    };
    state.add_layer(DiffId(Digest::of(b"")), text);
    Ok(())
}

/// Takes out what the corpus does not have.
fn comparable(mut image: Value) -> Value {
    let map = image.as_object_mut().unwrap();
    for key in ["created", "rootfs"] {
        map.remove(key);
    }
    for entry in image["history"].as_array_mut().into_iter().flatten() {
        entry.as_object_mut().unwrap().remove("created");
    }
    // In Go an absent map or list and null are one.
    if let Some(config) = image["config"].as_object_mut() {
        config.retain(|_, value| !value.is_null());
    }
    image
}

#[test]
fn images_are_as_buildkit_makes_them() {
    let cases = cases();
    let show: usize = std::env::var("BERTH_CORPUS_SHOW").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let (mut images, mut wrong, mut accepted) = (0, 0, 0);
    // Berth builds for Linux only.
    let linux = |case: &Value| !case["in"]["platform"].as_str().unwrap_or("").starts_with("windows");
    for (number, case) in cases.iter().enumerate().filter(|(_, case)| linux(case)) {
        let got = convert(&case["in"]);
        if case["out"]["error"].is_object() {
            // Some faults only show when the step runs.
            accepted += usize::from(got.is_ok());
            continue;
        }
        images += 1;
        let want = comparable(case["out"]["image"].clone());
        let got = got.map_or_else(|error| json!({ "error": error }), comparable);
        if want != got {
            wrong += 1;
            if wrong <= show {
                println!("[#{number}] {}\n    want {want}\n    got  {got}", case["in"]);
            }
        }
    }
    println!("{}/{images} images equal; {accepted} faulty files accepted so far", images - wrong);
    // Upstream forgets the text before a `${a:-b}` in EXPOSE.
    assert!(wrong <= 1, "{wrong} images differ");
}
