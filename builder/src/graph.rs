//! Which stages a build needs, and what each of them stands on. Pure.

use std::collections::{BTreeMap, BTreeSet};

use berth_dockerfile_parser::expand::{Expanded, Lexer};
use berth_dockerfile_parser::instruction::{Instruction, Kind};
use berth_dockerfile_parser::{LineRange, Program, Stage, program};
use berth_oci::Reference;

/// What a stage stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image, as written.
    Image(String),
}

/// One stage of the graph.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) base: Base,
    /// Expanded `--platform`.
    pub(crate) platform: Option<String>,
}

/// The graph of a build.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    /// The stage to build.
    pub(crate) target: usize,
    /// Stages to build for it, in the order of the file, which is topological: a stage only refers to earlier ones.
    pub(crate) order: Vec<usize>,
}

/// Something about the stages is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GraphError {
    pub(crate) message: String,
    pub(crate) lines: Option<LineRange>,
}

/// The stage before `current` that `name` means in `--from`: by name, the last one of that name, or by number.
pub(crate) fn stage_named(
    stages: &[Stage],
    current: usize,
    name: &str,
    by_number: bool,
) -> Result<Option<usize>, String> {
    let lower = name.to_lowercase();
    let is = |stage: &Stage| stage.name.as_deref() == Some(lower.as_str());
    if let Some(found) = stages[..current].iter().rposition(is) {
        return Ok(Some(found));
    }
    let own = |i: usize| stages[i].name.clone().unwrap_or_else(|| i.to_string());
    if let Some(later) = stages[current..].iter().position(is) {
        if leads_to(stages, current + later, current) {
            let first = own(current);
            return Err(format!(
                "circular dependency detected on stage: {first} (it and {name} need each other)"
            ));
        }
        return Err(format!(
            "cannot copy from stage {}, it needs to be defined before current stage {}",
            berth_dockerfile_parser::go_quote(name),
            berth_dockerfile_parser::go_quote(&own(current)),
        ));
    }
    match name.parse::<usize>() {
        Ok(number) if by_number && number < current => Ok(Some(number)),
        Ok(number) if by_number => Err(format!(
            "invalid stage number {number} in --from: this is stage {current}, and only earlier ones can be used"
        )),
        _ => Ok(None),
    }
}

/// Whether a stage takes files from another, by way of any others.
fn leads_to(stages: &[Stage], from: usize, to: usize) -> bool {
    let mut seen = BTreeSet::new();
    let mut pending = vec![from];
    while let Some(i) = pending.pop() {
        if i == to {
            return true;
        }
        if !seen.insert(i) {
            continue;
        }
        let mut names: Vec<&str> = vec![&stages[i].base.text];
        for instruction in &stages[i].instructions {
            match &instruction.kind {
                Kind::Copy(copy) => names.extend(copy.from.as_ref().map(|from| from.text.as_str())),
                Kind::Run(run) => names.extend(run.mounts.iter().flat_map(|m| mount_sources(&m.text))),
                _ => {}
            }
        }
        let named = |name: &str| {
            stages.iter().rposition(|s| s.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name)))
        };
        pending.extend(names.into_iter().filter_map(named));
    }
    false
}

/// Names in `from=` of the mounts of a `RUN`.
pub(crate) fn mount_sources(raw: &str) -> impl Iterator<Item = &str> {
    raw.split(',').filter_map(|field| field.strip_prefix("from=")).filter(|from| !from.is_empty())
}

/// Which of the variables in a base's name have no value, as the end of a message; empty if all have one.
fn unset(base: &Expanded, globals: &BTreeMap<String, String>) -> String {
    let empty = base.matched.iter().filter(|name| globals.get(*name).is_none_or(String::is_empty));
    let unset: Vec<&str> = base.unmatched.iter().chain(empty).map(String::as_str).collect();
    match unset.as_slice() {
        [] => String::new(),
        [first, ..] => format!(
            ": {} has no value here: give it one by `ARG {first}=...` before the first FROM or by --build-arg",
            unset.join(", ")
        ),
    }
}

impl Graph {
    /// # Errors
    /// On an unknown target, an unusable base name or a reference to a later stage.
    pub(crate) fn new(
        program: &Program,
        target: Option<&str>,
        globals: &BTreeMap<String, String>,
    ) -> Result<Self, GraphError> {
        let stages = &program.stages;
        let lexer = Lexer::new(program.syntax.escape);
        let mut nodes: Vec<Node> = Vec::new();
        for (i, stage) in stages.iter().enumerate() {
            let fail = |message: String| GraphError { message, lines: Some(stage.lines) };
            let named = lexer.expand(&stage.base.text, globals).map_err(|e| fail(e.to_string()))?;
            let why = unset(&named, globals);
            let base = named.text;
            if base.is_empty() {
                let text = &stage.base.text;
                return Err(fail(format!("base name ({text}) should not be blank{why}")));
            }
            let platform = match &stage.platform {
                None => None,
                Some(word) => {
                    let text = lexer.word(&word.text, globals).map_err(|e| fail(e.to_string()))?;
                    if text.is_empty() {
                        return Err(fail(format!("empty platform value from expression {}", word.text)));
                    }
                    Some(text)
                }
            };
            let earlier = stages[..i].iter().rposition(|s| s.name.as_deref() == Some(base.as_str()));
            let base = match earlier {
                Some(earlier) => Base::Stage(earlier),
                None if base == "scratch" => Base::Scratch,
                None if !why.is_empty() && Reference::parse(&base).is_err() => {
                    return Err(fail(format!(
                        "failed to parse stage name {base:?}: invalid reference format{why}"
                    )));
                }
                None => Base::Image(base),
            };
            nodes.push(Node { base, platform });
        }
        let target = find_target(stages, target)?;
        let order = reachable(stages, &nodes, target)?;
        Ok(Self { nodes, target, order })
    }
}

fn find_target(stages: &[Stage], target: Option<&str>) -> Result<usize, GraphError> {
    let Some(last) = stages.len().checked_sub(1) else {
        return Err(GraphError { message: "dockerfile contains no stages to build".into(), lines: None });
    };
    let Some(name) = target.filter(|name| !name.is_empty()) else { return Ok(last) };
    let lower = name.to_lowercase();
    let by_name = stages.iter().rposition(|stage| stage.name.as_deref() == Some(lower.as_str()));
    by_name.ok_or_else(|| {
        let names: Vec<&str> = stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let known = match names.as_slice() {
            [] => "the Dockerfile names no stages".to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        GraphError { message: format!("target stage \"{name}\" could not be found ({known})"), lines: None }
    })
}

fn reachable(stages: &[Stage], nodes: &[Node], target: usize) -> Result<Vec<usize>, GraphError> {
    let mut needed = BTreeSet::new();
    let mut pending = vec![target];
    while let Some(i) = pending.pop() {
        if !needed.insert(i) {
            continue;
        }
        if let Base::Stage(base) = nodes[i].base {
            pending.push(base);
            // Its triggers run here and may name stages of this one.
            for instruction in &stages[base].instructions {
                if let Kind::Onbuild(text) = &instruction.kind
                    && let Ok(trigger) = program::trigger(text)
                {
                    pending.extend(references(stages, i, &trigger).unwrap_or_default());
                }
            }
        }
        for instruction in &stages[i].instructions {
            let found = references(stages, i, instruction);
            pending.extend(found.map_err(|message| GraphError { message, lines: Some(instruction.lines) })?);
        }
    }
    Ok(needed.into_iter().collect())
}

/// Stages that an instruction of stage `current` takes files from.
fn references(stages: &[Stage], current: usize, instruction: &Instruction) -> Result<Vec<usize>, String> {
    let mut found = Vec::new();
    match &instruction.kind {
        Kind::Copy(copy) => {
            if let Some(from) = &copy.from {
                found.extend(stage_named(stages, current, &from.text, true)?);
            }
        }
        Kind::Run(run) => {
            for mount in &run.mounts {
                for from in mount_sources(&mount.text) {
                    found.extend(stage_named(stages, current, from, false)?);
                }
            }
        }
        _ => {}
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(text: &str, target: Option<&str>) -> Result<Graph, String> {
        let globals = [("V".to_owned(), "3".to_owned())].into();
        Graph::new(&berth_dockerfile_parser::read(text), target, &globals).map_err(|e| e.message)
    }

    const THREE: &str = "FROM a AS one\nFROM b AS two\nCOPY --from=ONE / /\nFROM two\nRUN --mount=type=bind,from=two,target=/x true\nFROM c:$V AS four\n";

    #[test]
    fn only_what_is_needed() {
        assert_eq!(graph(THREE, None).unwrap().order, [3]);
        assert!(graph(THREE, Some("2")).is_err(), "a target has a name");
        assert_eq!(graph(THREE, Some("TWO")).unwrap().order, [0, 1]);
        assert_eq!(graph(THREE, None).unwrap().nodes[3].base, Base::Image("c:3".into()));
        assert_eq!(graph(THREE, None).unwrap().nodes[2].base, Base::Stage(1));
    }

    #[test]
    fn triggers_of_a_stage_are_followed() {
        let text = "FROM a AS files\nFROM b AS base\nONBUILD COPY --from=files /a /\nFROM base\n";
        assert_eq!(graph(text, None).unwrap().order, [0, 1, 2]);
    }

    #[test]
    fn faults() {
        let circle = "FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nCOPY --from=x / /\n";
        assert!(graph(circle, None).unwrap_err().starts_with("circular dependency detected on stage: x"));
        let later = "FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nFROM x\n";
        assert_eq!(
            graph(later, None).unwrap_err(),
            "cannot copy from stage \"y\", it needs to be defined before current stage \"x\""
        );
        assert!(graph(THREE, Some("nope")).unwrap_err().contains("it has one, two, four"));
        let why = "has no value here: give it one by `ARG X=...` before the first FROM or by --build-arg";
        assert_eq!(
            graph("FROM $X\n", None).unwrap_err(),
            format!("base name ($X) should not be blank: X {why}")
        );
        assert_eq!(
            graph("FROM box:${X}\n", None).unwrap_err(),
            format!("failed to parse stage name \"box:\": invalid reference format: X {why}")
        );
        assert!(graph("FROM box:${X:-1}\n", None).is_ok());
    }
}
